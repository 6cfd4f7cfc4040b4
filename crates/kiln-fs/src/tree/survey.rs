//! A tree as people ask about it: what a build sees of it, what it does not see, and which pattern is to blame.

use kiln_sys::metadata::FileKind;

use super::list::HiddenNames;
use super::{LastLink, Selection, SourceTree};
use crate::error::{Error, Result};

/// What a build sees of a tree, and what patterns hide from it. Both are sorted by the bytes of their paths.
#[derive(Debug)]
pub struct Survey {
    /// Files, links and so on, and directories with nothing in them.
    pub sent: Vec<Sent>,
    /// What is hidden. Of a directory that is hidden with all in it, only the directory.
    pub left_out: Vec<LeftOut>,
}

/// Something a build sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// From the root of the tree.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: FileKind,
    /// Bytes of content; 0 for everything but regular files.
    pub size: u64,
}

/// Something a build does not see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// From the root of the tree.
    pub path: Vec<u8>,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// The pattern that hides it, by its place in the list.
    pub rule: usize,
}

/// What patterns make of one path that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Where the path really is, directories that are links followed.
    pub path: Vec<u8>,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Whether it is hidden.
    pub is_hidden: bool,
    /// The pattern that had the last word, by its place in the list.
    pub rule: Option<usize>,
}

/// Looks through a whole tree. Directories in which nothing can be visible are not opened.
pub fn survey(tree: &SourceTree) -> Result<Survey> {
    let root = tree.locate(b"", LastLink::Follow)?;
    let listing = tree.list_with(b"", root.metadata, &Selection::default(), HiddenNames::Named)?;
    let is_shown = |index: &usize| {
        let entry = &listing.entries[*index];
        entry.is_needed && (!entry.metadata.is_dir() || listing.needed(*index).next().is_none())
    };
    let sent = (1..listing.entries.len()).filter(is_shown).map(|index| {
        let metadata = &listing.entries[index].metadata;
        let size = if metadata.is_file() { metadata.size } else { 0 };
        Sent { path: listing.path(index), kind: metadata.kind, size }
    });
    let mut sent: Vec<Sent> = sent.collect();
    sent.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    let hidden = listing.hidden.into_iter();
    let mut left_out: Vec<LeftOut> =
        hidden.map(|hidden| LeftOut { path: hidden.path, is_dir: hidden.is_dir, rule: hidden.rule }).collect();
    left_out.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(Survey { sent, left_out })
}

/// Says what the tree's patterns make of a path. That a path is not there is the error a copy of it would end with.
pub fn verdict(tree: &SourceTree, path: &[u8]) -> Result<Verdict> {
    let plain = SourceTree {
        root: tree.root.try_clone().map_err(Error::io("open", path))?,
        ignore: None,
        ownership: tree.ownership,
    };
    let located = match plain.locate(path, LastLink::Keep) {
        Ok(located) => located,
        // Asked of the tree itself, so that what is hidden is not suggested.
        Err(error) => return tree.locate(path, LastLink::Keep).and(Err(error)),
    };
    let ignore = tree.ignore.as_ref().filter(|_| !located.path.is_empty());
    let (is_hidden, rule) = ignore.map_or((false, None), |ignore| ignore.decide(&located.path));
    Ok(Verdict { is_dir: located.metadata.is_dir(), path: located.path, is_hidden, rule })
}
