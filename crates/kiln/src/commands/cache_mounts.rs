//! `kiln cache mounts`: the directories of `RUN --mount=type=cache`.

use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use kiln_engine::{DEFAULT_MAX_SIZE, Existing, MountExport, MountImport, MountPlace, MountSummary, Skipped};
use kiln_report::{Failure, FailureKind};
use serde_json::json;

use super::login::ask;
use crate::args::{mount_place, value};
use crate::setting::Setting;
use crate::ui::age::{ago, size};
use crate::ui::exit::Outcome;
use crate::ui::progress::{Choice, Progress};
use crate::ui::table::table;
use crate::ui::{run as ui_run, stdout};

/// Look after the directories of RUN --mount=type=cache
#[derive(Debug, Subcommand)]
pub(crate) enum MountsCommand {
    Ls(LsArgs),
    Rm(RmArgs),
    Export(ExportArgs),
    Import(ImportArgs),
}

/// List cache mounts
#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// Print a table, or a line of JSON for each mount
    #[arg(long, value_name = "FORMAT", value_parser = ["table", "json"], default_value = "table", hide_default_value = true)]
    format: String,
}

/// Remove cache mounts that no step uses
#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// The mounts: ids or keys
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<String>,

    /// Remove all of them
    #[arg(short, long)]
    all: bool,

    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

/// Send cache mounts elsewhere; a second time, only what has changed
///
/// What is in a mount goes along as it is, secrets that a step has left there too.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The mounts: ids or keys [default: all]
    #[arg(value_name = "ID")]
    ids: Vec<String>,

    /// A directory, a file ending in `.tar`, a reference with its registry, or `type=local,dest=…`, `type=registry,ref=…`
    #[arg(long, value_name = "WHERE", value_parser = mount_place::to)]
    to: MountPlace,

    /// Skip mounts that are larger [default: 2g]
    #[arg(long, value_name = "BYTES", value_parser = value::bytes)]
    max_size: Option<u64>,

    /// How progress is shown: auto, plain, tty, rawjson or quiet
    #[arg(long, value_name = "VIEW", default_value = "auto")]
    progress: Choice,
}

/// Bring cache mounts back from where they were sent
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The mounts: ids [default: all]
    #[arg(value_name = "ID")]
    ids: Vec<String>,

    /// A directory, a file ending in `.tar`, a reference with its registry, or `type=local,src=…`, `type=registry,ref=…`
    #[arg(long, value_name = "WHERE", value_parser = mount_place::from)]
    from: MountPlace,

    /// Replace mounts that are here already, unless a step uses them
    #[arg(long)]
    replace: bool,

    /// Skip mounts that are larger [default: 2g]
    #[arg(long, value_name = "BYTES", value_parser = value::bytes)]
    max_size: Option<u64>,

    /// How progress is shown: auto, plain, tty, rawjson or quiet
    #[arg(long, value_name = "VIEW", default_value = "auto")]
    progress: Choice,
}

/// Does what was asked for.
pub(crate) fn run(command: &MountsCommand, setting: &Setting) -> Outcome {
    match command {
        MountsCommand::Ls(args) => list(args, setting),
        MountsCommand::Rm(args) => remove(args, setting),
        MountsCommand::Export(args) => export(args, setting),
        MountsCommand::Import(args) => import(args, setting),
    }
}

fn list(args: &LsArgs, setting: &Setting) -> Outcome {
    let mounts = setting.engine()?.cache_mounts()?;
    let text = match args.format.as_str() {
        "json" => mounts.iter().map(|mount| format!("{}\n", line(mount))).collect(),
        _ => tabulate(&mounts, SystemTime::now()),
    };
    stdout::print(&text)?;
    Ok(0)
}

fn line(mount: &MountSummary) -> serde_json::Value {
    json!({
        "id": mount.id,
        "key": mount.key,
        "size": mount.size,
        "lastUsed": rfc3339(mount.used),
        "created": rfc3339(mount.created),
        "inUseBy": mount.users,
    })
}

/// A time as JSON has it; nothing when it is not known.
fn rfc3339(seconds: i64) -> Option<String> {
    let timestamp = jiff::Timestamp::from_second(seconds).ok().filter(|_| seconds > 0)?;
    Some(timestamp.to_string())
}

