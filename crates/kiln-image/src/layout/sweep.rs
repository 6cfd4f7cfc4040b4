//! Removes from a layout what no entry of its index leads to.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::{File, TryLockError};
use std::os::unix::ffi::OsStrExt as _;

use kiln_oci::{Descriptor, Document};
use rustix::fs::{AtFlags, Dir, DirEntry, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;

use super::Layout;
use crate::blob::fetch_document;
use crate::{Error, Result, limits};

/// What a sweep did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swept {
    /// It removed this many blobs.
    Removed(usize),
    /// Nothing: somebody is writing into the layout.
    InUse,
}

impl Layout {
    /// Removes the blobs that no entry of the index leads to. Nothing is removed when a document that would have to be
    /// followed cannot be read, or while there is a sink of the layout, here or in another process.
    pub async fn sweep(&self) -> Result<Swept> {
        let blobs = self.blobs()?;
        match blobs.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Swept::InUse),
            Err(TryLockError::Error(error)) => return Err(Error::file("lock", &self.dir)(error)),
        }
        let needed = self.needed().await?;
        let layout = self.clone();
        let sweep = move || {
            let dir = layout.dir.join("blobs/sha256");
            let removed = remove_all_but(&needed, &blobs).map_err(Error::file("remove blobs in", &dir))?;
            Ok(Swept::Removed(removed))
        };
        tokio::task::spawn_blocking(sweep).await.expect("listing a directory does not panic")
    }

    /// The names of the files that the index leads to.
    async fn needed(&self) -> Result<HashSet<OsString>> {
        let mut needed = HashSet::new();
        let mut open: Vec<Descriptor> = self.entries().await?.into_iter().map(|entry| entry.descriptor).collect();
        let mut documents = 0;
        while let Some(descriptor) = open.pop() {
            let is_document = descriptor.media_type.is_manifest() || descriptor.media_type.is_index();
            if !needed.insert(OsString::from(descriptor.digest.hex())) || !is_document {
                continue;
            }
            documents += 1;
            if documents > limits::MANIFESTS {
                return Err(Error::invalid("sweep the layout", "it has too many manifests"));
            }
            match fetch_document(self, &descriptor).await? {
                Document::Manifest(manifest) => {
                    let manifest = manifest.into_parts().1;
                    open.extend(manifest.layers.into_iter().chain([manifest.config]));
                }
                Document::Index(index) => open.extend(index.into_parts().1.manifests),
            }
        }
        Ok(needed)
    }
}

/// Removes from `sha256` in the directory of blobs what has a digest's name and is not needed; gives how many there were.
/// By handles: a link that takes the directory's place leads nothing of another directory here.
fn remove_all_but(needed: &HashSet<OsString>, blobs: &File) -> std::io::Result<usize> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let sha256 = openat(blobs, "sha256", flags, Mode::empty())?;
    let entries: Vec<DirEntry> = Dir::read_from(&sha256)?.collect::<std::result::Result<_, Errno>>()?;
    let names = entries.iter().map(|entry| OsStr::from_bytes(entry.file_name().to_bytes()));
    // What is being written has a name that is no digest.
    let gone: Vec<&OsStr> = names.filter(|name| name.len() == 64 && !needed.contains(*name)).collect();
    gone.iter().try_for_each(|name| unlinkat(&sha256, *name, AtFlags::empty()))?;
    Ok(gone.len())
}
