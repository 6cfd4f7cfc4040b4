//! Small files are read ahead of being packed, several at once: one after the other, opening them takes longer than all else.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use kiln_sys::metadata::Metadata;
use rayon::prelude::*;
use rustix::fs::{Mode, OFlags};

use super::pack::{Name, attributes};
use super::{LayerError, Result};
use crate::error::printable;
use crate::meta::Xattr;
use crate::tree::{StatKey, join};

/// How many names are taken at once.
pub(super) const NAMES: usize = 128;

/// Larger files are read when it is their turn.
const SMALL: u64 = 16 << 10;

/// What was read of a small file.
pub(super) struct Small {
    pub(super) xattrs: Vec<Xattr>,
    pub(super) content: Vec<u8>,
}

/// Reads those of some names in a directory that are small files.
pub(super) fn read_ahead(directory: &OwnedFd, path: &[u8], names: &mut [Name], whiteouts: bool) {
    names.par_iter_mut().with_min_len(16).for_each(|entry| {
        let metadata = &entry.metadata;
        if metadata.is_file() && metadata.nlink == 1 && metadata.size <= SMALL {
            let path = join(path, entry.name.as_bytes());
            entry.small = Some(read(directory, &entry.name, (metadata, &path), whiteouts));
        }
    });
}

fn read(directory: &OwnedFd, name: &OsStr, (metadata, path): (&Metadata, &[u8]), whiteouts: bool) -> Result<Small> {
    let changed = || LayerError::ChangedWhileRead { path: printable(path) };
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let handle = rustix::fs::openat(directory, name, flags, Mode::empty()).map_err(LayerError::io("open", path))?;
    let xattrs = attributes(&handle, path, whiteouts)?.0;
    let mut file = File::from(handle);
    let mut content = vec![0; metadata.size as usize];
    file.read_exact(&mut content).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => changed(),
        _ => LayerError::io("read", path)(error),
    })?;
    let now = Metadata::of(&file).map_err(LayerError::io("look at", path))?;
    if StatKey::of(&now) != StatKey::of(metadata) {
        return Err(changed());
    }
    Ok(Small { xattrs, content })
}
