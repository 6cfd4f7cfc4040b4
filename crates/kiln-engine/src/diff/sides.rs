//! Images to look into: of the local store, of a layout or an archive, or of a registry.

use std::path::Path;
use std::sync::Arc;

use kiln_image::archive::Archive;
use kiln_image::{BlobSource, Layout, fetch_document};
use kiln_oci::{Descriptor, Digest, Document, ImageConfig, Platform, Raw, Reference};
use kiln_report::{Failure, FailureKind, Reporter};
use kiln_store::{ImageRecord, Lease, Snapshot, Store};
use kiln_sys::root::Root;

use super::DiffImage;
use crate::base::{BaseImage, Meter};
use crate::engine::Engine;
use crate::failure::{Context as _, environment, registry};
use crate::frontend::{fetch_config, split_layout};
use crate::job::Result;
use crate::progress::Work;
use crate::take::{Platforms, picked};

/// What a name stands for: one image, or one for each platform.
pub(crate) struct Found {
    /// The digest of all of it, as the store or its registry calls it.
    pub(crate) id: Digest,
    pub(crate) images: Vec<Candidate>,
    /// Whether the name stands for several images.
    pub(crate) is_index: bool,
}

/// One image whose layers may be elsewhere still.
pub(crate) struct Candidate {
    pub(crate) name: String,
    /// What was asked for, or else what it is for.
    pub(crate) platform: Platform,
    pub(crate) config: Raw<ImageConfig>,
    place: Place,
}

/// Where its layers are.
enum Place {
    Store(Snapshot),
    Elsewhere(Vec<Descriptor>, Arc<dyn BlobSource>),
}

/// An image whose files are at hand.
pub(crate) struct Side {
    pub(crate) name: String,
    pub(crate) platform: Platform,
    pub(crate) config: Raw<ImageConfig>,
    pub(crate) snapshot: Snapshot,
}

/// Finds what a name stands for: its images for these platforms, or all of them.
pub(crate) async fn find(
    engine: &Engine,
    (store, lease): (&Store, &Lease),
    (name, platforms): (&str, &[Platform]),
) -> Result<Found> {
    let (document, source) = match name.split_once(':') {
        Some(("oci", place)) => in_layout(place).await?,
        Some(("oci-layout", place)) => in_layout(place.trim_start_matches("//")).await?,
        Some(("oci-archive" | "docker-archive", place)) => in_archive(Path::new(place)).await?,
        Some(("docker", place)) if place.starts_with("//") => return Err(docker_transport(name, place)),
        _ => match in_store(store, lease, (name, platforms))? {
            Some(found) => return Ok(found),
            None => at_registry(engine, store, name).await?,
        },
    };
    let (id, is_alone) = match &document {
        Document::Index(index) => (index.digest(), false),
        Document::Manifest(manifest) => (manifest.digest(), true),
    };
    let wanted = match platforms {
        [] => Platforms::All,
        these => Platforms::These(these.to_vec()),
    };
    let mut images = Vec::new();
    for (platform, _, manifest) in picked(name, document, &source, &wanted).await? {
        let config = fetch_config(name, &manifest, &source).await?.1;
        let own = &config.value().platform;
        if is_alone {
            platforms.iter().try_for_each(|wanted| serves(name, own, wanted))?;
        }
        let platform = if is_alone { platforms.first().unwrap_or(own).clone() } else { platform };
        let place = Place::Elsewhere(manifest.layers, Arc::clone(&source));
        images.push(Candidate { name: name.to_owned(), platform: known(platform), config, place });
    }
    Ok(Found { is_index: images.len() > 1, id, images })
}

impl Candidate {
    pub(super) fn told(&self) -> DiffImage {
        let config = &self.config;
        DiffImage { name: self.name.clone(), id: config.digest(), layers: config.value().rootfs.diff_ids.len() }
    }

    /// Has its layers here. What comes from elsewhere gets no name, and goes with the next prune.
    pub(crate) async fn open(
        self,
        engine: &Engine,
        (store, lease): (&Store, &Lease),
        reporter: &Arc<dyn Reporter>,
    ) -> Result<Side> {
        let Self { name, platform, config, place } = self;
        let snapshot = match place {
            Place::Store(snapshot) => snapshot,
            Place::Elsewhere(blobs, source) => {
                let work = Work::start(reporter, format!("reading image {name}"));
                let limits = engine.registry().limits();
                let meter = Arc::new(Meter { reporter: work.reporter(), vertex: work.id().clone(), limits });
                let (name, config) = (name.clone(), config.value().clone());
                let image = Arc::new(BaseImage {
                    name,
                    config,
                    blobs,
                    source: Some(source),
                    documents: Vec::new(),
                    snapshot: None,
                });
                let unpacked = image.unpack(store, lease, &meter).await;
                work.end(unpacked)?
            }
        };
        Ok(Side { name, platform, config, snapshot })
    }
}

