//! Copying one file: content, owner, mode, attributes, times.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use kiln_sys::copy::copy_content;
use kiln_sys::metadata::{FileKind, Metadata, Timestamp};
use kiln_sys::root::{set_mode, set_times};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::pending::Pending;
use super::{CopySpec, CopyStats};
use crate::digest::check_state;
use crate::error::{Error, Result, printable};
use crate::meta::{Xattr, set_xattrs};
use crate::record::{self, is_record};
use crate::remove::remove_at;
use crate::tree::SourceTree;

/// Files up to this size go through memory: fewer calls than asking the kernel to copy.
const SMALL: u64 = 128 << 10;

/// Set-user-ID and set-group-ID.
const SET_ID: u32 = 0o6000;

/// Lends a buffer that is kept per thread.
pub(crate) fn with_buffer<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    thread_local! {
        static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    let mut buffer = BUFFER.take();
    buffer.resize(SMALL as usize, 0);
    let result = work(&mut buffer);
    BUFFER.replace(buffer);
    result
}

/// How files look at the destination.
#[derive(Clone, Copy)]
pub(crate) struct Look<'a> {
    pub(crate) tree: &'a SourceTree,
    pub(crate) spec: &'a CopySpec,
}

/// A file to copy: where it is, and what it was when it was listed.
pub(crate) struct From<'a> {
    pub(crate) directory: BorrowedFd<'a>,
    pub(crate) name: &'a OsStr,
    pub(crate) metadata: &'a Metadata,
    /// For messages.
    pub(crate) path: &'a [u8],
}

