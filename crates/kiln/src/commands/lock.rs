//! `kiln lock`: what the names in a Dockerfile stand for, in a file beside it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use kiln_engine::{BuildRequest, Context, DockerfileSource, LockAnswer, LockChange, LockMode, NamedContext};
use kiln_oci::Platform;
use kiln_report::Failure;

use crate::args::build::{build_args, named_context};
use crate::args::value::{self, Wrong};
use crate::args::{SecretArg, SshArg};
use crate::commands::build::{check_context, lender};
use crate::setting::Setting;
use crate::ui::exit::Outcome;
use crate::ui::progress::{Choice, Progress};
use crate::ui::{run as ui_run, stdout};

/// Write down what the names in a Dockerfile stand for, for `kiln build --locked`
#[derive(Debug, Args)]
pub(crate) struct LockArgs {
    /// Directory that is built [default: .]
    #[arg(value_name = "CONTEXT")]
    context: Option<PathBuf>,

    /// Dockerfile [default: Containerfile or Dockerfile of CONTEXT]
    #[arg(short, long, value_name = "PATH")]
    file: Vec<PathBuf>,

    /// Lock only this stage and what it needs [default: all stages]
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,

    /// Set a build argument; without a value it is taken from the environment
    #[arg(long, value_name = "KEY[=VALUE]", value_parser = value::pair)]
    build_arg: Vec<(String, Option<String>)>,

    /// Use another context or image where the Dockerfile says NAME, as with `kiln build`
    #[arg(long, value_name = "NAME=WHERE", value_parser = named_context)]
    build_context: Vec<(String, NamedContext)>,

    /// Platform that is built for; several are separated by commas
    #[arg(long, value_name = "PLATFORM", value_delimiter = ',')]
    platform: Vec<Platform>,

    /// Lend a secret to what is fetched, as a token for a repository: id=ID[,src=PATH|env=NAME]
    #[arg(long, value_name = "SECRET", value_parser = SecretArg::parse)]
    secret: Vec<SecretArg>,

    /// Lend an ssh agent or keys to what is fetched: default, or ID[=SOCKET|KEY[,KEY]]
    #[arg(long, value_name = "SSH", value_parser = SshArg::parse)]
    ssh: Vec<SshArg>,

    /// Ask again what names that are locked stand for, these or all, and show what is different
    #[arg(long, value_name = "NAME", num_args = 0.., conflicts_with = "check")]
    update: Option<Vec<String>>,

    /// Ask nobody and write nothing, but fail when a name is not locked
    #[arg(long)]
    check: bool,

    /// How progress is shown: auto, plain, tty, rawjson or quiet
    #[arg(long, value_name = "VIEW", default_value = "auto")]
    progress: Choice,
}

/// Locks, and prints what is different.
pub(crate) fn run(args: &LockArgs, setting: &Setting) -> Outcome {
    let (directory, mode) = args.meant();
    check_context(&directory)?;
    let request = args.request(directory, setting)?;
    let secrets =
        args.secret.iter().map(|secret| secret.clone().resolve(&setting.environment)).collect::<Result<_, _>>();
    let secrets = secrets.map_err(|Wrong(why)| value::usage(format!("cannot lend a secret: {why}")))?;
    let agents = args.ssh.iter().map(|agent| agent.clone().resolve(&setting.environment)).collect::<Result<_, _>>();
    let agents = agents.map_err(|Wrong(why)| value::usage(format!("cannot lend an ssh agent: {why}")))?;
    let lender = lender(secrets, &agents, None)?;
    let engine = setting.engine()?;
    let progress = Progress::start(args.progress, &setting.environment)?;
    let answer = ui_run::block_on(engine.lock(&request, &mode, (lender, progress.reporter())));
    progress.finish();
    stdout::print(&told(&answer?, &mode))?;
    Ok(0)
}

impl LockArgs {
    /// The context, and what is to be done. No name that is locked begins like a path, so such a one after `--update` is
    /// the context.
    fn meant(&self) -> (PathBuf, LockMode) {
        let mut names = self.update.clone();
        let is_path = |name: &String| name.starts_with(['.', '/']);
        let last =
            names.as_mut().filter(|_| self.context.is_none()).and_then(|names| names.pop_if(|name| is_path(name)));
        let context = self.context.clone().or(last.map(PathBuf::from)).unwrap_or_else(|| ".".into());
        let mode = match names {
            _ if self.check => LockMode::Check,
            Some(names) => LockMode::Update(names),
            None => LockMode::Fill,
        };
        (context, mode)
    }

