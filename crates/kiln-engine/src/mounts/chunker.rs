//! Cuts a stream into chunks where its content says, and puts those that are new together into packs.

use std::collections::HashMap;
use std::io::{self, Write};

use fastcdc::v2020::FastCDC;
use kiln_fs::layer::Rewind;
use kiln_oci::Digest;

use super::format::PACK_SIZE;

/// Bytes of the smallest chunk but the last.
const MIN: usize = 16 << 10;
/// Bytes of a chunk, about.
const AVERAGE: usize = 64 << 10;
/// Bytes of the largest chunk.
const MAX: usize = 256 << 10;

/// Where a chunk lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) pack: PackNumber,
    pub(crate) offset: u64,
}

/// A pack of an earlier export, or the so-manieth of this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum PackNumber {
    Old(usize),
    New(usize),
}

/// A chunk of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) at: Spot,
    pub(crate) length: u64,
    pub(crate) digest: Digest,
}

/// Takes a stream, and gives out packs as they are full.
pub(crate) struct Chunker<'a> {
    known: HashMap<Digest, Spot>,
    pieces: Vec<Piece>,
    size: u64,
    limit: u64,
    /// Written and not cut yet.
    pending: Vec<u8>,
    /// The pack that is being filled.
    pack: Vec<u8>,
    /// Bytes of the packs given out.
    packed: Vec<u64>,
    mark: Mark,
    give: &'a mut dyn FnMut(Vec<u8>) -> io::Result<()>,
}

/// A place in the stream to go back to.
#[derive(Default)]
struct Mark {
    pieces: usize,
    size: u64,
    pending: usize,
    /// What was pending, once some of it has been cut.
    saved: Option<Vec<u8>>,
}

/// A stream that is cut.
pub(crate) struct Cut {
    pub(crate) pieces: Vec<Piece>,
    pub(crate) size: u64,
    /// Bytes of the new packs.
    pub(crate) packs: Vec<u64>,
}

impl<'a> Chunker<'a> {
    /// Begins. What is `known` is not packed again; a stream longer than `limit` is refused.
    pub(crate) fn new(
        known: HashMap<Digest, Spot>,
        limit: u64,
        give: &'a mut dyn FnMut(Vec<u8>) -> io::Result<()>,
    ) -> Self {
        let (pieces, pending, pack, packed) = Default::default();
        Self { known, pieces, size: 0, limit, pending, pack, packed, mark: Mark::default(), give }
    }

    /// Ends the stream.
    pub(crate) fn finish(mut self) -> io::Result<Cut> {
        self.cut(1)?;
        self.give_pack()?;
        Ok(Cut { pieces: self.pieces, size: self.size, packs: self.packed })
    }

    /// Cuts as long as there are so many bytes to look at.
    fn cut(&mut self, least: usize) -> io::Result<()> {
        if self.pending.len() < least {
            return Ok(());
        }
        if self.mark.saved.is_none() {
            self.mark.saved = Some(self.pending[..self.mark.pending].to_vec());
        }
        let pending = std::mem::take(&mut self.pending);
        let mut done = 0;
        while pending.len() - done >= least {
            let rest = &pending[done..];
            let (_, end) = FastCDC::new(rest, MIN, AVERAGE, MAX).cut(0, rest.len());
            self.piece(&rest[..end])?;
            done += end;
        }
        self.pending = pending[done..].to_vec();
        Ok(())
    }

    fn piece(&mut self, bytes: &[u8]) -> io::Result<()> {
        let digest = Digest::sha256(bytes);
        let at = match self.known.get(&digest) {
            Some(at) => *at,
            None => self.keep(&digest, bytes)?,
        };
        self.pieces.push(Piece { at, length: bytes.len() as u64, digest });
        Ok(())
    }

    fn keep(&mut self, digest: &Digest, bytes: &[u8]) -> io::Result<Spot> {
        if self.pack.len() + bytes.len() > PACK_SIZE {
            self.give_pack()?;
        }
        let at = Spot { pack: PackNumber::New(self.packed.len()), offset: self.pack.len() as u64 };
        self.pack.extend_from_slice(bytes);
        self.known.insert(digest.clone(), at);
        Ok(at)
    }

    fn give_pack(&mut self) -> io::Result<()> {
        if self.pack.is_empty() {
            return Ok(());
        }
        self.packed.push(self.pack.len() as u64);
        (self.give)(std::mem::take(&mut self.pack))
    }
}

