//! What was typed: the command line, its values, and the environment. Nothing else reads either.

mod allow;
mod annotation;
pub(crate) mod build;
mod cache;
pub(crate) mod call;
pub(crate) mod environment;
mod groups;
pub(crate) mod later;
pub(crate) mod mount_place;
mod output;
mod patience;
pub(crate) mod resources;
mod secret;
pub(crate) mod space;
mod ssh;
pub(crate) mod value;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, CommandFactory, FromArgMatches, Parser, Subcommand};
use kiln_engine::Isolation;

use crate::commands::cache::CacheCommand;
use crate::commands::{
    builds, check, completion, context, debug, diff, doctor, du, explain, fmt, fsck, history, images, imagetools,
    inspect, load, lock, login, prune, pull, push, rmi, run, save, shell, tag, verify, version,
};

pub(crate) use environment::Environment;
pub(crate) use secret::{SecretArg, SecretSource};
pub(crate) use ssh::SshArg;

/// Builds container images from Dockerfiles, without a daemon
#[derive(Debug, Parser)]
#[command(
    name = "kiln",
    version,
    max_term_width = 100,
    args_override_self = true,
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
pub(crate) struct Cli {
    /// Keep images and cache here [default: /var/lib/kiln as root, else ~/.local/share/kiln]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Global options")]
    pub(crate) state: Option<PathBuf>,

    /// Read how registries are set up from here: mirrors, certificates
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub(crate) registry_config: Option<PathBuf>,

    /// Refuse layers and archives that expand to more [default: 64GiB]
    #[arg(long, global = true, value_name = "BYTES", help_heading = "Global options", value_parser = value::bytes)]
    pub(crate) max_layer_size: Option<u64>,

    /// Say more when something fails
    #[arg(short = 'D', long, global = true, help_heading = "Global options")]
    pub(crate) debug: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands, in the order the help has them.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Build(Box<build::BuildArgs>),
    Explain(explain::ExplainArgs),
    Builds(builds::BuildsArgs),
    Shell(shell::ShellArgs),
    Fmt(fmt::FmtArgs),
    Check(check::CheckArgs),
    Lock(Box<lock::LockArgs>),
    Run(run::RunArgs),
    Pull(pull::PullArgs),
    Push(push::PushArgs),
    Images(images::ImagesArgs),
    Inspect(inspect::InspectArgs),
    #[command(subcommand)]
    Imagetools(imagetools::ImagetoolsCommand),
    History(history::HistoryArgs),
    Diff(diff::DiffArgs),
    Verify(Box<verify::VerifyArgs>),
    Tag(tag::TagArgs),
    Rmi(rmi::RmiArgs),
    Save(save::SaveArgs),
    Load(load::LoadArgs),
    Login(login::LoginArgs),
    Logout(login::LogoutArgs),
    #[command(subcommand)]
    Context(context::ContextCommand),
    #[command(subcommand)]
    Cache(CacheCommand),
    Du(du::DuArgs),
    Prune(prune::PruneArgs),
    Fsck(fsck::FsckArgs),
    Doctor(doctor::DoctorArgs),
    Version(version::VersionArgs),
    Completion(completion::CompletionArgs),
    #[command(hide = true)]
    Debug(debug::DebugArgs),
    #[command(hide = true)]
    Bake(later::Rest),
    #[command(flatten)]
    Group(groups::Group),
}

impl Command {
    /// The command behind a group: `kiln image ls` is `kiln images`.
    pub(crate) fn ungrouped(self) -> Self {
        match self {
            Self::Group(group) => group.into_command(),
            command => command,
        }
    }
}

impl Command {
    /// What was typed of what keeps steps apart from the machine.
    pub(crate) fn isolation(&self) -> Option<Isolation> {
        match self {
            Self::Build(build) => build.isolation,
            _ => None,
        }
    }

    /// Whether layers are made, read or removed, for which kiln must be root somewhere.
    pub(crate) fn touches_layers(&self) -> bool {
        matches!(
            self,
            Self::Build(_)
                | Self::Lock(_)
                | Self::Run(_)
                | Self::Shell(_)
                | Self::Pull(_)
                | Self::Push(_)
                | Self::Diff(_)
                | Self::Verify(_)
                | Self::Rmi(_)
                | Self::Save(_)
                | Self::Load(_)
                | Self::Cache(_)
                | Self::Du(_)
                | Self::Prune(_)
                | Self::Fsck(_)
        )
    }
}

/// Reads the command line.
pub(crate) fn parse(typed: Vec<OsString>) -> Result<Cli, clap::Error> {
    let matches = match Cli::command().try_get_matches_from(&typed) {
        Ok(matches) => matches,
        // Only `--flag=true` and `--flag=false`, as Go programs read them, need this second reading; the first one's
        // help stays free of it.
        Err(error) if error.kind() == ErrorKind::TooManyValues => {
            accept_go_bools(Cli::command()).try_get_matches_from(&typed)?
        }
        Err(error) => return Err(without_secrets(without_hidden(without_groups(error), &typed))),
    };
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut Cli::command()))
}

