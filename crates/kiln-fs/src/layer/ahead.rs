//! Files are looked at ahead of being packed, and small ones read, several at once: one after the other, opening them takes
//! longer than all else. A few at a time: a directory may have very many.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use kiln_sys::metadata::Metadata;
use rayon::prelude::*;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::pack::attributes;
use super::{LayerError, Result};
use crate::error::printable;
use crate::meta::Xattr;
use crate::tree::{StatKey, join};

/// How many names are taken at once.
pub(super) const NAMES: usize = 128;

/// Larger files are read when it is their turn.
const SMALL: u64 = 16 << 10;

/// One name whose turn is next.
pub(super) struct Ahead {
    pub(super) name: OsString,
    pub(super) metadata: Metadata,
    /// What was read of it, if it is a small file.
    pub(super) small: Option<Result<Small>>,
}

/// When files are read.
#[derive(Clone, Copy)]
pub(super) enum Reading {
    /// Small ones at once. With `whiteouts`, the overlay's own attributes do not count.
    Now { whiteouts: bool },
    /// Each in its turn.
    Later,
}

/// What was read of a small file.
pub(super) struct Small {
    pub(super) xattrs: Vec<Xattr>,
    pub(super) content: Vec<u8>,
}

/// What there is to be known of a name.
type Looked = Result<(Metadata, Option<Result<Small>>), Errno>;

/// Looks at some names in a directory.
pub(super) fn look_at(
    directory: &OwnedFd,
    path: &[u8],
    names: Vec<OsString>,
    reading: Reading,
) -> Vec<(Looked, OsString)> {
    let look = |name: &OsStr| {
        let metadata = Metadata::from(&rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?);
        let is_small = metadata.is_file() && metadata.nlink == 1 && metadata.size <= SMALL;
        let small = match reading {
            Reading::Now { whiteouts } if is_small => {
                let path = join(path, name.as_bytes());
                Some(read(directory, name, (&metadata, &path), whiteouts))
            }
            _ => None,
        };
        Ok((metadata, small))
    };
    let look = |name: OsString| (look(&name), name);
    names.into_par_iter().with_min_len(16).map(look).collect()
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
