//! Making and removing names inside a root.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, makedev};
use rustix::io::Errno;

use super::{Root, read_link_fd, resolve};
use crate::metadata::{Device, FileKind, Metadata};
use crate::{Error, Result};

/// As many links as the kernel itself follows in one path.
const MAX_LINKS: usize = 40;

/// Whom [`Root::mkdir_all_with`] shows each directory it made.
pub type OnCreated<'a> = &'a mut dyn FnMut(BorrowedFd<'_>) -> Result<()>;

/// A directory that was made, and where.
#[derive(Debug)]
pub struct Created<'a> {
    /// The directory it was made in.
    pub parent: BorrowedFd<'a>,
    /// That directory as it was before.
    pub parent_before: Metadata,
    /// The name it got.
    pub name: &'a OsStr,
    /// The directory itself.
    pub directory: BorrowedFd<'a>,
}

impl Root {
    /// Makes a directory and all that lead to it, and opens it (`O_PATH`). Links are followed in the root, and where
    /// one dangles its target is made. New directories get exactly `mode`, whatever the umask.
    pub fn mkdir_all(&self, path: impl AsRef<Path>, mode: u32) -> Result<OwnedFd> {
        self.mkdir_all_with(path, mode, &mut |_| Ok(()))
    }

    /// As [`Root::mkdir_all`], and shows every directory it made to `created`, outermost first.
    pub fn mkdir_all_with(&self, path: impl AsRef<Path>, mode: u32, created: OnCreated<'_>) -> Result<OwnedFd> {
        self.mkdir_all_observed(path, mode, &mut |made| created(made.directory))
    }

