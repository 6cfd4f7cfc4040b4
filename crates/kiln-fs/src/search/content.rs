//! Searches a stream for patterns, leaving white space aside.

use std::io::{self, Read};

use super::Patterns;

/// How much is read at once.
const CHUNK: usize = 256 << 10;

/// A pattern that was found, and how many bytes that are no white space come before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hit {
    pub(super) at: u64,
    pub(super) pattern: usize,
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// The bytes that are no white space.
pub(super) fn squeezed(bytes: &[u8]) -> Vec<u8> {
    let mut kept = vec![0; bytes.len()];
    let count = squeeze(bytes, &mut kept);
    kept.truncate(count);
    kept
}

/// Copies what is no white space, and says how much that is. `to` is at least as long.
fn squeeze(from: &[u8], to: &mut [u8]) -> usize {
    let mut count = 0;
    for byte in from {
        // Without a branch: white space is everywhere, and nowhere predictable.
        to[count] = *byte;
        count += usize::from(!is_space(*byte));
    }
    count
}

/// Reads a stream, probably of this size, to its end or to the first pattern in it.
pub(super) fn search(mut stream: impl Read, size: u64, patterns: &Patterns) -> io::Result<Option<Hit>> {
    let mut chunk = vec![0; usize::try_from(size).unwrap_or(CHUNK).clamp(4096, CHUNK)];
    // The end of what was searched stays before what comes: a pattern may lie across.
    let mut window = vec![0; patterns.longest + chunk.len()];
    let (mut kept, mut before) = (0, 0);
    loop {
        let read = match stream.read(&mut chunk) {
            Ok(0) => return Ok(None),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let filled = kept + squeeze(&chunk[..read], &mut window[kept..]);
        if let Some(found) = patterns.automaton.find(&window[..filled]) {
            return Ok(Some(Hit { at: before + found.start() as u64, pattern: found.pattern().as_usize() }));
        }
        let passed = filled.saturating_sub(patterns.longest - 1);
        window.copy_within(passed..filled, 0);
        before += passed as u64;
        kept = filled - passed;
    }
}

/// Where in a stream the byte is before which so many come that are no white space: its offset, and its line when no
/// zero comes before it.
pub(super) fn place_of(mut stream: impl Read, at: u64) -> io::Result<(u64, Option<u64>)> {
    let mut chunk = vec![0; CHUNK];
    let (mut offset, mut line, mut counted, mut is_text) = (0, 1, 0, true);
    loop {
        let read = stream.read(&mut chunk)?;
        for byte in &chunk[..read] {
            if !is_space(*byte) {
                if counted == at {
                    return Ok((offset, is_text.then_some(line)));
                }
                counted += 1;
            }
            offset += 1;
            line += u64::from(*byte == b'\n');
            is_text &= *byte != 0;
        }
        if read == 0 {
            return Ok((offset, None));
        }
    }
}
