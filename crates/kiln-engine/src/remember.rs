//! Manifests and configs are asked for once: what was fetched is read from the store from then on.

use std::sync::Arc;

use async_trait::async_trait;
use kiln_image::{BlobReader, BlobSource, Verifier, limits};
use kiln_oci::{Descriptor, MediaType};
use kiln_store::{Lease, Store};

use crate::claim::claim;

/// A source whose documents are kept in the store. Layers pass through.
pub(crate) struct Remembered {
    pub(crate) store: Store,
    pub(crate) lease: Lease,
    pub(crate) source: Arc<dyn BlobSource>,
    /// Whether what was fetched is kept, or only what is kept is read.
    pub(crate) keeps: bool,
}

/// A registry that is not asked: it has nothing.
pub(crate) struct Nobody {
    pub(crate) host: String,
}

#[async_trait]
impl BlobSource for Nobody {
    async fn fetch(&self, descriptor: &Descriptor) -> kiln_image::Result<BlobReader> {
        Err(kiln_image::Error::NotAsked { doing: format!("fetch `{}`", descriptor.digest), host: self.host.clone() })
    }
}

fn is_document(descriptor: &Descriptor) -> bool {
    let kind = &descriptor.media_type;
    let is_config = matches!(kind.as_str(), MediaType::OCI_CONFIG | MediaType::DOCKER_CONFIG);
    (kind.is_index() || kind.is_manifest() || is_config) && descriptor.size <= limits::CONFIG
}

#[async_trait]
impl BlobSource for Remembered {
    async fn fetch(&self, descriptor: &Descriptor) -> kiln_image::Result<BlobReader> {
        if !is_document(descriptor) {
            return self.source.fetch(descriptor).await;
        }
        let doing = format!("read `{}`", descriptor.digest);
        // A store that cannot be read has no document; the source has it.
        let kept = || self.store.content().read(&descriptor.digest, limits::CONFIG);
        if let Ok(bytes) = kept() {
            return Ok(BlobReader::from_bytes(doing, descriptor, bytes.into()));
        }
        let _claim = claim(&self.store, &descriptor.digest).await;
        if let Ok(bytes) = kept() {
            return Ok(BlobReader::from_bytes(doing, descriptor, bytes.into()));
        }
        let bytes = self.source.fetch(descriptor).await?.bytes(&doing, limits::CONFIG).await?;
        // Not to keep it costs another request next time, and nothing else.
        if self.keeps {
            let _ = self.store.content().put(&self.lease, descriptor.media_type.clone(), &bytes);
        }
        Ok(BlobReader::from_bytes(doing, descriptor, bytes.into()))
    }

    async fn fetch_from(&self, descriptor: &Descriptor, offset: u64) -> kiln_image::Result<BlobReader> {
        self.source.fetch_from(descriptor, offset).await
    }

    async fn fetch_rest(&self, descriptor: &Descriptor, seen: Verifier) -> kiln_image::Result<BlobReader> {
        self.source.fetch_rest(descriptor, seen).await
    }

    fn tries(&self, descriptor: &Descriptor) -> u32 {
        self.source.tries(descriptor)
    }
}
