//! Content by digest: visible only when whole, verified and on disk.

use std::fs::{File, Permissions};
use std::io::{self, BufWriter, Read as _, Write};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_oci::{Descriptor, Digest, Hasher, MediaType};
use rusqlite::{OptionalExtension as _, params};

use crate::db::{locked, now};
use crate::error::{Error, IoContext as _, Result};
use crate::lease::{Item, Lease};
use crate::store::Shared;
use crate::testing::reached;

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

/// Content being received. Write it, then commit it; dropping it throws it away.
pub struct Ingest {
    shared: Arc<Shared>,
    lease: Lease,
    path: PathBuf,
    file: BufWriter<File>,
    hasher: Hasher,
    size: u64,
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
        let Some(size) = self.recorded_size(digest)? else { return Ok(None) };
        let found = std::fs::symlink_metadata(self.shared.layout.blob(digest));
        Ok(found.ok().filter(|file| file.is_file() && file.len() == size).map(|file| file.len()))
    }

    /// Starts receiving content.
    pub fn ingest(&self, lease: &Lease) -> Result<Ingest> {
        let path = self.shared.layout.ingest().join(lease.fresh_name());
        let file = File::options().create_new(true).write(true).mode(0o600).open(&path).context("create", &path)?;
        Ok(Ingest {
            shared: self.shared.clone(),
            lease: lease.clone(),
            path,
            file: BufWriter::with_capacity(64 << 10, file),
            hasher: Hasher::new(),
            size: 0,
        })
    }

    /// Keeps bytes that are in memory.
    pub fn put(&self, lease: &Lease, media_type: impl Into<MediaType>, bytes: &[u8]) -> Result<Descriptor> {
        let descriptor = Descriptor::of(media_type, bytes);
        if self.has(&descriptor.digest)? && lease.hold_blob(&descriptor.digest)? {
            return Ok(descriptor);
        }
        let mut ingest = self.ingest(lease)?;
        let path = ingest.path.clone();
        ingest.write_all(bytes).context("write", &path)?;
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
            return Ok(self.recorded_size(digest)?.map(|_| rot));
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

    fn recorded_size(&self, digest: &Digest) -> Result<Option<u64>> {
        self.shared.db.read(|db| {
            let mut select = db.prepare_cached("SELECT size FROM blobs WHERE digest = ?1")?;
            select.query_row([digest.as_str()], |row| row.get(0)).optional()
        })
    }
}

impl Ingest {
    /// Bytes received so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Makes the content visible under its digest, which must be `expected` when that is given.
    ///
    /// Fsync of the file, rename, fsync of the directory, row: in that order, so that a row always has its content.
    pub fn commit(mut self, expected: Option<&Digest>, media_type: impl Into<MediaType>) -> Result<Descriptor> {
        if let Some(digest) = expected.filter(|digest| digest.algorithm() != "sha256") {
            return Err(Error::UnsupportedDigest { digest: digest.clone() });
        }
        self.file.flush().context("write", &self.path)?;
        let found = std::mem::take(&mut self.hasher).finish();
        if let Some(expected) = expected.filter(|expected| **expected != found) {
            return Err(Error::DigestMismatch { expected: expected.clone(), found });
        }
        let descriptor = Descriptor::new(media_type, found, self.size);
        reached("content: written");
        self.publish(&descriptor)?;
        Ok(descriptor)
    }

    /// As [`Self::commit`], for content described beforehand: its size must be right too.
    pub fn commit_as(self, expected: &Descriptor) -> Result<Descriptor> {
        if self.size != expected.size {
            let digest = expected.digest.clone();
            return Err(Error::SizeMismatch { digest, expected: expected.size, found: self.size });
        }
        self.commit(Some(&expected.digest), expected.media_type.clone())
    }

    fn publish(&self, descriptor: &Descriptor) -> Result<()> {
        let target = self.shared.layout.blob(&descriptor.digest);
        let is_new = !has_size(&target, descriptor.size);
        if is_new {
            self.sync()?;
        }
        reached("content: synced");
        let _no_sweep = self.shared.no_sweep()?;
        self.lease.note(&[Item::Blob(descriptor.digest.clone())])?;
        if !has_size(&target, descriptor.size) {
            if !is_new {
                self.sync()?; // a sweep took the twin meanwhile
            }
            std::fs::rename(&self.path, &target).context("rename", &self.path)?;
            self.shared.grew();
            locked(&self.shared.written).insert(descriptor.digest.clone());
            reached("content: renamed");
            let dir = self.shared.layout.blobs();
            File::open(&dir).and_then(|dir| dir.sync_all()).context("sync", &dir)?;
        }
        reached("content: in place");
        self.shared.db.write(|db| {
            let sql = "INSERT INTO blobs (digest, size, media_type, created) VALUES (?1, ?2, ?3, ?4)
                       ON CONFLICT (digest) DO UPDATE SET size = excluded.size";
            let digest = descriptor.digest.as_str();
            db.prepare_cached(sql)?.execute(params![digest, descriptor.size, descriptor.media_type.as_str(), now()])
        })?;
        reached("content: recorded");
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        let file = self.file.get_ref();
        file.set_permissions(Permissions::from_mode(0o400)).context("change the mode of", &self.path)?;
        file.sync_data().context("sync", &self.path)
    }
}

impl Write for Ingest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        // Gone already when it was committed; else the sweeper would find it.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn has_size(path: &Path, size: u64) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|file| file.is_file() && file.len() == size)
}
