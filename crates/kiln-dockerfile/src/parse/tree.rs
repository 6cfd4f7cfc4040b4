//! The tree of a Dockerfile: every byte has its place, every token its span.

use kiln_report::Span;

use super::lines::Line;
use crate::instruction::{Command, Keyword};
use crate::suggest;

/// A parsed Dockerfile. Its items tile the text: no byte is lost.
#[derive(Debug, Clone)]
pub struct Dockerfile {
    /// Everything in the file, in order.
    pub items: Vec<Item>,
    /// The character that escapes and continues lines: `\` or `` ` ``.
    pub escape: char,
    /// How long the text is.
    pub len: usize,
}

/// A stretch of whole lines.
#[derive(Debug, Clone)]
pub struct Item {
    /// From the first byte of its first line to the end of its last, line break included.
    pub span: Span,
    /// What it is.
    pub kind: ItemKind,
}

/// What a stretch of lines is.
#[derive(Debug, Clone)]
pub enum ItemKind {
    /// A line with nothing on it.
    Blank,
    /// A comment outside of instructions: its text, without `#`.
    Comment(Word),
    /// `# key=value` at the top of the file.
    Directive(Directive),
    /// An instruction with all its lines, inner comments and heredocs.
    Instruction(Box<Instruction>),
}

/// A parser directive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directive {
    /// `syntax`, `escape` or `check`, in lower case.
    pub name: Word,
    /// What it is set to.
    pub value: Word,
}

/// A token: its text as the language sees it and its place in the file.
///
/// The text differs from the bytes at the place where line continuations, flag quotes or JSON escapes were undone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Word {
    /// The text; quotes and variables are still in it, save in flags and JSON.
    pub text: String,
    /// The place.
    pub span: Span,
}

impl Word {
    /// The place of a part of the text, as exactly as can be told.
    pub fn part(&self, start: usize, end: usize) -> Span {
        if self.span.end - self.span.start != self.text.len() || end > self.text.len() {
            return self.span;
        }
        Span::new(self.span.start + start, self.span.start + end)
    }
}

/// One instruction.
#[derive(Debug, Clone)]
pub struct Instruction {
    /// From the keyword to the last byte that belongs to it, without the last line break.
    pub span: Span,
    /// The keyword as written.
    pub keyword: Word,
    /// Its lines joined, continuations and comments taken out, heredocs not included.
    pub line: Line,
    /// `--name=value`, before the arguments.
    pub flags: Vec<Flag>,
    /// The arguments, split as the keyword wants them.
    pub arguments: Arguments,
    /// The documents that follow.
    pub heredocs: Vec<Heredoc>,
    /// Texts of the comments right above, without `#`.
    pub comments: Vec<String>,
    /// Blank lines between continued lines.
    pub empty_continuations: Vec<BlankLine>,
    /// What it says; `None` when it is wrong, which a diagnostic tells.
    pub command: Option<Command>,
    /// What could be read of it when it is wrong.
    pub attempt: Option<Box<Command>>,
}

impl Instruction {
    /// What it says, as far as it could be read.
    pub(crate) fn meant(&self) -> Option<&Command> {
        self.command.as_ref().or(self.attempt.as_deref())
    }

    /// The keyword, or the one it was probably meant for.
    pub(crate) fn meant_keyword(&self) -> Option<Keyword> {
        let written = self.keyword.text.to_uppercase();
        let near = || suggest::nearest(&written, Keyword::ALL.iter().map(|keyword| keyword.name()));
        Keyword::of(&written).or_else(|| Keyword::of(near()?))
    }
}

/// A line with nothing on it, between continued ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlankLine {
    /// Its place, without its line break.
    pub span: Span,
    /// Where the next line begins.
    pub end: usize,
}

/// A flag of an instruction, quotes and escapes undone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flag {
    /// Without the dashes.
    pub name: Word,
    /// What follows `=`.
    pub value: Option<Word>,
    /// All of it.
    pub span: Span,
}

/// Arguments, split as their keyword wants them.
#[derive(Debug, Clone)]
pub enum Arguments {
    /// There are none.
    None,
    /// All of the rest, taken as it is.
    Text(Word),
    /// Words between white space.
    Words(Vec<Word>),
    /// A JSON array of strings.
    Json(Vec<Word>),
    /// Keys and values.
    Pairs(Vec<Pair>),
    /// `HEALTHCHECK`: a first word and the rest.
    Typed(Word, Box<Arguments>),
    /// `ONBUILD`: an instruction.
    Trigger(Box<Instruction>),
}

/// A key and a value of `ENV` or `LABEL`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The key, quotes still in it.
    pub key: Word,
    /// The value, quotes still in it.
    pub value: Word,
    /// How they are joined.
    pub form: PairForm,
}

/// How a key and a value are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PairForm {
    /// `key=value`.
    Equals,
    /// `key value`, of old.
    Space,
}

/// A document that follows an instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The word that ends it, quotes taken off.
    pub name: String,
    /// `3<<EOF`: the file descriptor, 0 when not given.
    pub descriptor: u32,
    /// Whether variables in it are filled in: the word was not quoted.
    pub expand: bool,
    /// `<<-`: leading tabs are taken off.
    pub chomp: bool,
    /// Its lines as they are, without the one that ends it.
    pub content: String,
    /// The place of the content.
    pub content_span: Span,
    /// The place of the line that ends it, without its line break.
    pub end_span: Span,
}

impl Heredoc {
    /// The content as it is meant: without leading tabs after `<<-`.
    pub fn text(&self) -> String {
        if !self.chomp {
            return self.content.clone();
        }
        self.content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }
}

impl Dockerfile {
    /// The instructions, in order.
    pub fn instructions(&self) -> impl Iterator<Item = &Instruction> {
        self.items.iter().filter_map(|item| match &item.kind {
            ItemKind::Instruction(instruction) => Some(&**instruction),
            _ => None,
        })
    }

    /// The value of a parser directive.
    pub fn directive(&self, name: &str) -> Option<&Word> {
        self.items.iter().find_map(|item| match &item.kind {
            ItemKind::Directive(directive) if directive.name.text == name => Some(&directive.value),
            _ => None,
        })
    }
}
