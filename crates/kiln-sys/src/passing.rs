//! Files whose bytes pass through: written or read once, and not worth the memory that the kernel keeps them in.
//!
//! Where it can (`RWF_DONTCACHE`, Linux 6.14), the kernel begins to write at once, takes the same few pages again and
//! again, and has little left to do when the file is synced. On a machine whose free memory must first be given to it
//! that takes a third of the time. Elsewhere these are reads and writes like any other.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use rustix::io::{Errno, ReadWriteFlags, preadv2, pwritev2};
use rustix::time::{ClockId, clock_gettime};

/// `RWF_DONTCACHE` of `<linux/fs.h>`, see preadv2(2).
const DONT_CACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);
/// Means where the file's own cursor is.
const AT_CURSOR: u64 = u64::MAX;
/// Less is better gathered by the kernel as ever.
const WORTH: usize = 64 << 10;
/// How much is copied at once.
const CHUNK: usize = 4 << 20;
/// Chunks that were read and not yet written.
const AHEAD: usize = 2;

/// Processor time for a MiB, above which memory is dear: twice what reading and writing it take where pages are at hand.
const DEAR: Duration = Duration::from_micros(900);
/// How much is written before it is told whether memory is dear.
const TRIAL: u64 = 8 << 20;

/// A file that is read and written so.
#[derive(Debug)]
pub struct Passing {
    file: File,
    keeping: Keeping,
}

/// Whether the kernel may keep what is written.
#[derive(Debug)]
enum Keeping {
    No,
    Yes,
    /// As long as memory is not dear.
    WhileCheap(Trial),
}

/// What this thread had spent when so much was still to be written.
#[derive(Debug)]
struct Trial {
    spent: Duration,
    left: u64,
}

impl Trial {
    fn begin() -> Self {
        Self { spent: spent(), left: TRIAL }
    }

    /// Whether so much more made it dear. None before it is known.
    fn is_dear(&mut self, written: usize) -> Option<bool> {
        self.left = self.left.saturating_sub(written as u64);
        (self.left == 0).then(|| spent().saturating_sub(self.spent) > DEAR * (TRIAL >> 20) as u32)
    }
}

/// The processor time of this thread.
fn spent() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap_or_default()
}

impl Passing {
    /// Reads and writes a file so.
    pub fn new(file: File) -> Self {
        Self { file, keeping: Keeping::No }
    }

    /// Does it in the common way: what is written is soon read again.
    pub fn kept(file: File) -> Self {
        Self { file, keeping: Keeping::Yes }
    }

    /// Writes in the common way what is soon read again, as long as the kernel has memory at hand. One thread writes it.
    pub fn kept_while_cheap(file: File) -> Self {
        Self { file, keeping: Keeping::WhileCheap(Trial::begin()) }
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// From now on nothing is kept.
    pub fn pass(&mut self) {
        self.keeping = Keeping::No;
    }

    /// Whether it is worth trying with this much.
    fn passes(&self, length: usize) -> bool {
        matches!(self.keeping, Keeping::No) && length >= WORTH
    }

    fn weigh(&mut self, written: usize) {
        let Keeping::WhileCheap(trial) = &mut self.keeping else { return };
        match trial.is_dear(written) {
            None => {}
            Some(true) => self.keeping = Keeping::No,
            Some(false) => *trial = Trial::begin(),
        }
    }
}

impl Read for Passing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.passes(buffer.len()) {
            match preadv2(&self.file, &mut [IoSliceMut::new(buffer)], AT_CURSOR, DONT_CACHE) {
                Err(error) if is_refusal(error) => {}
                read => return read.map_err(Into::into),
            }
        }
        self.file.read(buffer)
    }
}

impl Write for Passing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.passes(bytes.len()) {
            match pwritev2(&self.file, &[IoSlice::new(bytes)], AT_CURSOR, DONT_CACHE) {
                Err(error) if is_refusal(error) => {}
                written => return written.map_err(Into::into),
            }
        }
        let written = self.file.write(bytes)?;
        self.weigh(written);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The kernel, or the file system, does not know how.
fn is_refusal(error: Errno) -> bool {
    matches!(error, Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::SPIPE)
}

