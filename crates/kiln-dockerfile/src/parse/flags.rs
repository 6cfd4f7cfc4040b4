//! Splits an instruction into keyword, flags and the rest.

use super::lines::Slice;
use super::{Flag, Word};

/// An instruction's line in its three parts.
pub(crate) struct Parts<'a> {
    pub(crate) keyword: Slice<'a>,
    pub(crate) flags: Vec<Flag>,
    pub(crate) rest: Slice<'a>,
}

/// The white space that separates words: not every kind that Unicode knows.
pub(crate) fn is_separator(c: char) -> bool {
    matches!(c, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ')
}

/// Splits a line.
pub(crate) fn split(line: Slice<'_>, escape: char) -> Parts<'_> {
    let line = line.trim();
    let end = line.text.find(is_separator).unwrap_or(line.text.len());
    let rest = line.from(end).trim();
    let (flags, used) = flags(rest, escape);
    Parts { keyword: line.part(0, end), flags, rest: rest.from(used).trim() }
}

/// Reads words that begin with `--`; gives them and how much of the text they take. `--` alone ends them.
fn flags(rest: Slice<'_>, escape: char) -> (Vec<Flag>, usize) {
    let mut flags = Vec::new();
    let mut at = 0;
    loop {
        at += rest.text[at..].find(|c| !is_separator(c)).unwrap_or(rest.text.len() - at);
        if !rest.text[at..].starts_with("--") {
            return (flags, at);
        }
        let raw = raw_word(&rest.text[at..], escape);
        let word = rest.part(at, at + raw.length);
        at += raw.length;
        if raw.text == "--" {
            return (flags, at);
        }
        if raw.was_quoted || !raw.text.is_empty() {
            flags.push(flag(word, &raw));
        }
    }
}

struct RawWord {
    text: String,
    /// How many bytes it takes.
    length: usize,
    was_quoted: bool,
    /// Where the first `=` is: in the text, and in the bytes.
    equals: Option<(usize, usize)>,
}

fn raw_word(text: &str, escape: char) -> RawWord {
    let mut word = RawWord { text: String::new(), length: text.len(), was_quoted: false, equals: None };
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match (quote, c) {
            (None, c) if c.is_whitespace() => {
                word.length = at;
                break;
            }
            (None, '\'' | '"') => {
                quote = Some(c);
                word.was_quoted = true;
            }
            (Some(open), c) if c == open => quote = None,
            (_, c) if c == escape => word.text.extend(chars.next().map(|(_, c)| c)),
            (_, c) => {
                if c == '=' && word.equals.is_none() {
                    word.equals = Some((word.text.len(), at));
                }
                word.text.push(c);
            }
        }
    }
    word
}

fn flag(word: Slice<'_>, raw: &RawWord) -> Flag {
    let (name, name_end, value) = match raw.equals {
        Some((at, raw_at)) => {
            let value = Word { text: raw.text[at + 1..].to_owned(), span: word.from(raw_at + 1).span() };
            (&raw.text[..at], raw_at, Some(value))
        }
        None => (raw.text.as_str(), word.text.len(), None),
    };
    let name = name.strip_prefix("--").unwrap_or(name).to_owned();
    Flag { name: Word { text: name, span: word.span_of(2.min(name_end), name_end) }, value, span: word.span() }
}

#[cfg(test)]
mod tests {
    use super::super::lines::{Lines, join};
    use super::*;

    /// Keyword, flags as `name=value`, rest.
    fn parts(text: &str) -> (String, Vec<String>, String) {
        let mut lines = Lines::starting(text, 0);
        let first = lines.next().unwrap();
        let joined = join(first, &mut lines, '\\');
        let parts = split(joined.line.all(), '\\');
        let flags = parts.flags.iter().map(|flag| match &flag.value {
            Some(value) => format!("{}={}", flag.name.text, value.text),
            None => flag.name.text.clone(),
        });
        (parts.keyword.text.to_owned(), flags.collect(), parts.rest.text.to_owned())
    }

    #[test]
    fn flags_are_taken_off_until_a_word_that_is_none() {
        for (text, keyword, flags, rest) in [
            ("CMD a b", "CMD", vec![], "a b"),
            ("CMD", "CMD", vec![], ""),
            ("  CMD  --a --b=c=d  x --e", "CMD", vec!["a", "b=c=d"], "x --e"),
            ("CMD --a -- --b", "CMD", vec!["a"], "--b"),
            ("CMD --a='x y'\"z\" w", "CMD", vec!["a=x yz"], "w"),
            ("CMD --a=\\ b\\\"c", "CMD", vec!["a= b\"c"], ""),
            ("CMD -x", "CMD", vec![], "-x"),
            ("CMD --a=é x", "CMD", vec!["a=é"], "x"),
            ("CMD\t--a", "CMD", vec!["a"], ""),
        ] {
            let wanted = (keyword.to_owned(), flags.iter().map(ToString::to_string).collect(), rest.to_owned());
            assert_eq!(parts(text), wanted, "{text}");
        }
    }

    #[test]
    fn flags_know_their_places() {
        let text = "RUN --mount=type=bind \\\n  --'network'=none x";
        let mut lines = Lines::starting(text, 0);
        let first = lines.next().unwrap();
        let joined = join(first, &mut lines, '\\');
        let parts = split(joined.line.all(), '\\');
        let place = |span: kiln_report::Span| &text[span.range()];
        assert_eq!(place(parts.flags[0].name.span), "mount");
        assert_eq!(place(parts.flags[0].value.as_ref().unwrap().span), "type=bind");
        assert_eq!(place(parts.flags[1].span), "--'network'=none");
        assert_eq!(place(parts.flags[1].value.as_ref().unwrap().span), "none");
    }
}
