//! Which files a spec names: wildcards, patterns, what must be there.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use kiln_sys::metadata::FileKind;

use super::CopySpec;
use crate::clean::absolute;
use crate::error::{Error, Result, printable};
use crate::pattern::{PatternSet, glob_match, has_wildcards};
use crate::tree::{LastLink, Listing, Located, Selection, SourceTree, join, split};

/// One source: a file, or a directory with what of it is to be copied.
#[derive(Debug)]
pub(crate) struct Source {
    /// The path as it was asked for or matched.
    asked: Vec<u8>,
    pub(crate) located: Located,
    /// What is in it, for a directory.
    pub(crate) listing: Option<Listing>,
}

impl Source {
    /// Finds a path, links followed.
    pub(crate) fn find(tree: &SourceTree, path: &[u8], selection: &Selection) -> Result<Self> {
        Self::open(tree, path, LastLink::Follow, selection)
    }

    fn open(tree: &SourceTree, asked: &[u8], last: LastLink, selection: &Selection) -> Result<Self> {
        let located = tree.locate(asked, last)?;
        let listing = match located.metadata.is_dir() {
            true => Some(tree.list(&located.path, located.metadata, selection)?),
            false => None,
        };
        if !located.path.is_empty() && listing.as_ref().is_some_and(Listing::is_hidden) {
            let ignored_by = tree.ignore.as_ref().and_then(|ignore| ignore.hides(&located.path));
            return Err(Error::NotFound { path: printable(asked), ignored_by, similar: Vec::new() });
        }
        Ok(Self { asked: asked.to_vec(), located, listing })
    }

    /// The name the source has at the destination; empty for the root of a tree.
    pub(crate) fn name(&self) -> &[u8] {
        split(&self.asked).next_back().unwrap_or_default()
    }

    /// Says whether there is anything in it to copy; files are something themselves.
    pub(super) fn has_content(&self) -> bool {
        self.listing.as_ref().is_none_or(|listing| listing.needed(0).next().is_some())
    }

    /// Says whether `path` is among what is copied.
    fn holds(&self, path: &[u8]) -> bool {
        let (mut wanted, mut own) = (split(path), split(&self.asked));
        for name in own.by_ref() {
            if wanted.next() != Some(name) {
                return false;
            }
        }
        let Some(listing) = &self.listing else { return wanted.next().is_none() };
        let mut at = 0;
        for name in wanted {
            let found = listing.needed(at).find(|(_, entry)| entry.name.as_bytes() == name);
            let Some((index, _)) = found else { return false };
            at = index;
        }
        true
    }
}

/// Finds all sources of a spec, in the order they are copied.
pub(crate) fn sources(tree: &SourceTree, spec: &CopySpec) -> Result<Vec<Source>> {
    let compile =
        |patterns: &[String]| Ok::<_, Error>(if patterns.is_empty() { None } else { Some(PatternSet::new(patterns)?) });
    let selection = Selection { include: compile(&spec.include)?, exclude: compile(&spec.exclude)? };
    let last = if spec.follow_symlink { LastLink::Follow } else { LastLink::Keep };
    let src = absolute(&spec.src);
    let (fixed, wild) = if spec.allow_wildcard { split_wildcards(&src) } else { (src.clone(), Vec::new()) };
    let mut found = Vec::new();
    if wild.is_empty() {
        let source = Source::open(tree, fixed.as_bytes(), last, &selection)?;
        // One that a directory or a wildcard brings along is passed over; this one was asked for.
        if source.located.metadata.kind == FileKind::Socket {
            return Err(Error::Socket { path: fixed });
        }
        found.push(source);
    } else {
        for path in matches(tree, &fixed, &wild, last)? {
            match Source::open(tree, &path, last, &selection) {
                Ok(source) if source.listing.is_none() && is_excluded(&selection, source.name()) => {}
                // A directory in which everything is hidden is not there.
                Err(Error::NotFound { ignored_by: Some(_), .. }) => {}
                source => found.push(source?),
            }
        }
        if found.is_empty() && !spec.allow_empty_wildcard {
            return Err(tree.missing(src.as_bytes(), src.as_bytes()));
        }
    }
    for required in &spec.required_paths {
        let required = absolute(required);
        if !found.iter().any(|source| source.holds(required.as_bytes())) {
            tree.locate(required.as_bytes(), LastLink::Keep)?;
            return Err(Error::NotFound { path: required, ignored_by: None, similar: Vec::new() });
        }
    }
    Ok(found)
}

/// Patterns see paths below a source directory; of a file that a wildcard matched they see the name.
fn is_excluded(selection: &Selection, name: &[u8]) -> bool {
    selection.exclude.as_ref().is_some_and(|set| set.matches_bytes(name))
}

/// Splits an absolute path before the first component with a wildcard.
fn split_wildcards(path: &str) -> (String, Vec<&str>) {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let at = parts.iter().position(|part| has_wildcards(part)).unwrap_or(parts.len());
    (format!("/{}", parts[..at].join("/")), parts[at..].to_vec())
}

/// The visible paths that match the wildcards below `fixed`, in the order of their names.
fn matches(tree: &SourceTree, fixed: &str, wild: &[&str], last: LastLink) -> Result<Vec<Vec<u8>>> {
    let base = tree.locate(fixed.as_bytes(), last)?;
    if !base.metadata.is_dir() {
        return Ok(Vec::new());
    }
    let mut level = vec![base.path];
    for (depth, pattern) in wild.iter().enumerate() {
        let is_last = depth + 1 == wild.len();
        let mut next = Vec::new();
        for directory in level {
            let mut names = tree.root.read_dir(OsStr::from_bytes(&directory)).map_err(Error::io("list", &directory))?;
            names.sort_unstable_by(|a, b| a.name.cmp(&b.name));
            for entry in names {
                let name = entry.name.as_bytes();
                let is_dir = entry.kind == FileKind::Directory;
                // A malformed wildcard matches nothing, as it does in the reference implementation.
                if !(is_dir || is_last) || !glob_match(pattern, name).unwrap_or(false) {
                    continue;
                }
                let path = join(&directory, name);
                if !(is_dir && tree.may_hold(&path)) && (is_dir || tree.hides(&path)) {
                    continue;
                }
                if entry.kind != FileKind::Socket {
                    next.push(path);
                }
            }
        }
        level = next;
    }
    Ok(level)
}

impl SourceTree {
    fn hides(&self, path: &[u8]) -> bool {
        self.ignore.as_ref().is_some_and(|ignore| ignore.matches_bytes(path))
    }

    /// Says whether a directory is visible, or may hold something that is.
    fn may_hold(&self, directory: &[u8]) -> bool {
        let Some(ignore) = &self.ignore else { return true };
        let ends = directory.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        let states = ends.chain([directory.len()]).map(|end| &directory[..end]);
        let state = states.fold(ignore.root(), |state, path| ignore.descend(&state, path));
        !ignore.can_prune(&state, directory)
    }
}
