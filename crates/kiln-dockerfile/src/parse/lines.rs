//! Joins continued lines into one and remembers where each part came from.

use kiln_report::Span;

use super::tree::BlankLine;

/// The lines of one instruction joined, with the way back to the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line {
    text: String,
    /// Where each piece begins: in the joined text, and in the file.
    pieces: Vec<(usize, usize)>,
}

impl Line {
    /// The joined text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it was put together from several lines. If not, it is in the file as it is.
    pub fn is_continued(&self) -> bool {
        self.pieces.len() > 1
    }

    /// The place in the file of a range of the joined text.
    pub fn span(&self, start: usize, end: usize) -> Span {
        if end <= start {
            let at = self.locate(start);
            return Span::new(at, at);
        }
        Span::new(self.locate(start), self.locate(end - 1) + 1)
    }

    fn locate(&self, at: usize) -> usize {
        let index = self.pieces.partition_point(|(joined, _)| *joined <= at).saturating_sub(1);
        self.pieces.get(index).map_or(0, |(joined, source)| source + (at - joined))
    }

    fn push(&mut self, piece: &str, source: usize) {
        if !piece.is_empty() {
            self.pieces.push((self.text.len(), source));
            self.text.push_str(piece);
        } else if self.pieces.is_empty() {
            self.pieces.push((0, source));
        }
    }

    /// All of the joined text.
    pub(crate) fn all(&self) -> Slice<'_> {
        Slice { line: self, text: &self.text, at: 0 }
    }
}

/// A part of a joined line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slice<'a> {
    line: &'a Line,
    /// Its text.
    pub(crate) text: &'a str,
    at: usize,
}

impl<'a> Slice<'a> {
    pub(crate) fn part(&self, start: usize, end: usize) -> Self {
        Self { line: self.line, text: &self.text[start..end], at: self.at + start }
    }

    pub(crate) fn from(&self, start: usize) -> Self {
        self.part(start, self.text.len())
    }

    pub(crate) fn trim(&self) -> Self {
        let start = self.text.len() - self.text.trim_start().len();
        self.part(start, start + self.text.trim().len())
    }

    pub(crate) fn span(&self) -> Span {
        self.span_of(0, self.text.len())
    }

    pub(crate) fn span_of(&self, start: usize, end: usize) -> Span {
        self.line.span(self.at + start, self.at + end)
    }

    pub(crate) fn word(&self) -> super::Word {
        super::Word { text: self.text.to_owned(), span: self.span() }
    }

    /// A copy of this part as a line of its own.
    pub(crate) fn to_line(self) -> Line {
        let mut line = Line::default();
        let end = self.at + self.text.len();
        let first = self.line.pieces.partition_point(|(joined, _)| *joined <= self.at).saturating_sub(1);
        for (index, (joined, source)) in self.line.pieces.iter().enumerate().skip(first) {
            if *joined >= end && index > first {
                break;
            }
            let next = self.line.pieces.get(index + 1).map_or(end, |(next, _)| *next).min(end);
            let start = (*joined).max(self.at);
            line.push(&self.line.text[start..next.max(start)], source + (start - joined));
        }
        line
    }
}

/// A physical line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Physical<'a> {
    /// Without its line break.
    pub(crate) text: &'a str,
    /// Where it begins in the file.
    pub(crate) start: usize,
}

impl Physical<'_> {
    /// Where the text ends.
    pub(crate) fn end(&self) -> usize {
        self.start + self.text.len()
    }

    pub(crate) fn is_comment(&self) -> bool {
        self.text.trim_start().starts_with('#')
    }

    pub(crate) fn is_blank(&self) -> bool {
        self.text.trim_start().is_empty()
    }
}

