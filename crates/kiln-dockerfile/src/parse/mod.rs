//! From text to tree. Never fails: what is wrong is told, and the rest is still read.

mod directive;
pub(crate) mod flags;
pub(crate) mod heredoc;
mod json;
mod lines;
mod tree;
mod words;

use kiln_report::{Diagnostic, Span};

pub use directive::detect_syntax;
pub(crate) use directive::name_and_value;
pub use lines::Line;
pub use tree::{Arguments, Directive, Dockerfile, Flag, Heredoc, Instruction, Item, ItemKind, Pair, PairForm, Word};

use crate::instruction::{self, Command, Keyword};
use crate::suggest;
use directive::DirectiveReader;
use lines::{Lines, Physical, Slice};

/// Reads a Dockerfile. Gives its tree, and what is wrong with it.
///
/// ```
/// let (file, diagnostics) = kiln_dockerfile::parse("FROM scratch\nCOPY a /\n");
/// assert_eq!((file.instructions().count(), diagnostics.len()), (2, 0));
/// ```
pub fn parse(text: &str) -> (Dockerfile, Vec<Diagnostic>) {
    let mut parser = Parser { text, escape: '\\', items: Vec::new(), comments: Vec::new(), diagnostics: Vec::new() };
    parser.run();
    let file = Dockerfile { items: parser.items, escape: parser.escape, len: text.len() };
    let mut diagnostics = parser.diagnostics;
    check_order(&file, &mut diagnostics);
    diagnostics.sort_by_key(|diagnostic| diagnostic.span);
    (file, diagnostics)
}

/// Reads a single instruction that stands in no file, such as a trigger kept in a base image.
pub(crate) fn parse_trigger(text: &str) -> Result<Box<Instruction>, Vec<Diagnostic>> {
    let mut parser = Parser { text, escape: '\\', items: Vec::new(), comments: Vec::new(), diagnostics: Vec::new() };
    parser.run();
    if !parser.diagnostics.is_empty() {
        return Err(parser.diagnostics);
    }
    let mut instructions = parser.items.into_iter().filter_map(|item| match item.kind {
        ItemKind::Instruction(instruction) => Some(instruction),
        _ => None,
    });
    match (instructions.next(), instructions.next()) {
        (Some(instruction), None) => Ok(instruction),
        _ => Err(vec![Diagnostic::error(Span::default(), "an ONBUILD trigger must be exactly one instruction")]),
    }
}

struct Parser<'a> {
    text: &'a str,
    escape: char,
    items: Vec<Item>,
    /// Texts of the comments since the last instruction.
    comments: Vec<String>,
    diagnostics: Vec<Diagnostic>,
}

impl<'a> Parser<'a> {
    fn run(&mut self) {
        let bom = if self.text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        let mut lines = Lines::starting(self.text, bom);
        let mut directives = DirectiveReader::default();
        while let Some(line) = lines.next() {
            let directive = directives.read(line, &mut self.diagnostics);
            let kind = match directive {
                Some(directive) => {
                    self.apply(&directive);
                    ItemKind::Directive(directive)
                }
                None if line.is_comment() => self.comment(line),
                None if line.is_blank() => ItemKind::Blank,
                None => ItemKind::Instruction(Box::new(self.instruction(line, &mut lines))),
            };
            // The mark at the front of a file belongs to its first item, so that no byte is left over.
            let start = if self.items.is_empty() { 0 } else { line.start };
            self.items.push(Item { span: Span::new(start, lines.at()), kind });
        }
        if self.items.is_empty() && bom > 0 {
            self.items.push(Item { span: Span::new(0, bom), kind: ItemKind::Blank });
        }
    }

    fn apply(&mut self, directive: &Directive) {
        if directive.name.text != "escape" {
            return;
        }
        match directive.value.text.as_str() {
            "\\" => self.escape = '\\',
            "`" => self.escape = '`',
            other => {
                let message = format!("`{other}` cannot be the escape character");
                let hint = "use a backslash or a backtick";
                self.diagnostics.push(Diagnostic::error(directive.value.span, message).hint(hint));
            }
        }
    }

    fn comment(&mut self, line: Physical<'_>) -> ItemKind {
        let text = line.text.trim_start().trim_start_matches('#').trim();
        if text.is_empty() {
            self.comments.clear();
        } else {
            self.comments.push(text.to_owned());
        }
        ItemKind::Comment
    }

    fn instruction(&mut self, first: Physical<'a>, lines: &mut Lines<'a>) -> Instruction {
        let before = self.diagnostics.len();
        let joined = lines::join(first, lines, self.escape);
        let mut instruction = self.one_line(joined.line.all(), Depth::Top);
        let indent = first.text.len() - first.text.trim_start().len();
        instruction.span = Span::new(first.start + indent, joined.end);
        instruction.empty_continuations = joined.empty_continuations;
        instruction.comments = std::mem::take(&mut self.comments);
        if takes_heredocs(&instruction) {
            match heredoc::read(&instruction.line, lines, self.text) {
                Ok(heredocs) => instruction.heredocs = heredocs,
                Err(diagnostic) => self.diagnostics.push(diagnostic),
            }
        }
        if let Some(last) = instruction.heredocs.last() {
            instruction.span.end = last.end_span.end;
        }
        let command = instruction::command(&instruction, &mut self.diagnostics);
        instruction.command = command.filter(|_| self.diagnostics.len() == before);
        instruction
    }

