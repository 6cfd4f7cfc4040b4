//! Where cache mounts travel to and from: a layout directory, an archive file, a registry.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use kiln_image::archive::Archive;
use kiln_image::objects::{self, ObjectOptions, ObjectSink, ObjectStore};
use kiln_image::{BlobReader, BlobSink, BlobSource, Either, ErrorKind, Layout, MemoryBlobs, Selector};
use kiln_oci::{Descriptor, MediaType, Reference};
use kiln_report::{Failure, FailureKind};

use crate::failure::registry;
use crate::job::Result;
use crate::registry::Registry;
use crate::remote::store_failure;

/// Where exported cache mounts are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountPlace {
    /// An OCI layout, beside whatever else is in it.
    Layout(PathBuf),
    /// A tar of a layout, written anew each time.
    Archive(PathBuf),
    /// A repository of a registry, under the reference's tag with `.mounts` after it.
    Registry {
        /// That reference.
        reference: Reference,
        /// Whether plain http and unknown certificates will do.
        may_be_insecure: bool,
    },
    /// A store of objects, under a cache's name with `.mounts` after it.
    Objects(ObjectOptions),
}

/// What mounts are called in a layout or archive.
pub(crate) const LAYOUT_NAME: &str = "kiln/cache-mounts:mounts";
/// What follows the tag of a reference.
const TAG_SUFFIX: &str = ".mounts";

/// Mounts that were found somewhere.
#[derive(Clone)]
pub(crate) struct Found {
    pub(crate) blobs: Arc<dyn BlobSource>,
    pub(crate) root: Descriptor,
}

impl MountPlace {
    /// Its name, for messages.
    pub fn label(&self) -> String {
        match self {
            Self::Layout(path) | Self::Archive(path) => path.display().to_string(),
            Self::Objects(options) => format!("{}{TAG_SUFFIX}", options.label()),
            Self::Registry { reference, .. } => {
                tagged(reference).map_or_else(|_| reference.familiar(), |r| r.familiar())
            }
        }
    }

    /// Looks for mounts; `None` when nothing was ever exported to this place.
    #[expect(clippy::disallowed_methods, reason = "whoever runs us names where mounts are kept")]
    pub(crate) async fn find(&self, client: &Registry) -> Result<Option<Found>> {
        match self {
            Self::Layout(path) => {
                if !path.join("oci-layout").exists() {
                    return Ok(None);
                }
                let layout = Layout::open(path).await.map_err(registry)?;
                let root = layout.resolve(&Selector::Name(LAYOUT_NAME.into())).await;
                Ok(absent(root)?.map(|root| Found { blobs: Arc::new(layout), root }))
            }
            Self::Archive(path) => {
                if !path.exists() {
                    return Ok(None);
                }
                let archive = Archive::open(path).await.map_err(registry)?;
                let is_ours = |name: &String| name.ends_with(LAYOUT_NAME);
                let root = archive.images().iter().find(|image| image.names.iter().any(is_ours));
                let root = root.map(|image| image.descriptor.clone());
                Ok(root.map(|root| Found { blobs: Arc::new(archive), root }))
            }
            Self::Registry { reference, may_be_insecure } => {
                let reference = tagged(reference)?;
                let client = client.client_for(&reference.registry, *may_be_insecure);
                let resolved = absent(client.resolve(&reference).await)?;
                let blobs = Arc::new(client.source(&reference));
                Ok(resolved.map(|resolved| Found { blobs, root: resolved.descriptor }))
            }
            Self::Objects(options) => {
                let store = objects::open(options, client.http()).map_err(store_failure)?;
                let document = store.document(&name_in(options)?).await.map_err(store_failure)?;
                Ok(document.map(|bytes| {
                    let documents = MemoryBlobs::new();
                    let root = documents.insert(MediaType::OCI_INDEX, bytes);
                    Found { blobs: Arc::new(Rooted { documents, store }), root }
                }))
            }
        }
    }
}

/// A store whose root is a document, not a blob.
struct Rooted {
    documents: MemoryBlobs,
    store: Arc<dyn ObjectStore>,
}

#[async_trait]
impl BlobSource for Rooted {
    async fn fetch(&self, descriptor: &Descriptor) -> kiln_image::Result<BlobReader> {
        Either(&self.documents, self.store.as_ref()).fetch(descriptor).await
    }
}

/// Where mounts go in a store of objects.
pub(crate) fn sink(options: &ObjectOptions, client: &Registry) -> Result<Box<dyn BlobSink>> {
    let store = objects::open(options, client.http()).map_err(store_failure)?;
    Ok(Box::new(ObjectSink::new(store, name_in(options)?)))
}

fn name_in(options: &ObjectOptions) -> Result<String> {
    options.sibling(TAG_SUFFIX).ok_or_else(|| {
        let message = format!("`{}` has no place for cache mounts", options.label());
        Failure::new(FailureKind::Usage, message).hint("export them to a registry, a directory, S3 or Azure")
    })
}

/// The reference that mounts have beside an image or a cache of this name.
pub(crate) fn tagged(reference: &Reference) -> Result<Reference> {
    if reference.digest.is_some() {
        let message = format!("`{reference}` names one content for ever; cache mounts need a tag that can move");
        return Err(Failure::new(FailureKind::Usage, message).hint("leave out the digest"));
    }
    let tag = format!("{}{TAG_SUFFIX}", reference.tag.as_deref().unwrap_or("latest"));
    Ok(Reference { tag: Some(tag), ..reference.clone() })
}

fn absent<T>(found: kiln_image::Result<T>) -> Result<Option<T>> {
    match found {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        found => found.map(Some).map_err(registry),
    }
}
