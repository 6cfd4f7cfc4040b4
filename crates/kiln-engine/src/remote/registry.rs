//! Caches in registries.

use std::sync::Arc;

use async_trait::async_trait;
use kiln_image::{BlobSource, CopyOptions, Either, RegistryClient, copy_graph};
use kiln_oci::{Platform, Reference};

use crate::export::meter;
use crate::failure;
use crate::job::Result;
use crate::progress::Work;
use crate::remote::manifest::{Shape, documents, read};
use crate::remote::records::Packed;
use crate::remote::{CacheSink, CacheSource, Found};

/// A cache, or an image with one, to read.
pub(super) struct Source {
    client: RegistryClient,
    reference: Reference,
}

impl Source {
    /// Reads what `reference` leads to.
    pub(super) fn new(client: RegistryClient, reference: Reference) -> Self {
        Self { client, reference }
    }
}

#[async_trait]
impl CacheSource for Source {
    fn name(&self) -> String {
        self.reference.familiar()
    }

    async fn read(&self, platforms: &[Platform]) -> Result<Found> {
        let document = self.client.resolve(&self.reference).await.map_err(failure::registry)?.document;
        let blobs: Arc<dyn BlobSource> = Arc::new(self.client.source(&self.reference));
        Ok(Found { caches: read(document, blobs.as_ref(), platforms).await?, blobs })
    }
}

/// A cache to write.
pub(super) struct Sink {
    client: RegistryClient,
    reference: Reference,
    shape: Shape,
}

impl Sink {
    /// Writes to `reference`.
    pub(super) fn new(client: RegistryClient, reference: Reference, shape: Shape) -> Self {
        Self { client, reference, shape }
    }
}

#[async_trait]
impl CacheSink for Sink {
    fn title(&self) -> String {
        format!("exporting cache to registry {}", self.reference.familiar())
    }

    async fn write(&self, cache: Packed, blobs: &dyn BlobSource, work: &Work) -> Result<()> {
        let (documents, root) = documents(&cache, self.shape);
        let options = CopyOptions { progress: Some(meter(work)), ..CopyOptions::default() };
        let sink = self.client.sink(&self.reference);
        copy_graph(&Either(&documents, blobs), &sink, &root, &options).await.map_err(failure::registry)?;
        work.part(format!("writing cache manifest {}", root.digest));
        Ok(())
    }
}