    fn request(&self, directory: PathBuf, setting: &Setting) -> Result<BuildRequest, Failure> {
        if self.file.iter().any(|path| path == Path::new("-")) {
            let failure = value::usage("a Dockerfile on standard input has no lock");
            return Err(failure.hint("write it to a file, and name that with `-f`"));
        }
        let source = |path: &PathBuf| DockerfileSource::Path(path.clone());
        let dockerfile = match self.file.as_slice() {
            [] => DockerfileSource::Default,
            [path] => source(path),
            paths => DockerfileSource::Several(paths.iter().map(source).collect()),
        };
        Ok(BuildRequest {
            context: Context::Dir(directory),
            dockerfile,
            target: self.target.clone(),
            build_args: build_args(&self.build_arg, &setting.environment),
            contexts: self.build_context.iter().cloned().collect(),
            platforms: self.platform.clone(),
            ..BuildRequest::default()
        })
    }
}

/// A line for each change, and how many names there are.
fn told(answer: &LockAnswer, mode: &LockMode) -> String {
    let mut text: String = answer.changes.iter().map(line).collect();
    let (entries, path) = (answer.entries, answer.path.display());
    let names = if entries == 1 { "name is" } else { "names are" };
    let state = match (mode, answer.changes.len()) {
        (LockMode::Check, _) => "all there".to_owned(),
        (_, 0) => "nothing changed".to_owned(),
        (_, changed) => format!("{changed} changed"),
    };
    writeln!(text, "{entries} {names} locked in {path}, {state}").expect("writing to a string");
    text
}

fn line(change: &LockChange) -> String {
    let name = &change.name;
    match (&change.old, &change.new) {
        (Some(old), Some(new)) => format!("~ {name}  {} → {}\n", short(old), short(new)),
        (None, Some(new)) => format!("+ {name}  {}\n", short(new)),
        (Some(old), None) => format!("- {name}  {}\n", short(old)),
        (None, None) => String::new(),
    }
}

/// As much of a digest or a commit as people compare.
fn short(text: &str) -> &str {
    const DIGITS: usize = 12;
    let commit = text.split(' ').next().filter(|word| word.bytes().all(|byte| byte.is_ascii_hexdigit()));
    match (text.split_once(':'), commit) {
        (Some((algorithm, hex)), _) => text.get(..algorithm.len() + 1 + DIGITS.min(hex.len())).unwrap_or(text),
        (None, Some(commit)) => commit.get(..DIGITS).unwrap_or(commit),
        (None, None) => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_has_a_line_each() {
        let digest = |digit: char| Some(format!("sha256:{}", digit.to_string().repeat(64)));
        let change = |name: &str, old, new| LockChange { name: name.into(), old, new };
        let commit = Some(format!("{} refs/heads/main", "c".repeat(40)));
        let changes = vec![
            change("a:1", digest('1'), digest('2')),
            change("b:1", None, digest('1')),
            change("c", commit, None),
            change("docker/dockerfile:1", None, Some("built in".into())),
        ];
        let answer = LockAnswer { path: "kiln.lock".into(), entries: 3, changes };
        assert_eq!(
            told(&answer, &LockMode::Fill),
            "~ a:1  sha256:111111111111 → sha256:222222222222\n+ b:1  sha256:111111111111\n- c  cccccccccccc\n\
             + docker/dockerfile:1  built in\n3 names are locked in kiln.lock, 4 changed\n"
        );
    }

    #[test]
    fn a_path_after_update_is_the_context() {
        let meant = |line: &str| match crate::args::parse(line.split(' ').map(Into::into).collect()).unwrap().command {
            crate::args::Command::Lock(args) => args.meant(),
            other => panic!("{other:?}"),
        };
        let update = |names: &[&str]| LockMode::Update(names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(meant("kiln lock"), (".".into(), LockMode::Fill));
        assert_eq!(meant("kiln lock app --update"), ("app".into(), update(&[])));
        assert_eq!(meant("kiln lock --update ./app"), ("./app".into(), update(&[])));
        assert_eq!(meant("kiln lock --update busybox /a"), ("/a".into(), update(&["busybox"])));
        assert_eq!(meant("kiln lock app --update a b:1"), ("app".into(), update(&["a", "b:1"])));
        assert_eq!(meant("kiln lock --check"), (".".into(), LockMode::Check));
    }
}
