//! Gzip in members of one MiB.

use std::io::{self, Write};
use std::num::NonZeroUsize;

use super::members::{Batch, MemberWriter};

/// Bytes of input per member. Part of what a digest depends on.
const MEMBER: usize = 1 << 20;

/// Cuts what is written into members.
pub(super) struct GzipWriter<W: Write> {
    members: MemberWriter<W>,
    buffer: Vec<u8>,
    written_any: bool,
}

impl<W: Write> GzipWriter<W> {
    pub(super) fn new(out: W, level: u8, threads: NonZeroUsize) -> io::Result<Self> {
        Ok(Self { members: MemberWriter::new(out, level, threads)?, buffer: Vec::new(), written_any: false })
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        // Even an empty stream is a member.
        let is_last = !self.buffer.is_empty() || !self.written_any;
        let last = if is_last { whole(self.buffer) } else { Batch::default() };
        self.members.settle(last)?;
        self.members.finish()
    }
}

fn whole(bytes: Vec<u8>) -> Batch {
    Batch { ends: vec![bytes.len()], bytes }
}

impl<W: Write> Write for GzipWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.capacity() == 0 {
            self.buffer.reserve_exact(MEMBER);
        }
        let taken = bytes.len().min(MEMBER - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        if self.buffer.len() == MEMBER {
            self.written_any = true;
            self.members.submit(whole(std::mem::take(&mut self.buffer)))?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
