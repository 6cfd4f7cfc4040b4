//! `kiln verify`.

use std::fmt::Write as _;
use std::path::Path;

use clap::{Args, ValueEnum};
use kiln_dockerfile::is_remote_context;
use kiln_engine::{Finding, Verified, VerifiedImage};
use kiln_report::{Failure, FailureKind};

use super::build::lender;
use super::diff::{field, file_line, layer, step};
use crate::args::build::{BuildArgs, OF_RESULTS};
use crate::setting::Setting;
use crate::ui::exit::{Exit, Outcome};
use crate::ui::progress::Progress;
use crate::ui::table::table;
use crate::ui::{run as ui_run, stdout};

/// So many files are told, but for those that differ in times alone.
const FILES: usize = 50;

/// Build again, and say whether the image is the same
///
/// If it is not, the files that differ are told, the steps that make them, and most likely why. Of a directory or URL, the image is built twice, with the options of `kiln build`. Of an image, it is built again from
/// the record of the build that made it.
#[derive(Debug, Args)]
#[command(mut_arg("context", |arg| arg.value_name("CONTEXT|IMAGE").help("A directory or URL to build, or an image to build again")))]
#[command(mut_args(|arg| {
    let is_refused = OF_RESULTS.iter().any(|name| Some(&name[2..]) == arg.get_long());
    if is_refused { arg.hide(true) } else { arg }
}))]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    build: BuildArgs,

    /// How the answer is written
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
}

/// How the answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Builds again; the exit code is 1 when the image is not the same, and more when that cannot be said.
pub(crate) fn run(args: &VerifyArgs, setting: &Setting) -> Outcome {
    verify(args, setting).map_err(Exit::without_answer)
}

fn verify(args: &VerifyArgs, setting: &Setting) -> Outcome {
    if let Some(name) = args.build.of_results() {
        let message = format!("`kiln verify` takes no `{name}`: what it builds is compared, and goes nowhere");
        return Err(Failure::new(FailureKind::Usage, message).hint("leave it out").into());
    }
    let mut plan = args.build.plan(&setting.environment)?;
    if args.build.context == "-" || plan.is_dockerfile_on_stdin {
        let failure = Failure::new(FailureKind::Usage, "standard input cannot be read twice");
        return Err(failure.hint("name a directory, a URL or an image").into());
    }
    let lender = lender(std::mem::take(&mut plan.secrets), &plan.agents, None)?;
    let (engine, name) = (setting.engine_on(args.build.network_use())?, args.build.context.as_str());
    let progress = Progress::start(plan.progress, &setting.environment)?;
    let is_context = Path::new(name).is_dir() || is_remote_context(name);
    let verified = match is_context {
        true => ui_run::block_on(engine.verify(&plan.request, lender, progress.reporter())),
        false => ui_run::block_on(engine.verify_image(name, &plan.request, lender, progress.reporter())),
    };
    progress.finish();
    let verified = verified?;
    stdout::print(&match args.format {
        Format::Text => tell(&verified),
        Format::Json => format!("{}\n", serde_json::to_string_pretty(&verified).expect("plain data serialises")),
    })?;
    Ok(u8::from(!verified.is_reproducible))
}

fn tell(verified: &Verified) -> String {
    let mut text = match verified.platforms.as_slice() {
        [only] => tell_one(only),
        several => several.iter().map(|image| format!("{}: {}", image.platform, tell_one(image))).collect(),
    };
    for note in verified.notes.iter().filter(|_| !verified.is_reproducible) {
        writeln!(text, "note: {note}").expect("writing to a string");
    }
    text
}

fn tell_one(verified: &VerifiedImage) -> String {
    let [one, other] = &verified.images;
    if verified.is_reproducible {
        return format!("reproducible: {one} twice\n");
    }
    let mut text = format!("not reproducible: {one}, then {other}\n");
    let mut line = |line: String| writeln!(text, "{line}").expect("writing to a string");
    let fields = verified.config.iter().map(field).chain(verified.history.iter().map(step));
    fields.for_each(|change| line(format!("config {change}")));
    if verified.findings.is_empty() {
        verified.layers.iter().map(layer).for_each(|change| line(format!("layers {change}")));
    }
    let is_of_times = |finding: &&Finding| finding.file.differs == ["mtime"];
    let (times, mut others): (Vec<&Finding>, Vec<&Finding>) = verified.findings.iter().partition(is_of_times);
    let hidden = others.len().saturating_sub(FILES);
    others.truncate(FILES);
    let mut rows = vec![["FILE", "STEP", "CAUSE"].map(str::to_owned).to_vec()];
    rows.extend(others.iter().map(|finding| row(&file_line(&finding.file)[2..], finding)));
    if let Some(first) = times.first() {
        let what = format!("{} and {} more: only their times", first.file.path, times.len() - 1);
        let what = if times.len() == 1 { format!("{}: only its time", first.file.path) } else { what };
        rows.push(row(&what, first));
    }
    if rows.len() > 1 {
        text.push('\n');
        text.push_str(&table(&rows));
    }
    if hidden > 0 {
        writeln!(text, "… and {hidden} more; `--format json` has all").expect("writing to a string");
    }
    let mut hints: Vec<&str> = others.iter().chain(times.first()).map(|finding| finding.reason.hint).collect();
    hints.extend(hint_for_all(verified));
    if !hints.is_empty() {
        text.push('\n');
    }
    for (_, hint) in hints.iter().enumerate().filter(|(at, hint)| !hints[..*at].contains(hint)) {
        writeln!(text, "hint: {hint}").expect("writing to a string");
    }
    text
}

/// What to do when no file differs: about the times of the image and its steps, when nothing else does, or about bytes that
/// none of what is compared accounts for.
fn hint_for_all(VerifiedImage { config, history, layers, findings, .. }: &VerifiedImage) -> Option<&'static str> {
    let is_of_times =
        config.iter().all(|change| change.field == "created") && history.iter().all(|change| change.created.is_some());
    let is_told = !(config.is_empty() && history.is_empty());
    match (findings.as_slice(), layers.as_slice()) {
        ([], []) if is_told && is_of_times => Some("build with `--reproducible`, or with `SOURCE_DATE_EPOCH`"),
        ([], []) if !is_told => {
            Some("compare the bytes of both configs: they hold the same, and are written differently")
        }
        ([], [_, ..]) => {
            Some("compare the tars of these layers: their files are the same, and are written differently")
        }
        _ => None,
    }
}

fn row(what: &str, finding: &Finding) -> Vec<String> {
    let line = finding.lines.map(|(first, _)| format!(", line {first}")).unwrap_or_default();
    vec![
        what.replace(['\n', '\r'], " "),
        format!("{}{line}", finding.step.replace('\n', " ")),
        finding.reason.cause.to_owned(),
    ]
}
