//! Images between the local store, registries and archives.

use std::io::Read;
use std::sync::Arc;

use kiln_fs::compress;
use kiln_image::archive::{Archive, ArchiveImage, Format};
use kiln_image::{BlobSource, Credential, Either, MemoryBlobs, login as logins};
use kiln_oci::{Descriptor, Digest, Document, Manifest, MediaType, Platform, Raw, Reference};
use kiln_report::{Failure, FailureKind, Reporter};
use kiln_store::{ImageRecord, Lease, Store};

use crate::answer::{Loaded, PullResult};
use crate::base::{BaseImage, Meter, registry};
use crate::blobs::StoreBlobs;
use crate::blocking::blocking;
use crate::engine::Engine;
use crate::export::{Made, OutFile, store as keep, write_archive};
use crate::failure::{Context as _, environment};
use crate::finish::Finisher;
use crate::frontend::{fetch_config, image_manifest};
use crate::job::Result;
use crate::packing::Packing;
use crate::progress::Work;
use crate::waiter::Waiter;

/// An archive larger than this is refused; the disk is the other limit.
const ARCHIVE_LIMIT: u64 = 1 << 40;

/// Fetches an image and keeps it under its name.
pub(crate) async fn pull(
    engine: &Engine,
    reference: &Reference,
    platform: Option<Platform>,
    reporter: &Arc<dyn Reporter>,
) -> Result<PullResult> {
    let store = engine.store()?;
    let lease = store.lease().map_err(environment)?;
    let work = Work::start(reporter, format!("pulling {reference}"));
    let pulled = async {
        let resolved = engine.registry().client().resolve(reference).await.map_err(registry)?;
        let digest = resolved.descriptor.digest.clone();
        let source: Arc<dyn BlobSource> = Arc::new(engine.registry().client().source(reference));
        let wanted = platform.unwrap_or_else(Platform::host);
        let kept = StoreBlobs { store, lease };
        let origin =
            Origin { name: reference.familiar(), digest: Some(digest.clone()), names: vec![reference.clone()] };
        let (id, up_to_date) = take(&kept, resolved.document, &source, (&wanted, &origin), &work).await?;
        Ok(PullResult { digest, id, up_to_date })
    };
    let pulled = pulled.await;
    work.end(pulled)
}

/// Where an image comes from and what it shall be called.
struct Origin {
    name: String,
    /// What a registry calls it.
    digest: Option<Digest>,
    names: Vec<Reference>,
}

/// Brings an image into the local store: its layers unpacked, its config and manifest kept.
async fn take(
    StoreBlobs { store, lease }: &StoreBlobs,
    document: Document,
    source: &Arc<dyn BlobSource>,
    (platform, origin): (&Platform, &Origin),
    work: &Work,
) -> Result<(Digest, bool)> {
    let (descriptor, manifest) = image_manifest(&origin.name, document, source, platform).await?;
    let (_, config) = fetch_config(&origin.name, &manifest, source).await?;
    let id = config.digest();
    let known = store.images().get(&id).map_err(environment)?;
    let up_to_date = known.is_some_and(|image| origin.names.iter().all(|name| image.names.contains(&name.to_string())));
    let image = Arc::new(BaseImage {
        name: origin.name.clone(),
        config: config.value().clone(),
        blobs: manifest.layers.clone(),
        source: Some(Arc::clone(source)),
        snapshot: None,
    });
    let meter = Arc::new(Meter { reporter: work.reporter(), vertex: work.id().clone() });
    let snapshot = image.unpack(store, lease, &meter).await?;
    // The manifest is kept as it came, so that a push sends the very same bytes.
    let bytes = source.fetch(&descriptor).await.map_err(registry)?;
    let bytes = bytes.bytes("keep the manifest", kiln_image::limits::DOCUMENT).await.map_err(registry)?;
    store.content().put(lease, descriptor.media_type.clone(), &bytes).map_err(environment)?;
    let made = Made { config, snapshot, layers: Vec::new() };
    let known_by = |digest: &Digest| origin.names.iter().map(|name| format!("{}@{digest}", name.name())).collect();
    let digests = origin.digest.as_ref().map_or_else(Vec::new, known_by);
    keep(store, lease, &made, &origin.names, Some((descriptor, digests))).await?;
    Ok((id, up_to_date))
}

/// Sends an image to the registry its name says. One that came from a registry goes as it came, byte for byte.
pub(crate) async fn push(engine: &Engine, reference: &Reference, reporter: &Arc<dyn Reporter>) -> Result<Descriptor> {
    let store = engine.store()?;
    let lease = store.lease().map_err(environment)?;
    let record = crate::images::get(&store, &reference.to_string())?.record;
    let kept = StoreBlobs { store, lease };
    let work = Work::start(reporter, format!("pushing {reference}"));
    let pushed = async {
        let (documents, root, layers) = match own_manifest(&kept, &record)? {
            Some((root, layers)) => (MemoryBlobs::new(), root, layers),
            None => {
                let made = made(&kept.store, &kept.lease, &reference.to_string()).await?;
                let (documents, root) = crate::export::documents(&made, true)?;
                (documents, root, made.layers.into_iter().filter_map(|layer| Some(layer.blob?.digest)).collect())
            }
        };
        let places = record.repo_digests.iter().filter_map(|place| place.parse::<Reference>().ok());
        let origins: Vec<_> =
            places.flat_map(|place| layers.iter().map(move |layer| (layer.clone(), place.clone()))).collect();
        let from = Either(&documents, &kept);
        crate::export::push(&from, &engine.registry(), &root, (reference, &origins), &work).await?;
        crate::export::note_pushed(&kept, &record.id, (&documents, &root), std::slice::from_ref(reference)).await?;
        Ok(root)
    };
    let pushed = pushed.await;
    work.end(pushed)
}

