//! Images between the local store, registries and archives.

use std::io::Read;
use std::sync::Arc;

use kiln_fs::compress;
use kiln_image::archive::{Archive, ArchiveImage, Format};
use kiln_image::{BlobSource, Credential, Either, MemoryBlobs, login as logins};
use kiln_oci::{Descriptor, Digest, Document, Platform, Raw, Reference};
use kiln_report::{Failure, FailureKind, Reporter};
use kiln_store::{ImageRecord, Store};

use crate::answer::{Loaded, PullResult};
use crate::blobs::StoreBlobs;
use crate::blocking::blocking;
use crate::engine::Engine;
use crate::export::{Made, OutFile, write_archive};
use crate::failure::{Context as _, environment, registry, sending};
use crate::finish::Finisher;
use crate::job::Result;
use crate::packing::Packing;
use crate::progress::Work;
use crate::take::{Origin, Platforms, take};
use crate::waiter::Waiter;

/// An archive larger than this is refused; the disk is the other limit.
const ARCHIVE_LIMIT: u64 = 1 << 40;

/// Fetches an image and keeps it under its name.
pub(crate) async fn pull(
    engine: &Engine,
    reference: &Reference,
    platforms: &Platforms,
    reporter: &Arc<dyn Reporter>,
) -> Result<PullResult> {
    let store = engine.store()?;
    let lease = store.lease().map_err(environment)?;
    let work = Work::start(reporter, format!("pulling {reference}"));
    let pulled = async {
        let resolved = engine.registry().client().resolve(reference).await.map_err(sending)?;
        let digest = resolved.descriptor.digest.clone();
        let source: Arc<dyn BlobSource> = Arc::new(engine.registry().client().source(reference));
        let kept = StoreBlobs { store, lease };
        let origin = Origin {
            name: reference.familiar(),
            digest: Some(digest.clone()),
            names: vec![reference.clone()],
            limits: engine.registry().limits(),
        };
        let (id, up_to_date) = take(&kept, resolved.document, &source, (platforms, &origin), &work).await?;
        Ok(PullResult { digest, id, up_to_date })
    };
    let pulled = pulled.await;
    engine.registry().tell_mirrors(reporter.as_ref());
    work.end(pulled)
}

/// Sends an image to the registry its name says. One that came from a registry goes as it came, byte for byte.
pub(crate) async fn push(
    engine: &Engine,
    reference: &Reference,
    platform: Option<&Platform>,
    reporter: &Arc<dyn Reporter>,
) -> Result<Descriptor> {
    let store = engine.store()?;
    let lease = store.lease().map_err(environment)?;
    let record = crate::images::of_platform(&store, &reference.to_string(), platform)?;
    let kept = StoreBlobs { store, lease };
    let work = Work::start(reporter, format!("pushing {reference}"));
    let pushed = async {
        let (documents, root, layers) = match own_documents(&kept, &record)? {
            Some((root, layers)) => (MemoryBlobs::new(), root, layers),
            None => {
                let made = made(&kept, &reference.to_string(), &record).await?;
                let (documents, root) = crate::export::documents(&made, &Default::default())?;
                let layers = made.into_iter().flat_map(|made| made.layers);
                (documents, root, layers.filter_map(|layer| Some(layer.blob?.digest)).collect())
            }
        };
        let places = record.repo_digests.iter().filter_map(|place| place.parse::<Reference>().ok());
        let origins: Vec<_> =
            places.flat_map(|place| layers.iter().map(move |layer| (layer.clone(), place.clone()))).collect();
        let from = Either(&documents, &kept);
        crate::export::push(&from, engine.registry().client(), &root, (reference, &origins), &work).await?;
        crate::export::note_pushed(&kept, &record.id, (&documents, &root), std::slice::from_ref(reference)).await?;
        Ok(root)
    };
    let pushed = pushed.await;
    work.end(pushed)
}

/// The documents an image came with and its layers, when all they name is here.
fn own_documents(blobs: &StoreBlobs, record: &ImageRecord) -> Result<Option<(Descriptor, Vec<Digest>)>> {
    let Some(root) = &record.manifest else { return Ok(None) };
    let mut layers = Vec::new();
    let mut open = vec![root.clone()];
    while let Some(descriptor) = open.pop() {
        let Some(document) = own_document(blobs, &descriptor)? else { return Ok(None) };
        match document {
            Document::Index(index) => open.extend(index.into_parts().1.manifests),
            Document::Manifest(manifest) => {
                let manifest = manifest.into_parts().1;
                for blob in manifest.layers.iter().chain([&manifest.config]) {
                    if !is_here(blobs, blob)? {
                        return Ok(None);
                    }
                }
                layers.extend(manifest.layers.into_iter().map(|layer| layer.digest));
            }
        }
    }
    Ok(Some((root.clone(), layers)))
}

fn own_document(blobs: &StoreBlobs, descriptor: &Descriptor) -> Result<Option<Document>> {
    if !is_here(blobs, descriptor)? {
        return Ok(None);
    }
    let bytes = blobs.store.content().read(&descriptor.digest, kiln_image::limits::DOCUMENT).map_err(environment)?;
    Ok(Document::parse(&descriptor.media_type, bytes).ok())
}

fn is_here(StoreBlobs { store, lease }: &StoreBlobs, blob: &Descriptor) -> Result<bool> {
    let is_held = lease.hold_blob(&blob.digest).map_err(environment)?;
    Ok(is_held && store.content().len(&blob.digest).map_err(environment)? == Some(blob.size))
}

