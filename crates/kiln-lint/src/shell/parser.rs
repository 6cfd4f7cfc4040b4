//! From a script's text to its commands.

use std::collections::VecDeque;

use super::call::{self, assigned_name};
use super::words::{self, Kind, Quoting, Word};
use super::{After, Assignment, Code, Redirect, RedirectKind, Scope, ScopeKind, Simple};

/// Substitutions nested deeper are not looked into, compounds nested deeper are not told apart.
const MAX_SUBSTITUTIONS: usize = 16;
const MAX_COMPOUNDS: usize = 200;

pub(super) fn parse(text: &str) -> Code {
    let mut code = Code { scopes: vec![Scope { kind: ScopeKind::Script, parent: 0 }], ..Code::default() };
    let mut waiting = VecDeque::from([Stretch { start: 0, end: text.len(), scope: 0, depth: 0 }]);
    while let Some(stretch) = waiting.pop_front() {
        let mut parser = Parser {
            script: &text[..stretch.end],
            at: stretch.start,
            code: &mut code,
            scope: stretch.scope,
            open: Vec::new(),
            mode: Mode::Command,
            current: Simple::default(),
            redirect: None,
            heredocs: Vec::new(),
            inner: Vec::new(),
            is_closed: false,
            is_function: false,
        };
        parser.run();
        let inner = std::mem::take(&mut parser.inner);
        if stretch.depth < MAX_SUBSTITUTIONS {
            waiting.extend(inner.into_iter().map(|(start, end, parent)| {
                code.scopes.push(Scope { kind: ScopeKind::Substitution, parent });
                Stretch { start, end, scope: code.scopes.len() - 1, depth: stretch.depth + 1 }
            }));
        }
    }
    assigned(&mut code);
    code.errexit = first_that_sets(&code, "e");
    code.pipefail = first_that_sets(&code, "pipefail");
    code
}

/// Where the first command stands that sets an option; those of substitutions come late.
fn first_that_sets(code: &Code, option: &str) -> Option<usize> {
    code.commands.iter().filter(|command| command.sets(option)).map(|command| command.start).min()
}

/// A part of the text to read.
struct Stretch {
    start: usize,
    end: usize,
    scope: usize,
    depth: usize,
}

/// What is open and wants to be closed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    Paren,
    Brace,
    If,
    Loop,
    Case,
}

/// What words mean.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Command,
    /// `for NAME`: the next word is a variable.
    Name,
    /// `in a b c`, up to the end of the line.
    List,
    /// `case WORD in`.
    Subject,
    /// `a | b)`.
    Pattern,
    /// `function NAME`.
    Function,
    /// `[[ … ]]`.
    Test,
}

struct Parser<'a, 'c> {
    script: &'a str,
    at: usize,
    code: &'c mut Code,
    scope: usize,
    /// What is open, with the scope around it.
    open: Vec<(Open, usize)>,
    mode: Mode,
    current: Simple,
    /// What the next word is the file of.
    redirect: Option<RedirectKind>,
    /// Names of documents that begin on the next line, and whether tabs are taken off.
    heredocs: Vec<(String, bool)>,
    /// Substitutions, each with the scope it stands in.
    inner: Vec<(usize, usize, usize)>,
    /// Whether a compound just ended.
    is_closed: bool,
    /// Whether the next `{` or `(` begins a function.
    is_function: bool,
}

impl Parser<'_, '_> {
    fn byte(&self, ahead: usize) -> Option<u8> {
        self.script.as_bytes().get(self.at + ahead).copied()
    }

