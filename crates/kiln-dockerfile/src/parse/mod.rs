//! From text to tree. Never fails: what is wrong is told, and the rest is still read.

mod directive;
mod dump;
pub(crate) mod flags;
mod frontend;
pub(crate) mod heredoc;
mod json;
mod lines;
mod order;
mod tree;
mod words;

use kiln_report::{Diagnostic, SourceFile, Span};

pub(crate) use directive::name_and_value;
pub use frontend::{Frontend, detect_syntax, frontend};
pub use lines::Line;
pub use tree::{
    Arguments, BlankLine, Directive, Dockerfile, Flag, Heredoc, Instruction, Item, ItemKind, Pair, PairForm, Word,
};

use crate::instruction::{self, Keyword};
use crate::suggest;
use directive::DirectiveReader;
use lines::{Lines, Physical, Slice};

const DEFAULT_ESCAPE: char = '\\';
const BOM: char = '\u{feff}';
/// `ONBUILD ONBUILD …` is read no deeper: more than one is an error anyway.
const MAX_TRIGGERS: usize = 16;

/// Reads a Dockerfile. Gives its tree, and what is wrong with it.
///
/// ```
/// let (file, diagnostics) = kiln_dockerfile::parse("FROM scratch\nCOPY a /\n");
/// assert_eq!((file.instructions().count(), diagnostics.len()), (2, 0));
/// ```
pub fn parse(text: &str) -> (Dockerfile, Vec<Diagnostic>) {
    parse_parts(text, &[0])
}

/// Reads a source of one or more files, as if they were one. Directives are each file's own; what one file leaves open
/// does not go on in the next.
pub fn parse_source(source: &SourceFile) -> (Dockerfile, Vec<Diagnostic>) {
    parse_parts(source.text(), &source.part_starts())
}

fn parse_parts(text: &str, starts: &[usize]) -> (Dockerfile, Vec<Diagnostic>) {
    let mut parser = Parser::new(text);
    parser.run(starts);
    let (file, mut diagnostics) = (parser.file(), parser.syntax);
    diagnostics.append(&mut parser.meaning);
    diagnostics.extend(order::check(&file));
    diagnostics.sort_by_key(|diagnostic| diagnostic.span);
    (file, diagnostics)
}

/// Reads a Dockerfile as far as its shape goes: unknown instructions and flags, and stages, are nobody's business here.
/// The tree's instructions have no [`command`](Instruction::command) to rely on.
pub fn parse_shape(text: &str) -> (Dockerfile, Vec<Diagnostic>) {
    let mut parser = Parser::new(text);
    parser.run(&[0]);
    let (file, mut diagnostics) = (parser.file(), parser.syntax);
    diagnostics.extend(order::check_any(&file));
    (file, diagnostics)
}

