//! The documents of a cache in registries and layouts: a manifest, or an index, of a config and layers.

use kiln_image::{BlobSource, MemoryBlobs, fetch_document, limits};
use kiln_oci::{Descriptor, Document, Index, Manifest, MediaType, Platform, Raw};
use kiln_report::{Failure, FailureKind};

use crate::failure::{Context as _, registry};
use crate::job::Result;
use crate::packing::spelled;
use crate::remote::format::{CONFIG, CacheConfig};
use crate::remote::inline;
use crate::remote::records::Packed;
use crate::request::{CacheManifest, CacheTo};

/// What the documents of a cache look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    manifest: CacheManifest,
    is_oci: bool,
}

impl Shape {
    /// As the request has it.
    pub(super) fn of(to: &CacheTo) -> Self {
        Self { manifest: to.manifest, is_oci: to.layers.oci_media_types.unwrap_or(true) }
    }
}

/// The documents of a cache, and the name of the one that leads to all.
pub(super) fn documents(cache: &Packed, shape: Shape) -> (MemoryBlobs, Descriptor) {
    let documents = MemoryBlobs::new();
    let config = documents.insert(CONFIG, Raw::new(cache.config.clone()).bytes().to_vec());
    let layer =
        |layer: &Descriptor| Descriptor { annotations: layer.annotations.clone(), ..spelled(layer, shape.is_oci) };
    let layers = cache.layers.iter().map(layer);
    let root = match shape.manifest {
        CacheManifest::Image => {
            let manifest = Manifest {
                schema_version: 2,
                media_type: Some(MediaType::OCI_MANIFEST.into()),
                artifact_type: None,
                config,
                layers: layers.collect(),
                subject: None,
                annotations: Default::default(),
            };
            documents.insert(MediaType::OCI_MANIFEST, Raw::new(manifest).bytes().to_vec())
        }
        CacheManifest::Index => {
            let kind = if shape.is_oci { MediaType::OCI_INDEX } else { MediaType::DOCKER_INDEX };
            let index = Index {
                schema_version: 2,
                media_type: Some(kind.into()),
                manifests: layers.chain([config]).collect(),
                annotations: Default::default(),
            };
            documents.insert(kind, Raw::new(index).bytes().to_vec())
        }
    };
    (documents, root)
}

/// What a document leads to: a cache, or what images of these platforms say of themselves.
pub(super) async fn read(
    document: Document,
    blobs: &dyn BlobSource,
    platforms: &[Platform],
) -> Result<Vec<(CacheConfig, Vec<Descriptor>)>> {
    let is_config = |descriptor: &Descriptor| descriptor.media_type.as_str() == CONFIG;
    match document {
        Document::Manifest(manifest) => {
            let manifest = manifest.into_parts().1;
            if !is_config(&manifest.config) {
                return inline::of_image(&manifest, blobs).await;
            }
            Ok(vec![(config(&manifest.config, blobs).await?, manifest.layers)])
        }
        Document::Index(index) => {
            let index = index.into_parts().1;
            if let Some(found) = index.manifests.iter().find(|entry| is_config(entry)) {
                return Ok(vec![(config(found, blobs).await?, index.manifests)]);
            }
            let mut caches = Vec::new();
            let mut missing = Ok(());
            for platform in platforms {
                match of_platform(&index, blobs, platform).await {
                    Ok(found) => caches.extend(found),
                    Err(failure) => missing = Err(failure),
                }
            }
            // An image that was built for fewer platforms is of use to those.
            if caches.is_empty() { missing.map(|()| caches) } else { Ok(caches) }
        }
    }
}

async fn of_platform(
    index: &Index,
    blobs: &dyn BlobSource,
    platform: &Platform,
) -> Result<Vec<(CacheConfig, Vec<Descriptor>)>> {
    let picked = kiln_image::pick_platform("the cache", index, platform).map_err(registry)?;
    match fetch_document(blobs, &picked).await.map_err(registry)? {
        Document::Manifest(manifest) => inline::of_image(manifest.value(), blobs).await,
        Document::Index(_) => Err(no_cache("an index stands where its image should be")),
    }
}

async fn config(descriptor: &Descriptor, blobs: &dyn BlobSource) -> Result<CacheConfig> {
    const DOING: &str = "read the config of the cache";
    let reader = blobs.fetch(descriptor).await.map_err(registry)?;
    let bytes = reader.bytes(DOING, limits::CONFIG).await.map_err(registry)?;
    serde_json::from_slice(&bytes).or_build(|| "the config of the cache is not valid".into())
}

/// That something is no cache.
pub(super) fn no_cache(why: &str) -> Failure {
    Failure::new(FailureKind::Build, format!("there is no cache: {why}"))
}
