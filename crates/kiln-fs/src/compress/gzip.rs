//! Gzip in members of one MiB.

use std::io::{self, Write};
use std::num::NonZeroUsize;

use super::Compression;
use super::members::{Batch, MemberWriter};

/// Bytes of input per member. Part of what a digest depends on.
const MEMBER: usize = 1 << 20;

/// Members before those that are made at the fastest level, where none is asked for. Nobody waits long for the others, and
/// a layer of this size is sooner packed than sent through most networks. Part of what a digest depends on.
const THOROUGH: usize = 256;

/// Cuts what is written into members.
pub(super) struct GzipWriter<W: Write> {
    members: MemberWriter<W>,
    buffer: Vec<u8>,
    written: usize,
    /// Members that are not made at the fastest level.
    thorough: usize,
}

impl<W: Write> GzipWriter<W> {
    pub(super) fn new(out: W, level: Option<u8>, threads: NonZeroUsize) -> io::Result<Self> {
        let members = MemberWriter::new(out, level.unwrap_or(Compression::GZIP_LEVEL), threads)?;
        let thorough = if level.is_none() { THOROUGH } else { usize::MAX };
        Ok(Self { members, buffer: Vec::new(), written: 0, thorough })
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        // Even an empty stream is a member.
        let is_last = !self.buffer.is_empty() || self.written == 0;
        let last = if is_last { self.member() } else { Batch::default() };
        self.members.settle(last)?;
        self.members.finish()
    }

    fn member(&mut self) -> Batch {
        let bytes = std::mem::take(&mut self.buffer);
        Batch { ends: vec![bytes.len()], bytes, is_quick: self.written >= self.thorough }
    }
}

impl<W: Write> Write for GzipWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.capacity() == 0 {
            self.buffer.reserve_exact(MEMBER);
        }
        let taken = bytes.len().min(MEMBER - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        if self.buffer.len() == MEMBER {
            let member = self.member();
            self.written += 1;
            self.members.submit(member)?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_late_in_a_layer_is_made_fast_unless_a_level_was_asked_for() {
        let text: Vec<u8> =
            (0_u32..400_000).flat_map(|n| (n.wrapping_mul(n) % 5003).to_string().into_bytes()).collect();
        let made = |input: &[u8], level, thorough: Option<usize>, threads| {
            let mut out = GzipWriter::new(Vec::new(), level, NonZeroUsize::new(threads).unwrap()).unwrap();
            out.thorough = thorough.unwrap_or(out.thorough);
            out.write_all(input).unwrap();
            out.finish().unwrap()
        };
        let (early, late) = text.split_at(MEMBER);
        let (thorough, quick) = (made(early, Some(2), None, 1), made(late, Some(1), None, 1));
        assert!(made(late, Some(2), None, 1) != quick);
        for threads in [1, 3] {
            assert!(made(&text, None, Some(1), threads) == [thorough.as_slice(), &quick].concat());
            assert!(made(&text, None, None, threads) == made(&text, Some(2), None, threads), "it is small");
        }
        assert_eq!(GzipWriter::new(Vec::new(), Some(2), NonZeroUsize::MIN).unwrap().thorough, usize::MAX);
    }
}
