//! The shell lexer: fills variables in, undoes quotes and escapes, splits words.

use std::iter::Peekable;
use std::str::CharIndices;

use super::pattern::{Length, Pattern, PatternError};
use super::{ExpandError, ExpandErrorKind, NoVariables, Variables};

/// `${a:-${b:-…}}` nested deeper than this is refused: it must not exhaust the stack.
const MAX_DEPTH: usize = 100;
/// As many bytes may come from variables, whatever the word. `ENV B=$A$A`, `ENV C=$B$B`, … would else fill any memory
/// in a few lines.
const MAX_FILLED: usize = 4 << 20;

/// How words are read.
#[derive(Debug, Clone, Copy)]
pub struct Lexer {
    /// The character that escapes.
    pub escape: char,
    /// Quotes stay in the result.
    pub keeps_quotes: bool,
    /// Escape characters stay in the result.
    pub keeps_escapes: bool,
    /// Quotes mean nothing.
    pub ignores_quotes: bool,
    /// Variables that are not set stay as they are written.
    pub keeps_unset: bool,
}

/// What became of a word.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expansion {
    /// The word with everything filled in.
    pub text: String,
    /// The same, split at white space outside of quotes.
    pub words: Vec<String>,
    /// The variables it names, in order.
    pub uses: Vec<VariableUse>,
}

/// A place where a variable is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VariableUse {
    /// Its name.
    pub name: String,
    /// From `$` on, in bytes of the word.
    pub start: usize,
    /// The end.
    pub end: usize,
    /// Whether it is set.
    pub is_set: bool,
}

impl Lexer {
    /// Fills in variables and undoes quotes, as arguments of instructions want it.
    pub fn new(escape: char) -> Self {
        Self { escape, keeps_quotes: false, keeps_escapes: false, ignores_quotes: false, keeps_unset: false }
    }

    /// Expands one word.
    pub fn expand(&self, word: &str, variables: &dyn Variables) -> Result<Expansion, ExpandError> {
        let mut run = Run {
            lexer: *self,
            variables,
            word,
            chars: word.char_indices().peekable(),
            keeps_escapes: self.keeps_escapes,
            uses: Vec::new(),
            depth: 0,
            filled: 0,
        };
        let part = run.until(None)?;
        Ok(Expansion { text: part.text, words: part.words, uses: run.uses })
    }

    /// Splits a line into words without filling anything in.
    pub(crate) fn split(&self, line: &str) -> Option<Vec<String>> {
        self.expand(line, &NoVariables).ok().map(|expansion| expansion.words)
    }
}

/// A piece of a word, expanded.
#[derive(Default)]
struct Part {
    text: String,
    words: Vec<String>,
    word: String,
}

impl Part {
    fn push_raw(&mut self, text: &str) {
        self.text.push_str(text);
        self.word.push_str(text);
    }

    /// Adds text whose white space separates words.
    fn push(&mut self, text: &str) {
        self.text.push_str(text);
        let mut pieces = text.split(char::is_whitespace);
        self.word.push_str(pieces.next().unwrap_or_default());
        for piece in pieces {
            if !self.word.is_empty() {
                self.words.push(std::mem::take(&mut self.word));
            }
            self.word.push_str(piece);
        }
    }

    fn finish(mut self) -> Self {
        if !self.word.is_empty() {
            self.words.push(std::mem::take(&mut self.word));
        }
        self
    }
}

struct Run<'a> {
    lexer: Lexer,
    variables: &'a dyn Variables,
    word: &'a str,
    chars: Peekable<CharIndices<'a>>,
    keeps_escapes: bool,
    uses: Vec<VariableUse>,
    depth: usize,
    filled: usize,
}

