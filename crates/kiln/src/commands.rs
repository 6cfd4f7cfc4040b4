//! The commands, one file each: what is typed, then what is done.

pub(crate) mod build;
pub(crate) mod builds;
pub(crate) mod cache;
pub(crate) mod cache_mounts;
pub(crate) mod check;
pub(crate) mod completion;
pub(crate) mod context;
pub(crate) mod debug;
pub(crate) mod diff;
pub(crate) mod doctor;
pub(crate) mod du;
pub(crate) mod explain;
pub(crate) mod fmt;
pub(crate) mod fsck;
pub(crate) mod history;
pub(crate) mod images;
pub(crate) mod imagetools;
pub(crate) mod inspect;
pub(crate) mod load;
pub(crate) mod lock;
pub(crate) mod login;
pub(crate) mod prune;
pub(crate) mod pull;
pub(crate) mod push;
pub(crate) mod rmi;
pub(crate) mod run;
pub(crate) mod save;
pub(crate) mod shell;
pub(crate) mod tag;
pub(crate) mod verify;
pub(crate) mod version;

use crate::args::Command;
use crate::args::later::not_yet;
use crate::setting::Setting;
use crate::ui::exit::Outcome;

/// Does what was asked for.
pub(crate) fn run(command: Command, setting: &Setting) -> Outcome {
    match command.ungrouped() {
        Command::Build(args) => build::run(&args, setting),
        Command::Explain(args) => explain::run(&args, setting),
        Command::Builds(args) => builds::run(&args, setting),
        Command::Shell(args) => shell::run(&args, setting),
        Command::Fmt(args) => fmt::run(&args, setting),
        Command::Check(args) => check::run(&args, setting),
        Command::Run(args) => run::run(&args, setting),
        Command::Pull(args) => pull::run(&args, setting),
        Command::Push(args) => push::run(&args, setting),
        Command::Images(args) => images::run(&args, setting),
        Command::Imagetools(command) => imagetools::run(&command, setting),
        Command::Inspect(args) => inspect::run(&args, setting),
        Command::History(args) => history::run(&args, setting),
        Command::Diff(args) => diff::run(&args, setting),
        Command::Verify(args) => verify::run(&args, setting),
        Command::Tag(args) => tag::run(&args, setting),
        Command::Rmi(args) => rmi::run(&args, setting),
        Command::Save(args) => save::run(&args, setting),
        Command::Lock(args) => lock::run(&args, setting),
        Command::Load(args) => load::run(&args, setting),
        Command::Login(args) => login::run(&args, setting),
        Command::Logout(args) => login::logout(&args, setting),
        Command::Context(command) => context::run(&command, setting),
        Command::Du(args) => du::run(&args, setting),
        Command::Cache(command) => cache::run(&command, setting),
        Command::Prune(args) => prune::run(&args, setting),
        Command::Fsck(args) => fsck::run(&args, setting),
        Command::Doctor(args) => doctor::run(&args, setting),
        Command::Version(args) => version::run(&args),
        Command::Completion(args) => completion::run(&args),
        Command::Debug(args) => debug::run(&args),
        Command::Bake(_) => Err(not_yet("bake").hint("build each of its targets with `kiln build`").into()),
        Command::Group(_) => unreachable!("groups were resolved"),
    }
}
