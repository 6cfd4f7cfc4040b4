//! Takes the values of secrets out of a step's output, wherever the output is cut.
//!
//! What a step prints of its secrets would end in logs. This is best effort and no boundary: a step may print them
//! in another form.

/// Shorter values are left alone: they would match what is no secret.
const SHORTEST: usize = 4;
/// The same for a line of a value that has several.
const SHORTEST_LINE: usize = 8;
/// Keys have fewer lines, and each costs time with every byte of output.
const MOST_LINES: usize = 200;
/// What stands in their place.
const MASK: &[u8] = b"****";

/// Masks known values in one stream.
#[derive(Debug, Clone, Default)]
pub(crate) struct Redactor {
    /// Longest first, so that a value within another does not leave the rest of it.
    values: Vec<Vec<u8>>,
    /// The end of what was seen, as long as it may be the beginning of a value.
    held: Vec<u8>,
}

impl Redactor {
    /// Masks these values without the white space around them, and each of their lines.
    pub(crate) fn new<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut values: Vec<Vec<u8>> = values.into_iter().flat_map(forms).map(<[u8]>::to_vec).collect();
        values.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        values.dedup();
        Self { values, held: Vec::new() }
    }

    /// Takes output and gives what can be shown by now.
    pub(crate) fn push(&mut self, data: Vec<u8>) -> Vec<u8> {
        if self.values.is_empty() {
            return data;
        }
        self.held.extend(data);
        self.show(true)
    }

    /// Gives the rest when no more output comes.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        self.show(false)
    }

    fn show(&mut self, more_may_come: bool) -> Vec<u8> {
        let mut shown = Vec::with_capacity(self.held.len());
        let mut at = 0;
        while at < self.held.len() {
            let rest = &self.held[at..];
            // A longer value that may still come whole goes before a shorter one that is here already.
            let begins = |value: &Vec<u8>| rest.len() < value.len() && value.starts_with(rest);
            if more_may_come && self.values.iter().any(begins) {
                break;
            }
            let found = self.values.iter().find(|value| rest.starts_with(value));
            shown.extend_from_slice(if found.is_some() { MASK } else { &rest[..1] });
            at += found.map_or(1, Vec::len);
        }
        self.held.drain(..at);
        shown
    }
}

fn forms(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let value = value.trim_ascii();
    let lines = value.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| line.len() >= SHORTEST_LINE);
    Some(value).filter(|value| value.len() >= SHORTEST).into_iter().chain(lines.take(MOST_LINES))
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
