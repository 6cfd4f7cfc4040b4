//! Stores of objects: blobs by digest and documents by name, laid out as BuildKit lays its caches out.

mod actions;
mod azure;
mod blocks;
mod options;
mod s3;
mod signer;
mod wire;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use kiln_oci::Descriptor;

pub use options::{ActionsOptions, AwsKeys, AzureOptions, ObjectOptions, S3Options, Secret, StoreLayout};

use crate::blob::Role;
use crate::{BlobReader, BlobSink, BlobSource, HttpClient, MemoryBlobs, Pushed, Result};

/// A store of objects. Nothing that it says has credentials in it.
#[async_trait]
pub trait ObjectStore: BlobSource {
    /// The documents to look for, the most telling first.
    fn names(&self) -> Vec<String>;

    /// The documents to write.
    fn own_names(&self) -> Vec<String> {
        self.names()
    }

    /// Blobs to send at once.
    fn parallel(&self) -> usize;

    /// Reads a document, of no more than [`limits::CONFIG`](crate::limits::CONFIG) bytes; `None` when there is none.
    async fn document(&self, name: &str) -> Result<Option<Vec<u8>>>;

    /// Writes a document; what was there before is replaced.
    async fn write_document(&self, name: &str, bytes: Bytes) -> Result<()>;

    /// Whether there is a blob of this digest and size.
    async fn has(&self, blob: &Descriptor) -> Result<bool>;

    /// Keeps a blob, and sees to it that it is not taken for forgotten if it was there before.
    async fn push(&self, blob: &Descriptor, from: &dyn BlobSource) -> Result<Pushed>;
}

/// The store that options lead to. Nothing is asked of it yet.
pub fn open(options: &ObjectOptions, http: &HttpClient) -> Result<Arc<dyn ObjectStore>> {
    Ok(match options {
        ObjectOptions::S3(options) => Arc::new(s3::S3::new(options, http)?),
        ObjectOptions::Azure(options) => Arc::new(azure::Azure::new(options, http)?),
        ObjectOptions::Actions(options) => Arc::new(actions::Actions::new(options, http)?),
    })
}

/// A sink of images' parts whose root becomes a document, and all else blobs.
pub struct ObjectSink {
    store: Arc<dyn ObjectStore>,
    name: String,
}

impl ObjectSink {
    /// Puts the root under `name`.
    pub fn new(store: Arc<dyn ObjectStore>, name: impl Into<String>) -> Self {
        Self { store, name: name.into() }
    }
}

#[async_trait]
impl BlobSource for ObjectSink {
    async fn fetch(&self, descriptor: &Descriptor) -> Result<BlobReader> {
        self.store.fetch(descriptor).await
    }
}

#[async_trait]
impl BlobSink for ObjectSink {
    async fn has(&self, descriptor: &Descriptor) -> Result<bool> {
        self.store.has(descriptor).await
    }

    async fn push(&self, descriptor: &Descriptor, from: &dyn BlobSource) -> Result<Pushed> {
        self.store.push(descriptor, from).await
    }

    async fn push_document(&self, descriptor: &Descriptor, bytes: &[u8], role: Role) -> Result<()> {
        crate::verify("write a document", descriptor, bytes)?;
        match role {
            Role::Root => self.store.write_document(&self.name, Bytes::copy_from_slice(bytes)).await,
            Role::Child => {
                let memory = MemoryBlobs::new();
                let document = memory.insert(descriptor.media_type.clone(), bytes.to_vec());
                self.store.push(&document, &memory).await.map(drop)
            }
        }
    }
}
