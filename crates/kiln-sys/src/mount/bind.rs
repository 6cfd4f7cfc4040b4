//! Second sights of a directory or a file, made without a path, and attributes of mounts.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, OpenTreeFlags, open_tree};

use crate::{Error, Result};

/// How much of the mounts below the source comes along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// The source's own filesystem only.
    One,
    /// The mounts below it too.
    Recursive,
}

/// What a second sight should look like.
#[derive(Debug, Clone, Copy)]
pub struct Bind {
    /// The mounts that come along.
    pub depth: Depth,
    /// Attributes to add to those the source has.
    pub attributes: MountAttrFlags,
}

/// Clones the mount of what a handle stands for, file or directory, as a detached mount.
pub fn bind_detached(source: impl AsFd, bind: Bind) -> Result<OwnedFd> {
    let source = source.as_fd();
    let clone = open_tree(source, "", flags(bind.depth) | OpenTreeFlags::AT_EMPTY_PATH);
    finish(clone.map_err(|e| Error::call("clone a mount", e))?, bind)
}

/// Clones the mount of a host path, whose links are followed.
pub fn bind_path_detached(source: &Path, bind: Bind) -> Result<OwnedFd> {
    let clone = open_tree(CWD, source, flags(bind.depth));
    finish(clone.map_err(|e| Error::path("clone the mount of", source, e))?, bind)
}

fn flags(depth: Depth) -> OpenTreeFlags {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    match depth {
        Depth::One => flags,
        Depth::Recursive => flags | OpenTreeFlags::AT_RECURSIVE,
    }
}

fn finish(clone: OwnedFd, bind: Bind) -> Result<OwnedFd> {
    if !bind.attributes.is_empty() {
        set_attributes(&clone, bind.attributes, bind.depth)?;
    }
    Ok(clone)
}

/// The argument of `mount_setattr`.
#[repr(C)]
#[derive(Default)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Adds attributes to a mount.
pub fn set_attributes(mount: impl AsFd, attributes: MountAttrFlags, depth: Depth) -> Result<()> {
    let change = MountAttr { attr_set: attributes.bits().into(), ..MountAttr::default() };
    mount_setattr(mount.as_fd(), c"", libc::AT_EMPTY_PATH, depth, &change)
        .map_err(|e| Error::call("set the attributes of a mount", e))
}

/// Has a mount that was never attached show files with the ids of a user namespace.
pub(super) fn shift(mount: impl AsFd, depth: Depth, users: BorrowedFd<'_>) -> Result<(), Errno> {
    const IDMAP: u64 = 0x0010_0000;
    let userns_fd = u64::try_from(users.as_raw_fd()).map_err(|_| Errno::BADF)?;
    let change = MountAttr { attr_set: IDMAP, userns_fd, ..MountAttr::default() };
    mount_setattr(mount.as_fd(), c"", libc::AT_EMPTY_PATH, depth, &change)
}

/// Cuts all mounts of the calling thread's namespace off from those of other namespaces.
pub fn make_private() -> Result<()> {
    let change = MountAttr { propagation: libc::MS_PRIVATE, ..MountAttr::default() };
    mount_setattr(CWD, c"/", 0, Depth::Recursive, &change).map_err(|e| Error::call("make mounts private", e))
}

fn mount_setattr(
    at: BorrowedFd<'_>,
    path: &std::ffi::CStr,
    flags: libc::c_int,
    depth: Depth,
    change: &MountAttr,
) -> Result<(), Errno> {
    const AT_RECURSIVE: libc::c_int = 0x8000;
    let flags = if depth == Depth::Recursive { flags | AT_RECURSIVE } else { flags };
    let size = size_of::<MountAttr>();
    // SAFETY: the descriptor is borrowed, the path ends in NUL, and the kernel reads `size` bytes of `change`.
    let rc = unsafe {
        libc::syscall(libc::SYS_mount_setattr, at.as_raw_fd(), path.as_ptr(), flags, std::ptr::from_ref(change), size)
    };
    if rc == 0 { Ok(()) } else { Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)) }
}
