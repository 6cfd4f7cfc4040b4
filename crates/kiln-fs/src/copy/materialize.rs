//! A context as a directory of its own, without what is hidden: what a bind mount of it shows.

use kiln_sys::root::Root;

use super::file::Look;
use super::run::TreeCopy;
use super::{CopySpec, CopyStats};
use crate::error::{Error, Result};
use crate::tree::{LastLink, Selection, SourceTree};

/// Copies all that is visible in `tree` into the directory `dest`, whose own look stays.
pub fn materialize(tree: &SourceTree, dest: &Root) -> Result<CopyStats> {
    let root = tree.locate(b"", LastLink::Keep)?;
    let listing = tree.list(b"", root.metadata, &Selection::default())?;
    let spec = CopySpec::default();
    let base = dest.open(".", rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY);
    let base = base.map_err(Error::io("open", b"/"))?;
    TreeCopy { look: Look { tree, spec: &spec }, listing: &listing, base, overlay: None }.run(false)
}
