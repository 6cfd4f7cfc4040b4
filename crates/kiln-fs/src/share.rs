//! Dividing files among threads: many small ones are one piece of work, a large one is a piece of its own.

use std::ops::Range;

/// A piece of work is full with this many files,
const FILES: usize = 64;
/// or with this many bytes.
const BYTES: u64 = 4 << 20;

/// Cuts a sequence of files of these sizes into pieces of work.
pub(crate) fn pieces(sizes: impl Iterator<Item = u64>) -> Vec<Range<usize>> {
    let mut pieces = Vec::new();
    let (mut start, mut end, mut bytes) = (0, 0, 0);
    for size in sizes {
        end += 1;
        bytes += size;
        if end - start >= FILES || bytes >= BYTES {
            pieces.push(start..end);
            (start, bytes) = (end, 0);
        }
    }
    if start < end {
        pieces.push(start..end);
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_files_are_not_behind_each_other_and_small_ones_are_together() {
        assert!(pieces(std::iter::empty()).is_empty());
        assert_eq!(pieces([BYTES * 9, 0, BYTES, 1, 1].into_iter()), [0..1, 1..3, 3..5]);
        let many = pieces(std::iter::repeat_n(1, FILES * 2 + 1));
        assert_eq!(many, [0..FILES, FILES..FILES * 2, FILES * 2..FILES * 2 + 1]);
    }
}