    /// As [`Root::mkdir_all_with`], and says where each was made: enough to take it away again.
    pub fn mkdir_all_observed(
        &self,
        path: impl AsRef<Path>,
        mode: u32,
        created: &mut dyn FnMut(&Created<'_>) -> Result<()>,
    ) -> Result<OwnedFd> {
        let path = path.as_ref();
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match resolve(&self.0, path, flags, Mode::empty()) {
            Err(Errno::NOENT) => {}
            result => return result.map_err(|e| Error::path("create the directory", path, e)),
        }
        Walk::new(self, path).make(mode, created).map_err(|e| match e {
            Stop::Kernel(errno) => Error::path("create the directory", path, errno),
            Stop::Caller(error) => error,
        })
    }

    /// Makes one directory with exactly `mode`.
    pub fn mkdir(&self, path: impl AsRef<Path>, mode: u32) -> Result<OwnedFd> {
        let path = path.as_ref();
        let (parent, name) = self.open_parent(path)?;
        mkdir_at(&parent, &name, mode).map_err(|e| Error::path("create the directory", path, e))
    }

    /// Creates a regular file that did not exist, open for reading and writing, with exactly `mode`.
    pub fn create_file(&self, path: impl AsRef<Path>, mode: u32) -> Result<File> {
        let path = path.as_ref();
        let (parent, name) = self.open_parent(path)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let create = || -> Result<OwnedFd, Errno> {
            let file = rustix::fs::openat(&parent, &name, flags, Mode::RUSR | Mode::WUSR)?;
            rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
            Ok(file)
        };
        create().map(File::from).map_err(|e| Error::path("create", path, e))
    }

    /// Makes a link; the target is stored byte for byte.
    pub fn symlink(&self, target: impl AsRef<OsStr>, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let (parent, name) = self.open_parent(path)?;
        rustix::fs::symlinkat(target.as_ref(), parent, name).map_err(|e| Error::path("create the link", path, e))
    }

    /// Gives an existing file a second name; a link at the end of `existing` is linked itself.
    pub fn hardlink(&self, existing: impl AsRef<Path>, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let (from, from_name) = self.open_parent(existing)?;
        let (to, to_name) = self.open_parent(path)?;
        rustix::fs::linkat(from, from_name, to, to_name, AtFlags::empty())
            .map_err(|e| Error::path("create the hard link", path, e))
    }

    /// Makes a device node, a named pipe, a socket or an empty file, with exactly `mode`.
    pub fn mknod(&self, path: impl AsRef<Path>, kind: FileKind, mode: u32, device: Device) -> Result<()> {
        let path = path.as_ref();
        let fail = |e: Errno| Error::path("create the node", path, e);
        let kind = match kind {
            FileKind::CharDevice => FileType::CharacterDevice,
            FileKind::BlockDevice => FileType::BlockDevice,
            FileKind::Fifo => FileType::Fifo,
            FileKind::Socket => FileType::Socket,
            FileKind::Regular => FileType::RegularFile,
            FileKind::Directory | FileKind::Symlink => return Err(fail(Errno::INVAL)),
        };
        let (parent, name) = self.open_parent(path)?;
        let number = makedev(device.major, device.minor);
        rustix::fs::mknodat(&parent, &name, kind, Mode::from_raw_mode(mode), number).map_err(fail)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let node = rustix::fs::openat(&parent, &name, flags, Mode::empty()).map_err(fail)?;
        super::set_mode(node, mode)
    }

    /// Removes a name that is not a directory.
    pub fn unlink(&self, path: impl AsRef<Path>) -> Result<()> {
        self.remove(path.as_ref(), AtFlags::empty())
    }

    /// Removes an empty directory.
    pub fn rmdir(&self, path: impl AsRef<Path>) -> Result<()> {
        self.remove(path.as_ref(), AtFlags::REMOVEDIR)
    }

    fn remove(&self, path: &Path, flags: AtFlags) -> Result<()> {
        let (parent, name) = self.open_parent(path)?;
        rustix::fs::unlinkat(parent, name, flags).map_err(|e| Error::path("remove", path, e))
    }

    /// Renames, replacing what the new name stood for.
    pub fn rename(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<()> {
        let from = from.as_ref();
        let (from_dir, from_name) = self.open_parent(from)?;
        let (to_dir, to_name) = self.open_parent(to)?;
        rustix::fs::renameat(from_dir, from_name, to_dir, to_name).map_err(|e| Error::path("rename", from, e))
    }
}

/// Makes a directory with exactly `mode` below an open one, and opens it (`O_PATH`).
fn mkdir_at(parent: impl AsFd, name: &OsStr, mode: u32) -> Result<OwnedFd, Errno> {
    let parent = parent.as_fd();
    rustix::fs::mkdirat(parent, name, Mode::RWXU)?;
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = rustix::fs::openat(parent, name, flags | OFlags::RDONLY, Mode::empty())?;
    rustix::fs::fchmod(&made, Mode::from_raw_mode(mode))?;
    rustix::fs::openat(&made, ".", flags | OFlags::PATH, Mode::empty())
}

type Observer<'a> = &'a mut dyn FnMut(&Created<'_>) -> Result<()>;

enum Stop {
    Kernel(Errno),
    Caller(Error),
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Self {
        Stop::Kernel(errno)
    }
}

/// A walk that makes what is missing. It holds a handle for every directory it is in, so `..` is the handle before,
/// and no rename on the way can lead it out.
struct Walk<'a> {
    root: &'a Root,
    stack: Vec<OwnedFd>,
    left: VecDeque<OsString>,
    links: usize,
}

impl<'a> Walk<'a> {
    fn new(root: &'a Root, path: &Path) -> Self {
        let mut walk = Walk { root, stack: Vec::new(), left: VecDeque::new(), links: 0 };
        walk.queue(path);
        walk
    }

    /// Puts a path before what is left to walk.
    fn queue(&mut self, path: &Path) {
        if path.has_root() {
            self.stack.clear();
        }
        for component in path.components().rev() {
            if let name @ (Component::Normal(_) | Component::ParentDir) = component {
                self.left.push_front(name.as_os_str().to_os_string());
            }
        }
    }

    fn make(mut self, mode: u32, created: Observer<'_>) -> Result<OwnedFd, Stop> {
        while let Some(name) = self.left.pop_front() {
            if name.as_bytes() == b".." {
                self.stack.pop();
                continue;
            }
            self.enter(&name, mode, created)?;
        }
        let here = self.here().try_clone_to_owned();
        here.map_err(|e| Stop::Kernel(Errno::from_io_error(&e).unwrap_or(Errno::MFILE)))
    }

    fn here(&self) -> BorrowedFd<'_> {
        self.stack.last().map_or(self.root.as_fd(), AsFd::as_fd)
    }

    fn enter(&mut self, name: &OsStr, mode: u32, created: Observer<'_>) -> Result<(), Stop> {
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = match rustix::fs::openat2(self.here(), name, flags, Mode::empty(), beneath) {
            Err(Errno::NOENT) => return self.create(name, mode, created),
            found => found?,
        };
        let metadata = Metadata::of(&found).map_err(Stop::Caller)?;
        match metadata.kind {
            FileKind::Directory => self.stack.push(found),
            FileKind::Symlink => {
                self.links += 1;
                if self.links > MAX_LINKS {
                    return Err(Errno::LOOP.into());
                }
                let target = read_link_fd(&found)?;
                self.queue(Path::new(&target));
            }
            _ => return Err(Errno::NOTDIR.into()),
        }
        Ok(())
    }

    fn create(&mut self, name: &OsStr, mode: u32, created: Observer<'_>) -> Result<(), Stop> {
        let parent = self.here();
        let parent_before = Metadata::of(parent).map_err(Stop::Caller)?;
        match mkdir_at(parent, name, mode) {
            // Somebody was faster: look again at what is there now.
            Err(Errno::EXIST) => self.left.push_front(name.to_os_string()),
            made => {
                let made = made?;
                created(&Created { parent, parent_before, name, directory: made.as_fd() }).map_err(Stop::Caller)?;
                self.stack.push(made);
            }
        }
        Ok(())
    }
}
