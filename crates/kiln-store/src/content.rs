//! Content by digest: visible only when whole and verified.
#![expect(clippy::disallowed_methods, reason = "the state directory is ours alone")]

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_oci::{Descriptor, Digest, Hasher, MediaType};
use rusqlite::OptionalExtension as _;

use crate::db::locked;
use crate::error::{Error, IoContext as _, Result};
use crate::ingest::Ingest;
use crate::lease::Lease;
use crate::store::Shared;

/// Blobs by digest.
#[derive(Clone)]
pub struct ContentStore {
    shared: Arc<Shared>,
}

/// What is wrong with content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rot {
    /// It is not there.
    Missing,
    /// It is not what its digest says.
    Changed,
}

impl Shared {
    /// The size that the row of a blob says it has.
    pub(crate) fn recorded_size(&self, digest: &Digest) -> Result<Option<u64>> {
        self.db.read(|db| {
            let mut select = db.prepare_cached("SELECT size FROM blobs WHERE digest = ?1")?;
            select.query_row([digest.as_str()], |row| row.get(0)).optional()
        })
    }
}

impl ContentStore {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Whether the content is here, whole.
    pub fn has(&self, digest: &Digest) -> Result<bool> {
        Ok(self.len(digest)?.is_some())
    }

    /// The size of content that is here.
    pub fn len(&self, digest: &Digest) -> Result<Option<u64>> {
        let Some(size) = self.shared.recorded_size(digest)? else { return Ok(None) };
        let found = std::fs::symlink_metadata(self.shared.layout.blob(digest));
        Ok(found.ok().filter(|file| file.is_file() && file.len() == size).map(|file| file.len()))
    }

    /// Starts receiving content.
    pub fn ingest(&self, lease: &Lease) -> Result<Ingest> {
        Ingest::begin(&self.shared, lease)
    }

    /// Goes on receiving content that broke off, in this process or another: what came of it counts as received. It
    /// stays for the next one if it breaks off again. When somebody else is at it, it begins anew.
    pub fn resume(&self, lease: &Lease, wanted: &Descriptor) -> Result<Ingest> {
        Ingest::resume(&self.shared, lease, wanted)
    }

    /// Keeps bytes that are in memory.
    pub fn put(&self, lease: &Lease, media_type: impl Into<MediaType>, bytes: &[u8]) -> Result<Descriptor> {
        let descriptor = Descriptor::of(media_type, bytes);
        if self.has(&descriptor.digest)? && lease.hold_blob(&descriptor.digest)? {
            return Ok(descriptor);
        }
        let mut ingest = self.ingest(lease)?;
        ingest.write_all(bytes).context("write", ingest.path())?;
        ingest.commit(Some(&descriptor.digest), descriptor.media_type)
    }

    /// Opens content for reading. Its size is checked; [`Self::verify`] checks its bytes.
    pub fn open(&self, digest: &Digest) -> Result<File> {
        let path = self.path(digest)?;
        File::open(&path).context("open", &path)
    }

    /// Opens content that this process wrote, and so knows to be what its digest says.
    pub fn open_written(&self, digest: &Digest) -> Option<File> {
        let is_ours = locked(&self.shared.written).contains(digest);
        is_ours.then(|| self.open(digest).ok()).flatten()
    }

    /// Where content is, for those who read it directly. Hold it by a lease while you do.
    pub fn path(&self, digest: &Digest) -> Result<PathBuf> {
        if !self.has(digest)? {
            return Err(Error::UnknownBlob { digest: digest.clone() });
        }
        Ok(self.shared.layout.blob(digest))
    }

    /// Reads a document of at most `limit` bytes into memory and verifies it.
    pub fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        let path = self.path(digest)?;
        let mut bytes = Vec::new();
        let file = File::open(&path).context("open", &path)?;
        file.take(limit.saturating_add(1)).read_to_end(&mut bytes).context("read", &path)?;
        if bytes.len() as u64 > limit {
            return Err(Error::TooLarge { digest: digest.clone(), limit });
        }
        let found = Digest::sha256(&bytes);
        if found != *digest {
            self.throw_out(&path)?;
            return Err(Error::DigestMismatch { expected: digest.clone(), found });
        }
        Ok(bytes)
    }

    /// Reads all bytes and says what is wrong with them; changes nothing.
    pub(crate) fn examine(&self, digest: &Digest) -> Result<Option<Rot>> {
        if !self.has(digest)? {
            // Of another size counts as missing too, and pruned content is not broken.
            let is_there = self.shared.layout.blob(digest).exists();
            let rot = if is_there { Rot::Changed } else { Rot::Missing };
            return Ok(self.shared.recorded_size(digest)?.map(|_| rot));
        }
        Ok((self.digest_of(&self.shared.layout.blob(digest))? != *digest).then_some(Rot::Changed))
    }

    fn digest_of(&self, path: &Path) -> Result<Digest> {
        let mut hasher = Hasher::new();
        let mut file = File::open(path).context("open", path)?;
        io::copy(&mut file, &mut hasher).context("read", path)?;
        Ok(hasher.finish())
    }

    /// Reads all bytes and compares their digest. Content that has rotted is removed, so that it is fetched anew.
    pub fn verify(&self, digest: &Digest) -> Result<()> {
        let path = self.path(digest)?;
        let found = self.digest_of(&path)?;
        if found == *digest {
            return Ok(());
        }
        self.throw_out(&path)?;
        Err(Error::DigestMismatch { expected: digest.clone(), found })
    }

    /// The row stays, since images may hold it: without its file the content counts as missing.
    fn throw_out(&self, path: &Path) -> Result<()> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).context("remove", path),
            _ => Ok(()),
        }
    }
}