    fn run(&mut self) {
        while let Some(byte) = self.byte(0) {
            match byte {
                b' ' | b'\t' | b'\r' => self.at += 1,
                b'\\' if self.byte(1) == Some(b'\n') => self.at += 2,
                b'\n' => self.line_break(),
                b'#' => self.at += self.script[self.at..].find('\n').unwrap_or(self.script.len() - self.at),
                b'<' | b'>' => self.arrow(byte),
                b'&' if self.byte(1) == Some(b'>') => {
                    self.at += 2 + usize::from(self.byte(2) == Some(b'>'));
                    self.redirect = Some(RedirectKind::Write);
                }
                b';' | b'&' | b'|' | b'(' | b')' if self.mode == Mode::Test => self.at += 1,
                b';' | b'&' | b'|' => self.operator(byte),
                b'(' => self.open_paren(),
                b')' => self.close_paren(),
                _ => self.word(),
            }
        }
        self.end(After::End);
    }

    fn line_break(&mut self) {
        self.at += 1;
        self.end(After::End);
        if matches!(self.mode, Mode::Name | Mode::List | Mode::Function) {
            self.mode = Mode::Command;
        }
        for (name, chomp) in std::mem::take(&mut self.heredocs) {
            while self.at < self.script.len() {
                let rest = &self.script[self.at..];
                let line = &rest[..rest.find('\n').unwrap_or(rest.len())];
                self.at = self.script.len().min(self.at + line.len() + 1);
                if (if chomp { line.trim_start_matches('\t') } else { line }) == name {
                    break;
                }
            }
        }
    }

    fn operator(&mut self, byte: u8) {
        let is_double = self.byte(1) == Some(byte);
        self.at += 1 + usize::from(is_double || byte == b'|' && self.byte(1) == Some(b'&'));
        if self.mode == Mode::Pattern {
            return;
        }
        let after = match (byte, is_double) {
            (b'&', true) => After::And,
            (b'&', false) => After::Background,
            (b'|', true) => After::Or,
            (b'|', false) => After::Pipe,
            _ => After::End,
        };
        self.end(after);
        self.mode = match self.open.last() {
            Some((Open::Case, _)) if byte == b';' && is_double => Mode::Pattern,
            _ => Mode::Command,
        };
    }

    /// Ends the current command.
    fn end(&mut self, after: After) {
        self.redirect = None;
        let mut done = std::mem::take(&mut self.current);
        if !done.words.is_empty() || !done.assignments.is_empty() || !done.redirects.is_empty() {
            done.program = call::program(&done.words);
            done.after = after;
            done.scope = self.scope;
            self.code.commands.push(done);
        } else if let Some(last) = self.code.commands.last_mut().filter(|_| self.is_closed) {
            last.after = after;
        }
        self.is_closed = false;
    }

    fn open_scope(&mut self, open: Open, kind: ScopeKind) {
        self.end(After::End);
        let parent = self.scope;
        if self.open.len() < MAX_COMPOUNDS {
            self.open.push((open, parent));
            self.enter(kind, parent);
        }
    }

    fn enter(&mut self, kind: ScopeKind, parent: usize) {
        self.code.scopes.push(Scope { kind, parent });
        self.scope = self.code.scopes.len() - 1;
    }

    /// Goes on to the next part of what is open.
    fn branch(&mut self, open: Open, kind: ScopeKind) {
        self.end(After::End);
        if let Some((_, parent)) = self.open.last().copied().filter(|(last, _)| *last == open) {
            self.enter(kind, parent);
        }
    }

    fn close(&mut self, open: Open) {
        self.end(After::End);
        if let Some(index) = self.open.iter().rposition(|(other, _)| *other == open) {
            self.scope = self.open[index].1;
            self.open.truncate(index);
            self.is_closed = true;
        }
        self.mode = Mode::Command;
    }

    fn open_paren(&mut self) {
        self.at += 1;
        let is_empty = self.current.words.is_empty() && self.current.assignments.is_empty();
        match self.byte(0) {
            _ if self.mode == Mode::Pattern => {}
            Some(b'(') if is_empty => self.skip_paren(),
            Some(b')') if self.current.words.len() == 1 || self.mode == Mode::Function => {
                self.at += 1;
                self.current = Simple::default();
                self.mode = Mode::Command;
                self.is_function = true;
            }
            _ if is_empty => {
                let kind = self.kind_of_block(ScopeKind::Subshell);
                self.open_scope(Open::Paren, kind);
            }
            // Elements of an array, or a pattern of bash.
            _ => self.skip_paren(),
        }
    }

