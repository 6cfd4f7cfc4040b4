//! Words of a script: text in quotes and without, variables, substitutions.

/// A word.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Word {
    /// Its text, quotes taken off; variables and substitutions as they are written.
    pub(crate) text: String,
    pub(crate) parts: Vec<Part>,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// A piece of a word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) kind: Kind,
    pub(crate) quoting: Quoting,
    /// Where its text stands, without the quotes.
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// Kinds of piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Variable(Variable),
    /// `$(…)` or backquotes, with the place of the script in it.
    Substitution(usize, usize),
    /// `$((…))`.
    Arithmetic,
}

/// `$NAME` or `${NAME…}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Variable {
    pub(crate) name: String,
    /// What follows the name in braces.
    pub(crate) operator: String,
}

/// How a piece is quoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quoting {
    None,
    Single,
    Double,
    Escaped,
}

impl Word {
    /// A word that is only text.
    pub(crate) fn literal(text: &str, start: usize, end: usize) -> Self {
        let part = Part { kind: Kind::Text, quoting: Quoting::Single, start, end };
        Self { text: text.to_owned(), parts: vec![part], start, end }
    }

    /// Whether its text is all there is: no variable, no substitution.
    pub(crate) fn is_literal(&self) -> bool {
        self.parts.iter().all(|part| part.kind == Kind::Text)
    }

    /// Its variables.
    pub(crate) fn variables(&self) -> impl Iterator<Item = (&Variable, &Part)> {
        self.parts.iter().filter_map(|part| match &part.kind {
            Kind::Variable(variable) => Some((variable, part)),
            _ => None,
        })
    }

    /// Whether any of it is quoted.
    pub(crate) fn is_quoted(&self) -> bool {
        self.parts.iter().any(|part| part.quoting != Quoting::None)
    }
}

/// Characters that end a word.
const BREAKS: &[u8] = b" \t\r\n;&|<>()";

/// Reads the word at a place. What stands there begins no operator.
pub(super) fn read(script: &str, start: usize) -> Word {
    let mut reader = Reader { script, at: start, word: Word { start, ..Word::default() } };
    reader.unquoted();
    reader.word.end = reader.at;
    reader.word
}

struct Reader<'a> {
    script: &'a str,
    at: usize,
    word: Word,
}

impl Reader<'_> {
    fn byte(&self, ahead: usize) -> Option<u8> {
        self.script.as_bytes().get(self.at + ahead).copied()
    }

    fn part(&mut self, kind: Kind, quoting: Quoting, start: usize, end: usize) {
        self.word.text.push_str(&self.script[start..end]);
        if self.word.parts.is_empty() {
            // Most words have one part, and a script may have millions of words.
            self.word.parts.reserve_exact(1);
        }
        self.word.parts.push(Part { kind, quoting, start, end });
    }

    fn unquoted(&mut self) {
        while let Some(byte) = self.byte(0).filter(|byte| !BREAKS.contains(byte)) {
            match byte {
                b'\'' => self.single(),
                b'"' => self.double(),
                b'\\' => self.escape(),
                b'$' if self.byte(1) == Some(b'\'') => {
                    self.at += 1;
                    self.single();
                }
                b'$' if self.byte(1) == Some(b'"') => self.at += 1,
                b'$' | b'`' if self.expansion(Quoting::None) => {}
                _ => self.text(Quoting::None),
            }
        }
    }

    /// A stretch of text; at least one character.
    fn text(&mut self, quoting: Quoting) {
        let start = self.at;
        let ends = |byte: u8| match quoting {
            Quoting::Double => b"\"\\$`".contains(&byte),
            _ => b"'\"\\$`".contains(&byte) || BREAKS.contains(&byte),
        };
        let bytes = &self.script.as_bytes()[start + 1..];
        self.at = start + 1 + bytes.iter().position(|byte| ends(*byte)).unwrap_or(bytes.len());
        self.part(Kind::Text, quoting, start, self.at);
    }

    fn single(&mut self) {
        let start = self.at + 1;
        let length = self.script[start..].find('\'');
        let end = length.map_or(self.script.len(), |length| start + length);
        self.part(Kind::Text, Quoting::Single, start, end);
        self.at = if length.is_some() { end + 1 } else { end };
    }

    fn escape(&mut self) {
        let start = self.at + 1;
        let Some(c) = self.script[start..].chars().next() else {
            self.at = start;
            return;
        };
        self.at = start + c.len_utf8();
        // A line that goes on leaves nothing.
        if c != '\n' {
            self.part(Kind::Text, Quoting::Escaped, start, self.at);
        }
    }

    fn double(&mut self) {
        self.at += 1;
        let begin = self.at;
        while let Some(byte) = self.byte(0).filter(|byte| *byte != b'"') {
            match byte {
                b'\\' => self.escape_in_double(),
                b'$' | b'`' if self.expansion(Quoting::Double) => {}
                _ => self.text(Quoting::Double),
            }
        }
        if self.at == begin {
            self.part(Kind::Text, Quoting::Double, begin, begin);
        }
        self.at += usize::from(self.byte(0).is_some());
    }

    /// Between double quotes a backslash only escapes what means something there.
    fn escape_in_double(&mut self) {
        match self.byte(1) {
            Some(b'$' | b'`' | b'"' | b'\\' | b'\n') => self.escape(),
            _ => self.text(Quoting::Double),
        }
    }

    /// A variable or a substitution; nothing when the `$` stands for itself.
    fn expansion(&mut self, quoting: Quoting) -> bool {
        let start = self.at;
        let kind = match (self.byte(0), self.byte(1), self.byte(2)) {
            (Some(b'`'), ..) => {
                self.at = backquoted(self.script, start);
                Kind::Substitution(start + 1, inner_end(self.script, start + 1, self.at))
            }
            (_, Some(b'('), Some(b'(')) => {
                self.at = balanced(self.script, start + 2, b')');
                Kind::Arithmetic
            }
            (_, Some(b'('), _) => {
                self.at = balanced(self.script, start + 2, b')');
                Kind::Substitution(start + 2, inner_end(self.script, start + 2, self.at))
            }
            (_, Some(b'{'), _) => {
                self.at = balanced(self.script, start + 2, b'}');
                Kind::Variable(in_braces(self.script[start + 2..self.at].trim_end_matches('}')))
            }
            (_, Some(byte), _) if is_name(byte) || b"@*#?-$!".contains(&byte) => {
                let rest = &self.script.as_bytes()[start + 1..];
                let is_long = is_name(byte) && !byte.is_ascii_digit();
                let length = if is_long { name_length(rest) } else { 1 };
                self.at = start + 1 + length;
                let name = self.script[start + 1..self.at].to_owned();
                Kind::Variable(Variable { name, operator: String::new() })
            }
            _ => return false,
        };
        self.part(kind, quoting, start, self.at);
        true
    }
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn name_length(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| !is_name(*byte)).unwrap_or(bytes.len())
}

