//! `kiln history`.

use std::time::SystemTime;

use clap::{ArgAction, Args};
use kiln_engine::ImageDetails;
use kiln_oci::Platform;
use serde_json::{Value, json};

use super::images::by_template;
use crate::args::value::go_bool;
use crate::setting::Setting;
use crate::ui::age::{go_time, since, size};
use crate::ui::exit::Outcome;
use crate::ui::stdout;
use crate::ui::table::{ellipsis, table};
use crate::ui::template::Missing;

const MISSING: &str = "<missing>";

/// Show the steps that made an image
#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// The image: a name or an id
    #[arg(value_name = "IMAGE")]
    image: String,

    /// Print commands and ids whole
    #[arg(long)]
    no_trunc: bool,

    /// Print only ids
    #[arg(short, long)]
    quiet: bool,

    /// Print sizes and dates for people; `--human=false` prints them for programs
    #[arg(
        short = 'H', long, value_name = "BOOL", default_value = "true", default_missing_value = "true",
        num_args = 0..=1, require_equals = true, action = ArgAction::Set, value_parser = go_bool
    )]
    human: bool,

    /// The platform, when a name stands for several images [default: the machine's]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,

    /// Print each step by a template such as `{{.CreatedBy}}`, or as `json`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// A step of an image's making.
struct Step<'a> {
    id: String,
    created: Option<&'a str>,
    created_by: &'a str,
    comment: &'a str,
    bytes: u64,
}

/// Prints the steps, newest first.
pub(crate) fn run(args: &HistoryArgs, setting: &Setting) -> Outcome {
    let image = setting.engine()?.inspect(&args.image, args.platform.as_ref())?;
    let steps = steps(&image, args.no_trunc);
    let now = SystemTime::now();
    let text = match args.format.as_deref() {
        _ if args.quiet => steps.iter().map(|step| format!("{}\n", step.id)).collect(),
        Some("json") => steps.iter().map(|step| format!("{}\n", value(step, args, now))).collect(),
        Some(format) if format != "table" => {
            by_template(format, steps.iter().map(|step| value(step, args, now)), Missing::Wrong)?
        }
        _ => as_table(&steps, args, now),
    };
    stdout::print(&text)?;
    Ok(0)
}

/// Steps without a layer have no size; layers without a step come first, as some builders leave them.
fn steps(image: &ImageDetails, is_whole: bool) -> Vec<Step<'_>> {
    let history = &image.config.history;
    let told = history.iter().filter(|step| !step.empty_layer).count();
    let mut sizes = image.layer_sizes.iter().copied();
    let untold = sizes.by_ref().take(image.layer_sizes.len().saturating_sub(told)).collect::<Vec<_>>();
    let silent = |bytes| Step { id: MISSING.to_owned(), created: None, created_by: "", comment: "", bytes };
    let mut steps: Vec<Step<'_>> = untold.into_iter().map(silent).collect();
    steps.extend(history.iter().map(|step| Step {
        id: MISSING.to_owned(),
        created: step.created.as_deref(),
        created_by: step.created_by.as_deref().unwrap_or_default(),
        comment: step.comment.as_deref().unwrap_or_default(),
        bytes: if step.empty_layer { 0 } else { sizes.next().unwrap_or(0) },
    }));
    steps.reverse();
    if let Some(newest) = steps.first_mut() {
        let id = &image.summary.id;
        newest.id = if is_whole { id.to_string() } else { id.short().to_owned() };
    }
    steps
}

fn command(step: &Step<'_>, args: &HistoryArgs) -> String {
    // A heredoc's command has line breaks; a row has one line.
    let line = step.created_by.replace(['\n', '\t', '\r'], " ");
    if args.no_trunc { line } else { ellipsis(&line, 45) }
}

fn bytes(step: &Step<'_>, args: &HistoryArgs) -> String {
    if args.human { size(step.bytes, 3) } else { step.bytes.to_string() }
}

