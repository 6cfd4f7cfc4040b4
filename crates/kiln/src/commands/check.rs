//! `kiln check`.

mod config;
pub(crate) mod examine;
mod fix;
pub(crate) mod output;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use kiln_dockerfile::is_remote_context;
use kiln_engine::{BuildRequest, Context, DockerfileSource, Gathered, NoSession};
use kiln_lint::{Hadolint, Scope, Settings, Threshold, reference};
use kiln_report::{Checked, Diagnostic, Failure, FailureKind, Level, Silent, SourceFile};

use self::examine::examine;
use self::fix::FixArgs;
use self::output::Format;
use crate::args::build::build_args;
use crate::args::value::{self, Wrong, did_you_mean};
use crate::setting::Setting;
use crate::text_file::TextFile;
use crate::ui::exit::{Exit, Outcome};
use crate::ui::{run as ui_run, stdout};

/// Find mistakes in Dockerfiles, and what could be better
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Files, directories with a Dockerfile, URLs of contexts, or `-` for standard input [default: the Dockerfile here]
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Check only this stage and what it needs
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,

    /// Set a build argument; without a value it is taken from the environment
    #[arg(long, value_name = "KEY[=VALUE]", value_parser = value::pair)]
    build_arg: Vec<(String, Option<String>)>,

    /// Directory or URL with the files the Dockerfile names [default: FILE if it is a directory or URL, else .]
    #[arg(long, value_name = "DIR")]
    context: Option<PathBuf>,

    /// How findings are written: tty, json, sarif, github or checkstyle [default: tty]
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,

    /// Switch a rule off; several are separated by commas
    #[arg(long, value_name = "RULE", value_delimiter = ',')]
    ignore: Vec<String>,

    /// Fail on warnings, as `# check=error=true` does
    #[arg(long)]
    error: bool,

    /// Fail on findings as bad as this: error, warning, info, style or never [default: error]
    #[arg(long, value_name = "LEVEL", value_parser = threshold)]
    fail_on: Option<Threshold>,

    /// Configuration in hadolint's format [default: .hadolint.yaml, here or at home]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(flatten)]
    fix: FixArgs,

    /// List the rules; with --format=markdown, their whole reference
    #[arg(long, conflicts_with = "files")]
    list_rules: bool,

    /// Explain a rule
    #[arg(long, value_name = "RULE", conflicts_with_all = ["files", "list_rules"])]
    explain: Option<String>,
}

/// Checks each file, and tells all that was found at once.
pub(crate) fn run(args: &CheckArgs, setting: &Setting) -> Outcome {
    if let Some(rule) = &args.explain {
        stdout::print(&entry(rule)?.page("#"))?;
        return Ok(0);
    }
    if args.list_rules {
        return output::list_rules(args.format.unwrap_or_default());
    }
    args.fix.must_make_sense()?;
    args.ignore.iter().try_for_each(|rule| must_be_known(rule))?;
    let config = config::load(args.config.as_deref(), &setting.environment)?;
    let format = match args.format {
        Some(format) => format.of_findings()?,
        None => config.format.as_deref().and_then(|name| name.parse().ok()).unwrap_or_default(),
    };
    let mut settings = Settings { scope: Scope::Check, ..Settings::default() };
    settings.configure(&config);
    settings.ignored.extend(args.ignore.iter().map(|rule| entry(rule).map_or(rule.clone(), |known| known.name.into())));
    let build_args = build_args(&args.build_arg, &setting.environment);
    let here = [PathBuf::from(".")];
    let files = if args.files.is_empty() { here.as_slice() } else { &args.files };
    let (mut all, mut has_failed) = (Vec::new(), false);
    for path in files {
        let Subject { file, mut source, gathered } = args.subject(path, &build_args, setting)?;
        if args.fix.are_wanted() {
            let file = file.as_ref().ok_or_else(|| unfixable(path))?;
            let find = |source: &_| examine(source, &gathered, &settings).map(|found| found.findings);
            let text = fix::run(&args.fix, file, setting, find)?;
            source = Arc::new(SourceFile::new(file.name(), text));
        }
        let found = examine(&source, &gathered, &settings)?;
        has_failed |= found.findings.iter().any(|finding| args.fails(finding, &config, found.is_strict));
        if !file.is_some_and(|file| args.fix.takes_stdout(&file)) {
            all.push(Checked { source, findings: found.findings });
        }
    }
    if !all.is_empty() {
        output::write(&all, format, &config, &setting.environment)?;
    }
    Ok(u8::from(has_failed))
}

