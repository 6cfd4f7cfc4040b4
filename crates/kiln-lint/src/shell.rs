//! A shell script as rules look at it: simple commands with their words, wherever they stand.
//!
//! The model is flat: loops, functions, subshells and substitutions are scopes that commands know by number. Whatever is
//! not finished or not understood is passed over, nothing is recursive, and a byte is looked at a bounded number of times.

mod call;
mod parser;
mod words;

pub(crate) use call::{Call, base_name};
pub(crate) use words::{Kind, Part, Quoting, Word};

/// A script.
#[derive(Debug, Clone, Default)]
pub(crate) struct Code {
    /// Its simple commands. Those of a substitution come after the ones of the command that holds it.
    pub(crate) commands: Vec<Simple>,
    /// What commands stand in.
    pub(crate) scopes: Vec<Scope>,
    /// Variables it sets.
    pub(crate) assigned: Vec<Assignment>,
    /// Words of lists and patterns, which belong to no command.
    pub(crate) loose: Vec<Word>,
    /// Where it first tells the shell to stop at what fails: `set -e`.
    pub(crate) errexit: Option<usize>,
    /// Where it first makes pipelines fail with any of their commands: `set -o pipefail`.
    pub(crate) pipefail: Option<usize>,
}

/// A simple command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Simple {
    /// Its words, without assignments before them.
    pub(crate) words: Vec<Word>,
    /// The number of the word that names the program, after `sudo` and the like.
    pub(crate) program: usize,
    /// `NAME=value` before its words.
    pub(crate) assignments: Vec<Assignment>,
    /// The files it reads and writes.
    pub(crate) redirects: Vec<Redirect>,
    /// Where it begins.
    pub(crate) start: usize,
    /// Where it ends.
    pub(crate) end: usize,
    /// What comes after it.
    pub(crate) after: After,
    /// The scope it stands in, by number.
    pub(crate) scope: usize,
}

/// `NAME=value`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Assignment {
    pub(crate) name: String,
    /// The value, where it is written down.
    pub(crate) value: Option<Word>,
    pub(crate) start: usize,
}

/// `> file`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Redirect {
    pub(crate) kind: RedirectKind,
    pub(crate) target: Word,
}

/// Where a redirect leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RedirectKind {
    Read,
    Write,
    Heredoc,
}

/// What separates a command from the next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum After {
    /// `;`, a line break or the end.
    #[default]
    End,
    /// `&&`.
    And,
    /// `||`.
    Or,
    /// `|`.
    Pipe,
    /// `&`.
    Background,
}

/// What commands stand in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scope {
    pub(crate) kind: ScopeKind,
    pub(crate) parent: usize,
}

/// Kinds of scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ScopeKind {
    Script,
    Subshell,
    Braces,
    Function,
    /// What `if`, `while` and `until` ask.
    Condition,
    /// What `then`, `else` and `do` hold.
    Body,
    /// `case … esac`, with all its branches.
    Case,
    Substitution,
}

impl Code {
    /// Reads a script.
    pub(crate) fn parse(text: &str) -> Self {
        parser::parse(text)
    }

    /// One command whose words nobody splits; each with its place.
    pub(crate) fn of_arguments(arguments: Vec<Word>) -> Self {
        let (start, end) = (arguments.first().map_or(0, |w| w.start), arguments.last().map_or(0, |w| w.end));
        let command = Simple { program: call::program(&arguments), words: arguments, start, end, ..Simple::default() };
        Self { commands: vec![command], scopes: vec![Scope { kind: ScopeKind::Script, parent: 0 }], ..Self::default() }
    }

    /// Whether a command stands in a scope of a kind, however deep.
    pub(crate) fn is_within(&self, command: &Simple, kind: ScopeKind) -> bool {
        let mut at = command.scope;
        loop {
            let Some(scope) = self.scopes.get(at) else { return false };
            if scope.kind == kind {
                return true;
            }
            if at == scope.parent {
                return false;
            }
            at = scope.parent;
        }
    }

    /// Whether a command stands in the script itself, in no loop, function or substitution.
    pub(crate) fn is_top(&self, command: &Simple) -> bool {
        command.scope == 0
    }

    /// Commands joined by `|`, in order.
    pub(crate) fn pipelines(&self) -> impl Iterator<Item = &[Simple]> {
        self.commands.chunk_by(|a, b| a.after == After::Pipe && a.scope == b.scope)
    }

    /// The programs that run, with their arguments.
    pub(crate) fn calls(&self) -> impl Iterator<Item = Call<'_>> {
        self.commands.iter().filter_map(Call::of)
    }
}

impl Simple {
    /// Whether it sets an option of the shell: `e`, or `pipefail`.
    fn sets(&self, option: &str) -> bool {
        let [program, rest @ ..] = self.words.as_slice() else { return false };
        let is_cluster = |word: &str| {
            let flags = word.strip_prefix('-').filter(|flags| !flags.starts_with('-'));
            option.len() == 1 && flags.is_some_and(|flags| flags.contains(option))
        };
        let is_named = |word: &str| word == option || option == "e" && word == "errexit";
        program.text == "set" && rest.iter().any(|word| is_cluster(&word.text) || is_named(&word.text))
    }

    /// The words without what only prepares the command: `exec`, `sudo`, `env`.
    pub(crate) fn program(&self) -> &[Word] {
        self.words.get(self.program..).unwrap_or_default()
    }

    /// The files it writes to.
    pub(crate) fn writes(&self) -> impl Iterator<Item = &Word> {
        self.redirects.iter().filter(|redirect| redirect.kind == RedirectKind::Write).map(|redirect| &redirect.target)
    }
}

#[cfg(test)]
mod tests;
