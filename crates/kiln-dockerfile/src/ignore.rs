//! Ignore files: which patterns are in them, and where.

use kiln_report::Span;

use crate::path;

/// One pattern of an ignore file, cleaned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IgnorePattern {
    /// The pattern; `!` before one that takes files back in.
    pub pattern: String,
    /// Its line, from 1.
    pub line: usize,
    /// Where it is written.
    pub span: Span,
}

/// Reads an ignore file. Whether a pattern is well formed is for whoever matches with it to say.
///
/// ```
/// let patterns = kiln_dockerfile::parse_ignore("# logs\n/*.log\n! keep.log/\n");
/// let texts: Vec<_> = patterns.iter().map(|p| (p.pattern.as_str(), p.line)).collect();
/// assert_eq!(texts, [("*.log", 2), ("!keep.log", 3)]);
/// ```
pub fn parse_ignore(text: &str) -> Vec<IgnorePattern> {
    let mut patterns = Vec::new();
    let mut end = 0;
    for (at, whole) in text.split('\n').enumerate() {
        let start = end;
        end += whole.len() + 1;
        let line = if at == 0 { whole.strip_prefix('\u{feff}').unwrap_or(whole) } else { whole };
        // A comment begins in the first column; a pattern may not.
        if line.starts_with('#') || line.trim().is_empty() {
            continue;
        }
        let written = line.trim();
        let start = start + (whole.len() - line.trim_start().len());
        let span = Span::new(start, start + written.len());
        patterns.push(IgnorePattern { pattern: cleaned(written), line: at + 1, span });
    }
    patterns
}

fn cleaned(line: &str) -> String {
    let (bang, pattern) = match line.strip_prefix('!') {
        Some(pattern) => ("!", pattern.trim()),
        None => ("", line),
    };
    if pattern.is_empty() {
        return bang.to_owned();
    }
    let pattern = path::clean(pattern);
    let pattern = pattern.strip_prefix('/').filter(|rest| !rest.is_empty()).unwrap_or(&pattern);
    format!("{bang}{pattern}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_cleaned_and_know_their_lines() {
        let text = "\u{feff}# c\n\n  a/b/ \r\n/x\n!  /y/../z\n./q//r\n /\n#no\n\\#yes\n!\n";
        let found: Vec<_> = parse_ignore(text).into_iter().map(|p| (p.line, p.pattern)).collect();
        let wanted = [(3, "a/b"), (4, "x"), (5, "!z"), (6, "q/r"), (7, "/"), (9, "\\#yes"), (10, "!")]
            .map(|(l, p)| (l, p.to_owned()));
        assert_eq!(found, wanted);
    }

    #[test]
    fn spans_are_what_is_written() {
        let text = "\u{feff}first\r\n#\n \t! /é/ \r\nlast";
        let found: Vec<&str> = parse_ignore(text).iter().map(|p| &text[p.span.range()]).collect();
        assert_eq!(found, ["first", "! /é/", "last"]);
    }
}
