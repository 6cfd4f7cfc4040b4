//! Listing a tree: level by level in parallel, asking the patterns before the disk.

use std::ffi::OsStr;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use kiln_sys::metadata::{FileKind, Metadata};
use kiln_sys::root::{Root, read_dir_fd};
use rayon::prelude::*;
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};

use super::SourceTree;
use crate::error::{Error, Result, printable};
use crate::meta::Xattr;
use crate::pattern::{MatchState, PatternSet};

/// Which part of a listed tree is wanted, by patterns on paths relative to the listed directory.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    /// Only what matches, with the directories that lead there.
    pub(crate) include: Option<PatternSet>,
    /// Not what matches.
    pub(crate) exclude: Option<PatternSet>,
}

/// One file or directory of a listing.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Its name; empty for the listed directory itself.
    pub(crate) name: Box<OsStr>,
    pub(crate) metadata: Metadata,
    /// The directory it is in; the listed directory is its own.
    pub(crate) parent: usize,
    directory: Option<Box<Directory>>,
    /// Chosen itself, not only because something in it is.
    pub(crate) is_selected: bool,
    /// Chosen, or on the way to something chosen. Everything else is to be passed over.
    pub(crate) is_needed: bool,
    is_visible: bool,
}

/// What is known of directories only: a listing is mostly of files, and in memory as a whole.
#[derive(Debug)]
pub(crate) struct Directory {
    /// The path from the root of the tree.
    pub(crate) path: Vec<u8>,
    /// Attributes. For other kinds they are read when the file is.
    pub(crate) xattrs: Vec<Xattr>,
    /// Where its children are in the listing.
    children: Range<usize>,
}

impl Directory {
    fn new(path: Vec<u8>) -> Box<Self> {
        Box::new(Self { path, xattrs: Vec::new(), children: 0..0 })
    }
}

/// A directory and all in it that is visible and selected. Siblings are adjacent, sorted by the bytes of their names,
/// and behind their parent.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) entries: Vec<Entry>,
    /// What ignore patterns hide, when it was asked for.
    pub(crate) hidden: Vec<Hidden>,
}

/// A name that an ignore pattern hides, with all that may be in it.
#[derive(Debug)]
pub(crate) struct Hidden {
    pub(crate) path: Vec<u8>,
    pub(crate) is_dir: bool,
    /// The pattern that hides it.
    pub(crate) rule: usize,
}

/// Whether a listing says what it leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HiddenNames {
    Named,
    Dropped,
}

/// A directory whose children are to be listed.
struct Pending {
    index: usize,
    /// From the root of the tree.
    path: Vec<u8>,
    /// From the listed directory.
    relative: Vec<u8>,
    ignore: MatchState,
    include: MatchState,
    exclude: MatchState,
}

/// What one directory held.
struct Listed {
    xattrs: Vec<Xattr>,
    children: Vec<Entry>,
    /// Those of them that are to be listed too, by their place among them.
    pending: Vec<Pending>,
    has_hidden_file: bool,
    hidden: Vec<Hidden>,
}

impl SourceTree {
    /// Lists what is below the directory `path`, which holds no links.
    pub(crate) fn list(&self, path: &[u8], metadata: Metadata, selection: &Selection) -> Result<Listing> {
        self.list_with(path, metadata, selection, HiddenNames::Dropped)
    }

    pub(super) fn list_with(
        &self,
        path: &[u8],
        metadata: Metadata,
        selection: &Selection,
        hidden_names: HiddenNames,
    ) -> Result<Listing> {
        let walk = Walk { tree: self, selection, hidden_names };
        let root = Entry {
            name: Box::default(),
            metadata,
            parent: 0,
            directory: Some(Directory::new(path.to_vec())),
            is_selected: true,
            is_needed: true,
            is_visible: false,
        };
        let mut level = vec![walk.top(path)];
        let mut listing = Listing { entries: vec![root], hidden: Vec::new() };
        listing.entries[0].is_visible = !level[0].ignore.is_match();
        while !level.is_empty() {
            let listed: Vec<(usize, Listed)> = level
                .into_par_iter()
                .map(|pending| Ok((pending.index, walk.directory(&pending)?)))
                .collect::<Result<_>>()?;
            level = Vec::new();
            listing.entries.reserve(listed.iter().map(|(_, found)| found.children.len()).sum());
            for (index, found) in listed {
                listing.adopt(index, found, &mut level);
            }
        }
        listing.settle();
        Ok(listing)
    }
}