/// Copies `size` bytes, both files from their cursors on; reads ahead while it writes.
///
/// A source that ends before is [`UnexpectedEof`](io::ErrorKind::UnexpectedEof).
pub fn copy(from: File, to: File, size: u64) -> io::Result<()> {
    let mut to = Passing::new(to);
    chunks(from, size, |chunk| to.write_all(chunk?))
}

/// Hands over `size` bytes of a file, from its cursor on, in large chunks; reads ahead of whoever takes them.
///
/// A file that ends before is [`UnexpectedEof`](io::ErrorKind::UnexpectedEof); nothing follows an error.
pub fn chunks<E>(from: File, size: u64, mut take: impl FnMut(io::Result<&[u8]>) -> Result<(), E>) -> Result<(), E> {
    std::thread::scope(|scope| {
        let (sender, chunks) = sync_channel::<io::Result<Vec<u8>>>(AHEAD);
        let (back, used) = sync_channel::<Vec<u8>>(AHEAD + 2);
        scope.spawn(move || {
            let (mut from, mut left) = (Passing::new(from), size);
            while left > 0 {
                let mut chunk = used.try_recv().unwrap_or_default();
                chunk.resize(usize::try_from(left).unwrap_or(CHUNK).min(CHUNK), 0);
                let read = from.read_exact(&mut chunk).map(|()| chunk);
                left -= read.as_ref().map_or(left, |chunk| chunk.len() as u64);
                if sender.send(read).is_err() {
                    return;
                }
            }
        });
        for chunk in chunks {
            match chunk {
                Ok(chunk) => {
                    take(Ok(&chunk))?;
                    let _ = back.try_send(chunk);
                }
                Err(error) => take(Err(error))?,
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Seek as _, SeekFrom};

    use super::*;

    fn copied(dir: &std::path::Path, size: usize) {
        let expected: Vec<u8> = (0..size).map(|n| (n / 3) as u8).collect();
        let (mut from, to) = (tempfile::tempfile_in(dir).unwrap(), tempfile::tempfile_in(dir).unwrap());
        let mut written = Passing::new(from.try_clone().unwrap());
        written.write_all(b"before").unwrap();
        written.write_all(&expected).unwrap();
        from.seek(SeekFrom::Start(6)).unwrap();
        (&to).write_all(b"head").unwrap();
        copy(from.try_clone().unwrap(), to.try_clone().unwrap(), size as u64).unwrap();
        (&to).write_all(b"tail").unwrap();
        let mut all = Vec::new();
        (&to).seek(SeekFrom::Start(0)).unwrap();
        Passing::new(to).read_to_end(&mut all).unwrap();
        assert!(all == [b"head", expected.as_slice(), b"tail"].concat(), "{size} bytes in {}", dir.display());
        from.seek(SeekFrom::Start(6)).unwrap();
        let short = copy(from, tempfile::tempfile().unwrap(), size as u64 + 1).unwrap_err();
        assert_eq!(short.kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn memory_that_is_cheap_is_used_and_dear_memory_is_not() {
        let mut file = Passing::kept_while_cheap(tempfile::tempfile().unwrap());
        let mut trial = |spent: Duration| {
            file.keeping = Keeping::WhileCheap(Trial { spent, left: 10 });
            file.write_all(b"0123456").unwrap();
            assert!(matches!(file.keeping, Keeping::WhileCheap(Trial { left: 3, .. })), "it is not known yet");
            file.write_all(b"789").unwrap();
            matches!(file.keeping, Keeping::No)
        };
        assert!(!trial(spent()), "nothing was spent");
        while spent() < DEAR * 9 {
            std::hint::black_box(vec![1; 1 << 16]);
        }
        assert!(trial(Duration::ZERO));
        assert_eq!(file.file().metadata().unwrap().len(), 20);
    }

    #[test]
    fn what_passes_arrives_where_the_cursors_are_whatever_the_file_system_can() {
        for size in [0, 10, WORTH, 3 * CHUNK + 17] {
            copied(&std::env::temp_dir(), size);
            copied(std::path::Path::new("/dev/shm"), size);
        }
    }
}
