//! Attributes of files: which count, and how they are read and set.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use kiln_sys::xattr;
use rustix::io::Errno;

use crate::record::is_record;

/// An extended attribute.
pub(crate) type Xattr = (OsString, Vec<u8>);

/// Says whether an extended attribute belongs to a file rather than to the system it happens to be on.
///
/// Labels and signatures (`security.*` but capabilities) are made by each host for itself; `trusted.overlay.*` and
/// `user.overlay.*` steer the overlay.
pub(crate) fn counts(name: &OsStr) -> bool {
    let name = name.as_bytes();
    if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
        return false;
    }
    if name.starts_with(b"user.kiln.") {
        return is_record(OsStr::from_bytes(name));
    }
    name == b"security.capability" || !(name.starts_with(b"security.") || name == b"system.nfs4_acl")
}

/// The extended attributes that count, sorted by name.
pub(crate) fn xattrs(handle: impl AsFd) -> io::Result<Vec<Xattr>> {
    let handle = handle.as_fd();
    let mut found = Vec::new();
    for name in xattr::list(handle)? {
        if counts(&name)
            && let Some(value) = xattr::get(handle, &name)?
        {
            found.push((name, value));
        }
    }
    Ok(found)
}

/// Sets extended attributes; those the filesystem has no room or right for are left out, and counted.
pub(crate) fn set_xattrs(handle: impl AsFd, attributes: &[Xattr]) -> io::Result<usize> {
    let handle = handle.as_fd();
    let mut left_out = 0;
    for (name, value) in attributes {
        match xattr::set(handle, name, value) {
            Ok(()) => {}
            Err(error) if is_unsupported(error.errno()) => left_out += 1,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(left_out)
}

fn is_unsupported(errno: Option<i32>) -> bool {
    [Errno::OPNOTSUPP, Errno::PERM].iter().any(|known| errno == Some(known.raw_os_error()))
}
