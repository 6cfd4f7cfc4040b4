//! Takes the values of secrets out of a step's output, wherever the output is cut.
//!
//! What a step prints of its secrets would end in logs. This is best effort and no boundary: a step may print them
//! in a form that nobody thought of.

use std::sync::Arc;

use aho_corasick::{AhoCorasick, Input, MatchKind};

use crate::guard::{forms, lines, telling};

/// Shorter values are left alone: they would match what is no secret.
const SHORTEST: usize = 4;
/// Encoded, longer values are masked by pieces of this size: programs break such text into lines.
const PIECE: usize = 16;
/// How many pieces of one value are masked.
const MOST_PIECES: usize = 512;
/// What stands in their place.
const MASK: &[u8] = b"****";

/// Masks known values in one stream.
#[derive(Debug, Clone, Default)]
pub(crate) struct Redactor {
    masked: Option<Arc<Masked>>,
    /// The end of what was seen, as long as it may be the beginning of a value.
    held: Vec<u8>,
}

#[derive(Debug)]
struct Masked {
    /// Sorted.
    values: Vec<Vec<u8>>,
    automaton: AhoCorasick,
    longest: usize,
}

impl Redactor {
    /// Masks these values without the white space around them, each of their lines, and their parts encoded in the usual ways.
    pub(crate) fn new<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut values: Vec<Vec<u8>> = values.into_iter().flat_map(shapes).collect();
        values.sort_unstable();
        values.dedup();
        let longest = values.iter().map(Vec::len).max();
        let masked = longest.and_then(|longest| {
            let automaton = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&values).ok()?;
            Some(Arc::new(Masked { values, automaton, longest }))
        });
        Self { masked, held: Vec::new() }
    }

    /// Takes output and gives what can be shown by now.
    pub(crate) fn push(&mut self, data: Vec<u8>) -> Vec<u8> {
        let Some(masked) = self.masked.clone() else { return data };
        self.held.extend(data);
        self.show(&masked, masked.beginnings(&self.held))
    }

    /// Gives the rest when no more output comes.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        let Some(masked) = self.masked.clone() else { return Vec::new() };
        self.show(&masked, Vec::new())
    }

    /// A longer value that may still come whole goes before a shorter one that is here already: nothing is shown from where one
    /// may begin.
    fn show(&mut self, masked: &Masked, beginnings: Vec<usize>) -> Vec<u8> {
        let mut shown = Vec::with_capacity(self.held.len());
        let mut at = 0;
        loop {
            let stop = beginnings.iter().copied().find(|begin| *begin >= at);
            let found = masked.automaton.find(Input::new(&self.held).range(at..));
            match found.filter(|found| stop.is_none_or(|stop| found.start() < stop)) {
                Some(found) => {
                    shown.extend_from_slice(&self.held[at..found.start()]);
                    shown.extend_from_slice(MASK);
                    at = found.end();
                }
                None => {
                    let stop = stop.unwrap_or(self.held.len());
                    shown.extend_from_slice(&self.held[at..stop]);
                    self.held.drain(..stop);
                    return shown;
                }
            }
        }
    }
}

impl Masked {
    /// Where at the end of a text a value may begin that is not here whole.
    fn beginnings(&self, text: &[u8]) -> Vec<usize> {
        let first = (text.len() + 1).saturating_sub(self.longest);
        (first..text.len()).filter(|at| self.may_begin(&text[*at..])).collect()
    }

    fn may_begin(&self, rest: &[u8]) -> bool {
        // Of the values after it, those that begin with it come first.
        let after = self.values.partition_point(|value| value.as_slice() <= rest);
        self.values.get(after).is_some_and(|value| value.starts_with(rest))
    }
}

fn shapes(value: &[u8]) -> Vec<Vec<u8>> {
    let value = value.trim_ascii();
    let mut shapes: Vec<Vec<u8>> = lines(value).map(<[u8]>::to_vec).collect();
    shapes.extend((value.len() >= SHORTEST).then(|| value.to_vec()));
    let pieces = value.chunks_exact(PIECE).take(MOST_PIECES).flat_map(forms);
    let parts = telling(value);
    shapes.extend(pieces.chain(parts.iter().flat_map(|part| forms(part))).map(|(_, shape)| shape));
    shapes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(values: &[&str], parts: &[&str]) -> String {
        let mut redactor = Redactor::new(values.iter().map(|value| value.as_bytes()));
        let mut all: Vec<u8> = parts.iter().flat_map(|part| redactor.push(part.as_bytes().to_vec())).collect();
        all.extend(redactor.finish());
        String::from_utf8(all).unwrap()
    }

    #[test]
    fn a_value_is_masked_however_the_output_is_cut() {
        let text = "a SECRET-9c1e b SECRET-9c1eSECRET-9c1e SECRET-9c";
        let wanted = "a **** b ******** SECRET-9c";
        for cut in 0..text.len() {
            assert_eq!(shown(&["SECRET-9c1e\n"], &[&text[..cut], &text[cut..]]), wanted, "{cut}");
        }
        let bytes: Vec<&str> = text.split_inclusive("").collect();
        assert_eq!(shown(&["SECRET-9c1e"], &bytes), wanted);
    }

    #[test]
    fn longer_values_go_first_and_short_ones_are_left() {
        assert_eq!(shown(&["abcd", "abcdef"], &["abcd", "ef abcdx"]), "**** ****x");
        assert_eq!(shown(&["abcd", "abcdef"], &["xabcde"]), "x****e");
        assert_eq!(shown(&["abc", ""], &["abc"]), "abc");
    }

    #[test]
    fn the_end_of_a_line_stays_and_lines_of_a_value_are_masked_alone() {
        assert_eq!(shown(&["abcdefgh\n"], &["abcdefgh\nnext\n"]), "****\nnext\n");
        let key = "-----KEY-----\r\nabcdefgh\nshort\n12345678\n";
        assert_eq!(shown(&[key], &["a abcdefgh short 12345678 b"]), "a **** short **** b");
        assert_eq!(shown(&[key], &["x\n", key]), "x\n****\n");
    }
}
