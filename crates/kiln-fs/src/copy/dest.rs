//! Where a source goes: the destination's links are followed inside its root, missing directories are made.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use kiln_sys::metadata::Metadata;
use kiln_sys::root::{Root, set_mode, set_owner, set_times};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::file::Look;
use super::pending::ATTEMPTS;
use super::sources::Source;
use super::{CopySpec, ModeChange};
use crate::clean::absolute;
use crate::error::{Error, Result, printable};

/// As many links as the kernel follows in one path.
const MAX_LINKS: usize = 40;

/// The root that is copied into, and the directories that were made in it on the way.
pub(crate) struct Destination<'a> {
    root: &'a Root,
    look: Look<'a>,
    made: Vec<OwnedFd>,
}

/// The place of one source.
pub(crate) enum Place {
    /// A directory whose contents join those of the source.
    Directory {
        handle: OwnedFd,
        /// Where it is; only its last name is known to be no link.
        path: Vec<u8>,
        /// Made for this source, so it takes over the source's look.
        is_new: bool,
    },
    /// A name in a directory.
    Name { parent: OwnedFd, name: OsString },
}

impl<'a> Destination<'a> {
    pub(crate) fn new(root: &'a Root, look: Look<'a>) -> Self {
        Self { root, look, made: Vec::new() }
    }

    fn spec(&self) -> &'a CopySpec {
        self.look.spec
    }

    /// Makes what must be there before anything is copied; refuses a missing parent if it may not be made.
    pub(crate) fn prepare(&mut self) -> Result<()> {
        let dest = absolute(&self.spec().dest).into_bytes();
        if !self.spec().create_dest_path {
            let parent = parent(&self.resolve(dest)?);
            self.root.metadata_followed(path(&parent)).map_err(Error::io("find the directory", &parent))?;
        }
        Ok(())
    }

    /// Finds the place of a source, as `cp` would: into an existing directory, or under the destination's name.
    pub(crate) fn place(&mut self, source: &Source) -> Result<Place> {
        let text = &self.spec().dest;
        let dest = absolute(text).into_bytes();
        let names_directory = text.ends_with('/') || text.ends_with("/.") || text == "." || dest == b"/";
        let is_dir = source.listing.is_some();
        let contents_only = self.spec().dir_copy_contents;
        let is_on_the_way = names_directory && !(is_dir && contents_only);
        self.directory(&if is_on_the_way { dest.clone() } else { parent(&dest) })?;
        let mut dest = self.resolve(dest)?;
        let found = self.followed(&dest)?;
        let goes_inside = found.is_some_and(|found| if is_dir { !contents_only } else { found.is_dir() });
        if goes_inside && !source.name().is_empty() {
            dest = join(&dest, source.name());
        }
        if !is_dir {
            self.directory(&parent(&dest))?;
            let (parent, name) = self.root.open_parent(path(&dest)).map_err(Error::io("open", &dest))?;
            return Ok(Place::Name { parent, name });
        }
        if contents_only && found.is_none() {
            // Made much as every directory on the way is; only its time is the source's.
            self.directory(&parent(&dest))?;
            let handle = match self.spec().mode {
                Some(ModeChange::Octal(mode)) => self.directory_as(&dest, mode)?,
                _ => self.directory(&dest)?,
            };
            return Ok(Place::Directory { handle, path: dest, is_new: false });
        }
        self.directory(&parent(&dest))?;
        self.own_directory(&dest)
    }

    /// The directory that an archive is unpacked into.
    pub(crate) fn unpack_place(&mut self) -> Result<OwnedFd> {
        let dest = absolute(&self.spec().dest).into_bytes();
        self.directory(&dest)
    }

    /// Opens the directory of exactly this path, making it if it is missing.
    fn own_directory(&self, dest: &[u8]) -> Result<Place> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let Ok((parent, name)) = self.root.open_parent(path(dest)) else {
            let handle = self.root.open(path(dest), flags).map_err(Error::io("open", dest))?;
            return Ok(Place::Directory { handle, path: dest.to_vec(), is_new: false });
        };
        let is_new = make_directory(&parent, &name, dest, self.spec().always_replace)?;
        let handle = rustix::fs::openat(&parent, &name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
            .map_err(Error::io("open", dest))?;
        Ok(Place::Directory { handle, path: dest.to_vec(), is_new })
    }

    /// Opens a directory, making it and those that lead to it if they are missing.
    fn directory(&mut self, dest: &[u8]) -> Result<OwnedFd> {
        self.directory_as(dest, self.spec().parents_mode.unwrap_or(0o755))
    }

    fn directory_as(&mut self, dest: &[u8], mode: u32) -> Result<OwnedFd> {
        let (spec, mode) = (self.spec(), mode & 0o777);
        let made = &mut self.made;
        let mut dress = |handle: std::os::fd::BorrowedFd<'_>| {
            if let Some((uid, gid)) = spec.owner {
                set_owner(handle, uid, gid)?;
            }
            if spec.timestamp.is_some()
                && let Ok(handle) = handle.try_clone_to_owned()
            {
                made.push(handle);
            }
            Ok(())
        };
        let made = self.root.mkdir_all_with(path(dest), mode, &mut dress);
        made.map_err(Error::io("create the directory", dest))
    }

    /// Follows links at the end of a path, also where the last leads nowhere yet.
    fn resolve(&self, dest: Vec<u8>) -> Result<Vec<u8>> {
        let mut now = dest.clone();
        for _ in 0..MAX_LINKS {
            match self.root.metadata(path(&now)) {
                Ok(metadata) if metadata.is_symlink() => {
                    let link = self.root.read_link(path(&now)).map_err(Error::io("read the link", &now))?;
                    let link = link.into_vec();
                    now = if link.starts_with(b"/") { link } else { join(&parent(&now), &link) };
                }
                _ => return Ok(now),
            }
        }
        Err(Error::TooManyLinks { path: printable(&dest) })
    }

    fn followed(&self, dest: &[u8]) -> Result<Option<Metadata>> {
        match self.root.metadata_followed(path(dest)) {
            Ok(metadata) => Ok(Some(metadata)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(Error::io("look at", dest)(error)),
        }
    }

    /// Sets the times of directories made on the way, now that nothing is put into them any more.
    pub(crate) fn finish(self) -> Result<()> {
        let Some(time) = self.look.timestamp() else { return Ok(()) };
        for directory in self.made.iter().rev() {
            set_times(directory.as_fd(), time).map_err(Error::io("set the times of", &self.spec().dest))?;
        }
        Ok(())
    }
}