impl Listing {
    fn adopt(&mut self, parent: usize, found: Listed, level: &mut Vec<Pending>) {
        let start = self.entries.len();
        let entry = &mut self.entries[parent];
        if let Some(directory) = &mut entry.directory {
            directory.children = start..start + found.children.len();
            directory.xattrs = found.xattrs;
        }
        entry.is_visible |= found.has_hidden_file;
        self.hidden.extend(found.hidden);
        self.entries.extend(found.children);
        level.extend(found.pending.into_iter().map(|pending| Pending { index: start + pending.index, ..pending }));
    }

    /// Carries visibility and need from the leaves to the directories that lead there.
    fn settle(&mut self) {
        for index in (1..self.entries.len()).rev() {
            let entry = &mut self.entries[index];
            entry.is_needed |= entry.is_selected && entry.is_visible;
            entry.is_selected &= entry.is_visible;
            let (is_visible, is_needed, parent) = (entry.is_visible, entry.is_needed, entry.parent);
            self.entries[parent].is_visible |= is_visible;
            self.entries[parent].is_needed |= is_needed;
        }
    }

    /// True when the listed directory is hidden and nothing in it is visible.
    pub(crate) fn is_hidden(&self) -> bool {
        !self.entries[0].is_visible
    }

    /// The needed children of a directory, by index.
    pub(crate) fn needed(&self, directory: usize) -> impl Iterator<Item = (usize, &Entry)> {
        let range = self.directory(directory).children.clone();
        range.map(|index| (index, &self.entries[index])).filter(|(_, entry)| entry.is_needed)
    }

    /// An entry that is a directory.
    pub(crate) fn directory(&self, index: usize) -> &Directory {
        self.entries[index].directory.as_ref().expect("only directories are asked what is in them")
    }

    /// The path of an entry from the root of the tree.
    pub(crate) fn path(&self, index: usize) -> Vec<u8> {
        let entry = &self.entries[index];
        match &entry.directory {
            Some(directory) => directory.path.clone(),
            None => join(&self.directory(entry.parent).path, entry.name.as_bytes()),
        }
    }
}

struct Walk<'a> {
    tree: &'a SourceTree,
    selection: &'a Selection,
    hidden_names: HiddenNames,
}