/// The manifest an image came with and its layers, when all it names is here.
fn own_manifest(
    StoreBlobs { store, lease }: &StoreBlobs,
    record: &ImageRecord,
) -> Result<Option<(Descriptor, Vec<Digest>)>> {
    let Some(root) = &record.manifest else { return Ok(None) };
    let is_here = |blob: &Descriptor| -> Result<bool> {
        let is_held = lease.hold_blob(&blob.digest).map_err(environment)?;
        Ok(is_held && store.content().len(&blob.digest).map_err(environment)? == Some(blob.size))
    };
    if !is_here(root)? {
        return Ok(None);
    }
    let bytes = store.content().read(&root.digest, kiln_image::limits::DOCUMENT).map_err(environment)?;
    let Ok(manifest) = Raw::<Manifest>::parse(bytes) else { return Ok(None) };
    let manifest = manifest.value();
    for blob in manifest.layers.iter().chain([&manifest.config]) {
        if !is_here(blob)? {
            return Ok(None);
        }
    }
    Ok(Some((root.clone(), manifest.layers.iter().map(|layer| layer.digest.clone()).collect())))
}

/// An image of the store with all its layers packed.
async fn made(store: &Store, lease: &Lease, name: &str) -> Result<Made> {
    let image = crate::images::get(store, name)?;
    let snapshot = image.record.snapshot.clone().unwrap_or_default();
    if !lease.hold_snapshot(&snapshot).map_err(environment)? {
        let failure = Failure::new(FailureKind::Environment, format!("layers of image `{name}` are gone"));
        return Err(failure.hint("build it again, or pull it again"));
    }
    let packing = Packing { compression: compress::Compression::default(), force: false };
    let waiter = Waiter::default();
    let finisher = Finisher::new(store.clone(), lease.clone(), vec![packing], waiter.watch());
    let layers = finisher.finish(&snapshot, Some(packing)).await?;
    let bytes = store.content().read(&image.record.id, kiln_image::limits::CONFIG).map_err(environment)?;
    Ok(Made { config: Raw::parse(bytes).map_err(environment)?, snapshot, layers })
}

/// Writes images as one Docker archive.
pub(crate) async fn save(engine: &Engine, names: &[String], out: OutFile) -> Result<()> {
    let store = engine.store()?;
    let lease = store.lease().map_err(environment)?;
    let all = MemoryBlobs::new();
    let mut images: Vec<ArchiveImage> = Vec::new();
    for name in names {
        let image = made(&store, &lease, name).await?;
        let manifest = crate::export::manifest(&image, true)?;
        all.insert(MediaType::OCI_CONFIG, image.config.bytes().to_vec());
        let descriptor = all.insert(MediaType::OCI_MANIFEST, manifest.bytes().to_vec());
        let names = saved_names(&store, name)?;
        match images.iter_mut().find(|other| other.descriptor == descriptor) {
            Some(other) => other.names.extend(names),
            None => images.push(ArchiveImage { descriptor, names }),
        }
    }
    let blobs = StoreBlobs { store, lease };
    write_archive(Format::Docker, &images, &Either(&all, &blobs), out).await
}

/// An image saved by name keeps that name; one saved by id has none.
fn saved_names(store: &Store, text: &str) -> Result<Vec<String>> {
    let image = crate::images::get(store, text)?;
    let name = text.parse::<Reference>().map(|name| name.to_string()).ok();
    Ok(name.filter(|name| image.names.contains(name)).into_iter().collect())
}

/// Reads images from an archive.
pub(crate) async fn load(engine: &Engine, input: Box<dyn Read + Send>) -> Result<Vec<Loaded>> {
    let store = engine.store()?;
    let lease = store.lease().map_err(environment)?;
    // Even the first byte may have to be waited for.
    let plain = blocking(move || {
        compress::decompressor(input, &kiln_fs::Limits::default()).or_build(|| "cannot read the archive".into())
    })
    .await?;
    let archive = Archive::spool(plain, &store.root(), ARCHIVE_LIMIT).await.map_err(registry)?;
    let images = archive.images().to_vec();
    let source: Arc<dyn BlobSource> = Arc::new(archive);
    let kept = StoreBlobs { store, lease };
    let silent: Arc<dyn Reporter> = Arc::new(kiln_report::Silent);
    let mut loaded = Vec::new();
    for image in images {
        let work = Work::start(&silent, "loading");
        let names: Vec<Reference> = image.names.iter().filter_map(|name| name.parse().ok()).collect();
        let label = names.first().map_or_else(|| image.descriptor.digest.to_string(), Reference::familiar);
        let document = kiln_image::fetch_document(source.as_ref(), &image.descriptor).await.map_err(registry)?;
        let origin = Origin { name: label, digest: None, names: names.clone() };
        let (id, _) = take(&kept, document, &source, (&Platform::host(), &origin), &work).await?;
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
    let verified = logins::verify(client.client(), host, &credential).await.map_err(registry)?;
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
