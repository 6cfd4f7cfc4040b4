//! Formats one instruction: its tokens as they are, what stands between them in one way.

use kiln_report::Span;

use super::Style;
use super::gap::{self, Gap};
use super::text::{Indent, tidy};
use crate::instruction::Keyword;
use crate::parse::{Arguments, Heredoc, Instruction, PairForm, Word};

/// How far further lines are indented.
const INDENT: &str = "    ";

/// A part of an instruction.
#[derive(Debug, Clone, Copy)]
enum Token {
    /// A keyword, to be in upper case.
    Upper(Span),
    /// A word.
    Word(Span),
    /// A command or value in which white space counts.
    Text(Span),
    /// A trigger: all up to the end.
    Raw(Span),
    /// A JSON array, wherever it begins.
    Json,
}

/// The instruction's lines, heredocs not included, without the last line break; as it was if it cannot be told apart.
pub(super) fn head(text: &str, instruction: &Instruction, escape: char, style: Style) -> String {
    let writer = Writer::new(text, instruction, escape, style);
    writer.write().unwrap_or_else(|| {
        let raw = &text[instruction.span.start..writer.end];
        raw.split('\n').map(|line| line.trim_end_matches('\r')).collect::<Vec<_>>().join("\n")
    })
}

struct Writer<'a> {
    text: &'a str,
    instruction: &'a Instruction,
    escape: char,
    style: Style,
    /// Where the lines end and heredocs begin, without the line break.
    end: usize,
    /// Where the last token ends.
    line_end: usize,
}

impl<'a> Writer<'a> {
    fn new(text: &'a str, instruction: &'a Instruction, escape: char, style: Style) -> Self {
        let heredocs = instruction.heredocs.first().map(|heredoc| heredoc.content_span.start);
        let end = heredocs.map_or(instruction.span.end, |start| {
            let head = &text[..start];
            head.strip_suffix('\n').unwrap_or(head).trim_end_matches('\r').len()
        });
        let joined = instruction.line.text().trim_end().len();
        let line_end = instruction.line.span(joined.saturating_sub(1), joined).end;
        Self { text, instruction, escape, style, end, line_end }
    }

    /// `None` when something stands where nothing is expected.
    fn write(&self) -> Option<String> {
        let tokens = self.tokens()?;
        let keeps_indent = self.style.command_indent.is_none() && tokens.iter().any(|token| self.has_lines(token));
        let indent = self.style.command_indent.map_or(INDENT.to_owned(), |width| " ".repeat(width));
        let mut out = String::new();
        let mut at = self.instruction.span.start;
        for (index, token) in tokens.iter().enumerate() {
            let gap = gap::read(self.text, at, self.end, self.escape);
            if index > 0 {
                gap.write(&mut out, self.escape, if keeps_indent { author_indent(&gap)? } else { &indent });
            } else if gap.end > at {
                return None;
            }
            // By odd white space alone it is no flag.
            if index == self.instruction.flags.len() + 1 && self.text[gap.end..].starts_with("--") {
                return None;
            }
            at = self.token(&mut out, token, gap.end)?;
        }
        self.tail(&mut out, at)?;
        Some(out)
    }

    fn tokens(&self) -> Option<Vec<Token>> {
        let mut tokens = vec![self.upper(&self.instruction.keyword)?];
        tokens.extend(self.instruction.flags.iter().map(|flag| Token::Word(flag.span)));
        self.arguments(&self.instruction.arguments, &mut tokens)?;
        Some(tokens)
    }

    fn arguments(&self, arguments: &Arguments, tokens: &mut Vec<Token>) -> Option<()> {
        match arguments {
            Arguments::None => {}
            Arguments::Text(word) => tokens.push(Token::Text(word.span)),
            Arguments::Words(words) => {
                let is_from = self.keyword() == Some(Keyword::From);
                // To a shell, which heredocs are found by, white space behind such a word and within such a name counts.
                let is_escaped = words.iter().any(|word| word.text.ends_with(['\\', self.escape]));
                let has_space = |heredoc: &Heredoc| heredoc.name.contains(char::is_whitespace);
                if is_escaped || self.instruction.heredocs.iter().any(has_space) {
                    return None;
                }
                for (index, word) in words.iter().enumerate() {
                    tokens.push(if is_from && index == 1 { self.upper(word)? } else { Token::Word(word.span) });
                }
            }
            Arguments::Json(_) => tokens.push(Token::Json),
            Arguments::Pairs(pairs) => {
                for pair in pairs {
                    let end = pair.value.span.end.max(pair.key.span.end);
                    match pair.form {
                        PairForm::Equals => tokens.push(Token::Word(Span::new(pair.key.span.start, end))),
                        // White space behind an escape character is not for us to count.
                        PairForm::Space if pair.key.text.ends_with(self.escape) => return None,
                        PairForm::Space => tokens.extend([Token::Word(pair.key.span), Token::Text(pair.value.span)]),
                    }
                }
            }
            Arguments::Typed(kind, rest) => {
                tokens.push(self.upper(kind)?);
                self.arguments(rest, tokens)?;
            }
            // The trigger's text goes into the image's config as it is, white space at its end too.
            Arguments::Trigger(inner) => {
                let length = self.instruction.line.text().len();
                let end = self.instruction.line.span(length - 1, length).end;
                tokens.push(Token::Raw(Span::new(inner.span.start, end)));
            }
        }
        Some(())
    }

