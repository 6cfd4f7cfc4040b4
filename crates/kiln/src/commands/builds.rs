//! `kiln builds`.

use std::time::SystemTime;

use clap::Args;
use kiln_engine::{BuildOutcome, BuildRecord, BuildTarget};
use kiln_report::Failure;
use serde_json::{Value, json};

use super::images::by_template;
use crate::setting::Setting;
use crate::ui::age::{duration, since_millis, time_of_millis};
use crate::ui::exit::Outcome;
use crate::ui::stdout;
use crate::ui::table::table;
use crate::ui::template::Missing;

/// So much of an id is printed.
const SHORT: usize = 12;

/// List the builds that are remembered, newest first
#[derive(Debug, Args)]
pub(crate) struct BuildsArgs {
    /// Print only ids
    #[arg(short, long)]
    quiet: bool,

    /// Print ids whole
    #[arg(long)]
    no_trunc: bool,

    /// Print each build by a template such as `{{.Name}}`, or as `json`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Lists.
pub(crate) fn run(args: &BuildsArgs, setting: &Setting) -> Outcome {
    let builds = setting.engine()?.builds()?;
    stdout::print(&show(&builds, args, SystemTime::now())?)?;
    Ok(0)
}

fn show(builds: &[BuildRecord], args: &BuildsArgs, now: SystemTime) -> Result<String, Failure> {
    let id = |build: &BuildRecord| if args.no_trunc { build.id.clone() } else { short_id(&build.id).to_owned() };
    if args.quiet {
        return Ok(builds.iter().map(|build| format!("{}\n", id(build))).collect());
    }
    let value = |build: &BuildRecord| value(build, id(build), now);
    match args.format.as_deref() {
        Some("json") => Ok(builds.iter().map(|build| format!("{}\n", value(build))).collect()),
        Some(format) if format != "table" => by_template(format, builds.iter().map(value), Missing::Wrong),
        _ => {
            let mut rows = vec![["BUILD ID", "NAME", "STATUS", "CREATED AT", "DURATION"].map(str::to_owned).to_vec()];
            rows.extend(builds.iter().map(|build| {
                let created = since_millis(build.started, now);
                vec![id(build), name(&build.target), status(build).to_owned(), created, duration(build.time)]
            }));
            Ok(table(&rows))
        }
    }
}

/// The part of an id that people are shown.
pub(crate) fn short_id(id: &str) -> &str {
    id.get(..SHORT).unwrap_or(id)
}

/// What was built, in a word or two: the directory, the Dockerfile if it has another name, the stage.
pub(crate) fn name(target: &BuildTarget) -> String {
    let directory = target.context.rsplit('/').find(|part| !part.is_empty()).unwrap_or("-");
    let file = match target.dockerfile.as_str() {
        "" | "Dockerfile" | "Containerfile" => String::new(),
        other => format!("/{}", other.rsplit('/').next().unwrap_or(other)),
    };
    let stage = target.stage.as_ref().map(|stage| format!(" ({stage})")).unwrap_or_default();
    format!("{directory}{file}{stage}")
}

fn status(build: &BuildRecord) -> &'static str {
    match build.outcome {
        BuildOutcome::Done { .. } => "Completed",
        BuildOutcome::Failed { .. } => "Error",
        BuildOutcome::Canceled => "Canceled",
    }
}

fn value(build: &BuildRecord, id: String, now: SystemTime) -> Value {
    json!({
        "CreatedAt": time_of_millis(build.started),
        "CreatedSince": since_millis(build.started, now),
        "Duration": duration(build.time),
        "ID": id,
        "Name": name(&build.target),
        "Status": status(build),
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        args: BuildsArgs,
    }

    fn record(id: &str, context: &str, stage: Option<&str>, outcome: BuildOutcome) -> BuildRecord {
        BuildRecord {
            id: id.to_owned(),
            started: 0,
            time: Duration::from_millis(83_456),
            target: BuildTarget {
                project: String::new(),
                context: context.into(),
                dockerfile: "Dockerfile".into(),
                stage: stage.map(str::to_owned),
                platform: "linux/amd64".into(),
            },
            options: Default::default(),
            outcome,
            steps: vec![],
            dockerfile: String::new(),
            recipe: None,
        }
    }

    fn shown(typed: &str) -> String {
        let args = Typed::parse_from(["builds"].into_iter().chain(typed.split_whitespace())).args;
        let mut first = record("0123456789abcdef", "/home/me/app", None, BuildOutcome::Canceled);
        first.target.dockerfile = "/home/me/app/prod.Dockerfile".into();
        first.time = Duration::from_micros(12_345);
        let second = record("ff", "", Some("test"), BuildOutcome::Failed { message: "no".into() });
        let third = record("ee", "/", None, BuildOutcome::Done { image: None, images: vec![], names: vec![] });
        show(&[first, second, third], &args, UNIX_EPOCH + Duration::from_secs(7200)).unwrap()
    }

    #[test]
    fn the_table_has_buildx_s_columns() {
        insta::assert_snapshot!(shown(""), @"
        BUILD ID       NAME                  STATUS      CREATED AT    DURATION
        0123456789ab   app/prod.Dockerfile   Canceled    2 hours ago   12ms
        ff             - (test)              Error       2 hours ago   1m 23s
        ee             -                     Completed   2 hours ago   1m 23s
        ");
        assert_eq!(shown("-q --no-trunc"), "0123456789abcdef\nff\nee\n");
    }

    #[test]
    fn formats_have_each_field() {
        insta::assert_snapshot!(shown("--format json").lines().next().unwrap(), @r#"{"CreatedAt":"1970-01-01T00:00:00Z","CreatedSince":"2 hours ago","Duration":"12ms","ID":"0123456789ab","Name":"app/prod.Dockerfile","Status":"Canceled"}"#);
        assert_eq!(shown("--format {{.Name}}"), "app/prod.Dockerfile\n- (test)\n-\n");
    }
}
