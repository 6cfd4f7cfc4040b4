//! Copying whole trees: directories level by level, the files of a level in parallel.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use kiln_sys::root::{set_mode, set_times};
use rayon::prelude::*;
use rustix::fs::{AtFlags, OFlags};

use super::beneath::beneath;
use super::dest::{Destination, Place, make_directory};
use super::file::{From, Look, gone};
use super::sources::{Source, sources};
use super::{CopySpec, CopyStats, Target};
use crate::error::{Error, Result};
use crate::share::pieces;
use crate::tree::{Entry, Listing, SourceTree, open_beneath};

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

pub(super) fn copy(tree: &SourceTree, target: Target<'_>, spec: &CopySpec) -> Result<CopyStats> {
    copy_sources(tree, target, spec, &sources(tree, spec)?)
}

/// Copies sources that were found before.
pub(crate) fn copy_sources(
    tree: &SourceTree,
    target: Target<'_>,
    spec: &CopySpec,
    found: &[Source],
) -> Result<CopyStats> {
    let look = Look { tree, spec };
    let mut stats = CopyStats::default();
    if found.is_empty() {
        return Ok(stats);
    }
    let mut destination = Destination::new(target.root, look);
    destination.prepare()?;
    for source in found {
        if spec.unpack_archives && source.located.metadata.is_file() {
            let place = || destination.unpack_place();
            if let Some(unpacked) = super::unpack::unpack(look, source, place)? {
                stats += unpacked;
                continue;
            }
        }
        stats += match (&source.listing, destination.place(source)?) {
            (Some(listing), Place::Directory { handle, path, is_new }) => {
                // Only a sole source: a second one must be shown what the first has made.
                let upper = target.upper.filter(|_| found.len() == 1);
                let base = upper.map(|upper| {
                    let time = look.mtime(&listing.entries[0].metadata);
                    beneath((target.root, upper), &path, (&handle, time), listing)
                });
                let base = base.transpose().map_err(Error::io("look at", &path))?.flatten();
                let is_beneath = base.is_some();
                let (base, overlay) = match base {
                    Some(base) => (base, Some(handle)),
                    None => (handle, None),
                };
                CopyStats { is_beneath, ..TreeCopy { look, listing, base, overlay }.run(is_new)? }
            }
            (_, Place::Directory { .. }) => CopyStats::default(),
            (_, Place::Name { parent, name }) => copy_file(look, source, parent.as_fd(), &name)?,
        };
    }
    destination.finish()?;
    Ok(stats)
}

fn copy_file(look: Look<'_>, source: &Source, to: BorrowedFd<'_>, name: &OsStr) -> Result<CopyStats> {
    let path = &source.located.path;
    let (directory, own_name) = match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&b""[..], &path[..]),
    };
    let directory = open_beneath(&look.tree.root, directory, DIRECTORY).map_err(Error::io("open", directory))?;
    let own_name = OsStr::from_bytes(own_name);
    let metadata = &source.located.metadata;
    look.copy(&From { directory: directory.as_fd(), name: own_name, metadata, path }, to, name)
}

/// One directory being copied onto another.
pub(super) struct TreeCopy<'a> {
    pub(super) look: Look<'a>,
    pub(super) listing: &'a Listing,
    /// The directory at the destination.
    pub(super) base: OwnedFd,
    /// The same directory as the overlay shows it, when `base` is beneath it. Directories are made in this one, for they
    /// may need marks that hide what layers further down have; what is made in them needs none.
    pub(super) overlay: Option<OwnedFd>,
}

/// Some names of one directory.
struct Batch {
    directory: usize,
    names: Vec<usize>,
}

/// What a batch did.
#[derive(Default)]
struct Done {
    stats: CopyStats,
    made: Vec<usize>,
}

