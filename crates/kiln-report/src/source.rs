//! Source texts and places in them.

use std::ops::Range;
use std::sync::Arc;

/// A half-open range of bytes in a [`SourceFile`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl Span {
    /// The span of `start..end`.
    pub fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }

    /// The bytes as a range.
    pub fn range(self) -> Range<usize> {
        self.start..self.end
    }
}

/// A named text with its lines known; or several, read as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    name: String,
    text: String,
    line_starts: Vec<usize>,
    /// Names of the texts it was put together from, and where each begins; the first at 0.
    parts: Vec<(usize, String)>,
}

/// One of the texts that a [`SourceFile`] was put together from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourcePart<'a> {
    /// What people call it.
    pub name: &'a str,
    /// The text.
    pub text: &'a str,
    /// Where it begins in the whole.
    pub start: usize,
}

impl SourceFile {
    /// Takes a text; `name` is what people call it, usually a relative path.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self::joined([(name.into(), text.into())])
    }

    /// Puts several texts with their names into one. Each begins on a line of its own.
    pub fn joined(texts: impl IntoIterator<Item = (String, String)>) -> Self {
        let (mut text, mut parts) = (String::new(), Vec::new());
        for (name, part) in texts {
            if !text.is_empty() && !text.ends_with('\n') {
                text.push('\n');
            }
            parts.push((text.len(), name));
            text.push_str(&part);
        }
        let name = parts.iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>().join("`, `");
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { name, text, line_starts, parts }
    }

    /// What people call it; of several texts the names, parted so that the whole may stand in backticks.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Where each of its texts begins.
    pub fn part_starts(&self) -> Vec<usize> {
        self.parts.iter().map(|(start, _)| *start).collect()
    }

    /// The text that a byte stands in.
    pub fn part(&self, offset: usize) -> SourcePart<'_> {
        let next = self.parts.partition_point(|(start, _)| *start <= offset).max(1);
        let end = self.parts.get(next).map_or(self.text.len(), |(start, _)| *start);
        let (start, name) = self.parts.get(next - 1).map_or((0, ""), |(start, name)| (*start, name));
        SourcePart { name, text: &self.text[start..end], start }
    }

    /// Line and column of a byte in its text, both from 1; the column counts characters.
    pub fn position(&self, offset: usize) -> (usize, usize) {
        let offset = offset.min(self.text.len());
        let line = self.line_starts.partition_point(|start| *start <= offset);
        let start = self.line_starts[line - 1];
        let column = self.text.get(start..offset).map_or(offset - start, |t| t.chars().count()) + 1;
        let before = self.line_starts.partition_point(|at| *at < self.part(offset).start);
        (line - before, column)
    }

    /// How many lines there are.
    pub fn line_count(&self) -> usize {
        self.line_starts.len()
    }

    /// A line by number from 1, without its line break; empty when there is none. Several texts count as one.
    pub fn line(&self, number: usize) -> &str {
        let Some(&start) = number.checked_sub(1).and_then(|n| self.line_starts.get(n)) else { return "" };
        let end = self.line_starts.get(number).copied().unwrap_or(self.text.len());
        self.text.get(start..end).unwrap_or("").trim_end_matches(['\n', '\r'])
    }
}

/// A place in a source text, to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excerpt {
    /// The text.
    pub file: Arc<SourceFile>,
    /// The place.
    pub span: Span,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_from_one_and_in_characters() {
        let file = SourceFile::new("f", "aé\nb\n");
        assert_eq!(file.position(0), (1, 1));
        assert_eq!(file.position(3), (1, 3));
        assert_eq!(file.position(4), (2, 1));
        assert_eq!(file.position(99), (3, 1));
        assert_eq!((file.line(1), file.line(2), file.line(3), file.line(9)), ("aé", "b", "", ""));
    }

    #[test]
    fn places_in_texts_put_together_are_each_texts_own() {
        let joined = [("a", "1\n2"), ("", ""), ("b", "3\n4\n")].map(|(name, text)| (name.to_owned(), text.to_owned()));
        let file = SourceFile::joined(joined);
        assert_eq!((file.text(), file.name()), ("1\n2\n3\n4\n", "a`, ``, `b"));
        for (of, name, line) in [("1", "a", 1), ("2", "a", 2), ("3", "b", 1), ("4", "b", 2)] {
            let at = file.text().find(of).unwrap();
            assert_eq!((file.part(at).name, file.position(at)), (name, (line, 1)), "{of}");
        }
        assert_eq!(file.part(99), SourcePart { name: "b", text: "3\n4\n", start: 4 });
    }
}
