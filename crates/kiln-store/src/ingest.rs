//! Content being received: it becomes visible when it is whole; what breaks off may be continued by the next who wants it.
#![expect(clippy::disallowed_methods, reason = "the state directory is ours alone")]

use std::fs::{File, Permissions};
use std::io::{self, BufWriter, Seek as _, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_oci::{Descriptor, Digest, Hasher, MediaType};
use kiln_sys::lock::LockMode;
use kiln_sys::passing::Passing;
use rusqlite::params;

use crate::db::{locked, now};
use crate::doubt::boot_id;
use crate::error::{Error, IoContext as _, Result};
use crate::lease::{Item, Lease};
use crate::lock::{self, Guard};
use crate::store::Shared;
use crate::testing::reached;

/// Content being received. Write it, then commit it. Dropping it throws it away, unless it was begun by
/// [`resume`](crate::ContentStore::resume).
pub struct Ingest {
    shared: Arc<Shared>,
    lease: Lease,
    path: PathBuf,
    file: BufWriter<Passing>,
    hasher: Hasher,
    size: u64,
    rest: Rest,
    /// Held while somebody writes to a file that others may continue.
    _lock: Option<Guard>,
}

/// What is left of it at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    Nothing,
    /// The file, for the next one.
    Partial,
    /// The file has another name now.
    Content,
}

/// More than the writes of those who receive: what a killed process loses.
const BUFFER: usize = 64 << 10;

impl Ingest {
    pub(crate) fn begin(shared: &Arc<Shared>, lease: &Lease) -> Result<Self> {
        let path = shared.layout.ingest().join(lease.fresh_name());
        let file = File::options().create_new(true).write(true).mode(0o600).open(&path).context("create", &path)?;
        Ok(Self {
            shared: Arc::clone(shared),
            lease: lease.clone(),
            path,
            file: BufWriter::with_capacity(BUFFER, Passing::kept(file)),
            hasher: Hasher::new(),
            size: 0,
            rest: Rest::Nothing,
            _lock: None,
        })
    }

    pub(crate) fn resume(shared: &Arc<Shared>, lease: &Lease, wanted: &Descriptor) -> Result<Self> {
        if wanted.digest.algorithm() != "sha256" {
            return Self::begin(shared, lease);
        }
        let path = shared.layout.ingest().join(wanted.digest.hex());
        let Some(lock) = lock_partial(shared, &path)? else { return Self::begin(shared, lease) };
        let mut file = lock.file().try_clone().context("open", &path)?;
        let mut hasher = Hasher::new();
        if file.metadata().context("inspect", &path)?.len() > wanted.size {
            file.set_len(0).context("write", &path)?;
        }
        file.seek(SeekFrom::Start(0)).context("read", &path)?;
        let size = io::copy(&mut file, &mut hasher).context("read", &path)?;
        Ok(Self {
            shared: Arc::clone(shared),
            lease: lease.clone(),
            path,
            file: BufWriter::with_capacity(BUFFER, Passing::kept(file)),
            hasher,
            size,
            rest: Rest::Partial,
            _lock: Some(lock),
        })
    }

    /// The same, for content that will hardly be read again soon: the kernel need not keep it in memory.
    #[must_use]
    pub fn passing(mut self) -> Self {
        self.file.get_mut().pass();
        self
    }

    /// Bytes received so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The hash of all bytes received so far.
    pub fn hasher(&self) -> Hasher {
        self.hasher.clone()
    }

    /// Opens what was received for reading, while more is received. What is not flushed is not there yet.
    pub fn reader(&self) -> Result<File> {
        File::open(&self.path).context("open", &self.path)
    }

    /// Throws away what was received.
    pub fn discard(mut self) {
        self.rest = Rest::Nothing;
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the content visible under its digest, which must be `expected` when that is given.
    ///
    /// Rename, then the row: a row always has its content. After a power cut it may not be whole, and is doubted.
    pub fn commit(mut self, expected: Option<&Digest>, media_type: impl Into<MediaType>) -> Result<Descriptor> {
        // What is refused here is of no use to the next one either.
        self.rest = Rest::Nothing;
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
    pub fn commit_as(mut self, expected: &Descriptor) -> Result<Descriptor> {
        if self.size != expected.size {
            self.rest = Rest::Nothing;
            let digest = expected.digest.clone();
            return Err(Error::SizeMismatch { digest, expected: expected.size, found: self.size });
        }
        self.commit(Some(&expected.digest), expected.media_type.clone())
    }

    fn publish(&mut self, descriptor: &Descriptor) -> Result<()> {
        let target = self.shared.layout.blob(&descriptor.digest);
        let shared = Arc::clone(&self.shared);
        let _no_sweep = shared.no_sweep()?;
        self.lease.note(&[Item::Blob(descriptor.digest.clone())])?;
        // What lies there without a row may be left of a power cut.
        let is_new = !has_size(&target, descriptor.size) || self.shared.recorded_size(&descriptor.digest)?.is_none();
        if is_new {
            let mode = Permissions::from_mode(0o400);
            self.file.get_ref().file().set_permissions(mode).context("change the mode of", &self.path)?;
            std::fs::rename(&self.path, &target).context("rename", &self.path)?;
            self.rest = Rest::Content;
            self.shared.grew();
            locked(&self.shared.written).insert(descriptor.digest.clone());
            reached("content: renamed");
        }
        reached("content: in place");
        let boot = boot_id();
        self.shared.db.write(|db| {
            let sql = "INSERT INTO blobs (digest, size, media_type, created, boot) VALUES (?1, ?2, ?3, ?4, ?5)
                       ON CONFLICT (digest) DO UPDATE SET size = excluded.size, boot = iif(?6, excluded.boot, boot)";
            let (digest, kind) = (descriptor.digest.as_str(), descriptor.media_type.as_str());
            db.prepare_cached(sql)?.execute(params![digest, descriptor.size, kind, now(), boot, is_new])
        })?;
        reached("content: recorded");
        Ok(())
    }
}

/// Opens and locks a file that may hold the beginning of some content; `None` when somebody writes to it.
fn lock_partial(shared: &Shared, path: &Path) -> Result<Option<Guard>> {
    // Nobody takes it away between opening and locking.
    let _no_sweep = shared.no_sweep()?;
    loop {
        let Some(lock) = lock::attempt(path, LockMode::Exclusive)? else { return Ok(None) };
        let held = lock.file().metadata().context("inspect", path)?;
        // Whoever had it may have moved it to its place a moment ago.
        if std::fs::symlink_metadata(path).is_ok_and(|named| (named.dev(), named.ino()) == (held.dev(), held.ino())) {
            return Ok(Some(lock));
        }
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
        if self.rest == Rest::Nothing || (self.rest == Rest::Partial && self.size == 0) {
            // The sweeper would find it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn has_size(path: &Path, size: u64) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|file| file.is_file() && file.len() == size)
}
