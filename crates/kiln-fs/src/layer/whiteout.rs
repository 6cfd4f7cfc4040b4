//! Taking names away: nodes in a layer of its own, deletions in a merged tree.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use kiln_sys::metadata::{FileKind, Metadata};
use kiln_sys::root::read_dir_fd;
use kiln_sys::xattr;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{LayerError, Result, opaque_xattr, origin_xattr};

/// Says whether a node is how the overlay marks a name as gone.
pub(super) fn is_whiteout(metadata: &Metadata) -> bool {
    metadata.kind == FileKind::CharDevice && metadata.rdev.major == 0 && metadata.rdev.minor == 0
}

/// Says what stands under a name; a link is described itself.
pub(super) fn find(parent: BorrowedFd<'_>, name: &OsStr) -> Result<Option<Metadata>, Errno> {
    match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(Metadata::from(&stat))),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Marks a name as gone.
///
/// The kernel looks for marks only in directories that have one below them in the stack, or that say they were copied
/// up. A layer does not know what it will lie on, so the directory says so (an empty origin is «unknown»); without it
/// the mark would be listed as a name that cannot be opened (kernel, `ovl_path_check_origin_xattr`).
pub(super) fn make_whiteout(parent: BorrowedFd<'_>, name: &OsStr) -> std::io::Result<()> {
    xattr::set(parent, origin_xattr(), b"")?;
    rustix::fs::mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), rustix::fs::makedev(0, 0))?;
    Ok(())
}

/// Marks a directory as hiding those below it.
pub(super) fn make_opaque(directory: impl AsFd, path: &[u8]) -> Result<()> {
    xattr::set(directory, opaque_xattr(), b"y").map_err(LayerError::io("mark as opaque", path))
}

/// Removes all below a name that is not marked as new, and the name itself unless something new is left in it.
pub(super) fn remove_old(parent: BorrowedFd<'_>, name: &OsStr, new: &HashSet<(u64, u64)>) -> Result<(), Errno> {
    let Some(metadata) = find(parent, name)? else { return Ok(()) };
    let is_new = new.contains(&(metadata.dev, metadata.ino));
    if !metadata.is_dir() {
        return if is_new { Ok(()) } else { rustix::fs::unlinkat(parent, name, AtFlags::empty()) };
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory: OwnedFd = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    remove_old_in(&directory, new)?;
    if is_new {
        return Ok(());
    }
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Removes all in a directory that is not marked as new.
pub(super) fn remove_old_in(directory: &OwnedFd, new: &HashSet<(u64, u64)>) -> Result<(), Errno> {
    let entries = read_dir_fd(directory).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
    for entry in entries {
        remove_old(directory.as_fd(), &entry.name, new)?;
    }
    Ok(())
}
