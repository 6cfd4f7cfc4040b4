//! Where entries go: the directories they are in, and the names that deletions take away.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::apply::{Apply, Target};
use super::entry::TarEntry;
use super::whiteout::{find, is_whiteout, make_opaque, make_whiteout, remove_old, remove_old_in};
use super::{LayerError, OPAQUE, Result, WHITEOUT_META};
use crate::copy::file::open_itself;
use crate::error::printable;

impl Apply<'_> {
    /// `.wh.name`: the name is gone, but for what this layer brings under it.
    pub(super) fn whiteout(&mut self, entry: &TarEntry, parents: &[&[u8]], name: &[u8], hidden: &[u8]) -> Result<()> {
        if self.options.target == Target::Archive {
            return Err(LayerError::ReservedName { path: printable(&entry.path) });
        }
        let is_opaque = name == OPAQUE;
        if !is_opaque && name.starts_with(WHITEOUT_META) {
            return Ok(());
        }
        if !is_opaque && matches!(hidden, b"" | b"." | b"..") {
            return Err(LayerError::invalid_name(&entry.path, "it takes away no name"));
        }
        let directory = self.enter(&entry.path, parents.join(&b'/'))?;
        self.stats.whiteouts += 1;
        let failed = LayerError::io("take away", &entry.path);
        let name = OsStr::from_bytes(hidden);
        match (self.is_layer(), is_opaque) {
            (true, true) => make_opaque(&*directory, &entry.path),
            (false, true) => {
                self.last_parent = None;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let opened = rustix::fs::openat(&*directory, ".", flags, Mode::empty());
                opened.and_then(|directory| remove_old_in(&directory, &self.new)).map_err(failed)
            }
            (false, false) => {
                self.last_parent = None;
                remove_old(directory.as_fd(), name, &self.new).map_err(failed)
            }
            (true, false) => match find(directory.as_fd(), name) {
                Ok(None) => make_whiteout(directory.as_fd(), name).map_err(LayerError::io("take away", &entry.path)),
                Ok(Some(found)) if found.is_dir() => {
                    let handle = open_itself(directory.as_fd(), name).map_err(failed)?;
                    make_opaque(handle, &entry.path)
                }
                Ok(Some(_)) => {
                    let mut path = parents.to_vec();
                    path.push(hidden);
                    self.gone.insert(path.join(&b'/'));
                    Ok(())
                }
                Err(errno) => Err(failed(errno)),
            },
        }
    }

    /// Opens the directory an entry is in, following links inside the root and making what is missing.
    pub(super) fn enter(&mut self, entry: &[u8], path: Vec<u8>) -> Result<Arc<OwnedFd>> {
        if let Some((known, handle)) = &self.last_parent
            && *known == path
        {
            return Ok(Arc::clone(handle));
        }
        let handle = match self.open_directory(&path) {
            Ok(handle) => handle,
            Err(error) if is_missing(&error) => {
                self.make_parents(entry, &path)?;
                self.open_directory(&path).map_err(LayerError::io("open", &path))?
            }
            Err(error) => return Err(LayerError::io("open", &path)(error)),
        };
        let handle = Arc::new(handle);
        self.last_parent = Some((path, Arc::clone(&handle)));
        Ok(handle)
    }

    pub(super) fn open_directory(&self, path: &[u8]) -> Result<OwnedFd, kiln_sys::Error> {
        self.root.open(OsStr::from_bytes(path), OFlags::PATH | OFlags::DIRECTORY)
    }

    fn make_parents(&mut self, entry: &[u8], path: &[u8]) -> Result<()> {
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for end in ends.chain([path.len()]) {
            let prefix = &path[..end];
            let here = OsStr::from_bytes(prefix);
            match self.root.metadata_followed(here) {
                Ok(found) if found.is_dir() => continue,
                Ok(found) if self.is_layer() && is_whiteout(&found) => {
                    let (parent, name) = self.root.open_parent(here).map_err(LayerError::io("open", prefix))?;
                    self.clear(parent.as_fd(), &name).map_err(LayerError::io("replace", prefix))?;
                    let made =
                        self.root.mkdir_all(here, 0o755).map_err(LayerError::io("create the directory", prefix))?;
                    make_opaque(made, prefix)?;
                }
                Ok(_) => return Err(LayerError::invalid_name(entry, "what it is in is not a directory")),
                Err(error) if error.is_not_found() => {
                    let made = self.root.mkdir_all(here, 0o755);
                    let made = made.map_err(LayerError::io("create the directory", prefix))?;
                    self.mark_new(prefix, made.as_fd())?;
                }
                Err(error) => return Err(LayerError::io("look at", prefix)(error)),
            }
            self.stats.implied.push(prefix.to_vec());
        }
        Ok(())
    }
}

fn is_missing(error: &kiln_sys::Error) -> bool {
    error.is_not_found() || error.errno() == Some(Errno::NOTDIR.raw_os_error())
}
