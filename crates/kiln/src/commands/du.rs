//! `kiln du`.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use kiln_engine::{Entry, EntryKind, Holder, Need, Why};
use kiln_report::Failure;
use serde_json::{Value, json};

use super::images::by_template;
use crate::args::space::Filters;
use crate::setting::Setting;
use crate::ui::age::{ago, go_time, size};
use crate::ui::exit::Outcome;
use crate::ui::stdout;
use crate::ui::table::table;
use crate::ui::template::Missing;

/// Show what takes space, and what holds it
#[derive(Debug, Args)]
pub(crate) struct DuArgs {
    /// Show only what is like this, as `type=regular`, `private`, `description~=apt`
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,

    /// Say all of each thing
    #[arg(long, conflicts_with = "format")]
    verbose: bool,

    /// Print each thing by a template such as `{{.ID}}`, or as `json`, `table` or `pretty`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,

    /// Say what holds the thing of this id
    #[arg(long, value_name = "ID", conflicts_with_all = ["filter", "verbose", "format"])]
    why: Option<String>,
}

/// Prints.
pub(crate) fn run(args: &DuArgs, setting: &Setting) -> Outcome {
    let filters = Filters::parse(&args.filter)?;
    let engine = setting.engine()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs() as i64);
    if let Some(id) = &args.why {
        stdout::print(&explained(&engine.why(id)?, now))?;
        return Ok(0);
    }
    let oldest = filters.unused_for.map_or(i64::MAX, |age| now.saturating_sub_unsigned(age.as_secs()));
    let mut all = engine.disk_usage()?;
    all.retain(|entry| entry.used < oldest && filters.conditions.iter().all(|condition| condition.admits(entry)));
    stdout::print(&shown(&all, args, now)?)?;
    Ok(0)
}

fn shown(all: &[Entry], args: &DuArgs, now: i64) -> Result<String, Failure> {
    let text = match args.format.as_deref() {
        Some("json") => return Ok(all.iter().map(|entry| format!("{}\n", value(entry, now))).collect()),
        Some("pretty") => verbose(all, now),
        None if args.verbose => verbose(all, now),
        None | Some("table") => as_table(all, now),
        Some(format) => return by_template(format, all.iter().map(|entry| value(entry, now)), Missing::Wrong),
    };
    // As in buildx: sums are of all there is.
    Ok(if args.filter.is_empty() { text + &sums(all) } else { text })
}

fn as_table(all: &[Entry], now: i64) -> String {
    let mut rows = vec![["ID", "RECLAIMABLE", "SIZE", "LAST ACCESSED"].map(str::to_owned).to_vec()];
    rows.extend(all.iter().map(|entry| {
        let starred = |text: String, is_starred: bool| if is_starred { text + "*" } else { text };
        vec![
            starred(entry.id.clone(), entry.is_mutable()),
            entry.is_reclaimable().to_string(),
            starred(size(entry.bytes, 4), entry.is_shared()),
            ago(now - entry.used),
        ]
    }));
    table(&rows)
}

fn verbose(all: &[Entry], now: i64) -> String {
    let mut text = String::new();
    for entry in all {
        let mut line = |name: &str, value: &dyn std::fmt::Display| {
            writeln!(text, "{:<13} {value}", format!("{name}:")).expect("writing to a string");
        };
        line("ID", &entry.id);
        line("Created at", &time(entry.created));
        line("Mutable", &entry.is_mutable());
        line("Reclaimable", &entry.is_reclaimable());
        line("Shared", &entry.is_shared());
        line("Size", &size(entry.bytes, 4));
        if !entry.description.is_empty() {
            line("Description", &entry.description);
        }
        line("Usage count", &entry.uses);
        line("Last used", &ago(now - entry.used));
        line("Type", &entry.record_type.name());
        text.push('\n');
    }
    text
}

fn time(seconds: i64) -> String {
    let time = jiff::Timestamp::from_second(seconds).map(|time| time.to_string()).ok();
    go_time(time.as_deref())
}

