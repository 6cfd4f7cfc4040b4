//! Whether a copy would find its source, without copying.

use kiln_sys::metadata::FileKind;

use super::CopySpec;
use super::sources::sources;
use crate::clean::absolute;
use crate::error::{Error, Result};
use crate::pattern::has_wildcards;
use crate::tree::{LastLink, SourceTree};

/// What a copy would find at its source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence {
    /// Something to copy.
    Present,
    /// Nothing of that name; these look alike.
    Missing(Vec<String>),
    /// Something that an ignore pattern hides: its place in the list, and its text.
    Hidden(usize, String),
    /// A wildcard that matches nothing.
    Unmatched,
    /// A socket, which cannot be copied.
    Socket,
}

/// Asks what `spec` would copy from `tree`.
pub fn probe(tree: &SourceTree, spec: &CopySpec) -> Result<Presence> {
    if is_plainly_there(tree, spec) {
        return Ok(Presence::Present);
    }
    match sources(tree, spec) {
        // An empty directory can be copied; a choice of nothing cannot.
        Ok(found) if found.iter().any(|source| spec.include.is_empty() || source.has_content()) => {
            Ok(Presence::Present)
        }
        Ok(_) => Ok(hidden_matches(tree, spec)?.unwrap_or(Presence::Unmatched)),
        Err(Error::NotFound { ignored_by: Some((rule, pattern)), .. }) => Ok(Presence::Hidden(rule, pattern)),
        Err(Error::NotFound { similar, .. }) => Ok(Presence::Missing(similar)),
        Err(Error::Socket { .. }) => Ok(Presence::Socket),
        Err(error) => Err(error),
    }
}

/// A directory that is visible itself need not be looked through, however large it is.
fn is_plainly_there(tree: &SourceTree, spec: &CopySpec) -> bool {
    if has_wildcards(&spec.src) || !spec.include.is_empty() || !spec.required_paths.is_empty() {
        return false;
    }
    let located = tree.locate(absolute(&spec.src).as_bytes(), LastLink::Follow);
    located.is_ok_and(|located| {
        let is_hidden = tree.ignore.as_ref().is_some_and(|ignore| ignore.matches_bytes(&located.path));
        located.metadata.kind != FileKind::Socket && (located.path.is_empty() || !is_hidden)
    })
}

/// What a wildcard would match if nothing were hidden.
fn hidden_matches(tree: &SourceTree, spec: &CopySpec) -> Result<Option<Presence>> {
    let Some(ignore) = &tree.ignore else { return Ok(None) };
    let root = tree.root.try_clone().map_err(Error::io("open", spec.src.as_bytes()))?;
    let all = SourceTree { root, ignore: None, ownership: tree.ownership };
    let found = sources(&all, spec)?;
    let hides = found.iter().find_map(|source| ignore.hides(&source.located.path));
    Ok(hides.map(|(rule, pattern)| Presence::Hidden(rule, pattern)))
}