impl Run<'_> {
    fn peek(&mut self) -> Option<char> {
        self.chars.peek().map(|(_, c)| *c)
    }

    fn next(&mut self) -> Option<char> {
        self.chars.next().map(|(_, c)| c)
    }

    fn at(&mut self) -> usize {
        let length = self.word.len();
        self.chars.peek().map_or(length, |(at, _)| *at)
    }

    fn fail<T>(&mut self, kind: ExpandErrorKind, start: usize) -> Result<T, ExpandError> {
        Err(ExpandError { kind, start, end: self.at() })
    }

    /// Reads on to the character that ends what was opened at a place, or to the end when nothing is open.
    fn until(&mut self, open: Option<(char, usize)>) -> Result<Part, ExpandError> {
        let mut part = Part::default();
        while let Some(c) = self.peek() {
            if open.is_some_and(|(stop, _)| c == stop) {
                self.next();
                return Ok(part.finish());
            }
            match c {
                '$' => {
                    let value = self.dollar()?;
                    part.push(&value);
                }
                '<' => part.push_raw(&self.angle()),
                '\'' if !self.lexer.ignores_quotes => part.push_raw(&self.single_quoted()?),
                '"' if !self.lexer.ignores_quotes => part.push_raw(&self.double_quoted()?),
                c if c == self.lexer.escape => self.escaped(&mut part),
                c => {
                    self.next();
                    part.push(c.encode_utf8(&mut [0; 4]));
                }
            }
        }
        match open {
            None => Ok(part.finish()),
            Some((stop, start)) => self.fail(ExpandErrorKind::Unclosed(stop), start),
        }
    }

    fn escaped(&mut self, part: &mut Part) {
        self.next();
        if self.keeps_escapes {
            part.push_raw(self.lexer.escape.encode_utf8(&mut [0; 4]));
        }
        if let Some(c) = self.next() {
            part.push_raw(c.encode_utf8(&mut [0; 4]));
        }
    }

    /// `<<` with the space that follows it stays together, so that `<< EOF` is one word.
    fn angle(&mut self) -> String {
        self.next();
        if self.peek() != Some('<') {
            return "<".to_owned();
        }
        self.next();
        let mut text = "<<".to_owned();
        while let Some(c @ ('\t' | '\r' | ' ')) = self.peek() {
            text.push(c);
            self.next();
        }
        text
    }

    fn single_quoted(&mut self) -> Result<String, ExpandError> {
        let start = self.at();
        self.next();
        let mut text = String::new();
        loop {
            match self.next() {
                None => return self.fail(ExpandErrorKind::Quote('\''), start),
                Some('\'') => return Ok(self.quoted(text, '\'')),
                Some(c) => text.push(c),
            }
        }
    }

    fn quoted(&self, text: String, quote: char) -> String {
        if self.lexer.keeps_quotes { format!("{quote}{text}{quote}") } else { text }
    }

    fn double_quoted(&mut self) -> Result<String, ExpandError> {
        let start = self.at();
        self.next();
        let mut text = String::new();
        loop {
            match self.peek() {
                None => return self.fail(ExpandErrorKind::Quote('"'), start),
                Some('"') => {
                    self.next();
                    return Ok(self.quoted(text, '"'));
                }
                Some('$') => text.push_str(&self.dollar()?),
                Some(c) if c == self.lexer.escape => self.escaped_in_quotes(&mut text),
                Some(c) => {
                    self.next();
                    text.push(c);
                }
            }
        }
    }

    /// In double quotes only `"`, `$` and the escape itself can be escaped; before all else it is itself.
    fn escaped_in_quotes(&mut self, text: &mut String) {
        self.next();
        let escape = self.lexer.escape;
        if self.keeps_escapes {
            text.push(escape);
        }
        match self.peek() {
            None => {}
            Some(c) if c == '"' || c == '$' || c == escape => {
                self.next();
                text.push(c);
            }
            Some(_) => text.push(escape),
        }
    }

    fn dollar(&mut self) -> Result<String, ExpandError> {
        let start = self.at();
        let value = self.variable(start)?;
        self.filled += value.len();
        let limit = MAX_FILLED.max(self.word.len());
        if self.filled > limit {
            return self.fail(ExpandErrorKind::TooLong(limit), start);
        }
        Ok(value)
    }

    fn variable(&mut self, start: usize) -> Result<String, ExpandError> {
        self.next();
        if self.peek() == Some('{') {
            self.next();
            self.depth += 1;
            if self.depth > MAX_DEPTH {
                return self.fail(ExpandErrorKind::Depth, start);
            }
            let value = self.braced(start);
            self.depth -= 1;
            return value;
        }
        let name = self.name();
        if name.is_empty() {
            return Ok("$".to_owned());
        }
        let value = self.look_up(&name, start);
        Ok(match value {
            None if self.lexer.keeps_unset => format!("${name}"),
            value => value.unwrap_or_default(),
        })
    }

    /// Looks a variable up and notes its use; the use ends where reading stands.
    fn look_up(&mut self, name: &str, start: usize) -> Option<String> {
        let value = self.variables.value(name).map(str::to_owned);
        let end = self.at();
        self.uses.push(VariableUse { name: name.to_owned(), start, end, is_set: value.is_some() });
        value
    }

    fn braced(&mut self, start: usize) -> Result<String, ExpandError> {
        match self.peek() {
            None => return self.fail(ExpandErrorKind::Unclosed('}'), start),
            Some('{' | '}' | ':') => return self.fail(ExpandErrorKind::NoName, start),
            Some(_) => {}
        }
        let name = self.name();
        match self.next() {
            Some('}') => {
                let value = self.look_up(&name, start);
                Ok(match value {
                    None if self.lexer.keeps_unset => format!("${{{name}}}"),
                    value => value.unwrap_or_default(),
                })
            }
            Some(':') => match self.next() {
                Some(c @ ('+' | '-' | '?')) => self.defaulted(&Modified { name, start, modifier: c, colon: ":" }),
                Some(c) => self.fail(ExpandErrorKind::Modifier(format!(":{c}")), start),
                None => self.fail(ExpandErrorKind::Unclosed('}'), start),
            },
            Some(c @ ('+' | '-' | '?')) => self.defaulted(&Modified { name, start, modifier: c, colon: "" }),
            Some(c @ ('#' | '%')) => self.trimmed(&Modified { name, start, modifier: c, colon: "" }),
            Some('/') => self.replaced(&Modified { name, start, modifier: '/', colon: "" }),
            Some(c) if c.is_whitespace() => self.fail(ExpandErrorKind::Unclosed('}'), start),
            Some(c) => self.fail(ExpandErrorKind::Modifier(c.to_string()), start),
            None => self.fail(ExpandErrorKind::Unclosed('}'), start),
        }
    }

    /// Reads a part of `${…}` up to `stop`.
    fn operand(&mut self, stop: char, start: usize, keeps_escapes: bool) -> Result<String, ExpandError> {
        let before = std::mem::replace(&mut self.keeps_escapes, keeps_escapes);
        let part = self.until(Some((stop, start)));
        self.keeps_escapes = before;
        part.map(|part| part.text)
    }

    /// `${v:-w}`, `${v:+w}`, `${v:?w}` and the same without the colon.
    fn defaulted(&mut self, m: &Modified) -> Result<String, ExpandError> {
        let word = self.operand('}', m.start, false)?;
        let value = self.look_up(&m.name, m.start);
        if self.lexer.keeps_unset && value.is_none() {
            return Ok(format!("${{{}{}{}{word}}}", m.name, m.colon, m.modifier));
        }
        let is_missing = value.as_ref().is_none_or(|value| !m.colon.is_empty() && value.is_empty());
        match m.modifier {
            '-' if is_missing => Ok(word),
            '+' if is_missing => Ok(String::new()),
            '+' => Ok(word),
            '?' if is_missing => {
                let reason = match value {
                    _ if !word.is_empty() => format!("is missing: {word}"),
                    None => "must be set".to_owned(),
                    Some(_) => "must not be empty".to_owned(),
                };
                self.fail(ExpandErrorKind::Required { name: m.name.clone(), reason }, m.start)
            }
            _ => Ok(value.unwrap_or_default()),
        }
    }

    /// `${v#p}`, `${v##p}`, `${v%p}`, `${v%%p}`.
    fn trimmed(&mut self, m: &Modified) -> Result<String, ExpandError> {
        let word = self.operand('}', m.start, true)?;
        let value = self.look_up(&m.name, m.start);
        if self.lexer.keeps_unset && value.is_none() {
            return Ok(format!("${{{}{}{word}}}", m.name, m.modifier));
        }
        let (pattern, length) = match word.strip_prefix(m.modifier) {
            Some(rest) => (rest, Length::Longest),
            None => (word.as_str(), Length::Shortest),
        };
        let value = value.unwrap_or_default();
        let result = Pattern::new(pattern).and_then(|p| match m.modifier {
            '%' => p.trim_suffix(&value, length),
            _ => p.trim_prefix(&value, length),
        });
        self.pattern_result(result, pattern, m.start)
    }

    /// `${v/p/r}`, `${v//p/r}`.
    fn replaced(&mut self, m: &Modified) -> Result<String, ExpandError> {
        let everywhere = self.peek() == Some('/');
        if everywhere {
            self.next();
        }
        let pattern = self.operand('/', m.start, true)?;
        let with = self.operand('}', m.start, true)?;
        let value = self.look_up(&m.name, m.start);
        if self.lexer.keeps_unset && value.is_none() {
            let slashes = if everywhere { "//" } else { "/" };
            return Ok(format!("${{{}{slashes}{pattern}/{with}}}", m.name));
        }
        let value = value.unwrap_or_default();
        let result = Pattern::new(&pattern).and_then(|p| match everywhere {
            true => p.replace_all(&value, &with),
            false => p.replace_first(&value, &with),
        });
        self.pattern_result(result, &pattern, m.start)
    }

    fn pattern_result(
        &mut self,
        result: Result<String, PatternError>,
        pattern: &str,
        start: usize,
    ) -> Result<String, ExpandError> {
        let shown = || pattern.chars().take(100).collect();
        match result {
            Ok(text) => Ok(text),
            Err(PatternError::Escape(_)) => self.fail(ExpandErrorKind::Pattern(shown()), start),
            Err(PatternError::TooCostly) => self.fail(ExpandErrorKind::Costly(shown()), start),
        }
    }

    /// A name; digits are a name of their own, and so is each of the shell's special parameters.
    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.peek() {
            Some(c) if c.is_ascii_digit() => {
                while let Some(c) = self.peek().filter(char::is_ascii_digit) {
                    name.push(c);
                    self.next();
                }
                return name;
            }
            Some(c @ ('@' | '*' | '#' | '?' | '-' | '$' | '!')) => {
                self.next();
                return c.to_string();
            }
            _ => {}
        }
        while let Some(c) = self.peek().filter(|c| c.is_alphanumeric() || *c == '_') {
            name.push(c);
            self.next();
        }
        name
    }
}

/// A variable with a modifier.
struct Modified {
    name: String,
    start: usize,
    modifier: char,
    colon: &'static str,
}
