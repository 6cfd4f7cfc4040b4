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

/// The mode of a socket that marks a name as gone, where the overlay's own mark cannot be made. No archive holds sockets, and
/// nobody gives one these bits.
const STAND_IN: u32 = 0o7000;

/// What marks a directory as hiding those below it where the overlay's own attribute cannot be set.
const OPAQUE_STAND_IN: &str = "user.kiln.opaque";

/// Says whether a node is how the overlay marks a name as gone, or stands for that.
pub(crate) fn is_whiteout(metadata: &Metadata) -> bool {
    match metadata.kind {
        FileKind::CharDevice => metadata.rdev.major == 0 && metadata.rdev.minor == 0,
        FileKind::Socket => metadata.mode == STAND_IN,
        _ => false,
    }
}

/// Says whether an attribute marks a directory as hiding those below it.
pub(super) fn is_opacity(name: &OsStr) -> bool {
    name == opaque_xattr() || name == OPAQUE_STAND_IN
}

/// Says whether a directory hides those below it.
pub(crate) fn is_opaque(directory: impl AsFd) -> kiln_sys::Result<bool> {
    let directory = directory.as_fd();
    for name in [opaque_xattr(), OPAQUE_STAND_IN] {
        if xattr::get(directory, name)?.as_deref() == Some(b"y") {
            return Ok(true);
        }
    }
    Ok(false)
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
pub(crate) fn make_whiteout(parent: BorrowedFd<'_>, name: &OsStr) -> std::io::Result<()> {
    let none = rustix::fs::makedev(0, 0);
    match rustix::fs::mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), none) {
        // On an overlay nobody can; and nobody will stack what lies there.
        Err(Errno::PERM | Errno::OPNOTSUPP | Errno::INVAL) => {
            rustix::fs::mknodat(parent, name, FileType::Socket, Mode::empty(), none)?;
            rustix::fs::chmodat(parent, name, Mode::from_raw_mode(STAND_IN), AtFlags::empty())?;
            Ok(())
        }
        made => {
            made?;
            Ok(xattr::set(parent, origin_xattr(), b"")?)
        }
    }
}

/// Marks a directory as hiding those below it.
pub(super) fn make_opaque(directory: impl AsFd, path: &[u8]) -> Result<()> {
    hide_those_below(directory).map_err(LayerError::io("mark as opaque", path))
}

/// The same, for who has words of their own for a failure.
pub(crate) fn hide_those_below(directory: impl AsFd) -> kiln_sys::Result<()> {
    let directory = directory.as_fd();
    match xattr::set(directory, opaque_xattr(), b"y") {
        Err(error) if [Errno::PERM, Errno::OPNOTSUPP].map(Errno::raw_os_error).map(Some).contains(&error.errno()) => {
            xattr::set(directory, OPAQUE_STAND_IN, b"y")
        }
        set => set,
    }
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
