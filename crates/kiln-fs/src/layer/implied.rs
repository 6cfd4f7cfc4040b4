//! Directories a layer puts something into without describing them.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use kiln_sys::metadata::Metadata;
use kiln_sys::root::{Root, set_mode, set_owner, set_times};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::whiteout::{is_opaque, is_whiteout};
use super::{LayerError, Result};
use crate::meta::{set_xattrs, xattrs};
use crate::tree::open_beneath;

const ITSELF: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Gives directories that a layer only implied the look they have in the layers below it, the nearest first.
///
/// Without this a layer that brings `tmp/file` and no entry for `tmp/` would turn a `/tmp` of mode 1777 into one of
/// 0755. What is returned are the implied directories that are something else below, most often a link: such a layer
/// means what it says only when it is unpacked onto the merged tree ([`super::Target::Merged`]).
///
/// The result depends on the layers below, so a layer treated like this must not be shared between stacks.
pub fn inherit_implied(layer: &Root, implied: &[Vec<u8>], below: &[Root]) -> Result<Vec<Vec<u8>>> {
    let mut conflicts = Vec::new();
    for path in implied {
        match nearest(path, below)? {
            None => {}
            Some((handle, metadata)) if metadata.is_dir() => inherit(layer, path, &handle, &metadata)?,
            Some(_) => conflicts.push(path.clone()),
        }
    }
    Ok(conflicts)
}

/// What a path is in the nearest layer that says anything about it.
fn nearest(path: &[u8], below: &[Root]) -> Result<Option<(OwnedFd, Metadata)>> {
    for root in below {
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        let mut hides = false;
        for end in ends.chain([path.len()]) {
            let prefix = &path[..end];
            let handle = match open_beneath(root, prefix, ITSELF) {
                Err(Errno::NOENT) => break,
                opened => opened.map_err(LayerError::io("open", prefix))?,
            };
            let metadata = Metadata::of(&handle).map_err(LayerError::io("look at", prefix))?;
            if is_whiteout(&metadata) {
                return Ok(None);
            }
            if end == path.len() || !metadata.is_dir() {
                return Ok(Some((handle, metadata)));
            }
            hides |= is_opaque(&handle).map_err(LayerError::io("look at", prefix))?;
        }
        if hides {
            return Ok(None);
        }
    }
    Ok(None)
}

fn inherit(layer: &Root, path: &[u8], from: &OwnedFd, metadata: &Metadata) -> Result<()> {
    let handle = layer.open_nofollow(OsStr::from_bytes(path)).map_err(LayerError::io("open", path))?;
    let dress = || -> std::io::Result<()> {
        set_owner(&handle, metadata.uid, metadata.gid)?;
        set_mode(&handle, metadata.mode)?;
        set_xattrs(handle.as_fd(), &xattrs(from)?)?;
        set_times(&handle, metadata.mtime)?;
        Ok(())
    };
    dress().map_err(LayerError::io("set the attributes of", path))
}