fn sums(all: &[Entry]) -> String {
    let sum = |is_in: &dyn Fn(&Entry) -> bool| {
        size(all.iter().filter(|entry| is_in(entry)).map(|entry| entry.bytes).sum(), 4)
    };
    let mut rows = Vec::new();
    if all.iter().any(Entry::is_shared) {
        rows.push(vec!["Shared:".to_owned(), sum(&|entry| entry.is_shared())]);
        rows.push(vec!["Private:".to_owned(), sum(&|entry| !entry.is_shared())]);
    }
    rows.push(vec!["Reclaimable:".to_owned(), sum(&|entry| entry.is_reclaimable())]);
    rows.push(vec!["Total:".to_owned(), sum(&|_| true)]);
    table(&rows)
}

/// What templates see: buildx's fields.
fn value(entry: &Entry, now: i64) -> Value {
    json!({
        "CreatedAt": time(entry.created),
        "Description": entry.description,
        "ID": entry.id,
        "LastUsedAt": ago(now - entry.used),
        "Mutable": entry.is_mutable(),
        "Parents": [],
        "Reclaimable": entry.is_reclaimable(),
        "Shared": entry.is_shared(),
        "Size": size(entry.bytes, 4),
        "Type": entry.record_type.name(),
        "UsageCount": entry.uses,
    })
}

fn explained(why: &Why, now: i64) -> String {
    let Why { entry, holders } = why;
    let mut text = format!("{}  {}  {}", entry.id, entry.record_type.name(), size(entry.bytes, 4));
    if !entry.description.is_empty() {
        text = format!("{text}  {}", entry.description);
    }
    text.push('\n');
    for holder in holders {
        let line = match holder {
            Holder::Image { id, names } if names.is_empty() => {
                format!("held by image {}, which has no name", short(id))
            }
            Holder::Image { id, names } => format!("held by image {} ({})", names.join(", "), short(id)),
            Holder::Layer(layer) => format!("kept as long as layer {layer}, of which it is a packed form"),
            Holder::Step { step, .. } if step.is_empty() => "used by the result of a step".to_owned(),
            Holder::Step { step, origin, used } => {
                format!("used by the result of {step}, in {origin}, last used {}", ago(now - used))
            }
            Holder::Process(Some(process)) => format!("held by process {process}, which is running"),
            Holder::Process(None) => "held by a running process".to_owned(),
        };
        writeln!(text, "  {line}").expect("writing to a string");
    }
    text + "  " + verdict(entry) + "\n"
}

fn verdict(entry: &Entry) -> &'static str {
    match (entry.is_held, entry.need, entry.kind) {
        (true, ..) => "stays as long as the process runs",
        (_, Need::Named, _) => "stays as long as an image with a name needs it; see `kiln rmi`",
        (_, Need::Nameless, _) => "no image with a name needs it: `kiln prune` removes it with the images",
        (.., EntryKind::CacheMount | EntryKind::Foreign) => "nothing holds it: `kiln prune --all` removes it",
        (.., EntryKind::Layer | EntryKind::Blob) => "no image and no running build holds it: `kiln prune` removes it",
    }
}

