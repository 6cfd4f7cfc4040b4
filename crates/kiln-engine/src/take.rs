//! Brings images into the local store: their layers unpacked, their documents kept as they came.

use std::sync::Arc;

use kiln_image::BlobSource;
use kiln_oci::{Descriptor, Digest, Document, Index, Manifest, Platform, Raw, Reference};
use kiln_report::{Failure, FailureKind};
use kiln_store::ImageRecord;

use crate::base::{BaseImage, Meter};
use crate::blobs::StoreBlobs;
use crate::export::{Made, Provenance, store as keep};
use crate::failure::{environment, registry};
use crate::frontend::{fetch_config, image_manifest};
use crate::job::Result;
use crate::progress::Work;

/// Which images of an index are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Platforms {
    /// The one for this machine.
    Host,
    /// Those for these, in this order.
    These(Vec<Platform>),
    /// All that are there.
    All,
}

/// Where an image comes from and what it shall be called.
pub(crate) struct Origin {
    pub(crate) name: String,
    /// What a registry calls it.
    pub(crate) digest: Option<Digest>,
    pub(crate) names: Vec<Reference>,
    /// How much its layers may ask for.
    pub(crate) limits: kiln_fs::Limits,
}

/// An image of those that are taken.
struct Taken {
    made: Made,
    manifest: Descriptor,
}

/// Takes what a document leads to; gives the id, and whether it was all here before. Several images are kept under one
/// name.
pub(crate) async fn take(
    blobs: &StoreBlobs,
    document: Document,
    source: &Arc<dyn BlobSource>,
    (platforms, origin): (&Platforms, &Origin),
    work: &Work,
) -> Result<(Digest, bool)> {
    let root = match &document {
        Document::Index(index) => Some((index_type(index.value()), index.bytes().to_vec())),
        Document::Manifest(_) => None,
    };
    let mut taken = Vec::new();
    for (platform, descriptor, manifest) in picked(&origin.name, document, source, platforms).await? {
        taken.push(take_one(blobs, source, (platform, descriptor, manifest), (origin, work)).await?);
    }
    if let Some((_, bytes)) = &root
        && let Some(known) = known_from(blobs, origin)?
    {
        if taken.iter().all(|taken| has(&known, taken)) {
            return Ok((known.id, true));
        }
        let index: Raw<Index> = Raw::parse(bytes.clone()).map_err(environment)?;
        join(blobs, &known, &mut taken, index.value())?;
    }
    let root = match root.filter(|_| taken.len() > 1) {
        Some((media_type, bytes)) => Some(put(blobs, media_type, &bytes)?),
        None => None,
    };
    let (made, manifests): (Vec<Made>, Vec<_>) =
        taken.into_iter().map(|taken| (taken.made, Some(taken.manifest))).unzip();
    let id = crate::export::id_of(&made).ok_or_else(|| nothing(&origin.name))?;
    let known = blobs.store.images().get(&id).map_err(environment)?;
    let is_here = known.is_some_and(|image| origin.names.iter().all(|name| image.names.contains(&name.to_string())));
    let known_by = |digest: &Digest| origin.names.iter().map(|name| format!("{}@{digest}", name.name())).collect();
    let repo_digests = origin.digest.as_ref().map_or_else(Vec::new, known_by);
    let provenance = Provenance { root, manifests, repo_digests };
    keep(&blobs.store, &blobs.lease, &made, &origin.names, Some(provenance)).await?;
    Ok((id, is_here))
}

/// What the name stands for, if that came from the very same document.
fn known_from(StoreBlobs { store, .. }: &StoreBlobs, origin: &Origin) -> Result<Option<ImageRecord>> {
    let (Some(digest), Some(name)) = (&origin.digest, origin.names.first()) else { return Ok(None) };
    let name = Reference { digest: None, ..name.clone() };
    let known = store.images().by_name(&name).map_err(environment)?.map(|image| image.record);
    let place = format!("{}@{digest}", name.name());
    Ok(known.filter(|record| record.repo_digests.contains(&place)))
}

/// Whether an image is among those of a record as it is now.
fn has(known: &ImageRecord, Taken { made, manifest }: &Taken) -> bool {
    let is_it = |image: &ImageRecord| {
        image.manifest.as_ref().is_some_and(|own| own.digest == manifest.digest)
            && image.snapshot.as_ref() == Some(&made.snapshot)
    };
    known.images().iter().any(is_it)
}