    fn kind_of_block(&mut self, otherwise: ScopeKind) -> ScopeKind {
        if std::mem::take(&mut self.is_function) { ScopeKind::Function } else { otherwise }
    }

    fn skip_paren(&mut self) {
        self.at = words::balanced(self.script, self.at, b')');
    }

    fn close_paren(&mut self) {
        self.at += 1;
        if self.mode == Mode::Pattern {
            self.mode = Mode::Command;
        } else {
            self.close(Open::Paren);
        }
    }

    fn arrow(&mut self, byte: u8) {
        let rest = &self.script[self.at..];
        if self.mode == Mode::Test {
            self.at += 1;
        } else if rest[1..].starts_with('(') {
            let start = self.at + 2;
            self.at = words::balanced(self.script, start, b')');
            self.inner.push((start, words::inner_end(self.script, start, self.at), self.scope));
        } else if let Some(rest) = rest.strip_prefix("<<").filter(|rest| !rest.starts_with('<')) {
            self.at += 2 + usize::from(rest.starts_with('-'));
            self.heredocs.push((String::new(), rest.starts_with('-')));
            self.redirect = Some(RedirectKind::Heredoc);
        } else {
            self.at += rest.len() - rest.trim_start_matches(['<', '>', '|']).len();
            self.redirect = Some(if byte == b'>' { RedirectKind::Write } else { RedirectKind::Read });
            self.copied_descriptor();
        }
    }

    /// `>&2` writes to no file.
    fn copied_descriptor(&mut self) {
        let Some(rest) = self.script[self.at..].strip_prefix('&') else { return };
        let length = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '-').len();
        self.at += 1 + length;
        if length > 0 {
            self.redirect = None;
        }
    }

    fn word(&mut self) {
        let word = words::read(self.script, self.at);
        self.at = word.end;
        for part in &word.parts {
            if let Kind::Substitution(start, end) = part.kind {
                self.inner.push((start, end, self.scope));
            }
        }
        let is_number = !word.text.is_empty() && word.text.bytes().all(|b| b.is_ascii_digit());
        if is_number && matches!(self.byte(0), Some(b'<' | b'>')) {
            return;
        }
        if let Some(kind) = self.redirect.take() {
            return self.redirected(kind, word);
        }
        match self.mode {
            Mode::Command if self.current.words.is_empty() && self.current.assignments.is_empty() => self.first(word),
            Mode::Command => self.push(word),
            Mode::Test => {
                let is_end = word.text == "]]";
                self.push(word);
                if is_end {
                    self.mode = Mode::Command;
                }
            }
            Mode::Name => {
                let assignment = Assignment { name: word.text.clone(), value: None, start: word.start };
                self.code.assigned.push(assignment);
                self.mode = Mode::List;
            }
            Mode::Pattern if word.text == "esac" => self.close(Open::Case),
            Mode::Subject if word.text == "in" => self.mode = Mode::Pattern,
            Mode::Function => {
                self.mode = Mode::Command;
                self.is_function = true;
                // `function name()` has its parentheses skipped as well.
                let rest = self.script[self.at..].trim_start_matches(' ');
                if let Some(rest) = rest.strip_prefix("()") {
                    self.at = self.script.len() - rest.len();
                }
            }
            Mode::List | Mode::Subject | Mode::Pattern => self.code.loose.push(word),
        }
    }

    fn redirected(&mut self, kind: RedirectKind, target: Word) {
        if let Some((name, _)) = self.heredocs.last_mut().filter(|_| kind == RedirectKind::Heredoc) {
            name.clone_from(&target.text);
        }
        if self.current.words.is_empty() && self.current.redirects.is_empty() {
            self.current.start = target.start;
        }
        self.current.end = target.end;
        self.current.redirects.push(Redirect { kind, target });
    }

    /// The first word of a command may be one of the shell's own.
    fn first(&mut self, word: Word) {
        let name = if word.is_quoted() { "" } else { word.text.as_str() };
        match name {
            "!" | "time" => {}
            "if" => self.open_scope(Open::If, ScopeKind::Condition),
            "elif" => self.branch(Open::If, ScopeKind::Condition),
            "then" | "else" => self.branch(Open::If, ScopeKind::Body),
            "fi" => self.close(Open::If),
            "while" | "until" => self.open_scope(Open::Loop, ScopeKind::Condition),
            "do" => self.branch(Open::Loop, ScopeKind::Body),
            "done" => self.close(Open::Loop),
            "for" | "select" => {
                self.open_scope(Open::Loop, ScopeKind::Condition);
                self.mode = Mode::Name;
            }
            "case" => {
                self.open_scope(Open::Case, ScopeKind::Case);
                self.mode = Mode::Subject;
            }
            "esac" => self.close(Open::Case),
            "{" => {
                let kind = self.kind_of_block(ScopeKind::Braces);
                self.open_scope(Open::Brace, kind);
            }
            "}" => self.close(Open::Brace),
            "function" => self.mode = Mode::Function,
            "[[" => {
                self.push(word);
                self.mode = Mode::Test;
            }
            _ => self.push(word),
        }
    }

    fn push(&mut self, word: Word) {
        let current = &mut self.current;
        if current.words.is_empty() && current.assignments.is_empty() {
            current.start = if current.redirects.is_empty() { word.start } else { current.start.min(word.start) };
        }
        current.end = word.end;
        match assignment(&word).filter(|_| current.words.is_empty()) {
            Some(assignment) => current.assignments.push(assignment),
            None => current.words.push(word),
        }
    }
}

