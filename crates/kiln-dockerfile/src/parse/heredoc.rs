//! Heredocs: finds `<<EOF` in a line and reads the documents that follow.

use kiln_report::{Diagnostic, Span};

use super::lines::{Line, Lines};
use super::{Heredoc, Word};
use crate::expand::Lexer;

/// The start of a heredoc: `3<<-"EOF"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) name: String,
    descriptor: u32,
    pub(crate) expand: bool,
    pub(crate) chomp: bool,
}

/// Reads one word as the start of a heredoc, if it is one.
pub(crate) fn start(word: &str) -> Option<Start> {
    let digits = word.len() - word.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let rest = word[digits..].strip_prefix("<<")?;
    let (rest, chomp) = rest.strip_prefix('-').map_or((rest, false), |rest| (rest, true));
    let rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace());
    if rest.is_empty() || rest.contains('<') {
        return None;
    }
    let lexer = Lexer { keeps_unset: true, ..Lexer::new('\\') };
    let [name] = lexer.split(rest)?.try_into().ok()?;
    let raw = Lexer { keeps_quotes: true, ..lexer }.split(rest)?.pop()?;
    let quotes = |text: &str| text.bytes().filter(|b| matches!(b, b'\'' | b'"')).count();
    // The word was quoted when undoing quotes took some away.
    let expand = quotes(&name) == quotes(&raw);
    Some(Start { descriptor: word[..digits].parse().unwrap_or(0), name, expand, chomp })
}

/// All starts of heredocs in a line. A line with a quote that is never closed has none.
pub(crate) fn starts(line: &str) -> Vec<Start> {
    let lexer = Lexer { keeps_quotes: true, keeps_escapes: true, keeps_unset: true, ..Lexer::new('\\') };
    lexer.split(line).unwrap_or_default().iter().filter_map(|word| start(word)).collect()
}

/// Reads the documents that a line asks for. `lines` stands behind the line.
pub(crate) fn read(line: &Line, lines: &mut Lines<'_>, text: &str) -> Result<Vec<Heredoc>, Diagnostic> {
    if !line.text().contains("<<") {
        return Ok(Vec::new());
    }
    starts(line.text()).into_iter().map(|start| read_one(start, line, lines, text)).collect()
}

fn read_one(start: Start, line: &Line, lines: &mut Lines<'_>, text: &str) -> Result<Heredoc, Diagnostic> {
    let begin = lines.at();
    let mut is_indented = false;
    for physical in lines.by_ref() {
        let end = if start.chomp { physical.text.trim_start_matches('\t') } else { physical.text };
        if end != start.name {
            is_indented |= end.trim() == start.name;
            continue;
        }
        return Ok(Heredoc {
            name: start.name,
            descriptor: start.descriptor,
            expand: start.expand,
            chomp: start.chomp,
            content: text[begin..physical.start].to_owned(),
            content_span: Span::new(begin, physical.start),
            end_span: Span::new(physical.start, physical.end()),
        });
    }
    let message = format!("heredoc `{}` never ends", start.name);
    let hint = match is_indented {
        true => format!(
            "take away what stands before or behind `{}` on its line; `<<-` lets tabs stand before it",
            start.name
        ),
        false => format!("put `{}` alone on a line after the last line of the text", start.name),
    };
    Err(Diagnostic::error(place(&start, line), message).hint(hint))
}

/// Where a line asks for a heredoc.
fn place(start: &Start, line: &Line) -> Span {
    let text = line.text();
    let is_it = |at: &usize| {
        text[at + 2..]
            .trim_start_matches(|c: char| matches!(c, '-' | '\'' | '"') || c.is_whitespace())
            .starts_with(&start.name)
    };
    let at = text.match_indices("<<").map(|(at, _)| at).find(is_it).or_else(|| text.find("<<")).unwrap_or(0);
    let word = text[at + 2..].len() - text[at + 2..].trim_start().len();
    let end = text[at + 2 + word..].find(char::is_whitespace).map_or(text.len(), |length| at + 2 + word + length);
    line.span(at, end)
}

/// Whether a word names a heredoc.
pub(crate) fn is_start(word: &Word) -> bool {
    start(&word.text).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_of_heredocs() {
        for (word, name, expand, chomp, descriptor) in [
            ("<<EOF", "EOF", true, false, 0),
            ("<<-EOF", "EOF", true, true, 0),
            ("<<\"EOF\"", "EOF", false, false, 0),
            ("<<'E'OF", "EOF", false, false, 0),
            ("3<<EOF", "EOF", true, false, 3),
            ("<< EOF", "EOF", true, false, 0),
            ("<<EOF>x", "EOF>x", true, false, 0),
        ] {
            let name = name.to_owned();
            assert_eq!(start(word), Some(Start { name, descriptor, expand, chomp }), "{word}");
        }
        for word in ["<<", "<<<x", "<EOF", "a<<EOF", "<<-", "<<a\\ b c", "EOF"] {
            assert_eq!(start(word), None, "{word}");
        }
    }

    #[test]
    fn quoted_arrows_start_nothing() {
        let names = |line: &str| starts(line).into_iter().map(|s| s.name).collect::<Vec<_>>();
        assert_eq!(names("RUN cat <<A && cat <<-'B' >c"), ["A", "B"]);
        assert_eq!(names("RUN echo \"<<A\" '<<B'"), Vec::<String>::new());
        assert_eq!(names("RUN echo it's <<A"), Vec::<String>::new());
        assert_eq!(names("RUN cat << EOF"), ["EOF"]);
    }
}