impl Write for Chunker<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.size += bytes.len() as u64;
        if self.size > self.limit {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {} bytes", self.limit)));
        }
        self.pending.extend_from_slice(bytes);
        self.cut(MAX)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Rewind for Chunker<'_> {
    fn mark(&mut self) {
        self.mark = Mark { pieces: self.pieces.len(), size: self.size, pending: self.pending.len(), saved: None };
    }

    /// What was packed meanwhile stays in its pack: most of it comes again when the file is read again.
    fn rewind(&mut self) {
        let mark = std::mem::take(&mut self.mark);
        self.pieces.truncate(mark.pieces);
        self.size = mark.size;
        match mark.saved {
            Some(saved) => self.pending = saved,
            None => self.pending.truncate(mark.pending),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes without a pattern.
    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut state = seed | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        };
        std::iter::repeat_with(&mut next).flatten().take(length).collect()
    }

    fn cut(known: HashMap<Digest, Spot>, write: impl FnOnce(&mut Chunker<'_>)) -> (Cut, Vec<Vec<u8>>) {
        let mut packs = Vec::new();
        let mut give = |pack| {
            packs.push(pack);
            Ok(())
        };
        let mut chunker = Chunker::new(known, u64::MAX, &mut give);
        write(&mut chunker);
        let cut = chunker.finish().unwrap();
        (cut, packs)
    }

    fn joined(cut: &Cut, packs: &[Vec<u8>]) -> Vec<u8> {
        let bytes = |piece: &Piece| {
            let PackNumber::New(pack) = piece.at.pack else { panic!("nothing is old here") };
            packs[pack][piece.at.offset as usize..][..piece.length as usize].to_vec()
        };
        cut.pieces.iter().flat_map(bytes).collect()
    }

    #[test]
    fn chunks_put_together_are_the_stream_however_it_was_written() {
        let stream = noise(1, 20 << 20);
        let (whole, packs) = cut(HashMap::new(), |out| out.write_all(&stream).unwrap());
        assert!(joined(&whole, &packs) == stream && packs.len() == 2 && whole.size == 20 << 20);
        let (pieces, _) = cut(HashMap::new(), |out| stream.chunks(3777).for_each(|part| out.write_all(part).unwrap()));
        assert!(pieces.pieces == whole.pieces, "where the stream is cut depends on how it was written");
    }

    #[test]
    fn a_byte_more_in_the_middle_makes_few_chunks_new() {
        let mut stream = noise(2, 8 << 20);
        let (before, _) = cut(HashMap::new(), |out| out.write_all(&stream).unwrap());
        let known =
            before.pieces.iter().map(|piece| (piece.digest.clone(), Spot { pack: PackNumber::Old(0), ..piece.at }));
        stream.insert(4 << 20, 1);
        let (after, packs) = cut(known.collect(), |out| out.write_all(&stream).unwrap());
        assert!(packs.iter().map(Vec::len).sum::<usize>() <= 3 * MAX);
        assert!(after.pieces.len() > 50);
    }

    #[test]
    fn what_is_taken_back_leaves_no_trace_in_the_stream() {
        let (one, two, three) = (noise(3, 700_000), noise(4, 900_000), noise(5, 100));
        let (plain, _) = cut(HashMap::new(), |out| {
            out.write_all(&one).unwrap();
            out.write_all(&three).unwrap();
        });
        for torn in [&two[..], &two[..10], &[]] {
            let (cut, packs) = cut(HashMap::new(), |out| {
                out.write_all(&one).unwrap();
                for _ in 0..2 {
                    out.mark();
                    out.write_all(torn).unwrap();
                    out.rewind();
                }
                out.write_all(&three).unwrap();
            });
            assert!(joined(&cut, &packs) == [&one[..], &three].concat());
            assert_eq!((cut.pieces.len(), cut.size), (plain.pieces.len(), plain.size));
        }
    }

    #[test]
    fn a_stream_over_its_limit_is_refused() {
        let mut give = |_| Ok(());
        let mut chunker = Chunker::new(HashMap::new(), 1000, &mut give);
        chunker.write_all(&[0; 1000]).unwrap();
        assert_eq!(chunker.write_all(&[0]).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }
}
