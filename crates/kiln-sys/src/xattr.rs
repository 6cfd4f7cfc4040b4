//! Extended attributes of what a handle stands for; `O_PATH` handles and links themselves work too.

use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use crate::root::proc_path;
use crate::{Error, Result};

/// The kernel's limits for a list of names and for a value.
const MAX_BYTES: usize = 64 * 1024;

/// Lists the names, sorted by bytes. A filesystem without attributes has none.
pub fn list(handle: impl AsFd) -> Result<Vec<OsString>> {
    let handle = handle.as_fd();
    let read = |buffer: &mut Vec<u8>| match rustix::fs::flistxattr(handle, buffer.spare()) {
        Err(Errno::BADF) => rustix::fs::listxattr(proc_path(handle), buffer.spare()),
        result => result,
    };
    let bytes = match read_growing(read) {
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        bytes => bytes.map_err(|e| Error::call("list the extended attributes of an open file", e))?,
    };
    let names = bytes.split(|b| *b == 0).filter(|name| !name.is_empty());
    let mut names: Vec<_> = names.map(|name| OsString::from_vec(name.to_vec())).collect();
    names.sort_unstable();
    Ok(names)
}

/// Reads one value; `None` if there is no such attribute.
pub fn get(handle: impl AsFd, name: impl AsRef<OsStr>) -> Result<Option<Vec<u8>>> {
    let (handle, name) = (handle.as_fd(), name.as_ref().as_bytes());
    let read = |buffer: &mut Vec<u8>| match rustix::fs::fgetxattr(handle, name, buffer.spare()) {
        Err(Errno::BADF) => rustix::fs::getxattr(proc_path(handle), name, buffer.spare()),
        result => result,
    };
    match read_growing(read) {
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        value => value.map(Some).map_err(|e| Error::call("read an extended attribute of an open file", e)),
    }
}

/// Sets one value, new or not.
pub fn set(handle: impl AsFd, name: impl AsRef<OsStr>, value: &[u8]) -> Result<()> {
    let (handle, name) = (handle.as_fd(), name.as_ref().as_bytes());
    match rustix::fs::fsetxattr(handle, name, value, XattrFlags::empty()) {
        Err(Errno::BADF) => rustix::fs::setxattr(proc_path(handle), name, value, XattrFlags::empty()),
        result => result,
    }
    .map_err(|e| Error::call("set an extended attribute of an open file", e))
}

/// Removes one attribute; no such attribute is no error.
pub fn remove(handle: impl AsFd, name: impl AsRef<OsStr>) -> Result<()> {
    let (handle, name) = (handle.as_fd(), name.as_ref().as_bytes());
    let result = match rustix::fs::fremovexattr(handle, name) {
        Err(Errno::BADF) => rustix::fs::removexattr(proc_path(handle), name),
        result => result,
    };
    match result {
        Ok(()) | Err(Errno::NODATA) => Ok(()),
        Err(e) => Err(Error::call("remove an extended attribute of an open file", e)),
    }
}

trait Spare {
    fn spare(&mut self) -> &mut [u8];
}

impl Spare for Vec<u8> {
    fn spare(&mut self) -> &mut [u8] {
        self.as_mut_slice()
    }
}

/// Reads with a small buffer first, and with the largest that the kernel can need if that was too small.
fn read_growing(mut read: impl FnMut(&mut Vec<u8>) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; 256];
    let length = match read(&mut buffer) {
        Err(Errno::RANGE) => {
            buffer.resize(MAX_BYTES, 0);
            read(&mut buffer)?
        }
        length => length?,
    };
    buffer.truncate(length);
    Ok(buffer)
}
