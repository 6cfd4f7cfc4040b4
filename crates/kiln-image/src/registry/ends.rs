//! A repository as a source and as a sink.

use std::collections::BTreeMap;

use async_trait::async_trait;
use kiln_oci::{Descriptor, Digest, Reference};

use super::RegistryClient;
use crate::blob::Role;
use crate::{BlobReader, BlobSink, BlobSource, Chances, Pushed, Result, Verifier};

/// Content of this size is there as a whole before it is given out: what proves wrong on the way is asked for again here.
const SMALL: u64 = 256 << 10;

/// Reads from one repository.
#[derive(Clone)]
pub struct RegistrySource {
    client: RegistryClient,
    reference: Reference,
}

impl RegistrySource {
    pub(crate) fn new(client: RegistryClient, reference: Reference) -> Self {
        Self { client, reference }
    }
}

#[async_trait]
impl BlobSource for RegistrySource {
    async fn fetch(&self, descriptor: &Descriptor) -> Result<BlobReader> {
        if descriptor.media_type.is_manifest() || descriptor.media_type.is_index() {
            return self.client.fetch_document(&self.reference, descriptor).await;
        }
        if descriptor.size > SMALL {
            return self.client.fetch_blob(&self.reference, descriptor).await;
        }
        let mut chances = Chances::new(self.client.tries(&self.reference));
        loop {
            let whole =
                async { self.client.fetch_blob(&self.reference, descriptor).await?.bytes("read a blob", SMALL).await };
            match whole.await {
                Err(error) => chances.after(error)?,
                Ok(bytes) => return Ok(BlobReader::from_bytes("read a blob", descriptor, bytes.into())),
            }
        }
    }

    fn tries(&self, descriptor: &Descriptor) -> u32 {
        if descriptor.size > SMALL { self.client.tries(&self.reference) } else { 1 }
    }

    async fn fetch_rest(&self, descriptor: &Descriptor, seen: Verifier) -> Result<BlobReader> {
        match seen.seen() {
            0 => self.fetch(descriptor).await,
            _ => self.client.fetch_rest(&self.reference, descriptor, seen).await,
        }
    }
}

/// Writes to one repository; the root of what is copied gets the reference's tag.
#[derive(Clone)]
pub struct RegistrySink {
    client: RegistryClient,
    reference: Reference,
    origins: BTreeMap<Digest, String>,
    mount_from: Option<String>,
}

impl RegistrySink {
    pub(crate) fn new(client: RegistryClient, reference: Reference) -> Self {
        Self { client, reference, origins: BTreeMap::new(), mount_from: None }
    }

    /// Tells in which other repositories of the same registry blobs are known to be.
    #[must_use]
    pub fn with_origins(mut self, origins: impl IntoIterator<Item = (Digest, String)>) -> Self {
        self.origins.extend(origins);
        self
    }

    /// Tells a repository of the same registry that all blobs are likely to be in.
    #[must_use]
    pub fn mounting_from(self, repository: impl Into<String>) -> Self {
        Self { mount_from: Some(repository.into()), ..self }
    }
}

#[async_trait]
impl BlobSink for RegistrySink {
    async fn has(&self, descriptor: &Descriptor) -> Result<bool> {
        if descriptor.media_type.is_manifest() || descriptor.media_type.is_index() {
            return self.client.has_manifest(&self.reference, descriptor).await;
        }
        let doing = format!("look up blob `{}` in `{}`", descriptor.digest, self.reference.name());
        self.client.has_blob(&self.reference, descriptor, &doing).await
    }

    async fn push(&self, descriptor: &Descriptor, from: &dyn BlobSource) -> Result<Pushed> {
        let mount = self.origins.get(&descriptor.digest).or(self.mount_from.as_ref());
        self.client.push_blob(&self.reference, descriptor, from, mount.map(String::as_str)).await
    }

    async fn stands(&self, root: &Descriptor) -> Result<bool> {
        match &self.reference.tag {
            Some(tag) => self.client.points_at(&self.reference, tag, root).await,
            None => self.client.has_manifest(&self.reference, root).await,
        }
    }

    async fn push_document(&self, descriptor: &Descriptor, bytes: &[u8], role: Role) -> Result<()> {
        let by_digest = descriptor.digest.to_string();
        let name = match (role, &self.reference.tag) {
            (Role::Root, Some(tag)) => tag,
            _ => &by_digest,
        };
        self.client.push_manifest(&self.reference, descriptor, bytes, name).await
    }
}

/// What was written can be read again.
#[async_trait]
impl BlobSource for RegistrySink {
    async fn fetch(&self, descriptor: &Descriptor) -> Result<BlobReader> {
        self.client.source(&self.reference).fetch(descriptor).await
    }

    fn tries(&self, descriptor: &Descriptor) -> u32 {
        self.client.source(&self.reference).tries(descriptor)
    }
}
