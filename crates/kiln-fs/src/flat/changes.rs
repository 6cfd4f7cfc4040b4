//! What has changed in a tree, as the upper directory of an overlay would have it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use kiln_sys::metadata::Metadata;
use kiln_sys::root::Root;
use rustix::fs::Mode;
use rustix::io::Errno;

use super::stash::split;
use super::state::{TreeState, list, look};
use crate::copy::CopySpec;
use crate::copy::file::{Look, open_itself};
use crate::error::{Error, Result};
use crate::layer::{hide_those_below, is_whiteout, make_whiteout};
use crate::tree::{SourceTree, join, open_directory};

/// Moves what has changed in `tree` since `before` into the empty directory `upper`, on the same filesystem: new and
/// changed files with the directories that lead to them, and marks for what is gone. Paths in `apart`, and all below
/// them, do not count. The tree is good for nothing afterwards.
pub fn take_changes(tree: &Root, before: &TreeState, upper: &Root, apart: &BTreeSet<Vec<u8>>) -> Result<()> {
    let found = find(tree, before, apart)?;
    let take = Take { tree, upper, found: &found };
    // Parents come before what is in them.
    for (path, directory) in &found {
        if directory.is_part_of_it() {
            take.directory(path, directory)?;
        }
    }
    take.dress()
}

/// A directory that was there before, and what is different in it.
struct Directory {
    metadata: Metadata,
    is_changed: bool,
    changed: Vec<Changed>,
    gone: Vec<OsString>,
    /// Whether something below it is different.
    leads_on: bool,
}

struct Changed {
    name: OsString,
    /// Whether it is a directory in the place of something else.
    hides: bool,
}

impl Directory {
    fn is_part_of_it(&self) -> bool {
        self.is_changed || self.leads_on || !self.changed.is_empty() || !self.gone.is_empty()
    }
}

type Found = BTreeMap<Vec<u8>, Directory>;

/// Looks through all directories that were there before and still are.
fn find(tree: &Root, before: &TreeState, apart: &BTreeSet<Vec<u8>>) -> Result<Found> {
    let mut found = Found::new();
    let root = look(tree, b"")?;
    let mut left = vec![(Vec::new(), root, root.ctime != before.root.ctime)];
    while let Some((path, metadata, is_changed)) = left.pop() {
        let mut directory = Directory { metadata, is_changed, changed: Vec::new(), gone: Vec::new(), leads_on: false };
        let (path, names) = list(tree, path)?;
        for (name, _) in before.names(&path) {
            let is_there = names.get(name).is_some_and(|now| !is_whiteout(now));
            if !is_there && !apart.contains(&join(&path, name.as_bytes())) {
                directory.gone.push(name.to_owned());
            }
        }
        for (name, now) in names {
            let of = join(&path, name.as_bytes());
            if is_whiteout(&now) || apart.contains(&of) {
                continue;
            }
            let then = before.get(&path, &name);
            let is_same = |then: &&Metadata| {
                let is_same = then.is_same_file(&now) && then.kind == now.kind;
                is_same && !(now.is_dir() && then.ctime != now.ctime && before.is_reborn(tree, &of))
            };
            match then.filter(is_same) {
                Some(then) if now.is_dir() => left.push((of, now, now.ctime != then.ctime)),
                Some(then) if then.ctime == now.ctime => {}
                Some(_) => directory.changed.push(Changed { name, hides: false }),
                None => directory.changed.push(Changed { name, hides: then.is_some() && now.is_dir() }),
            }
        }
        found.insert(path, directory);
    }
    mark_the_way(&mut found);
    Ok(found)
}

/// Directories that lead to something different are part of it.
fn mark_the_way(found: &mut Found) {
    let mut way = BTreeSet::new();
    for (path, _) in found.iter().filter(|(_, directory)| directory.is_part_of_it()) {
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        way.extend(ends.map(|end| path[..end].to_vec()));
    }
    for path in way {
        if let Some(directory) = found.get_mut(&path) {
            directory.leads_on = true;
        }
    }
}

struct Take<'a> {
    tree: &'a Root,
    upper: &'a Root,
    found: &'a Found,
}

impl Take<'_> {
    fn open(&self, path: &[u8]) -> Result<OwnedFd> {
        open_directory(self.upper, path).map_err(Error::io("open", path))
    }

    fn directory(&self, path: &[u8], directory: &Directory) -> Result<()> {
        self.make(path)?;
        let from = open_directory(self.tree, path).map_err(Error::io("open", path))?;
        let to = self.open(path)?;
        for changed in &directory.changed {
            let of = join(path, changed.name.as_bytes());
            rustix::fs::renameat(&from, &changed.name, &to, &changed.name).map_err(Error::io("move", &of))?;
            if changed.hides {
                let handle = open_itself(to.as_fd(), &changed.name).map_err(Error::io("open", &of))?;
                hide_those_below(&handle).map_err(Error::io("mark as opaque", &of))?;
            }
        }
        for name in &directory.gone {
            make_whiteout(to.as_fd(), name).map_err(|e| Error::io("mark as gone", join(path, name.as_bytes()))(e))?;
        }
        Ok(())
    }

    /// Makes a directory; those that lead to it are there.
    fn make(&self, path: &[u8]) -> Result<()> {
        if path.is_empty() {
            return Ok(());
        }
        let (parent, name) = split(path);
        match rustix::fs::mkdirat(self.open(parent)?, name, Mode::RWXU) {
            Err(Errno::EXIST) => Ok(()),
            made => made.map_err(Error::io("create", path)),
        }
    }

    /// Gives directories the look they had before anything was taken out of them.
    fn dress(&self) -> Result<()> {
        let tree = SourceTree::snapshot(self.tree.try_clone().map_err(Error::io("open", b"/"))?);
        let look = Look { tree: &tree, spec: &CopySpec::default() };
        for (path, directory) in self.found.iter().filter(|(_, directory)| directory.is_part_of_it()) {
            let from = open_directory(self.tree, path).map_err(Error::io("open", path))?;
            let to = self.open(path)?;
            let dress = || look.dress(to.as_fd(), &directory.metadata, &look.tree.attributes(&from)?);
            dress().map_err(Error::io("set the attributes of", path))?;
        }
        Ok(())
    }
}