/// Walks over the physical lines of a text.
#[derive(Debug, Clone)]
pub(crate) struct Lines<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lines<'a> {
    /// Where the next line begins.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// The lines of a text from `start` on.
    pub(crate) fn starting(text: &'a str, start: usize) -> Self {
        Self { text, at: start }
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Physical<'a>;

    fn next(&mut self) -> Option<Physical<'a>> {
        let rest = self.text.get(self.at..).filter(|rest| !rest.is_empty())?;
        let length = rest.find('\n').map_or(rest.len(), |at| at + 1);
        let start = self.at;
        self.at += length;
        Some(Physical { text: rest[..length].trim_end_matches(['\r', '\n']), start })
    }
}

/// What one instruction takes of the file.
#[derive(Debug, Default)]
pub(crate) struct Joined {
    pub(crate) line: Line,
    /// End of the last line that belongs to it, without the line break.
    pub(crate) end: usize,
    pub(crate) empty_continuations: Vec<BlankLine>,
}

/// Joins `first` and the lines it continues on. `lines` stands behind `first`.
pub(crate) fn join<'a>(first: Physical<'a>, lines: &mut Lines<'a>, escape: char) -> Joined {
    let indent = first.text.len() - first.text.trim_start().len();
    let (text, mut goes_on) = without_continuation(&first.text[indent..], escape);
    let mut joined = Joined { end: first.end(), ..Joined::default() };
    joined.line.push(text, first.start + indent);
    while goes_on {
        let Some(next) = lines.next() else { break };
        joined.end = next.end();
        if next.is_comment() {
            continue;
        }
        if next.is_blank() {
            let span = Span::new(next.start, next.end());
            joined.empty_continuations.push(BlankLine { span, end: lines.at() });
            continue;
        }
        let (text, more) = without_continuation(next.text, escape);
        joined.line.push(text, next.start);
        goes_on = more;
    }
    joined
}

/// Takes the continuation character off a line, when it ends in one that is not itself escaped.
fn without_continuation(line: &str, escape: char) -> (&str, bool) {
    let trimmed = line.trim_end_matches([' ', '\t']);
    match trimmed.strip_suffix(escape) {
        Some(rest) if !rest.ends_with(escape) => (rest, true),
        _ => (line, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(text: &str) -> Joined {
        let mut lines = Lines::starting(text, 0);
        let first = lines.next().unwrap();
        join(first, &mut lines, '\\')
    }

    #[test]
    fn continued_lines_are_joined_without_comments_and_blanks() {
        for (text, line) in [
            ("RUN a \\\n  b", "RUN a   b"),
            ("  RUN a\\ \t\nb\nc", "RUN ab"),
            ("RUN a \\\n# no\n   # no\n\nb", "RUN a b"),
            ("RUN a \\\\\nb", "RUN a \\\\"),
            ("RUN a \\", "RUN a "),
            ("RUN a \\\r\nb\r\n", "RUN a b"),
            ("\\\nRUN x", "RUN x"),
        ] {
            assert_eq!(joined(text).line.text(), line, "{text:?}");
        }
    }

    #[test]
    fn places_in_the_joined_line_lead_back_to_the_file() {
        let text = "RUN aé \\\n# note\n  bb c";
        let line = joined(text).line;
        for word in ["RUN", "aé", "bb", "c"] {
            let at = line.text().find(word).unwrap();
            assert_eq!(&text[line.span(at, at + word.len()).range()], word);
        }
        let across = line.span(line.text().find('a').unwrap(), line.text().len());
        assert_eq!(&text[across.range()], "aé \\\n# note\n  bb c");
    }

    #[test]
    fn a_part_of_a_line_knows_its_place() {
        let text = "ONBUILD \\\n RUN \\\n x";
        let line = joined(text).line;
        let at = line.text().find("RUN").unwrap();
        let part = line.all().from(at).to_line();
        assert_eq!(part.text(), "RUN  x");
        assert_eq!(&text[part.span(0, 3).range()], "RUN");
        assert_eq!(&text[part.span(5, 6).range()], "x");
    }
}