/// Docker's groups are no suggestion for somebody who mistyped a command.
fn without_groups(mut error: clap::Error) -> clap::Error {
    let Some(ContextValue::Strings(near)) = error.get(ContextKind::SuggestedSubcommand) else { return error };
    let cli = Cli::command();
    let is_shown = |name: &String| cli.find_subcommand(name).is_some_and(|command| !command.is_hide_set());
    let near = near.iter().filter(|name| is_shown(name)).cloned().collect();
    error.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(near));
    error
}

/// Nor are options that no help shows.
fn without_hidden(mut error: clap::Error, typed: &[OsString]) -> clap::Error {
    let Some(ContextValue::String(near)) = error.get(ContextKind::SuggestedArg) else { return error };
    let cli = Cli::command();
    let words = typed.iter().filter_map(|word| word.to_str());
    let command = words.fold(&cli, |command, word| command.find_subcommand(word).unwrap_or(command));
    let is_hidden = |arg: &&Arg| arg.is_hide_set() && arg.get_long() == near.strip_prefix("--");
    if command.get_arguments().any(|arg| is_hidden(&arg)) {
        error.insert(ContextKind::SuggestedArg, ContextValue::None);
    }
    error
}

/// A value that is wrong is shown, but not when there may be a secret in it.
fn without_secrets(mut error: clap::Error) -> clap::Error {
    let Some(ContextValue::String(value)) = error.get(ContextKind::InvalidValue) else { return error };
    if value.contains("type=") && cache::SECRETS.iter().any(|key| value.contains(key)) {
        error.insert(ContextKind::InvalidValue, ContextValue::String("…".into()));
    }
    error
}

/// Lets every switch of every command take `=true` or `=false`.
fn accept_go_bools(command: clap::Command) -> clap::Command {
    command.mut_args(accept_go_bool).mut_subcommands(accept_go_bools)
}

fn accept_go_bool(arg: Arg) -> Arg {
    if !matches!(arg.get_action(), ArgAction::SetTrue) {
        return arg;
    }
    arg.action(ArgAction::Set)
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
        .default_value("false")
        .value_parser(value::go_bool)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(line: &str) -> build::BuildArgs {
        let typed = line.split(' ').map(OsString::from).collect();
        match parse(typed).unwrap().command.ungrouped() {
            Command::Build(args) => *args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        accept_go_bools(Cli::command()).debug_assert();
    }

    #[test]
    fn a_wrong_value_is_not_shown_with_its_secrets() {
        let typed = "type=s33,bucket=b,secret_access_key=hush";
        let wrong = ["kiln", "build", "--cache-to", typed, "."].map(OsString::from).to_vec();
        let error = parse(wrong).unwrap_err().to_string();
        assert!(error.contains("did you mean `s3`") && !error.contains("hush"), "{error}");
    }

    #[test]
    fn switches_read_as_go_reads_them() {
        assert!(build("kiln build --no-cache .").no_cache);
        assert!(build("kiln build --no-cache=true --pull=1 .").pull == Some(kiln_engine::Pull::Always));
        assert!(!build("kiln build --no-cache=false .").no_cache);
        assert!(build("kiln build --no-cache=false --no-cache .").no_cache);
        let wrong = ["kiln", "build", "--no-cache=perhaps", "."].map(OsString::from).to_vec();
        assert!(parse(wrong).unwrap_err().to_string().contains("perhaps"));
    }

    #[test]
    fn dockers_spellings_of_a_build_are_one() {
        for line in
            ["kiln buildx build -t a .", "kiln image build . -t=a", "kiln builder build -ta .", "kiln buildx b -t a ."]
        {
            let args = build(line);
            assert_eq!((args.tag.len(), args.context.as_str()), (1, "."), "{line}");
        }
    }

    #[test]
    fn buildx_s_debugger_is_a_shell_on_failure() {
        for (line, program) in [
            ("kiln buildx debug build -t a .", None),
            ("kiln buildx debug --on=error --invoke on-error build -t a .", None),
            ("kiln buildx debug --on error --invoke /bin/bash b -t a .", Some("/bin/bash")),
        ] {
            let args = build(line);
            assert_eq!((args.on_failure, args.invoke.as_deref()), (build::OnFailure::Shell, program), "{line}");
            assert_eq!((args.tag.len(), args.context.as_str()), (1, "."), "{line}");
        }
        for (line, told) in [
            ("kiln buildx debug --on=always build .", "`kiln shell BUILD:STEP`"),
            ("kiln buildx debug --invoke entrypoint=sh build .", "as in `/bin/sh`"),
            ("kiln buildx debug --invoke sh", "requires a subcommand"),
        ] {
            let error = parse(line.split(' ').map(OsString::from).collect()).unwrap_err().to_string();
            assert!(error.contains(told), "{line}: {error}");
        }
    }

    #[test]
    fn the_last_of_a_repeated_option_counts() {
        assert_eq!(build("kiln build --target a --target b .").target.as_deref(), Some("b"));
    }
}
