//! What lies below all layers: put into a tree where that has nothing, and taken out again.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use kiln_sys::metadata::{Metadata, Timestamp};
use kiln_sys::root::{Root, set_times};
use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;

use super::state::list;
use crate::copy::CopySpec;
use crate::copy::file::{From, Look};
use crate::error::{Error, Result};
use crate::tree::{SourceTree, join, open_directory};

/// What [`underlay`] has put into a tree.
#[derive(Debug, Default)]
pub struct Underlaid {
    /// Parents before what is in them.
    made: Vec<Made>,
    /// Directories that were there, and when they had changed last.
    parents: Vec<(Vec<u8>, Timestamp)>,
}

#[derive(Debug)]
struct Made {
    directory: Vec<u8>,
    name: OsString,
    metadata: Metadata,
}

/// Copies of a tree what another lacks: names that stand for nothing there.
pub fn underlay(below: &Root, tree: &Root) -> Result<Underlaid> {
    let source = SourceTree::snapshot(below.try_clone().map_err(Error::io("open", b"/"))?);
    let look = Look { tree: &source, spec: &CopySpec::default() };
    let mut under = Underlaid::default();
    let mut left = vec![Vec::new()];
    while let Some(path) = left.pop() {
        let (path, names) = list(below, path)?;
        let to = open_directory(tree, &path).map_err(Error::io("open", &path))?;
        let from = open_directory(below, &path).map_err(Error::io("open", &path))?;
        let before = Metadata::of(&to).map_err(Error::io("look at", &path))?.mtime;
        let mut is_changed = false;
        for (name, metadata) in names {
            let of = join(&path, name.as_bytes());
            match stat(&to, &name, &of)? {
                Some(there) if there.is_dir() && metadata.is_dir() => left.push(of),
                Some(_) => {}
                None => {
                    if metadata.is_dir() {
                        rustix::fs::mkdirat(&to, &name, Mode::RWXU).map_err(Error::io("create", &of))?;
                        dress(look, &from, &to, (&name, &metadata, &of))?;
                        left.push(of.clone());
                    } else {
                        let file = From { directory: from.as_fd(), name: &name, metadata: &metadata, path: &of };
                        look.copy(&file, to.as_fd(), &name)?;
                    }
                    is_changed = true;
                    let Some(metadata) = stat(&to, &name, &of)? else { continue };
                    under.made.push(Made { directory: path.clone(), name, metadata });
                }
            }
        }
        if is_changed {
            set_times(&to, before).map_err(Error::io("set the times of", &path))?;
            under.parents.push((path, before));
        }
    }
    Ok(under)
}

impl Underlaid {
    /// Takes out what is still as it was put there. `tree` must not be looked at by others.
    pub fn take_out(self, tree: &Root) -> Result<()> {
        for made in self.made.iter().rev() {
            let Ok(directory) = open_directory(tree, &made.directory) else { continue };
            let of = join(&made.directory, made.name.as_bytes());
            match stat(&directory, &made.name, &of)? {
                Some(now) if now.is_same_file(&made.metadata) => {
                    let is_same = now.is_dir() || (now.size, now.mode) == (made.metadata.size, made.metadata.mode);
                    if !is_same {
                        continue;
                    }
                    let flags = if now.is_dir() { AtFlags::REMOVEDIR } else { AtFlags::empty() };
                    match rustix::fs::unlinkat(&directory, &made.name, flags) {
                        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
                        removed => removed.map_err(Error::io("remove", &of))?,
                    }
                }
                _ => {}
            }
        }
        for (path, time) in self.parents.iter().rev() {
            let Ok(directory) = open_directory(tree, path) else { continue };
            set_times(&directory, *time).map_err(Error::io("set the times of", path))?;
        }
        Ok(())
    }
}

fn stat(directory: &OwnedFd, name: &OsStr, path: &[u8]) -> Result<Option<Metadata>> {
    match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(Metadata::from(&stat))),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(Error::io("look at", path)(errno)),
    }
}

fn dress(
    look: Look<'_>,
    from: &OwnedFd,
    to: &OwnedFd,
    (name, metadata, path): (&OsStr, &Metadata, &[u8]),
) -> Result<()> {
    let open = |directory: &OwnedFd| crate::copy::file::open_itself(directory.as_fd(), name);
    let (from, to) = (open(from).map_err(Error::io("open", path))?, open(to).map_err(Error::io("open", path))?);
    let dress = || look.dress(to.as_fd(), metadata, &look.tree.attributes(&from)?);
    dress().map(drop).map_err(Error::io("set the attributes of", path))
}
