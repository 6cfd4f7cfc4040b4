//! Copying the content of a file: shared blocks where the filesystem can, through memory where it cannot, and holes stay
//! holes.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom as StdSeekFrom, Write};

use rustix::fs::{SeekFrom, ftruncate, ioctl_ficlone, seek};
use rustix::io::Errno;

use crate::passing::Passing;
use crate::{Error, Result};

/// Stretches of this size are worth a look at what memory costs.
const LARGE: u64 = 64 << 20;

/// How a file's content came over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Both files share their blocks until one is written.
    Reflink,
    /// The bytes were copied; holes were kept.
    Copied,
}

/// Copies the whole content of `from` into the empty file `to`, and returns how. Both cursors end anywhere.
pub fn copy_content(from: &File, to: &File) -> Result<Method> {
    if ioctl_ficlone(to, from).is_ok() {
        return Ok(Method::Reflink);
    }
    let length = from.metadata().map_err(|e| Error::call("stat the file to copy", e))?.len();
    ftruncate(to, length).map_err(|e| Error::call("set the length of a copy", e))?;
    let mut offset = 0;
    while let Some((start, end)) = next_data(from, offset, length)? {
        copy_range(from, to, start, end)?;
        offset = end;
    }
    Ok(Method::Copied)
}

/// Finds the next stretch of data at or after `offset`; `None` when only a hole is left.
pub fn next_data(file: &File, offset: u64, length: u64) -> Result<Option<(u64, u64)>> {
    if offset >= length {
        return Ok(None);
    }
    let start = match seek(file, SeekFrom::Data(offset)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        // Filesystems that know no holes have one stretch.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some((offset, length))),
        Err(e) => return Err(Error::call("look for data in a file", e)),
    };
    let end = seek(file, SeekFrom::Hole(start)).map_err(|e| Error::call("look for a hole in a file", e))?;
    Ok((start < length).then_some((start, end.min(length))))
}

/// Copies a stretch through a buffer that a core's own cache holds. `copy_file_range(2)` between files that cannot share
/// blocks takes and copies single pages, at half the speed.
fn copy_range(mut from: &File, mut to: &File, start: u64, end: u64) -> Result<()> {
    const BUFFER: u64 = 256 << 10;
    let mut copy = || -> std::io::Result<()> {
        from.seek(StdSeekFrom::Start(start))?;
        to.seek(StdSeekFrom::Start(start))?;
        let mut large = (end - start >= LARGE).then(|| to.try_clone().map(Passing::kept_while_cheap)).transpose()?;
        let to: &mut dyn Write = large.as_mut().map_or(&mut to, |large| large);
        let mut left = end - start;
        let mut buffer = vec![0; left.min(BUFFER) as usize];
        while left > 0 {
            let wanted = left.min(BUFFER) as usize;
            match from.read(&mut buffer[..wanted]) {
                // The file got shorter under us: what is there now is what it holds.
                Ok(0) => break,
                Ok(read) => {
                    to.write_all(&buffer[..read])?;
                    left -= read as u64;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    };
    copy().map_err(|e| Error::call("copy a file", e))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn sparse() -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.set_len(64 << 20).unwrap();
        file.seek(StdSeekFrom::Start(16 << 20)).unwrap();
        file.write_all(&[7; 5000]).unwrap();
        file.seek(StdSeekFrom::Start(48 << 20)).unwrap();
        file.write_all(b"end").unwrap();
        file
    }

    fn content(mut file: &File) -> Vec<u8> {
        let mut bytes = Vec::new();
        file.seek(StdSeekFrom::Start(0)).unwrap();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn content_is_equal_and_holes_stay_holes() {
        let (from, to) = (sparse(), tempfile::tempfile().unwrap());
        copy_content(&from, &to).unwrap();
        assert_eq!(content(&to), content(&from));
        assert!(to.metadata().unwrap().blocks() * 512 < 1 << 20, "the copy is not sparse");
    }

    #[test]
    fn between_two_filesystems_it_is_the_same() {
        let (from, to) = (sparse(), tempfile::tempfile_in("/dev/shm").unwrap());
        copy_content(&from, &to).unwrap();
        assert_eq!(content(&to), content(&from));
        assert!(to.metadata().unwrap().blocks() * 512 < 1 << 20, "the copy is not sparse");
    }

    #[test]
    fn exactly_the_range_is_copied() {
        let (from, to) = (sparse(), tempfile::tempfile().unwrap());
        copy_range(&from, &to, 16 << 20, (16 << 20) + 5000).unwrap();
        assert_eq!(to.metadata().unwrap().len(), (16 << 20) + 5000);
        assert!(content(&to).ends_with(&[7; 5000]));
    }

    #[test]
    fn empty_files_copy() {
        let (from, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        copy_content(&from, &to).unwrap();
        assert_eq!(to.metadata().unwrap().len(), 0);
    }
}
