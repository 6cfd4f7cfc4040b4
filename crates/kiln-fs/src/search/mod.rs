//! Looks for bytes in a layer: in the contents of files, also packed ones, in names, links and attributes.

mod content;
mod zip;

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Seek as _};
use std::os::unix::ffi::OsStrExt;

use aho_corasick::{AhoCorasick, MatchKind};
use kiln_sys::metadata::{FileKind, Metadata};
use kiln_sys::root::Root;
use rayon::prelude::*;
use rustix::fs::OFlags;

use crate::compress::{Format, decompressor, sniff};
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::tree::{LastLink, Listing, Selection, SourceTree, open_beneath};
use content::{Hit, place_of, search};

/// What is read of one packed file, unpacked. What comes after is not looked at.
const UNPACKED: u64 = 1 << 30;

/// Bytes that are looked for. White space does not count, neither theirs nor that of files: what was broken into lines is
/// found all the same.
#[derive(Debug, Clone)]
pub struct Patterns {
    automaton: AhoCorasick,
    longest: usize,
}

impl Patterns {
    /// Looks for all of these at once; none must be of white space alone. `None` when there is nothing to look for, or more
    /// than can be.
    pub fn new(patterns: &[Vec<u8>]) -> Option<Self> {
        let patterns: Vec<Vec<u8>> = patterns.iter().map(|pattern| content::squeezed(pattern)).collect();
        let longest = patterns.iter().map(Vec::len).max()?;
        if patterns.iter().any(Vec::is_empty) {
            return None;
        }
        let automaton = AhoCorasick::builder().match_kind(MatchKind::Standard).build(&patterns).ok()?;
        Some(Self { automaton, longest })
    }

    /// The first of them that is in this text, by its place among them.
    pub fn find(&self, text: &[u8]) -> Option<usize> {
        self.automaton.find(&content::squeezed(text)).map(|found| found.pattern().as_usize())
    }
}

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The file, from the root of the layer.
    pub path: Vec<u8>,
    /// Where in it.
    pub place: FoundIn,
    /// Which pattern, by its place among them.
    pub pattern: usize,
}

/// Where in a file something was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoundIn {
    /// In its name.
    Name,
    /// Where the link leads.
    Target,
    /// In the value or the name of an extended attribute.
    Attribute(String),
    /// In its content, this many bytes from its beginning.
    Content {
        /// Bytes before it.
        offset: u64,
        /// The line, from 1, when what comes before is text.
        line: Option<u64>,
    },
    /// In what it holds packed: a stream, or a file of an archive by this name.
    Packed(Option<String>),
}

/// Searches a layer as it lies on disk. Each file is told once.
pub fn search_layer(upper: &Root, patterns: &Patterns) -> Result<Vec<Found>> {
    let tree = SourceTree::snapshot(upper.try_clone().map_err(Error::io("open", b""))?);
    let top = tree.locate(b"", LastLink::Keep)?;
    let listing = tree.list(b"", top.metadata, &Selection::default())?;
    let mut seen = HashSet::new();
    // What has many names is searched under the first.
    let is_first: Vec<bool> = listing.entries.iter().map(|entry| is_new(&entry.metadata, &mut seen)).collect();
    let looked: Vec<Option<Found>> = (0..listing.entries.len())
        .into_par_iter()
        .with_max_len(64)
        .map(|index| entry(&tree, &listing, (index, is_first[index]), patterns))
        .collect::<Result<_>>()?;
    Ok(looked.into_iter().flatten().collect())
}

fn is_new(file: &Metadata, seen: &mut HashSet<(u64, u64)>) -> bool {
    file.kind != FileKind::Regular || file.nlink < 2 || seen.insert((file.dev, file.ino))
}

fn entry(
    tree: &SourceTree,
    listing: &Listing,
    (index, is_first): (usize, bool),
    patterns: &Patterns,
) -> Result<Option<Found>> {
    let entry = &listing.entries[index];
    let path = listing.path(index);
    let found = |place, pattern| Some(Found { path: path.clone(), place, pattern });
    if let Some(pattern) = patterns.find(entry.name.as_bytes()) {
        return Ok(found(FoundIn::Name, pattern));
    }
    let in_attributes = |attributes: &[(std::ffi::OsString, Vec<u8>)]| {
        attributes.iter().find_map(|(name, value)| {
            let pattern = patterns.find(value).or_else(|| patterns.find(name.as_bytes()))?;
            found(FoundIn::Attribute(name.to_string_lossy().into_owned()), pattern)
        })
    };
    match entry.metadata.kind {
        FileKind::Directory => Ok(in_attributes(&listing.directory(index).xattrs)),
        FileKind::Symlink => {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let link = open_beneath(&tree.root, &path, flags);
            let target = link.and_then(|link| rustix::fs::readlinkat(link, "", Vec::new()));
            let target = target.map_err(Error::io("read the link", &path))?;
            Ok(patterns.find(target.as_bytes()).and_then(|pattern| found(FoundIn::Target, pattern)))
        }
        FileKind::Regular if is_first => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file: File = open_beneath(&tree.root, &path, flags).map_err(Error::io("open", &path))?.into();
            let attributes = tree.attributes(&file).map_err(Error::io("read the attributes of", &path))?;
            if let Some(found) = in_attributes(&attributes) {
                return Ok(Some(found));
            }
            let inside = contents(&file, patterns).map_err(Error::io("read", &path))?;
            Ok(inside.and_then(|(place, pattern)| found(place, pattern)))
        }
        _ => Ok(None),
    }
}

/// Searches a file as it is, then what it holds packed. What cannot be unpacked holds nothing that others could.
fn contents(mut file: &File, patterns: &Patterns) -> io::Result<Option<(FoundIn, usize)>> {
    if let Some(Hit { at, pattern }) = search(file, file.metadata()?.len(), patterns)? {
        file.rewind()?;
        let (offset, line) = place_of(file, at)?;
        return Ok(Some((FoundIn::Content { offset, line }, pattern)));
    }
    let mut head = [0; 6];
    file.rewind()?;
    let read = file.take(6).read(&mut head)?;
    if head[..read].starts_with(zip::MAGIC) {
        return Ok(
            zip::search_archive(file, patterns, UNPACKED).map(|(name, pattern)| (FoundIn::Packed(Some(name)), pattern))
        );
    }
    if sniff(&head[..read]) == Format::Plain {
        return Ok(None);
    }
    file.rewind()?;
    let limits = Limits { bytes: u64::MAX, ..Limits::default() };
    let hit = decompressor(file, &limits).and_then(|plain| search(plain.take(UNPACKED), u64::MAX, patterns));
    Ok(hit.ok().flatten().map(|hit| (FoundIn::Packed(None), hit.pattern)))
}

#[cfg(test)]
mod tests;