/// Adds the images of the same index that were here before: who takes one more platform gives none away.
fn join(
    StoreBlobs { store, lease }: &StoreBlobs,
    known: &ImageRecord,
    taken: &mut Vec<Taken>,
    index: &Index,
) -> Result<()> {
    let place = |manifest: &Descriptor| index.manifests.iter().position(|entry| entry.digest == manifest.digest);
    for image in known.images() {
        let (Some(manifest), Some(snapshot)) = (&image.manifest, &image.snapshot) else { continue };
        let is_taken = taken.iter().any(|taken| taken.manifest.digest == manifest.digest);
        if is_taken || place(manifest).is_none() || !lease.hold_snapshot(snapshot).map_err(environment)? {
            continue;
        }
        let is_held = |digest| lease.hold_blob(digest).map_err(environment);
        if !is_held(&manifest.digest)? || !is_held(&image.id)? {
            continue;
        }
        let bytes = store.content().read(&image.id, kiln_image::limits::CONFIG).map_err(environment)?;
        let config = Raw::parse(bytes).map_err(environment)?;
        let platform = manifest.platform.clone().map_or_else(|| image.platform.clone(), Platform::normalized);
        let made = Made { platform, config, snapshot: snapshot.clone(), layers: Vec::new() };
        taken.push(Taken { made, manifest: manifest.clone() });
    }
    taken.sort_by_key(|taken| place(&taken.manifest));
    Ok(())
}

fn index_type(index: &Index) -> kiln_oci::MediaType {
    index.media_type.clone().unwrap_or_else(|| kiln_oci::MediaType::OCI_INDEX.into())
}

fn put(StoreBlobs { store, lease }: &StoreBlobs, media_type: kiln_oci::MediaType, bytes: &[u8]) -> Result<Descriptor> {
    store.content().put(lease, media_type, bytes).map_err(environment)
}

fn nothing(name: &str) -> Failure {
    Failure::new(FailureKind::Build, format!("there is no image in `{name}`"))
}

/// The manifests that are meant.
pub(crate) async fn picked(
    name: &str,
    document: Document,
    source: &Arc<dyn BlobSource>,
    platforms: &Platforms,
) -> Result<Vec<(Platform, Descriptor, Manifest)>> {
    let wanted = match (platforms, &document) {
        (Platforms::These(these), _) => these.clone(),
        (Platforms::All, Document::Index(index)) => present(index.value(), source).await?,
        (Platforms::Host | Platforms::All, _) => vec![Platform::host()],
    };
    let mut picked: Vec<(Platform, Descriptor, Manifest)> = Vec::with_capacity(wanted.len());
    for platform in wanted {
        let (descriptor, manifest) = image_manifest(name, document.clone(), source, &platform).await?;
        if picked.iter().all(|(_, other, _)| other.digest != descriptor.digest) {
            picked.push((platform, descriptor, manifest));
        }
    }
    Ok(picked)
}

/// The platforms of an index whose manifests are there: an archive need not hold them all.
async fn present(index: &Index, source: &Arc<dyn BlobSource>) -> Result<Vec<Platform>> {
    let mut present = Vec::new();
    for entry in index.manifests.iter().filter(|entry| entry.media_type.is_manifest()) {
        let Some(platform) = entry.platform.clone().filter(|platform| platform.os != "unknown") else { continue };
        match source.fetch(entry).await {
            Ok(_) => present.push(platform.normalized()),
            Err(error) if error.kind() == kiln_image::ErrorKind::NotFound => {}
            Err(error) => return Err(registry(error)),
        }
    }
    Ok(if present.is_empty() { vec![Platform::host()] } else { present })
}

async fn take_one(
    blobs: &StoreBlobs,
    source: &Arc<dyn BlobSource>,
    (platform, descriptor, manifest): (Platform, Descriptor, Manifest),
    (origin, work): (&Origin, &Work),
) -> Result<Taken> {
    let (_, config) = fetch_config(&origin.name, &manifest, source).await?;
    let image = Arc::new(BaseImage {
        name: origin.name.clone(),
        config: config.value().clone(),
        blobs: manifest.layers.clone(),
        source: Some(Arc::clone(source)),
        documents: Vec::new(),
        snapshot: None,
    });
    let meter = Arc::new(Meter { reporter: work.reporter(), vertex: work.id().clone(), limits: origin.limits.clone() });
    let snapshot = image.unpack(&blobs.store, &blobs.lease, &meter).await?;
    // The manifest is kept as it came, so that a push sends the very same bytes.
    let bytes = source.fetch(&descriptor).await.map_err(registry)?;
    let bytes = bytes.bytes("keep the manifest", kiln_image::limits::DOCUMENT).await.map_err(registry)?;
    put(blobs, descriptor.media_type.clone(), &bytes)?;
    Ok(Taken { made: Made { platform, config, snapshot, layers: Vec::new() }, manifest: descriptor })
}
