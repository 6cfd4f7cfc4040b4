//! Owner, mode and times of what a handle stands for; links are changed themselves, never followed.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{AtFlags, Gid, Mode, Timestamps, Uid};
use rustix::io::Errno;

use super::reopen::proc_path;
use crate::metadata::Timestamp;
use crate::userns::IdMap;
use crate::{Error, Result};

/// Sets the permission bits (`0o7777`) of any open file but a link; `O_PATH` will do.
#[expect(clippy::disallowed_methods, reason = "the kernel's name of an open file")]
pub fn set_mode(handle: impl AsFd, mode: u32) -> Result<()> {
    let handle = handle.as_fd();
    match fchmodat2_empty(handle, mode) {
        Err(Errno::NOSYS | Errno::INVAL) => rustix::fs::chmod(proc_path(handle), Mode::from_raw_mode(mode)),
        result => result,
    }
    .map_err(|e| Error::call("set the mode of an open file", e))
}

/// Sets owner and group of any open file; `O_PATH` will do. `u32::MAX` is not an id and is refused.
pub fn set_owner(handle: impl AsFd, uid: u32, gid: u32) -> Result<()> {
    const ACTION: &str = "set the owner of an open file";
    if uid == u32::MAX || gid == u32::MAX {
        return Err(Error::call(ACTION, Errno::INVAL));
    }
    let (user, group) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    rustix::fs::chownat(handle, "", user, group, AtFlags::EMPTY_PATH).map_err(|e| match e {
        Errno::INVAL => missing_id(uid, gid).unwrap_or(Error::call(ACTION, e)),
        _ => Error::call(ACTION, e),
    })
}

/// The kernel does not say which id it does not know.
fn missing_id(uid: u32, gid: u32) -> Option<Error> {
    let missing = |what, id, map: Result<IdMap>| {
        let map = map.ok()?;
        (!map.has(id)).then(|| Error::NoId { what, id, last: map.last() })
    };
    missing("user", uid, IdMap::of_users()).or_else(|| missing("group", gid, IdMap::of_groups()))
}

/// Sets access and modification time of any open file; `O_PATH` will do.
pub fn set_times(handle: impl AsFd, time: Timestamp) -> Result<()> {
    let handle = handle.as_fd();
    let times = Timestamps { last_access: time.into(), last_modification: time.into() };
    match rustix::fs::utimensat(handle, "", &times, AtFlags::EMPTY_PATH) {
        Err(Errno::INVAL | Errno::NOENT) => rustix::fs::utimensat(handle, proc_path(handle), &times, AtFlags::empty()),
        result => result,
    }
    .map_err(|e| Error::call("set the times of an open file", e))
}

fn fchmodat2_empty(handle: BorrowedFd<'_>, mode: u32) -> Result<(), Errno> {
    const FCHMODAT2: libc::c_long = 452;
    // SAFETY: the handle is borrowed, so it is open during the call; the path is a NUL-terminated constant.
    let rc = unsafe { libc::syscall(FCHMODAT2, handle.as_raw_fd(), c"".as_ptr(), mode, libc::AT_EMPTY_PATH) };
    if rc == 0 { Ok(()) } else { Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)) }
}