impl TreeCopy<'_> {
    /// Copies all; a new directory takes over the look of the source, another only its time.
    pub(super) fn run(&self, is_new: bool) -> Result<CopyStats> {
        let links = self.links();
        let mut stats = CopyStats::default();
        let mut is_made = vec![false; self.listing.entries.len()];
        is_made[0] = is_new;
        let mut level = vec![0];
        while !level.is_empty() {
            let batches = self.batches(&level, &links);
            let done: Vec<Done> = batches.into_par_iter().map(|batch| self.batch(&batch)).collect::<Result<_>>()?;
            for Done { stats: more, made } in done {
                stats += more;
                made.into_iter().for_each(|index| is_made[index] = true);
            }
            let inside = |index: &usize| self.directories(*index).collect::<Vec<_>>();
            level = level.iter().flat_map(inside).collect();
        }
        for (&link, &first) in &links {
            self.link(first, link)?;
            stats.files += 1;
        }
        stats.skipped_xattrs += self.dress_directories(&is_made)?;
        stats.directories += is_made.iter().filter(|made| **made).count() as u64;
        Ok(stats)
    }

    /// The files that share an inode with one that comes first, by index.
    fn links(&self) -> HashMap<usize, usize> {
        let mut first = HashMap::new();
        let mut links = HashMap::new();
        for (index, entry) in self.listing.entries.iter().enumerate() {
            let metadata = &entry.metadata;
            if !entry.is_needed || !metadata.is_file() || metadata.nlink < 2 {
                continue;
            }
            let known = *first.entry((metadata.dev, metadata.ino)).or_insert(index);
            if known != index {
                links.insert(index, known);
            }
        }
        links
    }

    fn directories(&self, index: usize) -> impl Iterator<Item = usize> {
        self.listing.needed(index).filter(|(_, entry)| entry.metadata.is_dir()).map(|(index, _)| index)
    }

    fn batches(&self, level: &[usize], links: &HashMap<usize, usize>) -> Vec<Batch> {
        let mut batches = Vec::new();
        for &directory in level {
            let needed = self.listing.needed(directory).map(|(index, _)| index);
            let names: Vec<usize> = needed.filter(|index| !links.contains_key(index)).collect();
            let size = |index: &usize| match &self.listing.entries[*index].metadata {
                file if file.is_file() => file.size,
                _ => 0,
            };
            let pieces = pieces(names.iter().map(size)).into_iter();
            batches.extend(pieces.map(|piece| Batch { directory, names: names[piece].to_vec() }));
        }
        batches
    }

    fn batch(&self, batch: &Batch) -> Result<Done> {
        let directory = &self.listing.directory(batch.directory).path;
        let from = open_beneath(&self.look.tree.root, directory, DIRECTORY).map_err(|errno| gone(errno, directory))?;
        let to = self.open(batch.directory)?;
        let directories = self.overlay.as_ref().filter(|_| batch.directory == 0).unwrap_or(&to);
        let mut done = Done::default();
        for &index in &batch.names {
            let entry = &self.listing.entries[index];
            let path = self.listing.path(index);
            if entry.metadata.is_dir() {
                if make_directory(directories, &entry.name, &path, self.look.spec.always_replace)? {
                    done.made.push(index);
                }
                continue;
            }
            let file = From { directory: from.as_fd(), name: &entry.name, metadata: &entry.metadata, path: &path };
            done.stats += self.look.copy(&file, to.as_fd(), &entry.name)?;
        }
        Ok(done)
    }

    /// Opens the copy of a directory. It was made or found as one: a link there now was put there meanwhile.
    fn open(&self, index: usize) -> Result<OwnedFd> {
        let root = self.listing.directory(0).path.len();
        let path = &self.listing.directory(index).path;
        let relative = if index == 0 { &[][..] } else { &path[root + usize::from(root > 0)..] };
        open_beneath(&self.base, relative, DIRECTORY).map_err(Error::io("open the copy of", path))
    }

    fn link(&self, first: usize, link: usize) -> Result<()> {
        let path = self.listing.path(link);
        let (first, link) = (&self.listing.entries[first], &self.listing.entries[link]);
        let (from, to) = (self.open(first.parent)?, self.open(link.parent)?);
        let make = |name: &OsStr| rustix::fs::linkat(&from, &*first.name, &to, name, AtFlags::empty());
        let ((), pending) = self.look.make((to.as_fd(), &link.name), &path, make)?;
        pending.finish().map_err(Error::io("replace", &path))
    }

    /// Gives directories their look at the end: putting files into them has moved their times.
    fn dress_directories(&self, is_made: &[bool]) -> Result<u64> {
        let directories: Vec<(usize, &Entry)> =
            self.listing.entries.iter().enumerate().filter(|(_, e)| e.is_needed && e.metadata.is_dir()).collect();
        let skipped =
            directories.into_par_iter().with_min_len(64).map(|(index, entry)| self.dress(index, entry, is_made[index]));
        skipped.sum::<Result<u64>>()
    }

    fn dress(&self, index: usize, entry: &Entry, is_new: bool) -> Result<u64> {
        let handle = self.open(index)?;
        let (metadata, directory) = (&entry.metadata, self.listing.directory(index));
        let dressed = if is_new || (index > 0 && entry.is_selected) {
            self.look.dress(handle.as_fd(), metadata, &directory.xattrs)
        } else if index > 0 {
            set_mode(&handle, metadata.mode).map(|()| 0).map_err(Into::into)
        } else {
            set_times(&handle, self.look.mtime(metadata)).map(|()| 0).map_err(Into::into)
        };
        dressed.map_err(Error::io("set the attributes of the copy of", &directory.path))
    }
}