fn in_braces(inner: &str) -> Variable {
    let prefix = inner.len() - inner.trim_start_matches(['#', '!']).len();
    let name = &inner[prefix..];
    let length = name_length(name.as_bytes());
    let operator = format!("{}{}", &inner[..prefix], &name[length..]);
    Variable { name: name[..length].to_owned(), operator }
}

/// Where a stretch between backquotes ends, the quote included.
fn backquoted(script: &str, start: usize) -> usize {
    let bytes = script.as_bytes();
    let mut at = start + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 2,
            b'`' => return at + 1,
            _ => at += 1,
        }
    }
    // An escaped character may be longer than a byte.
    script.len()
}

/// Where what began before `at` and closes with `close` ends, the closing byte included.
pub(super) fn balanced(script: &str, mut at: usize, close: u8) -> usize {
    let bytes = script.as_bytes();
    let mut open = vec![close];
    let mut quotes = 0usize;
    while let (Some(byte), Some(wanted)) = (bytes.get(at).copied(), open.last().copied()) {
        let in_quotes = wanted == b'"';
        match byte {
            _ if byte == wanted => {
                open.pop();
                quotes -= usize::from(in_quotes);
            }
            b'\\' => at += 1,
            b'\'' if !in_quotes && (wanted == b')' || quotes == 0) => {
                at += script.get(at + 1..).and_then(|rest| rest.find('\'')).map_or(script.len(), |length| length + 1);
            }
            b'"' if !in_quotes => {
                open.push(b'"');
                quotes += 1;
            }
            b'`' => at = backquoted(script, at) - 1,
            b'$' if bytes.get(at + 1) == Some(&b'(') => {
                at += 1;
                open.push(b')');
            }
            b'$' if bytes.get(at + 1) == Some(&b'{') => {
                at += 1;
                open.push(b'}');
            }
            b'(' if wanted == b')' => open.push(b')'),
            b'#' if wanted == b')' && at > 0 && bytes[at - 1].is_ascii_whitespace() => {
                at += script.get(at..).and_then(|rest| rest.find('\n')).unwrap_or(script.len());
            }
            _ => {}
        }
        at += 1;
    }
    floor(script, at)
}

/// Where the script within a substitution ends, which may lack its last byte.
pub(super) fn inner_end(script: &str, start: usize, end: usize) -> usize {
    if end > start && script[..end].ends_with([')', '`']) { end - 1 } else { end }
}

/// The nearest place between characters.
fn floor(script: &str, at: usize) -> usize {
    let mut at = at.min(script.len());
    while !script.is_char_boundary(at) {
        at += 1;
    }
    at
}
