//! Instructions with their meaning: typed, validated as far as no variable is needed, nothing filled in yet.

mod build;
mod copy;
mod csv;
mod device;
mod duration;
pub(crate) mod flags;
mod healthcheck;
mod keyword;
mod mount;

use kiln_report::Diagnostic;

pub use copy::{Copy, CopyKind, Document};
pub(crate) use csv::csv_fields;
pub use device::Device;
pub use healthcheck::HealthcheckCommand;
pub use keyword::Keyword;
pub(crate) use mount::parse_bool;
pub use mount::{CacheSharing, Mount, MountKind};

use crate::parse::{Instruction, Pair, Word};

/// What an instruction says.
#[derive(Debug, Clone)]
pub enum Command {
    /// `FROM`.
    From(From),
    /// `RUN`.
    Run(Run),
    /// `COPY` and `ADD`.
    Copy(Box<Copy>),
    /// `ENV`.
    Env(Vec<Pair>),
    /// `LABEL`.
    Label(Vec<Pair>),
    /// `ARG`.
    Arg(Vec<ArgItem>),
    /// `WORKDIR`.
    Workdir(Word),
    /// `USER`.
    User(Word),
    /// `EXPOSE`.
    Expose(Vec<Word>),
    /// `VOLUME`.
    Volume(Vec<Word>),
    /// `CMD`.
    Cmd(CommandLine),
    /// `ENTRYPOINT`.
    Entrypoint(CommandLine),
    /// `SHELL`.
    Shell(Vec<Word>),
    /// `STOPSIGNAL`.
    StopSignal(Word),
    /// `HEALTHCHECK`.
    Healthcheck(HealthcheckCommand),
    /// `ONBUILD`: the trigger as it is kept in the image.
    Onbuild(String),
    /// `MAINTAINER`.
    Maintainer(Word),
}

/// `FROM [--platform=…] [--after=…] image [AS name]`.
#[derive(Debug, Clone)]
pub struct From {
    /// The image or stage.
    pub image: Word,
    /// `AS`, as written.
    pub as_keyword: Option<Word>,
    /// The stage's name, as written.
    pub name: Option<Word>,
    /// `--platform`.
    pub platform: Option<Word>,
    /// `--after`, each: stages that come first although nothing is taken from them.
    pub after: Vec<Word>,
}

impl From {
    /// The name stages are found by.
    pub fn stage_name(&self) -> Option<String> {
        self.name.as_ref().map(|name| name.text.to_lowercase())
    }
}

/// `RUN`.
#[derive(Debug, Clone)]
pub struct Run {
    /// What to run.
    pub command: CommandLine,
    /// `--mount`, as written.
    pub mounts: Vec<Word>,
    /// `--network`.
    pub network: Option<Word>,
    /// `--security`.
    pub security: Option<Word>,
    /// `--device`.
    pub devices: Vec<Device>,
}

/// A command with its form.
#[derive(Debug, Clone)]
pub struct CommandLine {
    /// One word in shell form, all arguments in exec form.
    pub words: Vec<Word>,
    /// Who splits it.
    pub form: Form,
}

/// Who splits a command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The shell.
    Shell,
    /// Nobody: it is a JSON array.
    Exec,
}

/// `name` or `name=value` of `ARG`.
#[derive(Debug, Clone)]
pub struct ArgItem {
    /// The name.
    pub key: Word,
    /// The default.
    pub value: Option<Word>,
}

/// Reads an instruction; says what is wrong with it.
pub(crate) fn command(instruction: &Instruction, diagnostics: &mut Vec<Diagnostic>) -> Option<Command> {
    let keyword = Keyword::of(&instruction.keyword.text)?;
    let before = diagnostics.len();
    let command = build::Reader { instruction, keyword, diagnostics }.read();
    if let Some(error) = diagnostics.get_mut(before) {
        let dashed = flags::dashed(instruction).into_iter().next();
        error.hints.extend(dashed.map(|(word, flag)| format!("write `{flag}` with two hyphens, not `{}`", word.text)));
    }
    command
}