/// Reads `NAME=value`.
fn assignment(word: &Word) -> Option<Assignment> {
    let first = word.parts.first().filter(|part| part.kind == Kind::Text && part.quoting == Quoting::None)?;
    let head = &word.text[..first.end - first.start];
    let name = assigned_name(head)?;
    let skip = head.find('=')? + 1;
    let mut parts = word.parts.clone();
    parts[0].start += skip;
    parts.retain(|part| part.start < part.end || part.quoting != Quoting::None);
    let text = word.text[skip..].to_owned();
    let value = Word { text, parts, start: word.start + skip, end: word.end };
    Some(Assignment { name: name.to_owned(), value: Some(value), start: word.start })
}

/// Collects what the commands set.
fn assigned(code: &mut Code) {
    let mut found = Vec::new();
    for command in &code.commands {
        found.extend(command.assignments.iter().cloned());
        let [program, rest @ ..] = command.words.as_slice() else { continue };
        let unknown = |name: &str, word: &Word| Assignment { name: name.to_owned(), value: None, start: word.start };
        match program.text.as_str() {
            "export" | "local" | "readonly" | "declare" | "typeset" => {
                let set = rest.iter().map(|word| assignment(word).unwrap_or_else(|| unknown(&word.text, word)));
                found.extend(set);
            }
            "read" | "getopts" | "mapfile" | "readarray" | "printf" | "let" | "unset" => {
                let name = |word: &Word| unknown(assigned_name(&word.text).unwrap_or(&word.text), word);
                found.extend(rest.iter().map(name));
            }
            _ => {}
        }
        for (variable, part) in command.words.iter().flat_map(Word::variables) {
            if variable.operator.starts_with(":=") || variable.operator.starts_with('=') {
                found.push(Assignment { name: variable.name.clone(), value: None, start: part.start });
            }
        }
    }
    code.assigned.extend(found);
}
