//! What a tree is at a moment: enough to tell later what of it has changed.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime};

use kiln_sys::metadata::{Metadata, Timestamp};
use kiln_sys::root::{Root, read_dir_fd};
use rayon::prelude::*;
use rustix::fs::{AtFlags, StatxFlags};

use crate::error::{Error, Result};
use crate::tree::{join, open_directory};

/// What the kernel says of every file of a tree at a moment.
#[derive(Debug)]
pub struct TreeState {
    pub(super) root: Metadata,
    directories: HashMap<Vec<u8>, HashMap<OsString, Metadata>>,
    /// When directories were made: one that is removed may leave its inode to the next.
    born: HashMap<Vec<u8>, Timestamp>,
}

/// Twice the longest time for which the kernel gives files the same time of change (`CONFIG_HZ=100`).
const TICK: Duration = Duration::from_millis(20);

impl TreeState {
    /// Looks at a tree. When this returns, whatever changes has another time of change than what was seen.
    pub fn of(tree: &Root) -> Result<Self> {
        let root = look(tree, b"")?;
        let mut state = TreeState { root, directories: HashMap::new(), born: HashMap::new() };
        let mut newest = root.ctime;
        let mut level = vec![Vec::new()];
        while !level.is_empty() {
            let seen: Vec<_> = level.into_par_iter().map(|path| list(tree, path)).collect::<Result<_>>()?;
            level = Vec::new();
            for (path, names) in seen {
                let directories = names.iter().filter(|(_, metadata)| metadata.is_dir());
                level.extend(directories.map(|(name, _)| join(&path, name.as_bytes())));
                newest = names.values().map(|metadata| metadata.ctime).fold(newest, Ord::max);
                state.directories.insert(path, names);
            }
        }
        let directories = state.directories.keys().collect::<Vec<_>>().into_par_iter().with_min_len(64);
        state.born = directories.filter_map(|path| Some((path.clone(), born(tree, path)?))).collect();
        wait_past(newest);
        Ok(state)
    }

    /// Whether what is a directory at this path is another one than before, as far as the filesystem tells.
    pub(super) fn is_reborn(&self, tree: &Root, path: &[u8]) -> bool {
        self.born.get(path).is_some_and(|then| born(tree, path).is_some_and(|now| now != *then))
    }

    /// What a directory held.
    pub(super) fn names(&self, directory: &[u8]) -> impl Iterator<Item = (&OsStr, &Metadata)> {
        self.directories.get(directory).into_iter().flatten().map(|(name, metadata)| (name.as_os_str(), metadata))
    }

    /// What a name in a directory was.
    pub(super) fn get(&self, directory: &[u8], name: &OsStr) -> Option<&Metadata> {
        self.directories.get(directory)?.get(name)
    }
}

/// When a directory was made.
fn born(tree: &Root, path: &[u8]) -> Option<Timestamp> {
    let path: &[u8] = if path.is_empty() { b"." } else { path };
    let found = rustix::fs::statx(tree, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BTIME).ok()?;
    let born = Timestamp { secs: found.stx_btime.tv_sec, nanos: found.stx_btime.tv_nsec };
    (found.stx_mask & StatxFlags::BTIME.bits() != 0).then_some(born)
}

/// Describes a directory.
pub(super) fn look(tree: &Root, path: &[u8]) -> Result<Metadata> {
    let handle = open_directory(tree, path).map_err(Error::io("open", path))?;
    Metadata::of(handle).map_err(Error::io("look at", path))
}

/// What a directory holds.
pub(super) fn list(tree: &Root, path: Vec<u8>) -> Result<(Vec<u8>, HashMap<OsString, Metadata>)> {
    let handle = open_directory(tree, &path).map_err(Error::io("open", &path))?;
    let mut names = HashMap::new();
    for entry in read_dir_fd(&handle).map_err(Error::io("list", &path))? {
        let stat = rustix::fs::statat(&handle, &entry.name, AtFlags::SYMLINK_NOFOLLOW);
        let stat = stat.map_err(|errno| Error::io("look at", join(&path, entry.name.as_bytes()))(errno))?;
        names.insert(entry.name, Metadata::from(&stat));
    }
    Ok((path, names))
}

fn wait_past(newest: Timestamp) {
    let since = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let newest = Duration::new(newest.secs.try_into().unwrap_or(0), newest.nanos);
    let ahead = (newest + TICK).saturating_sub(since(SystemTime::now()));
    // A clock that was set back must not hold up a build: what is far ahead will not be given again.
    std::thread::sleep(ahead.min(TICK));
}