    fn keyword(&self) -> Option<Keyword> {
        Keyword::of(&self.instruction.keyword.text)
    }

    fn upper(&self, word: &Word) -> Option<Token> {
        (self.text[word.span.range()] == word.text).then_some(Token::Upper(word.span))
    }

    /// Whether a token has lines whose indentation counts.
    fn has_lines(&self, token: &Token) -> bool {
        matches!(token, Token::Text(span) | Token::Raw(span) if self.text[span.range()].contains('\n'))
    }

    /// Writes a token that begins at `at`; gives where it ends.
    fn token(&self, out: &mut String, token: &Token, at: usize) -> Option<usize> {
        let span = match token {
            Token::Upper(span) | Token::Word(span) | Token::Text(span) | Token::Raw(span) => *span,
            Token::Json => Span::new(at, self.line_end),
        };
        let raw = self.text.get(span.range()).filter(|_| span.start == at)?;
        match token {
            Token::Upper(_) => out.push_str(&raw.to_ascii_uppercase()),
            Token::Word(_) => out.push_str(&tidy(raw, self.escape, Indent::Kept)),
            Token::Text(_) => out.push_str(&tidy(raw, self.escape, self.indent())),
            Token::Raw(_) => out.push_str(&tidy(raw, self.escape, Indent::Kept)),
            Token::Json => out.push_str(&self.json(raw)?),
        }
        Some(span.end)
    }

    /// Only a command may be indented anew, and only where the escape character is a shell's too.
    fn indent(&self) -> Indent {
        let is_command =
            matches!(self.keyword(), Some(Keyword::Run | Keyword::Cmd | Keyword::Entrypoint | Keyword::Healthcheck));
        match self.style.command_indent {
            Some(width) if is_command && self.escape == '\\' => Indent::Set(width),
            _ => Indent::Kept,
        }
    }

    /// A JSON array on one line gets one space behind each comma; one of several lines was laid out by somebody.
    fn json(&self, raw: &str) -> Option<String> {
        if raw.contains('\n') {
            return Some(tidy(raw, self.escape, Indent::Kept));
        }
        let mut out = String::with_capacity(raw.len());
        let mut rest = raw.strip_prefix('[')?.strip_suffix(']')?;
        out.push('[');
        loop {
            rest = rest.trim_start();
            if rest.is_empty() {
                out.push(']');
                return Some(out);
            }
            let length = string_length(rest)?;
            out.push_str(&rest[..length]);
            rest = rest[length..].trim_start();
            if let Some(more) = rest.strip_prefix(',') {
                out.push_str(", ");
                rest = more;
            }
        }
    }

    /// What comes behind the last token: nothing, or a continuation that leads nowhere, with the comments in it.
    fn tail(&self, out: &mut String, at: usize) -> Option<()> {
        let gap = gap::read(self.text, at, self.end, self.escape);
        // Without the white space behind it an escape character would make the line go on.
        let is_needed = out.ends_with(self.escape) || self.keyword() == Some(Keyword::Onbuild);
        if gap.end < self.end || is_needed && gap.end > at {
            return None;
        }
        for comment in &gap.comments {
            out.push('\n');
            out.push_str(comment);
        }
        Some(())
    }
}

fn author_indent<'a>(gap: &Gap<'a>) -> Option<&'a str> {
    gap.indent.chars().all(|c| matches!(c, ' ' | '\t')).then_some(gap.indent)
}

/// How long the JSON string is that a text begins with.
fn string_length(text: &str) -> Option<usize> {
    let body = text.strip_prefix('"')?;
    let mut is_escaped = false;
    for (at, c) in body.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return Some(at + 2),
            _ => {}
        }
    }
    None
}