    /// Splits a joined line; for `ONBUILD`, the line within it too.
    fn one_line(&mut self, line: Slice<'_>, depth: Depth) -> Instruction {
        let parts = flags::split(line, self.escape);
        let keyword = parts.keyword.word();
        if depth == Depth::Top && Keyword::of(&keyword.text).is_none() {
            self.diagnostics.push(unknown_instruction(&keyword));
        }
        let arguments = match Keyword::of(&keyword.text) {
            Some(kind) => self.arguments(kind, parts.rest, depth),
            None => text_or_none(parts.rest),
        };
        Instruction {
            span: line.trim().span(),
            keyword,
            line: line.to_line(),
            flags: parts.flags,
            arguments,
            heredocs: Vec::new(),
            comments: Vec::new(),
            empty_continuations: Vec::new(),
            command: None,
        }
    }

    fn arguments(&mut self, keyword: Keyword, rest: Slice<'_>, depth: Depth) -> Arguments {
        use Keyword as K;
        if rest.text.is_empty() {
            return Arguments::None;
        }
        match keyword {
            K::Maintainer | K::Stopsignal | K::User | K::Workdir => text_or_none(rest),
            K::Expose | K::From => Arguments::Words(words::plain(rest)),
            K::Arg => Arguments::Words(words::quoted(rest, self.escape)),
            K::Cmd | K::Entrypoint | K::Run | K::Shell => self.json_or(rest, text_or_none),
            K::Add | K::Copy | K::Volume => self.json_or(rest, |rest| Arguments::Words(words::plain(rest))),
            K::Env | K::Label => match words::pairs(rest, keyword.name(), self.escape) {
                Ok(pairs) => Arguments::Pairs(pairs),
                Err(diagnostic) => {
                    self.diagnostics.push(diagnostic);
                    text_or_none(rest)
                }
            },
            K::Healthcheck => {
                let end = rest.text.find(char::is_whitespace).unwrap_or(rest.text.len());
                let command = self.json_or(rest.from(end).trim(), text_or_none);
                Arguments::Typed(rest.part(0, end).word(), Box::new(command))
            }
            // `ONBUILD ONBUILD` is an error, so there is no need to go deeper.
            K::Onbuild if depth == Depth::Trigger => text_or_none(rest),
            K::Onbuild => Arguments::Trigger(Box::new(self.one_line(rest, Depth::Trigger))),
        }
    }

    fn json_or(&mut self, rest: Slice<'_>, otherwise: impl Fn(Slice<'_>) -> Arguments) -> Arguments {
        if !rest.text.starts_with('[') {
            return otherwise(rest);
        }
        match json::array(rest) {
            json::Array::Strings(words) => Arguments::Json(words),
            json::Array::NotJson => otherwise(rest),
            json::Array::Mixed(start, end) => {
                let message = "a JSON array of arguments may hold strings only";
                let hint = "put each argument in double quotes";
                self.diagnostics.push(Diagnostic::error(rest.span_of(start, end), message).hint(hint));
                otherwise(rest)
            }
        }
    }
}

/// Whether an instruction stands for itself or behind `ONBUILD`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Depth {
    Top,
    Trigger,
}

fn text_or_none(rest: Slice<'_>) -> Arguments {
    if rest.text.is_empty() { Arguments::None } else { Arguments::Text(rest.word()) }
}

fn takes_heredocs(instruction: &Instruction) -> bool {
    let inner = match &instruction.arguments {
        Arguments::Trigger(inner) => inner,
        _ => instruction,
    };
    let keyword = Keyword::of(&inner.keyword.text);
    matches!(keyword, Some(Keyword::Add | Keyword::Copy | Keyword::Run))
        && !matches!(inner.arguments, Arguments::Json(_))
}

fn unknown_instruction(keyword: &Word) -> Diagnostic {
    if keyword.text.is_empty() {
        return Diagnostic::error(keyword.span, "a line that only goes on is no instruction");
    }
    let diagnostic = Diagnostic::error(keyword.span, format!("`{}` is no instruction", keyword.text));
    let upper = keyword.text.to_uppercase();
    match suggest::nearest(&upper, Keyword::ALL.iter().map(|keyword| keyword.name())) {
        Some(name) => diagnostic.hint(format!("did you mean `{name}`?")),
        None => diagnostic,
    }
}

/// The first stage begins with `FROM`; only `ARG` may stand before it.
fn check_order(file: &Dockerfile, diagnostics: &mut Vec<Diagnostic>) {
    if file.instructions().next().is_none() {
        let hint = "begin with `FROM image` or `FROM scratch`";
        diagnostics.push(Diagnostic::error(Span::default(), "the Dockerfile has no instructions").hint(hint));
        return;
    }
    let is_from = |instruction: &&Instruction| Keyword::of(&instruction.keyword.text) == Some(Keyword::From);
    let early = file.instructions().take_while(|instruction| !is_from(instruction));
    for instruction in early.filter(|i| !matches!(i.command, Some(Command::Arg(_)) | None)) {
        let message = format!("`{}` stands before the first FROM", instruction.keyword.text);
        let hint = "only ARG may stand there; move this below a FROM";
        diagnostics.push(Diagnostic::error(instruction.keyword.span, message).hint(hint));
    }
    if !file.instructions().any(|instruction| is_from(&instruction)) {
        let hint = "begin with `FROM image` or `FROM scratch`";
        diagnostics.push(Diagnostic::error(Span::default(), "the Dockerfile has no FROM").hint(hint));
    }
}
