//! Stretches of zeros: a file can have them without taking space for them.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom, Write as _};

/// A shorter stretch is not worth a hole.
const PIECE: usize = 4096;
static ZEROS: [u8; PIECE] = [0; PIECE];

/// Cuts bytes into stretches that are all zeros or are not; says of each which it is.
pub(crate) fn stretches(bytes: &[u8]) -> impl Iterator<Item = (&[u8], bool)> {
    let mut pieces = bytes.chunks(PIECE).peekable();
    let mut at = 0;
    std::iter::from_fn(move || {
        let from = at;
        let first = pieces.next()?;
        let is_blank = first == ZEROS;
        at += first.len();
        while let Some(piece) = pieces.next_if(|piece| (**piece == ZEROS) == is_blank) {
            at += piece.len();
        }
        Some((&bytes[from..at], is_blank))
    })
}

/// Writes bytes where the file stands, and holes for zeros; says whether there are any. One at the end of the file is there
/// once its length is set.
pub(crate) fn write_with_holes(mut file: &File, bytes: &[u8]) -> io::Result<bool> {
    let mut has_holes = false;
    for (stretch, is_blank) in stretches(bytes) {
        has_holes |= is_blank;
        if is_blank {
            file.seek(SeekFrom::Current(stretch.len() as i64))?;
        } else {
            file.write_all(stretch)?;
        }
    }
    Ok(has_holes)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn files_with_holes_read_as_they_were_written() {
        let mut all = vec![0; 40 * PIECE + 100];
        for at in [0, 3 * PIECE + 5, 4 * PIECE, 39 * PIECE] {
            all[at] = 1;
        }
        let lens: Vec<_> = stretches(&all).map(|(stretch, is_blank)| (stretch.len() / PIECE, is_blank)).collect();
        assert_eq!(lens, [(1, false), (2, true), (2, false), (34, true), (1, false)]);
        let mut file = tempfile::tempfile().unwrap();
        assert!(write_with_holes(&file, &all).unwrap() && write_with_holes(&file, &ZEROS).unwrap());
        assert!(!write_with_holes(&file, &[]).unwrap());
        file.set_len((all.len() + PIECE) as u64).unwrap();
        assert!(file.metadata().unwrap().blocks() < 60, "{}", file.metadata().unwrap().blocks());
        file.seek(SeekFrom::Start(0)).unwrap();
        let mut back = Vec::new();
        file.read_to_end(&mut back).unwrap();
        all.extend(ZEROS);
        assert!(back == all);
    }
}
