//! Files to measure with.

use std::fs;

use kiln_sys::root::Root;
use tempfile::TempDir;

/// Files of a [`tree`].
pub(crate) const FILES: usize = 5_000;
/// Bytes of each of them.
const SIZE: usize = 2_048;

/// A tree of [`FILES`] files in fifty directories, no two of one content.
pub(crate) fn tree() -> (TempDir, Root) {
    let dir = tempfile::tempdir().unwrap();
    for at in 0..FILES {
        let parent = dir.path().join(format!("d{:02}", at % 50));
        if at < 50 {
            fs::create_dir(&parent).unwrap();
        }
        fs::write(parent.join(format!("f{at:05}")), noise(SIZE, at)).unwrap();
    }
    let root = Root::open_ambient(dir.path()).unwrap();
    (dir, root)
}

/// Bytes in which nothing can be found again, the same at each run (xorshift64*).
pub(crate) fn noise(bytes: usize, seed: usize) -> Vec<u8> {
    let mut state = (seed as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    };
    let mut made = Vec::with_capacity(bytes + 8);
    while made.len() < bytes {
        made.extend_from_slice(&next().to_le_bytes());
    }
    made.truncate(bytes);
    made
}