impl Walk<'_> {
    /// The states at the listed directory: the ignore patterns see the whole path, the selection only what is below.
    fn top(&self, path: &[u8]) -> Pending {
        let ignore = self.tree.ignore.as_ref().map_or_else(MatchState::default, |ignore| {
            let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
            let ends = ends.chain((!path.is_empty()).then_some(path.len()));
            ends.fold(ignore.root(), |state, end| ignore.descend(&state, &path[..end]))
        });
        let start = |set: &Option<PatternSet>| set.as_ref().map_or_else(MatchState::default, PatternSet::root);
        Pending {
            index: 0,
            path: path.to_vec(),
            relative: Vec::new(),
            ignore,
            include: start(&self.selection.include),
            exclude: start(&self.selection.exclude),
        }
    }

    fn directory(&self, pending: &Pending) -> Result<Listed> {
        let fd = open_directory(&self.tree.root, &pending.path).map_err(Error::io("open", &pending.path))?;
        let mut names = read_dir_fd(&fd).map_err(Error::io("list", &pending.path))?;
        names.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let xattrs = self.tree.attributes(&fd).map_err(Error::io("read the attributes of", &pending.path))?;
        let children = Vec::with_capacity(names.len());
        let mut listed = Listed { xattrs, children, pending: Vec::new(), has_hidden_file: false, hidden: Vec::new() };
        for name in names {
            // Nothing can be read from a socket's name, and an image cannot hold one.
            if name.kind == FileKind::Socket {
                continue;
            }
            let is_dir = name.kind == FileKind::Directory;
            let judged = self.judge(pending, name.name.as_bytes(), is_dir);
            let Some(verdict) = judged else {
                listed.hidden.extend(self.hidden(pending, name.name.as_bytes(), is_dir));
                continue;
            };
            if !is_dir && !verdict.is_selected {
                listed.has_hidden_file = true;
                continue;
            }
            let Some(metadata) = stat_at(&fd, &name.name, &pending.path)? else { continue };
            let metadata = self.tree.seen(metadata);
            if metadata.is_dir() != is_dir {
                return Err(Error::ChangedWhileRead { path: printable(&join(&pending.path, name.name.as_bytes())) });
            }
            let index = listed.children.len();
            listed.pending.extend(verdict.descend.map(|below| Pending { index, ..below }));
            let entry = Entry {
                name: name.name.into(),
                metadata,
                parent: pending.index,
                directory: is_dir.then(|| Directory::new(verdict.path)),
                is_selected: verdict.is_selected,
                is_needed: false,
                is_visible: verdict.is_visible,
            };
            listed.children.push(entry);
        }
        Ok(listed)
    }

    /// What is to be said about a name that is hidden.
    fn hidden(&self, parent: &Pending, name: &[u8], is_dir: bool) -> Option<Hidden> {
        let ignore = self.tree.ignore.as_ref().filter(|_| self.hidden_names == HiddenNames::Named)?;
        let path = join(&parent.path, name);
        let rule = ignore.judge(&parent.ignore, &path).1?;
        Some(Hidden { path, is_dir, rule })
    }

    /// Asks the patterns about one name; `None` when it is hidden with all that may be in it.
    fn judge(&self, parent: &Pending, name: &[u8], is_dir: bool) -> Option<Verdict> {
        let Selection { include, exclude } = self.selection;
        let ignore_set = self.tree.ignore.as_ref();
        if !is_dir && ignore_set.is_none() && include.is_none() && exclude.is_none() {
            return Some(Verdict { path: Vec::new(), is_visible: true, is_selected: true, descend: None });
        }
        let path = join(&parent.path, name);
        let relative = join(&parent.relative, name);
        if !is_dir {
            let is_ignored = ignore_set.is_some_and(|set| set.is_match(&parent.ignore, &path));
            if is_ignored {
                return None;
            }
            let is_included = include.as_ref().is_none_or(|set| set.is_match(&parent.include, &relative));
            let is_excluded = exclude.as_ref().is_some_and(|set| set.is_match(&parent.exclude, &relative));
            let is_selected = is_included && !is_excluded;
            return Some(Verdict { path: Vec::new(), is_visible: true, is_selected, descend: None });
        }
        let state = |set: Option<&PatternSet>, parent: &MatchState, path: &[u8]| {
            set.map_or_else(MatchState::default, |set| set.descend(parent, path))
        };
        let ignore = state(ignore_set, &parent.ignore, &path);
        if ignore_set.is_some_and(|set| set.can_prune(&ignore, &path)) {
            return None;
        }
        let included = state(include.as_ref(), &parent.include, &relative);
        let excluded = state(exclude.as_ref(), &parent.exclude, &relative);
        let is_included = include.is_none() || included.is_match();
        let is_selected = is_included && !excluded.is_match();
        let holds_nothing = exclude.as_ref().is_some_and(|set| set.can_prune(&excluded, &relative))
            || include.as_ref().is_some_and(|set| !is_included && !set.may_match_below(&relative));
        let is_visible = !ignore.is_match();
        let descend = (!holds_nothing).then(|| Pending {
            index: 0,
            path: path.clone(),
            relative,
            ignore,
            include: included,
            exclude: excluded,
        });
        Some(Verdict { path, is_visible, is_selected, descend })
    }
}

/// What the patterns say about one name.
struct Verdict {
    /// Of directories.
    path: Vec<u8>,
    is_visible: bool,
    is_selected: bool,
    descend: Option<Pending>,
}

/// Opens a directory of a tree for reading. The path has been found before and holds no links: one that is there now
/// was put there meanwhile.
pub(crate) fn open_directory(root: &Root, path: &[u8]) -> Result<OwnedFd, rustix::io::Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    open_beneath(root, path, flags)
}

/// The longest path that the kernel takes at once (`PATH_MAX`, path_resolution(7), less the byte that ends it).
const LONGEST: usize = 4095;

/// Opens a path without links below a directory, however long it is.
pub(crate) fn open_beneath(root: impl AsFd, path: &[u8], flags: OFlags) -> Result<OwnedFd, rustix::io::Errno> {
    let (mut reached, mut path): (Option<OwnedFd>, &[u8]) = (None, path);
    while let Some(part) = path.get(..=LONGEST) {
        let at = part.iter().rposition(|byte| *byte == b'/').ok_or(rustix::io::Errno::NAMETOOLONG)?;
        let from = reached.as_ref().map_or(root.as_fd(), AsFd::as_fd);
        reached = Some(open_at_once(from, &path[..at], OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC)?);
        path = &path[at + 1..];
    }
    open_at_once(reached.as_ref().map_or(root.as_fd(), AsFd::as_fd), path, flags)
}

fn open_at_once(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd, rustix::io::Errno> {
    let path: &[u8] = if path.is_empty() { b"." } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    loop {
        match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            result => return result,
        }
    }
}

fn stat_at(directory: &OwnedFd, name: &OsStr, path: &[u8]) -> Result<Option<Metadata>> {
    match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(Metadata::from(&stat))),
        // Removed between listing and looking.
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(errno) => Err(Error::io("look at", join(path, name.as_bytes()))(errno)),
    }
}

pub(crate) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}