/// Makes a directory, closed to others until it gets its look; false when it was there.
pub(crate) fn make_directory(parent: impl AsFd, name: &OsStr, dest: &[u8], always_replace: bool) -> Result<bool> {
    let parent = parent.as_fd();
    // Others may make and remove the same name.
    for _ in 0..ATTEMPTS {
        match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
            Ok(()) => return Ok(true),
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(Error::io("create the directory", dest)(errno)),
        }
        match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) if Metadata::from(&found).is_dir() => return Ok(false),
            Ok(_) if !always_replace => return Err(Error::NotADirectory { path: printable(dest) }),
            Ok(_) => {}
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(Error::io("look at", dest)(errno)),
        }
        match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT | Errno::ISDIR) => {}
            Err(errno) => return Err(Error::io("replace", dest)(errno)),
        }
    }
    Err(Error::io("replace", dest)(Errno::BUSY))
}

/// Opens a directory in another, as any user would make it if there is none; what else has its name is replaced.
pub fn own_directory(parent: &Root, name: &OsStr) -> Result<Root> {
    let is_new = make_directory(parent, name, name.as_bytes(), true)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let handle = rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(Error::io("open", name.as_bytes()))?;
    if is_new {
        set_mode(&handle, 0o755).map_err(Error::io("set the mode of", name.as_bytes()))?;
    }
    Ok(Root::new(handle))
}

fn path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// The directory a path is in, by its text.
fn parent(path: &[u8]) -> Vec<u8> {
    let trimmed = path.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
    match path[..trimmed].iter().rposition(|byte| *byte == b'/') {
        None | Some(0) => b"/".to_vec(),
        Some(at) => path[..at].to_vec(),
    }
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.ends_with(b"/") { [directory, name].concat() } else { [directory, b"/", name].concat() }
}