fn short(id: &str) -> &str {
    let hex = id.strip_prefix("sha256:").unwrap_or(id);
    hex.get(..12).unwrap_or(hex)
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use kiln_engine::RecordType;

    use super::*;

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        args: DuArgs,
    }

    fn entry(id: &str, kind: EntryKind, need: Need) -> Entry {
        let is_mount = kind == EntryKind::CacheMount;
        Entry {
            kind,
            id: id.into(),
            record_type: if is_mount { RecordType::CacheMount } else { RecordType::Regular },
            description: if is_mount { "cache mount pip".into() } else { "[2/3] RUN make".into() },
            bytes: 4_262_000,
            created: 0,
            used: 3600,
            uses: 2,
            results: 1,
            is_held: false,
            need,
            packs: Vec::new(),
        }
    }

    fn show(typed: &str) -> String {
        let args = Typed::parse_from(["du"].into_iter().chain(typed.split_whitespace())).args;
        let all = [
            entry("0a1b.1", EntryKind::Layer, Need::Named),
            entry("0a1b.2", EntryKind::Layer, Need::None),
            entry("9f3e.0", EntryKind::CacheMount, Need::None),
        ];
        shown(&all, &args, 7200).unwrap_or_else(|failure| failure.to_string())
    }

    #[test]
    fn the_table_is_buildx_s() {
        insta::assert_snapshot!(show(""), @"
        ID        RECLAIMABLE   SIZE       LAST ACCESSED
        0a1b.1    false         4.262MB*   About an hour ago
        0a1b.2    true          4.262MB    About an hour ago
        9f3e.0*   true          4.262MB    About an hour ago
        Shared:        4.262MB
        Private:       8.524MB
        Reclaimable:   8.524MB
        Total:         12.79MB
        ");
        assert!(!show("--filter private").contains("Total"), "sums are of all");
    }

    #[test]
    fn all_of_each_thing_is_buildx_s() {
        insta::assert_snapshot!(show("--verbose"), @"
        ID:           0a1b.1
        Created at:   1970-01-01 00:00:00 +0000 UTC
        Mutable:      false
        Reclaimable:  false
        Shared:       true
        Size:         4.262MB
        Description:  [2/3] RUN make
        Usage count:  2
        Last used:    About an hour ago
        Type:         regular

        ID:           0a1b.2
        Created at:   1970-01-01 00:00:00 +0000 UTC
        Mutable:      false
        Reclaimable:  true
        Shared:       false
        Size:         4.262MB
        Description:  [2/3] RUN make
        Usage count:  2
        Last used:    About an hour ago
        Type:         regular

        ID:           9f3e.0
        Created at:   1970-01-01 00:00:00 +0000 UTC
        Mutable:      true
        Reclaimable:  true
        Shared:       false
        Size:         4.262MB
        Description:  cache mount pip
        Usage count:  2
        Last used:    About an hour ago
        Type:         exec.cachemount

        Shared:        4.262MB
        Private:       8.524MB
        Reclaimable:   8.524MB
        Total:         12.79MB
        ");
        assert_eq!(show("--format pretty"), show("--verbose"));
    }

    #[test]
    fn formats_are_json_and_templates() {
        insta::assert_snapshot!(show("--format json").lines().next().unwrap(), @r#"{"CreatedAt":"1970-01-01 00:00:00 +0000 UTC","Description":"[2/3] RUN make","ID":"0a1b.1","LastUsedAt":"About an hour ago","Mutable":false,"Parents":[],"Reclaimable":false,"Shared":true,"Size":"4.262MB","Type":"regular","UsageCount":2}"#);
        assert_eq!(show("--format {{.ID}}={{.Size}}").lines().next(), Some("0a1b.1=4.262MB"));
        assert!(show("--format {{.Nope}}").starts_with("there is no field `Nope`: choose from `CreatedAt`, "));
    }

    #[test]
    fn holders_are_told_and_what_follows_from_them() {
        let step = Holder::Step { step: "[2/3] RUN make".into(), origin: "Dockerfile of /src".into(), used: 3600 };
        let image = |names: &[&str]| Holder::Image {
            id: "sha256:0123456789abcdef".into(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        let why = |entry, holders| explained(&Why { entry, holders }, 7200);
        let shared = entry("0a1b.1", EntryKind::Layer, Need::Named);
        insta::assert_snapshot!(why(shared, vec![image(&["docker.io/library/app:1"]), image(&[]), step]), @"
        0a1b.1  regular  4.262MB  [2/3] RUN make
          held by image docker.io/library/app:1 (0123456789ab)
          held by image 0123456789ab, which has no name
          used by the result of [2/3] RUN make, in Dockerfile of /src, last used About an hour ago
          stays as long as an image with a name needs it; see `kiln rmi`
        ");
        let held = Entry { is_held: true, ..entry("9f3e.0", EntryKind::CacheMount, Need::None) };
        insta::assert_snapshot!(why(held, vec![Holder::Process(Some(42))]), @"
        9f3e.0  exec.cachemount  4.262MB  cache mount pip
          held by process 42, which is running
          stays as long as the process runs
        ");
        insta::assert_snapshot!(why(entry("9f3e.0", EntryKind::CacheMount, Need::None), vec![]), @"
        9f3e.0  exec.cachemount  4.262MB  cache mount pip
          nothing holds it: `kiln prune --all` removes it
        ");
    }
}