impl Look<'_> {
    pub(crate) fn owner(&self, metadata: &Metadata) -> (u32, u32) {
        self.spec.owner.unwrap_or_else(|| self.tree.owner(metadata))
    }

    pub(crate) fn mode(&self, metadata: &Metadata) -> u32 {
        let change = self.spec.mode.as_ref();
        let mode = change.map_or(metadata.mode, |change| change.apply(metadata.mode, metadata.is_dir()));
        let changes_hands =
            self.spec.on_host && !metadata.is_dir() && self.owner(metadata) != self.tree.owner(metadata);
        if changes_hands { mode & !SET_ID } else { mode }
    }

    /// The attributes of a source that its copy is to have.
    fn attributes(&self, source: &impl AsFd, path: &[u8]) -> Result<Vec<Xattr>> {
        let mut found = self.tree.attributes(source).map_err(Error::io("read the attributes of", path))?;
        found.retain(|(name, _)| !(self.spec.on_host && name == "security.capability"));
        // Whose it was no longer counts.
        found.retain(|(name, _)| !(is_record(name) && (self.spec.on_host || self.spec.owner.is_some())));
        Ok(found)
    }

    pub(crate) fn mtime(&self, metadata: &Metadata) -> Timestamp {
        self.timestamp().unwrap_or(metadata.mtime)
    }

    pub(crate) fn timestamp(&self) -> Option<Timestamp> {
        const NANOS: i64 = 1_000_000_000;
        let nanos = self.spec.timestamp?;
        let (secs, nanos) = (nanos.div_euclid(NANOS), nanos.rem_euclid(NANOS));
        Some(Timestamp { secs, nanos: u32::try_from(nanos).unwrap_or(0) })
    }

    /// Gives an open file the look of `metadata`: owner first, since a new owner takes away setuid and capabilities.
    /// Most are born with their owner and mode; to ask costs less than to set.
    pub(crate) fn dress(
        &self,
        handle: BorrowedFd<'_>,
        metadata: &Metadata,
        attributes: &[Xattr],
    ) -> Result<u64, Dress> {
        let (uid, gid) = self.owner(metadata);
        let now = Metadata::of(handle)?;
        if now.kind != metadata.kind {
            return Err(std::io::Error::other("something else has its name"));
        }
        let is_owned = (now.uid, now.gid) == (uid, gid);
        if !is_owned {
            record::give(handle, uid, gid)?;
        }
        let mode = self.mode(metadata);
        let is_as_it_should = is_owned && now.mode == mode;
        if !(metadata.is_symlink() || is_as_it_should) {
            set_mode(handle, mode)?;
        }
        let left_out = set_xattrs(handle, attributes)?;
        set_times(handle, self.mtime(metadata))?;
        Ok(left_out as u64)
    }

    /// Copies a file that is no directory to `name` in `to`.
    pub(crate) fn copy(&self, from: &From<'_>, to: BorrowedFd<'_>, name: &OsStr) -> Result<CopyStats> {
        match from.metadata.kind {
            FileKind::Regular => self.copy_regular(from, to, name),
            _ => self.copy_other(from, to, name),
        }
    }

    fn copy_regular(&self, from: &From<'_>, to: BorrowedFd<'_>, name: &OsStr) -> Result<CopyStats> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let source = rustix::fs::openat(from.directory, from.name, flags, Mode::empty())
            .map_err(|errno| gone(errno, from.path))?;
        check_state(&source, from.path, from.metadata)?;
        let source = File::from(source);
        let mode = Mode::from_raw_mode(self.mode(from.metadata) & 0o777);
        let (target, pending) = self.make((to, name), from.path, |name| {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(to, name, flags, mode)
        })?;
        let target = File::from(target);
        transfer(&source, &target, from.metadata).map_err(Error::io("copy", from.path))?;
        let attributes = self.attributes(&source, from.path)?;
        check_state(&source, from.path, from.metadata)?;
        let skipped_xattrs = self
            .dress(target.as_fd(), from.metadata, &attributes)
            .map_err(Error::io("set the attributes of the copy of", from.path))?;
        pending.finish().map_err(Error::io("replace", from.path))?;
        Ok(CopyStats { files: 1, bytes: from.metadata.size, skipped_xattrs, ..CopyStats::default() })
    }

    fn copy_other(&self, from: &From<'_>, to: BorrowedFd<'_>, name: &OsStr) -> Result<CopyStats> {
        let metadata = from.metadata;
        let kind = match metadata.kind {
            FileKind::CharDevice => FileType::CharacterDevice,
            FileKind::BlockDevice => FileType::BlockDevice,
            FileKind::Fifo => FileType::Fifo,
            FileKind::Symlink => FileType::Symlink,
            FileKind::Regular | FileKind::Directory | FileKind::Socket => return Ok(CopyStats::default()),
        };
        let source = open_itself(from.directory, from.name).map_err(|errno| gone(errno, from.path))?;
        check_state(&source, from.path, metadata)?;
        let attributes = self.attributes(&source, from.path)?;
        let ((), pending) = if kind == FileType::Symlink {
            let link =
                rustix::fs::readlinkat(&source, "", Vec::new()).map_err(Error::io("read the link", from.path))?;
            self.make((to, name), from.path, |name| rustix::fs::symlinkat(&link, to, name))?
        } else {
            let device = rustix::fs::makedev(metadata.rdev.major, metadata.rdev.minor);
            let make = |name: &OsStr| rustix::fs::mknodat(to, name, kind, Mode::RUSR | Mode::WUSR, device);
            self.make((to, name), from.path, make)?
        };
        let copy = open_itself(to, pending.current()).map_err(Error::io("open the copy of", from.path))?;
        let skipped_xattrs = self
            .dress(copy.as_fd(), metadata, &attributes)
            .map_err(Error::io("set the attributes of the copy of", from.path))?;
        pending.finish().map_err(Error::io("replace", from.path))?;
        Ok(CopyStats { others: 1, skipped_xattrs, ..CopyStats::default() })
    }

    /// Makes something that will have this name, and takes away what has it: only a directory is in the way.
    pub(crate) fn make<'n, T>(
        &self,
        (to, name): (BorrowedFd<'n>, &'n OsStr),
        path: &[u8],
        mut make: impl FnMut(&OsStr) -> Result<T, Errno>,
    ) -> Result<(T, Pending<'n>)> {
        let failed = Error::io("create the copy of", path);
        if self.spec.on_host {
            return Pending::beside(to, name, make).map_err(failed);
        }
        match make(name) {
            Err(Errno::EXIST) => {}
            made => return made.map(|made| (made, Pending::named(to, name))).map_err(failed),
        }
        match rustix::fs::unlinkat(to, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR | Errno::PERM) if self.spec.always_replace => {
                remove_at(to, name).map_err(Error::io("remove", path))?;
            }
            Err(Errno::ISDIR) => return Err(Error::IsADirectory { path: printable(path) }),
            Err(errno) => return Err(Error::io("replace", path)(errno)),
        }
        make(name).map(|made| (made, Pending::named(to, name))).map_err(failed)
    }
}

/// Why something that was listed cannot be opened: it is gone, or another thing has its name.
pub(crate) fn gone(errno: Errno, path: &[u8]) -> Error {
    match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP => Error::ChangedWhileRead { path: printable(path) },
        errno => Error::io("open", path)(errno),
    }
}

/// Why a file could not be given its look.
pub(crate) type Dress = std::io::Error;

/// Opens a file without touching what it stands for.
pub(crate) fn open_itself(directory: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(directory, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Copies content. Small files without holes go through memory, all others through the kernel.
fn transfer(mut source: &File, mut target: &File, metadata: &Metadata) -> std::io::Result<()> {
    let has_holes = metadata.blocks * 512 < metadata.size;
    if metadata.size > SMALL || has_holes {
        copy_content(source, target)?;
        return Ok(());
    }
    with_buffer(|buffer| {
        let mut filled = 0;
        // A file that has become longer is noticed by its state.
        while (filled as u64) < metadata.size {
            match source.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        target.write_all(&buffer[..filled])
    })
}