fn as_table(steps: &[Step<'_>], args: &HistoryArgs, now: SystemTime) -> String {
    let created = |step: &Step<'_>| match args.human {
        true => since(step.created, now),
        false => step.created.unwrap_or("N/A").to_owned(),
    };
    let heading = if args.human { "CREATED" } else { "CREATED AT" };
    let mut rows = vec![["IMAGE", heading, "CREATED BY", "SIZE", "COMMENT"].map(str::to_owned).to_vec()];
    rows.extend(steps.iter().map(|step| {
        vec![step.id.clone(), created(step), command(step, args), bytes(step, args), step.comment.to_owned()]
    }));
    table(&rows)
}

fn value(step: &Step<'_>, args: &HistoryArgs, now: SystemTime) -> Value {
    json!({
        "Comment": step.comment,
        "CreatedAt": step.created.map_or_else(|| go_time(None), str::to_owned),
        "CreatedBy": command(step, args),
        "CreatedSince": since(step.created, now),
        "ID": step.id,
        "Size": bytes(step, args),
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use clap::Parser;
    use kiln_engine::ImageSummary;
    use kiln_oci::{Digest, History, ImageConfig};

    use super::*;

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        args: HistoryArgs,
    }

    fn image() -> ImageDetails {
        let step = |created_by: &str, empty_layer| History {
            created: Some("1970-01-01T00:00:00Z".into()),
            created_by: Some(created_by.into()),
            comment: Some("kiln".into()),
            empty_layer,
            ..History::default()
        };
        let history = vec![
            step("ADD rootfs.tar / # buildkit", false),
            step("ENV A=b", true),
            step("RUN /bin/sh -c apt-get update &&\n\tapt-get install -y --no-install-recommends make", false),
        ];
        ImageDetails {
            summary: ImageSummary {
                id: Digest::sha256("id"),
                names: vec![],
                digests: vec![],
                created: None,
                size: 0,
                platform: Platform::linux("amd64"),
                labels: [].into(),
                members: Vec::new(),
            },
            config: ImageConfig { history, ..ImageConfig::default() },
            manifest: None,
            layer_sizes: vec![7, 4_262_000, 2000],
        }
    }

    fn shown(typed: &str) -> String {
        let args = Typed::parse_from(["history", "x"].into_iter().chain(typed.split_whitespace())).args;
        as_table(&steps(&image(), args.no_trunc), &args, UNIX_EPOCH + Duration::from_secs(7200))
    }

    #[test]
    fn the_table_is_docker_s_and_empty_layers_have_no_size() {
        insta::assert_snapshot!(shown(""), @"
        IMAGE          CREATED       CREATED BY                                      SIZE      COMMENT
        a56145270ce6   2 hours ago   RUN /bin/sh -c apt-get update &&  apt-get in…   2kB       kiln
        <missing>      2 hours ago   ENV A=b                                         0B        kiln
        <missing>      2 hours ago   ADD rootfs.tar / # buildkit                     4.26MB    kiln
        <missing>      N/A                                                           7B
        ");
        insta::assert_snapshot!(shown("--no-trunc --human=false"), @"
        IMAGE                                                                     CREATED AT             CREATED BY                                                                          SIZE      COMMENT
        sha256:a56145270ce6b3bebd1dd012b73948677dd618d496488bc608a3cb43ce3547dd   1970-01-01T00:00:00Z   RUN /bin/sh -c apt-get update &&  apt-get install -y --no-install-recommends make   2000      kiln
        <missing>                                                                 1970-01-01T00:00:00Z   ENV A=b                                                                             0         kiln
        <missing>                                                                 1970-01-01T00:00:00Z   ADD rootfs.tar / # buildkit                                                         4262000   kiln
        <missing>                                                                 N/A                                                                                                        7
        ");
    }

    #[test]
    fn json_has_docker_s_fields() {
        let args = Typed::parse_from(["history", "x"]).args;
        insta::assert_snapshot!(value(&steps(&image(), false)[1], &args, UNIX_EPOCH), @r#"{"Comment":"kiln","CreatedAt":"1970-01-01T00:00:00Z","CreatedBy":"ENV A=b","CreatedSince":"Less than a second ago","ID":"<missing>","Size":"0B"}"#);
    }
}