fn tabulate(mounts: &[MountSummary], now: SystemTime) -> String {
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs() as i64);
    let since = |then: i64| if then > 0 { ago(now - then) } else { "N/A".to_owned() };
    let heading = ["ID", "SIZE", "LAST USED", "CREATED", "IN USE BY", "KEY"].map(str::to_owned).to_vec();
    let row = |mount: &MountSummary| {
        let id = if mount.id.is_empty() { "<none>".to_owned() } else { printable(&mount.id) };
        let users = mount.users.clone().unwrap_or_default();
        vec![id, size(mount.size, 4), since(mount.used), since(mount.created), users, mount.key.clone()]
    };
    let rows: Vec<_> = std::iter::once(heading).chain(mounts.iter().map(row)).collect();
    table(&rows)
}

/// An id may be any text, and must not steer a terminal.
fn printable(id: &str) -> String {
    id.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

fn remove(args: &RmArgs, setting: &Setting) -> Outcome {
    let engine = setting.engine()?;
    if args.all && !args.force {
        let answer = ask("WARNING! This will remove all cache mounts.\nAre you sure you want to continue? [y/N] ")?;
        if !matches!(answer.to_ascii_lowercase().as_str(), "y" | "yes") {
            return Ok(0);
        }
    }
    let removed = engine.remove_cache_mounts(&args.ids)?;
    let mut text: String = removed.iter().map(|mount| format!("{}\n", printable(&mount.id))).collect();
    let bytes = removed.iter().map(|mount| mount.size).sum();
    text.push_str(&format!("Total reclaimed space: {}\n", size(bytes, 4)));
    stdout::print(&text)?;
    Ok(0)
}

fn export(args: &ExportArgs, setting: &Setting) -> Outcome {
    let engine = setting.engine()?;
    let request = MountExport { ids: args.ids.clone(), max_size: args.max_size.unwrap_or(DEFAULT_MAX_SIZE) };
    let progress = Progress::start(args.progress, &setting.environment)?;
    let exported = ui_run::block_on(engine.export_cache_mounts(&request, &args.to, progress.reporter()));
    progress.finish();
    let exported = exported?;
    let mut text = String::new();
    for mount in &exported.mounts {
        let (whole, sent) = (size(mount.size, 4), size(mount.sent, 4));
        let left_out = match mount.left_out {
            0 => String::new(),
            count => format!("; {count} files left out: they kept changing, or no archive holds their kind"),
        };
        text.push_str(&format!("{}: {whole}, {sent} sent{left_out}\n", printable(&mount.id)));
    }
    stdout::print(&text)?;
    settle(&exported.skipped, "exported", args.ids.is_empty() && !exported.mounts.is_empty())
}

fn import(args: &ImportArgs, setting: &Setting) -> Outcome {
    let engine = setting.engine()?;
    let existing = if args.replace { Existing::Replace } else { Existing::Keep };
    let max_size = args.max_size.unwrap_or(DEFAULT_MAX_SIZE);
    let request = MountImport { ids: args.ids.clone(), max_size, existing };
    let progress = Progress::start(args.progress, &setting.environment)?;
    let imported = ui_run::block_on(engine.import_cache_mounts(&request, &args.from, progress.reporter()));
    progress.finish();
    let imported = imported?;
    let restored = imported.restored.iter().map(|id| format!("{}: restored\n", printable(id)));
    let kept = imported.kept.iter().map(|id| format!("{}: is here already\n", printable(id)));
    stdout::print(&restored.chain(kept).collect::<String>())?;
    let is_something_here = !imported.restored.is_empty() || !imported.kept.is_empty();
    settle(&imported.skipped, "imported", args.ids.is_empty() && is_something_here)
}

/// Tells what was skipped: a warning when it is one of many, a failure when it was asked for by name or nothing is left.
fn settle(skipped: &[Skipped], done: &str, is_partial_fine: bool) -> Outcome {
    let message =
        |skipped: &Skipped| format!("cache mount `{}` was not {done}: {}", printable(&skipped.id), skipped.why);
    let Some((first, rest)) = skipped.split_first() else { return Ok(0) };
    let told = if is_partial_fine { skipped } else { rest };
    for skipped in told {
        // Where nobody listens nobody is warned.
        let _ = writeln!(std::io::stderr(), "warning: {}", message(skipped));
    }
    if is_partial_fine {
        return Ok(0);
    }
    Err(Failure::new(FailureKind::Build, message(first)).into())
}
