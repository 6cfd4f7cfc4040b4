//! A directory out of which no path leads: every name a stranger wrote is resolved here.
//!
//! The kernel resolves (`openat2` with `RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS`): an absolute link or a `..` means
//! this root's top, never the host's. What comes back is a descriptor, and the work is done on the descriptor, so
//! nothing is checked first and used later. A root may be any directory: a detached mount, a layer, a build context.

mod attributes;
mod create;
mod reopen;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

pub use attributes::{set_mode, set_owner, set_times};
pub use create::{Created, OnCreated};
pub use reopen::reopen;
pub(crate) use reopen::{descriptors, proc_path};

use crate::metadata::{FileKind, Metadata};
use crate::{Error, Result};

const IN_ROOT: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// How often a resolution is tried again that a rename somewhere on the system has disturbed (`EAGAIN`).
const RETRIES: usize = 256;

/// A directory that bounds the resolution of paths.
#[derive(Debug)]
pub struct Root(OwnedFd);

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// The name, any bytes but `/` and NUL.
    pub name: OsString,
    /// What it is.
    pub kind: FileKind,
}

impl Root {
    /// Opens a directory of the host, whose path is trusted and may go through links.
    pub fn open_ambient(path: impl AsRef<Path>) -> Result<Root> {
        let path = path.as_ref();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, path, flags, Mode::empty());
        fd.map(Root).map_err(|e| Error::path("open the directory", path, e))
    }

    /// Takes a directory, which may be a detached mount, as a root.
    pub fn new(directory: OwnedFd) -> Root {
        Root(directory)
    }

    /// Gives the directory back.
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// Makes a second handle of the same directory.
    pub fn try_clone(&self) -> Result<Root> {
        self.0.try_clone().map(Root).map_err(|e| Error::call("duplicate a directory handle", e))
    }

    /// Opens a path. `CLOEXEC` is implied; with `CREATE` the mode is 0600. Prefer [`Root::open_path`] and
    /// [`Root::open_file`]: opening a device or a pipe has effects.
    pub fn open(&self, path: impl AsRef<Path>, flags: OFlags) -> Result<OwnedFd> {
        let path = path.as_ref();
        let mode = if flags.contains(OFlags::CREATE) { Mode::RUSR | Mode::WUSR } else { Mode::empty() };
        resolve(&self.0, path, flags, mode).map_err(|e| Error::path("open", path, e))
    }

    /// Opens a path without touching what is there (`O_PATH`); a last link is followed.
    pub fn open_path(&self, path: impl AsRef<Path>) -> Result<OwnedFd> {
        self.open(path, OFlags::PATH)
    }

    /// Opens a path without touching what is there (`O_PATH`); a last link is opened itself.
    pub fn open_nofollow(&self, path: impl AsRef<Path>) -> Result<OwnedFd> {
        self.open(path, OFlags::PATH | OFlags::NOFOLLOW)
    }

    /// Opens a directory inside as a root of its own.
    pub fn subroot(&self, path: impl AsRef<Path>) -> Result<Root> {
        self.open(path, OFlags::PATH | OFlags::DIRECTORY).map(Root)
    }

    /// Opens a regular file for reading; anything else is refused without being opened.
    pub fn open_file(&self, path: impl AsRef<Path>) -> Result<File> {
        let path = path.as_ref();
        let handle = self.open_path(path)?;
        if !Metadata::of(&handle)?.is_file() {
            return Err(Error::NotRegular { path: path.to_path_buf() });
        }
        reopen(&handle, OFlags::RDONLY).map(File::from).map_err(|e| match e {
            Error::Call { source, .. } => Error::path("open", path, source),
            other => other,
        })
    }

    /// Opens the directory that holds a path's last name, and gives that name. Links on the way are followed in the
    /// root; the last name is not looked at and need not exist.
    pub fn open_parent(&self, path: impl AsRef<Path>) -> Result<(OwnedFd, OsString)> {
        let path = path.as_ref();
        let (parent, name) = split(path).ok_or_else(|| Error::NoName { path: path.to_path_buf() })?;
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let parent = resolve(&self.0, parent, flags, Mode::empty()).map_err(|e| Error::path("open", path, e))?;
        Ok((parent, name.to_os_string()))
    }

    /// Describes a path; a last link is described itself.
    pub fn metadata(&self, path: impl AsRef<Path>) -> Result<Metadata> {
        Metadata::of(self.open_nofollow(path)?)
    }

    /// Describes what a path leads to; a last link is followed in the root.
    pub fn metadata_followed(&self, path: impl AsRef<Path>) -> Result<Metadata> {
        Metadata::of(self.open_path(path)?)
    }

    /// Tells whether a path names something; a last link counts itself.
    pub fn contains(&self, path: impl AsRef<Path>) -> Result<bool> {
        match self.open_nofollow(path) {
            Ok(_) => Ok(true),
            Err(e) if e.is_not_found() || e.errno() == Some(libc::ENOTDIR) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Reads the target of a link, byte for byte.
    pub fn read_link(&self, path: impl AsRef<Path>) -> Result<OsString> {
        let path = path.as_ref();
        let link = self.open_nofollow(path)?;
        read_link_fd(&link).map_err(|e| Error::path("read the link", path, e))
    }

    /// Reads a whole regular file of at most `limit` bytes.
    pub fn read_to_limit(&self, path: impl AsRef<Path>, limit: u64) -> Result<Vec<u8>> {
        let path = path.as_ref();
        let file = self.open_file(path)?;
        let mut bytes = Vec::new();
        file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(|e| Error::path("read", path, e))?;
        if bytes.len() as u64 > limit {
            return Err(Error::TooLarge { path: path.to_path_buf(), limit });
        }
        Ok(bytes)
    }

    /// Lists a directory, in no order, without `.` and `..`.
    pub fn read_dir(&self, path: impl AsRef<Path>) -> Result<Vec<DirEntry>> {
        let path = path.as_ref();
        let directory = self.open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK)?;
        read_dir_fd(&directory).map_err(|e| Error::path("list", path, e))
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Lists a directory that was opened for reading, in no order, without `.` and `..`.
pub fn read_dir_fd(directory: impl AsFd) -> std::io::Result<Vec<DirEntry>> {
    let directory = directory.as_fd();
    let mut entries = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let kind = match entry.file_type() {
            rustix::fs::FileType::Unknown => rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode,
            known => known.as_raw_mode(),
        };
        let name = OsStr::from_bytes(name.to_bytes()).to_os_string();
        entries.push(DirEntry { name, kind: FileKind::from_raw_mode(kind) });
    }
    Ok(entries)
}

/// Resolves a path inside a directory as if that were `/`.
fn resolve(root: impl AsFd, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let root = root.as_fd();
    for _ in 0..RETRIES {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, mode, IN_ROOT) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
    Err(Errno::AGAIN)
}

/// Reads the target of a link that was opened itself.
fn read_link_fd(link: impl AsFd) -> Result<OsString, Errno> {
    let target = rustix::fs::readlinkat(link, "", Vec::new())?;
    Ok(OsStr::from_bytes(target.to_bytes()).to_os_string())
}

/// Splits a path into the directory and the last name; `None` if it ends in no name.
fn split(path: &Path) -> Option<(&Path, &OsStr)> {
    let bytes = path.as_os_str().as_bytes();
    let end = bytes.iter().rposition(|b| *b != b'/')? + 1;
    let bytes = &bytes[..end];
    let (parent, name) = match bytes.iter().rposition(|b| *b == b'/') {
        Some(slash) => (&bytes[..=slash], &bytes[slash + 1..]),
        None => (&b"."[..], bytes),
    };
    if matches!(name, b"." | b"..") {
        return None;
    }
    Some((Path::new(OsStr::from_bytes(parent)), OsStr::from_bytes(name)))
}

#[cfg(test)]
mod tests;