/// Fails for an image that alone has its name, and is for another platform. One that does not say what it is for serves all.
fn serves(name: &str, platform: &Platform, wanted: &Platform) -> Result<()> {
    if platform.architecture.is_empty() || platform.rank(wanted).is_some() {
        return Ok(());
    }
    let message = format!("image `{name}` is not for `{wanted}`, but for `{platform}`");
    Err(Failure::new(FailureKind::Usage, message).hint("name an image that is, or leave out `--platform`"))
}

fn docker_transport(name: &str, place: &str) -> Failure {
    let message = format!("cannot read image `{name}`: names of registries are written without `docker://`");
    let place = place.trim_start_matches('/');
    Failure::new(FailureKind::Usage, message).hint(format!("leave out `docker://`: `{place}`"))
}

/// What the store has by that name, if anything.
fn in_store(store: &Store, lease: &Lease, (name, platforms): (&str, &[Platform])) -> Result<Option<Found>> {
    let whole = match store.images().find(name) {
        Ok(image) => image.record,
        Err(kiln_store::Error::UnknownImage { .. }) => return Ok(None),
        Err(error) => return Err(Failure::from_error(FailureKind::Usage, &error)),
    };
    let mut images = Vec::new();
    if platforms.is_empty() {
        for record in whole.images() {
            images.push(stored(store, lease, (name, record.platform.clone()), record)?);
        }
    }
    for platform in platforms {
        let record = crate::images::of_platform(store, name, Some(platform))?;
        images.push(stored(store, lease, (name, platform.clone()), &record)?);
    }
    Ok(Some(Found { is_index: whole.is_index(), id: whole.id, images }))
}

fn stored(store: &Store, lease: &Lease, (name, platform): (&str, Platform), record: &ImageRecord) -> Result<Candidate> {
    let snapshot = record.snapshot.clone().unwrap_or_default();
    if !lease.hold_snapshot(&snapshot).map_err(environment)? {
        let failure = Failure::new(FailureKind::Environment, format!("layers of image `{name}` are gone"));
        return Err(failure.hint("build it again, or pull it again"));
    }
    let bytes = store.content().read(&record.id, kiln_image::limits::CONFIG).map_err(environment)?;
    let config = Raw::parse(bytes).map_err(environment)?;
    Ok(Candidate { name: name.to_owned(), platform: known(platform), config, place: Place::Store(snapshot) })
}

/// An image that does not say what it is for is taken for one of this machine.
fn known(platform: Platform) -> Platform {
    if platform.architecture.is_empty() { Platform::host() } else { platform.normalized() }
}

async fn in_layout(place: &str) -> Result<(Document, Arc<dyn BlobSource>)> {
    let (path, selector) = split_layout(place)?;
    let layout = Layout::open(&path).await.map_err(registry)?;
    let root = layout.resolve(&selector).await.map_err(registry)?;
    document(Arc::new(layout), &root).await
}

async fn in_archive(path: &Path) -> Result<(Document, Arc<dyn BlobSource>)> {
    let archive = Archive::open(path).await.map_err(registry)?;
    let root = match archive.images() {
        [image] => image.descriptor.clone(),
        images => {
            let message = format!("archive `{}` holds {} images", path.display(), images.len());
            return Err(Failure::new(FailureKind::Usage, message)
                .hint("load it with `kiln load`, and name the image that is meant"));
        }
    };
    document(Arc::new(archive), &root).await
}

async fn document(source: Arc<dyn BlobSource>, root: &Descriptor) -> Result<(Document, Arc<dyn BlobSource>)> {
    let document = fetch_document(source.as_ref(), root).await.map_err(registry)?;
    Ok((document, source))
}

async fn at_registry(engine: &Engine, store: &Store, name: &str) -> Result<(Document, Arc<dyn BlobSource>)> {
    let unknown = |cause: Option<Failure>| {
        let unknown = crate::images::unknown(store, name);
        let causes = cause.into_iter().flat_map(|failure| std::iter::once(failure.message).chain(failure.causes));
        Failure { kind: FailureKind::Usage, causes: causes.collect(), ..unknown }
    };
    let reference: Reference = name.parse().or_build(String::new).map_err(|_| unknown(None))?;
    let client = engine.registry();
    let resolved = client.client().resolve(&reference).await.map_err(|error| unknown(Some(registry(error))))?;
    Ok((resolved.document, Arc::new(client.client().source(&reference))))
}

impl Side {
    pub(super) fn told(&self) -> DiffImage {
        DiffImage { name: self.name.clone(), id: self.config.digest(), layers: self.snapshot.layers().len() }
    }

    /// Its files, mounted nowhere.
    pub(super) fn view(&self, store: &Store) -> Result<Root> {
        crate::step::view(store, &self.snapshot).map(Root::new)
    }
}