/// The images of a record with all their layers packed.
async fn made(StoreBlobs { store, lease }: &StoreBlobs, name: &str, record: &ImageRecord) -> Result<Vec<Made>> {
    let packing = Packing { compression: compress::Compression::default(), force: false, or_gzip: false };
    let waiter = Waiter::default();
    let finisher = Finisher::new(store.clone(), lease.clone(), vec![packing], waiter.watch());
    let mut made = Vec::with_capacity(record.images().len());
    for image in record.images() {
        let snapshot = image.snapshot.clone().unwrap_or_default();
        if !lease.hold_snapshot(&snapshot).map_err(environment)? {
            let failure = Failure::new(FailureKind::Environment, format!("layers of image `{name}` are gone"));
            return Err(failure.hint("build it again, or pull it again"));
        }
        let layers = finisher.finish(&snapshot, Some(packing)).await?;
        let bytes = store.content().read(&image.id, kiln_image::limits::CONFIG).map_err(environment)?;
        let config = Raw::parse(bytes).map_err(environment)?;
        made.push(Made { platform: image.platform.clone(), config, snapshot, layers });
    }
    Ok(made)
}

/// Writes images as one Docker archive: all that their names stand for, or those for one platform. One that has a manifest
/// of its own goes with that, as a push sends it.
pub(crate) async fn save(
    engine: &Engine,
    names: &[String],
    platform: Option<&Platform>,
    out: impl FnOnce() -> Result<OutFile>,
) -> Result<()> {
    let store = engine.store()?;
    let lease = store.lease().map_err(environment)?;
    let blobs = StoreBlobs { store, lease };
    let all = MemoryBlobs::new();
    let mut images: Vec<ArchiveImage> = Vec::new();
    for name in names {
        let record = crate::images::of_platform(&blobs.store, name, platform)?;
        let descriptor = match own_documents(&blobs, &record)? {
            Some((root, _)) => root,
            None => {
                let made = made(&blobs, name, &record).await?;
                let (documents, root) = crate::export::documents(&made, &Default::default())?;
                all.extend(documents);
                root
            }
        };
        let names = saved_names(&blobs.store, name)?;
        match images.iter_mut().find(|other| other.descriptor == descriptor) {
            Some(other) => other.names.extend(names),
            None => images.push(ArchiveImage { descriptor, names }),
        }
    }
    write_archive(Format::Docker, &images, &Either(&all, &blobs), out()?).await
}

/// An image saved by name keeps that name; one saved by id has none.
fn saved_names(store: &Store, text: &str) -> Result<Vec<String>> {
    let image = crate::images::get(store, text)?;
    let name = text.parse::<Reference>().map(|name| name.to_string()).ok();
    Ok(name.filter(|name| image.names.contains(name)).into_iter().collect())
}

/// Reads images from an archive.
pub(crate) async fn load(engine: &Engine, input: Box<dyn Read + Send>, platforms: &Platforms) -> Result<Vec<Loaded>> {
    let store = engine.store()?;
    let lease = store.lease().map_err(environment)?;
    // Even the first byte may have to be waited for.
    let plain = blocking(move || {
        compress::decompressor(input, &kiln_fs::Limits::default()).or_build(|| "cannot read the archive".into())
    })
    .await?;
    let archive = Archive::spool(plain, &store.root(), ARCHIVE_LIMIT).await.map_err(registry)?;
    let images = archive.images().to_vec();
    if images.is_empty() {
        return Err(Failure::new(FailureKind::Build, "there is no image in the archive"));
    }
    let source: Arc<dyn BlobSource> = Arc::new(archive);
    let kept = StoreBlobs { store, lease };
    let silent: Arc<dyn Reporter> = Arc::new(kiln_report::Silent);
    let mut loaded = Vec::new();
    for image in images {
        let work = Work::start(&silent, "loading");
        let names: Vec<Reference> = image.names.iter().filter_map(|name| name.parse().ok()).collect();
        let label = names.first().map_or_else(|| image.descriptor.digest.to_string(), Reference::familiar);
        let document = kiln_image::fetch_document(source.as_ref(), &image.descriptor).await.map_err(registry)?;
        let origin = Origin { name: label, digest: None, names: names.clone(), limits: engine.registry().limits() };
        let (id, _) = take(&kept, document, &source, (platforms, &origin), &work).await?;
        match names.is_empty() {
            true => loaded.push(Loaded { name: None, id }),
            false => loaded.extend(names.iter().map(|n| Loaded { name: Some(n.familiar()), id: id.clone() })),
        }
    }
    Ok(loaded)
}

/// Tries credentials and keeps them.
pub(crate) async fn login(engine: &Engine, host: &str, username: &str, password: &str) -> Result<()> {
    let client = engine.registry();
    let config = config_path(engine)?;
    let credential = Credential::Password { username: username.to_owned(), password: password.to_owned() };
    let verified = logins::verify(client.client(), host, &credential).await.map_err(sending)?;
    logins::store(&config, host, &verified.keep).await.map(drop).map_err(registry)
}

/// Forgets credentials.
pub(crate) async fn logout(engine: &Engine, host: &str) -> Result<bool> {
    logins::remove(&config_path(engine)?, host).await.map_err(registry)
}

fn config_path(engine: &Engine) -> Result<std::path::PathBuf> {
    engine.registry().docker_config().cloned().ok_or_else(|| {
        Failure::new(FailureKind::Environment, "there is no place to keep credentials")
            .hint("set `DOCKER_CONFIG` or `HOME`")
    })
}
