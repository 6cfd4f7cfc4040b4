//! Opening an `O_PATH` handle for real, through the kernel's own list of our descriptors.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::{Error, Result};

/// Opens what a handle stands for with other flags: the same inode, no path is walked.
pub fn reopen(handle: impl AsFd, flags: OFlags) -> Result<OwnedFd> {
    let directory = descriptors().map_err(|e| Error::call("open `/proc/self/fd`", e))?;
    let name = handle.as_fd().as_raw_fd().to_string();
    rustix::fs::openat(directory, name, flags | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())
        .map_err(|e| Error::call("open a handle again", e))
}

/// The path under which calls that take only paths find a handle.
pub(crate) fn proc_path(handle: impl AsFd) -> String {
    format!("/proc/self/fd/{}", handle.as_fd().as_raw_fd())
}

/// Opens `/proc/self/fd` once, so that threads whose root is elsewhere can use it too.
pub(crate) fn descriptors() -> Result<BorrowedFd<'static>, Errno> {
    static DIRECTORY: OnceLock<OwnedFd> = OnceLock::new();
    if let Some(directory) = DIRECTORY.get() {
        return Ok(directory.as_fd());
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(CWD, "/proc/self/fd", flags, Mode::empty())?;
    if rustix::fs::fstatfs(&opened)?.f_type != rustix::fs::PROC_SUPER_MAGIC {
        return Err(Errno::NOTSUP);
    }
    Ok(DIRECTORY.get_or_init(|| opened).as_fd())
}
