//! Blobs held in memory: documents just made, and images in tests.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use kiln_oci::{Descriptor, Digest, MediaType};

use crate::blob::Role;
use crate::{BlobReader, BlobSink, BlobSource, Error, Pushed, Result, Verifier};

/// A source and sink in memory.
#[derive(Debug, Default)]
pub struct MemoryBlobs(Mutex<BTreeMap<Digest, Bytes>>);

impl MemoryBlobs {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts bytes in and describes them.
    pub fn insert(&self, media_type: impl Into<MediaType>, bytes: impl Into<Bytes>) -> Descriptor {
        let bytes = bytes.into();
        let descriptor = Descriptor::of(media_type, &bytes);
        self.lock().insert(descriptor.digest.clone(), bytes);
        descriptor
    }

    /// Takes over all that another has.
    pub fn extend(&self, other: Self) {
        let mut others = std::mem::take(&mut *other.lock());
        self.lock().append(&mut others);
    }

    /// Whether there is content of this digest.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.lock().contains_key(digest)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Digest, Bytes>> {
        self.0.lock().expect("no thread panics while it holds this")
    }
}

#[async_trait]
impl BlobSource for MemoryBlobs {
    async fn fetch(&self, descriptor: &Descriptor) -> Result<BlobReader> {
        let doing = format!("read blob `{}`", descriptor.digest);
        let found = self.lock().get(&descriptor.digest).cloned();
        match found {
            Some(bytes) => Ok(BlobReader::from_bytes(doing, descriptor, bytes)),
            None => Err(Error::NotFound { doing, host: "memory".into(), message: String::new() }),
        }
    }
}

#[async_trait]
impl BlobSink for MemoryBlobs {
    async fn has(&self, descriptor: &Descriptor) -> Result<bool> {
        Ok(self.contains(&descriptor.digest))
    }

    async fn push(&self, descriptor: &Descriptor, from: &dyn BlobSource) -> Result<Pushed> {
        if self.has(descriptor).await? {
            return Ok(Pushed::Existing);
        }
        let bytes = from.fetch(descriptor).await?.bytes("keep a blob in memory", u64::MAX).await?;
        self.lock().insert(descriptor.digest.clone(), bytes.into());
        Ok(Pushed::Written)
    }

    async fn push_document(&self, descriptor: &Descriptor, bytes: &[u8], _role: Role) -> Result<()> {
        crate::verify("keep a manifest in memory", descriptor, bytes)?;
        self.lock().insert(descriptor.digest.clone(), Bytes::copy_from_slice(bytes));
        Ok(())
    }
}

/// A source that looks in one place, then in another.
pub struct Either<'a>(pub &'a MemoryBlobs, pub &'a dyn BlobSource);

#[async_trait]
impl BlobSource for Either<'_> {
    async fn fetch(&self, descriptor: &Descriptor) -> Result<BlobReader> {
        if self.0.contains(&descriptor.digest) {
            return self.0.fetch(descriptor).await;
        }
        self.1.fetch(descriptor).await
    }

    async fn file(&self, descriptor: &Descriptor) -> Option<std::fs::File> {
        if self.0.contains(&descriptor.digest) { None } else { self.1.file(descriptor).await }
    }

    async fn fetch_rest(&self, descriptor: &Descriptor, seen: Verifier) -> Result<BlobReader> {
        if self.0.contains(&descriptor.digest) {
            return self.0.fetch_rest(descriptor, seen).await;
        }
        self.1.fetch_rest(descriptor, seen).await
    }

    fn tries(&self, descriptor: &Descriptor) -> u32 {
        if self.0.contains(&descriptor.digest) { 1 } else { self.1.tries(descriptor) }
    }
}
