//! Beneath an overlay: where all that comes into a directory is new, it may be put into the upper directory itself.

use std::os::fd::OwnedFd;

use kiln_sys::metadata::{FileKind, Metadata, Timestamp};
use kiln_sys::root::{Root, read_dir_fd, set_times};
use rustix::fs::OFlags;

use crate::tree::{Listing, open_beneath};

/// Finds the upper directory's own directory at `path`, if `handle` is the overlay's there and shows nothing. Whatever
/// is made in one is then what would be made in the other.
///
/// Not for a listing with something in it that has a meaning in an upper directory: that is refused by the overlay.
pub(super) fn beneath(
    (overlay, upper): (&Root, &Root),
    path: &[u8],
    (handle, time): (&OwnedFd, Timestamp),
    listing: &Listing,
) -> kiln_sys::Result<Option<OwnedFd>> {
    let is_mark = |of: &Metadata| of.kind == FileKind::CharDevice && of.rdev == Default::default();
    if listing.entries.iter().any(|entry| is_mark(&entry.metadata)) {
        return Ok(None);
    }
    let path = path.strip_prefix(b"/").unwrap_or(path);
    // A path on which there are no links leads to the same directory in both.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(shown) = open_beneath(overlay, path, flags) else { return Ok(None) };
    let is_there = Metadata::of(&shown)?.is_same_file(&Metadata::of(handle)?);
    if !is_there || !read_dir_fd(&shown).is_ok_and(|names| names.is_empty()) {
        return Ok(None);
    }
    // A directory of a layer further down comes up when something of it is changed.
    set_times(&shown, time)?;
    Ok(open_beneath(upper, path, flags).ok())
}
