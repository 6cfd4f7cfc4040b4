//! What has to make room in a tree for a while, and comes back.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use kiln_sys::metadata::{Metadata, Timestamp};
use kiln_sys::root::{Root, set_times};
use rustix::io::Errno;

use super::Underlaid;
use crate::error::{Error, Result};
use crate::remove::remove_at;
use crate::tree::open_directory;

/// What of a tree is not the tree's own.
#[derive(Debug, Default)]
pub struct Aside {
    /// Paths that do not count, with all below them.
    pub apart: BTreeSet<Vec<u8>>,
    /// What was put below all layers.
    pub under: Underlaid,
    /// What made room.
    pub stash: Option<Stash>,
}

/// A directory beside a tree, on the same filesystem, and what of the tree is in it.
#[derive(Debug)]
pub struct Stash {
    directory: Root,
    /// Where each was, and when the directory it was in had changed last. They are called by their place in this list.
    kept: Vec<(Vec<u8>, Timestamp)>,
}

impl Stash {
    /// In a new directory.
    #[expect(clippy::disallowed_methods, reason = "a new directory of the state directory, which is ours alone")]
    pub fn new(directory: &Path) -> Result<Self> {
        let make = || {
            std::fs::create_dir(directory)?;
            Ok::<_, std::io::Error>(Root::open_ambient(directory)?)
        };
        let directory = make().map_err(Error::io("create", directory.as_os_str().as_bytes()))?;
        Ok(Self { directory, kept: Vec::new() })
    }

    /// Takes a name out of a tree, if it is there. Nothing on the path may be a link.
    pub fn put_away(&mut self, tree: &Root, path: &[u8]) -> Result<()> {
        let (parent, name) = split(path);
        let from = open_directory(tree, parent).map_err(Error::io("open", parent))?;
        let time = Metadata::of(&from).map_err(Error::io("look at", parent))?.mtime;
        match rustix::fs::renameat(&from, name, &self.directory, self.kept.len().to_string()) {
            Err(Errno::NOENT) => Ok(()),
            moved => {
                moved.map_err(Error::io("move", path))?;
                self.kept.push((path.to_vec(), time));
                Ok(())
            }
        }
    }

    /// Puts everything back in the place of what has its name now.
    pub fn put_back(self, tree: &Root) -> Result<()> {
        for (index, (path, time)) in self.kept.iter().enumerate().rev() {
            let (parent, name) = split(path);
            // Whoever was at work may have removed it.
            let Ok(to) = open_directory(tree, parent) else { continue };
            remove_at(to.as_fd(), name).map_err(Error::io("remove", path))?;
            rustix::fs::renameat(&self.directory, index.to_string(), &to, name).map_err(Error::io("move", path))?;
            set_times(&to, *time).map_err(Error::io("set the times of", parent))?;
        }
        Ok(())
    }
}

pub(super) fn split(path: &[u8]) -> (&[u8], &OsStr) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], OsStr::from_bytes(&path[at + 1..])),
        None => (b"", OsStr::from_bytes(path)),
    }
}