/// Reads a single instruction that stands in no file, such as a trigger kept in a base image.
pub(crate) fn parse_trigger(text: &str) -> Result<Box<Instruction>, Vec<Diagnostic>> {
    let mut parser = Parser::new(text);
    parser.run(&[0]);
    let mut diagnostics = std::mem::take(&mut parser.syntax);
    diagnostics.append(&mut parser.meaning);
    if !diagnostics.is_empty() {
        return Err(diagnostics);
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
    /// What is wrong with the file's shape.
    syntax: Vec<Diagnostic>,
    /// What is wrong with what it says.
    meaning: Vec<Diagnostic>,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        let (items, comments, syntax, meaning) = Default::default();
        Self { text, escape: DEFAULT_ESCAPE, items, comments, syntax, meaning }
    }

    fn file(&mut self) -> Dockerfile {
        Dockerfile { items: std::mem::take(&mut self.items), escape: self.escape, len: self.text.len() }
    }

    /// Reads the files that begin at `starts`, the first of which is 0.
    fn run(&mut self, starts: &[usize]) {
        for (at, start) in starts.iter().enumerate() {
            let end = starts.get(at + 1).copied().unwrap_or(self.text.len());
            let escape = std::mem::replace(&mut self.escape, DEFAULT_ESCAPE);
            self.part(*start, end);
            // Words are filled in by one rule, so the files have to agree.
            if at > 0 && self.escape != escape {
                let (here, above) = (escape_name(self.escape), escape_name(escape));
                let message = format!("the escape character is a {here} here, a {above} above");
                let hint = "begin all of the files with the same `# escape=` line";
                self.syntax.push(Diagnostic::error(Span::new(*start, *start), message).hint(hint));
            }
        }
    }

    fn part(&mut self, start: usize, end: usize) {
        let text = &self.text[..end];
        let bom = if text[start..].starts_with(BOM) { BOM.len_utf8() } else { 0 };
        let mut lines = Lines::starting(text, start + bom);
        let mut directives = DirectiveReader::default();
        let before = self.items.len();
        while let Some(line) = lines.next() {
            // `#!/usr/bin/env -S kiln build -f` stands above the directives, and is none.
            let is_shebang = line.start == start + bom && line.text.starts_with("#!");
            let directive = if is_shebang { None } else { directives.read(line, &mut self.syntax) };
            let kind = match directive {
                None if is_shebang => ItemKind::Comment(comment_text(line)),
                Some(directive) => {
                    self.apply(&directive);
                    ItemKind::Directive(directive)
                }
                None if line.is_comment() => self.comment(line),
                None if line.is_blank() => ItemKind::Blank,
                None => ItemKind::Instruction(Box::new(self.instruction(line, &mut lines))),
            };
            // The mark at the front of a file belongs to its first item, so that no byte is left over.
            let start = if self.items.len() == before { start } else { line.start };
            self.items.push(Item { span: Span::new(start, lines.at()), kind });
        }
        if self.items.len() == before && bom > 0 {
            self.items.push(Item { span: Span::new(start, end), kind: ItemKind::Blank });
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
                self.syntax.push(Diagnostic::error(directive.value.span, message).hint(hint));
            }
        }
    }

    fn comment(&mut self, line: Physical<'_>) -> ItemKind {
        let word = comment_text(line);
        if word.text.is_empty() {
            self.comments.clear();
        } else {
            self.comments.push(word.text.clone());
        }
        ItemKind::Comment(word)
    }

    fn instruction(&mut self, first: Physical<'a>, lines: &mut Lines<'a>) -> Instruction {
        let before = self.syntax.len() + self.meaning.len();
        let joined = lines::join(first, lines, self.escape);
        let mut instruction = self.one_line(joined.line.all(), 0);
        let indent = first.text.len() - first.text.trim_start().len();
        instruction.span = Span::new(first.start + indent, joined.end);
        instruction.empty_continuations = joined.empty_continuations;
        instruction.comments = std::mem::take(&mut self.comments);
        if takes_heredocs(&instruction) {
            match heredoc::read(&instruction.line, lines, self.text) {
                Ok(heredocs) => instruction.heredocs = heredocs,
                Err(diagnostic) => self.syntax.push(diagnostic),
            }
        }
        if let Some(last) = instruction.heredocs.last() {
            instruction.span.end = last.end_span.end;
        }
        let command = instruction::command(&instruction, &mut self.meaning);
        if self.syntax.len() + self.meaning.len() == before {
            instruction.command = command;
        } else {
            instruction.attempt = command.map(Box::new);
        }
        instruction
    }

    /// Splits a joined line; for `ONBUILD`, the line within it too.
    fn one_line(&mut self, line: Slice<'_>, depth: usize) -> Instruction {
        let parts = flags::split(line, self.escape);
        let keyword = parts.keyword.word();
        if depth == 0 && Keyword::of(&keyword.text).is_none() {
            let follows = matches!(self.items.last(), Some(Item { kind: ItemKind::Instruction(_), .. }));
            self.meaning.push(unknown_instruction(&keyword, follows.then_some(self.escape)));
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
            attempt: None,
        }
    }

    fn arguments(&mut self, keyword: Keyword, rest: Slice<'_>, depth: usize) -> Arguments {
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
                Err(diagnostics) => {
                    self.syntax.extend(diagnostics);
                    text_or_none(rest)
                }
            },
            K::Healthcheck => {
                let end = rest.text.find(char::is_whitespace).unwrap_or(rest.text.len());
                let command = self.json_or(rest.from(end).trim(), text_or_none);
                Arguments::Typed(rest.part(0, end).word(), Box::new(command))
            }
            K::Onbuild if depth == MAX_TRIGGERS => text_or_none(rest),
            K::Onbuild => Arguments::Trigger(Box::new(self.one_line(rest, depth + 1))),
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
                self.syntax.push(Diagnostic::error(rest.span_of(start, end), message).hint(hint));
                otherwise(rest)
            }
        }
    }
}

fn comment_text(line: Physical<'_>) -> Word {
    let text = line.text.trim_start().trim_start_matches('#').trim();
    let start = line.start + (text.as_ptr() as usize - line.text.as_ptr() as usize);
    Word { text: text.to_owned(), span: Span::new(start, start + text.len()) }
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

/// `continues_by` is the character that would join the line to an instruction right above it.
fn unknown_instruction(keyword: &Word, continues_by: Option<char>) -> Diagnostic {
    if keyword.text.is_empty() {
        return Diagnostic::error(keyword.span, "a line that only goes on is no instruction");
    }
    let diagnostic = Diagnostic::error(keyword.span, format!("`{}` is no instruction", keyword.text));
    let upper = keyword.text.to_uppercase();
    match (suggest::nearest(&upper, Keyword::ALL.iter().map(|keyword| keyword.name())), continues_by) {
        (Some(name), _) => diagnostic.hint(format!("did you mean `{name}`?")),
        (None, Some(escape)) => {
            diagnostic.hint(format!("end the line above with a {} if this one continues it", escape_name(escape)))
        }
        (None, None) => diagnostic,
    }
}

fn escape_name(escape: char) -> &'static str {
    if escape == DEFAULT_ESCAPE { "backslash" } else { "backtick" }
}
