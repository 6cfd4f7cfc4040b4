//! Sources that are archives, where a spec asks for them to be unpacked.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::fd::OwnedFd;

use kiln_sys::root::Root;
use rustix::fs::OFlags;

use super::CopyStats;
use super::file::Look;
use super::sources::Source;
use crate::archive::{extract, is_archive};
use crate::digest::check_state;
use crate::error::{Error, Result, printable};
use crate::tree::open_beneath;

/// Unpacks a source into a place, if it is an archive.
pub(super) fn unpack(
    look: Look<'_>,
    source: &Source,
    place: impl FnOnce() -> Result<OwnedFd>,
) -> Result<Option<CopyStats>> {
    let path = &source.located.path;
    let limits = &look.spec.limits;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = open_beneath(&look.tree.root, path, flags).map_err(Error::io("open", path))?;
    let mut file = File::from(file);
    check_state(&file, path, &source.located.metadata)?;
    if !is_archive(&file, limits) {
        return Ok(None);
    }
    file.seek(SeekFrom::Start(0)).map_err(Error::io("read", path))?;
    let dest = Root::new(place()?);
    let done = extract(&file, &dest, limits, look.spec.owner);
    let done = done.map_err(|source| Error::Unpack { path: printable(path), source })?;
    check_state(&file, path, &source.located.metadata)?;
    Ok(Some(CopyStats {
        files: done.files,
        bytes: done.bytes,
        others: done.entries - done.files,
        skipped_xattrs: done.skipped_xattrs,
        ..CopyStats::default()
    }))
}