impl CheckArgs {
    /// A file's text, and the build that would read it.
    fn subject(&self, path: &Path, build_args: &BTreeMap<String, String>, setting: &Setting) -> Result<Subject, Exit> {
        let request = |context, dockerfile| BuildRequest {
            context,
            dockerfile,
            target: self.target.clone(),
            build_args: build_args.clone(),
            ..BuildRequest::default()
        };
        if let context @ Context::Remote(_) = place(path) {
            let gathered = gather(request(context, DockerfileSource::Default), setting)?;
            return Ok(Subject { file: None, source: Arc::new(gathered.dockerfile()?), gathered });
        }
        let file = TextFile::read(path)?;
        let beside = if path.is_dir() { path } else { Path::new(".") };
        let dockerfile = match file.is_stdin() {
            true => DockerfileSource::Text(file.text().to_owned()),
            false => DockerfileSource::Path(file.name().into()),
        };
        let gathered = gather(request(place(self.context.as_deref().unwrap_or(beside)), dockerfile), setting)?;
        let source = Arc::new(SourceFile::new(file.name(), file.text()));
        Ok(Subject { file: Some(file), source, gathered })
    }

    /// Whether a finding fails the check. What cannot be built always does.
    fn fails(&self, finding: &Diagnostic, config: &Hadolint, is_strict: bool) -> bool {
        let from_warning = (self.error || is_strict).then_some(Threshold::Level(Level::Warning));
        let from_config = if config.no_fail { Some(Threshold::Never) } else { config.threshold };
        let threshold = self.fail_on.or(from_warning).or(from_config).unwrap_or(Threshold::Level(Level::Error));
        match threshold {
            _ if finding.rule.is_none() => finding.level == Level::Error,
            Threshold::Level(level) => finding.level <= level,
            Threshold::Never => false,
        }
    }
}

/// What is checked: a file unless it was fetched, its text, and the contexts of its build.
struct Subject {
    file: Option<TextFile>,
    source: Arc<SourceFile>,
    gathered: Gathered,
}

/// A directory, or what is elsewhere.
pub(crate) fn place(path: &Path) -> Context {
    match path.to_str() {
        Some(url) if is_remote_context(url) && !path.exists() => Context::Remote(url.to_owned()),
        _ => Context::Dir(path.to_owned()),
    }
}

/// Has the contexts here. Nothing is lent to their servers.
pub(crate) fn gather(request: BuildRequest, setting: &Setting) -> Result<Gathered, Exit> {
    if request.is_here() {
        return Ok(Gathered::here(request));
    }
    let engine = setting.engine()?;
    ui_run::block_on(engine.gather(&request, (Arc::new(NoSession), Arc::new(Silent))))
}

fn unfixable(path: &Path) -> Failure {
    let message = format!("`{}` is elsewhere, so it cannot be changed", path.display());
    Failure::new(FailureKind::Usage, message).hint("clone or download it, and check the directory")
}

fn threshold(name: &str) -> Result<Threshold, Wrong> {
    Threshold::read(name).ok_or_else(|| {
        let near = did_you_mean(name, ["error", "warning", "info", "style", "never"]);
        Wrong(format!("`{name}` is no level: expected `error`, `warning`, `info`, `style` or `never`{near}"))
    })
}

fn entry(name: &str) -> Result<reference::Entry, Failure> {
    reference::entry(name).ok_or_else(|| {
        let failure = Failure::new(FailureKind::Usage, format!("no rule is called `{name}`"));
        match reference::nearest(name) {
            Some(near) => failure.hint(format!("did you mean `{near}`?")),
            None => failure.hint("list them with `kiln check --list-rules`"),
        }
    })
}

/// Fails for a name of ours that is misspelt. Codes of other linters may be of rules that kiln does not have.
fn must_be_known(name: &str) -> Result<(), Failure> {
    if reference::is_known(name) { Ok(()) } else { entry(name).map(|_| ()) }
}
