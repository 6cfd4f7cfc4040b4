//! Images to look into: of the local store, of a layout or an archive, or of a registry.

use std::path::Path;
use std::sync::Arc;

use kiln_image::archive::Archive;
use kiln_image::{BlobSource, Layout, fetch_document};
use kiln_oci::{Descriptor, Document, ImageConfig, Platform, Raw, Reference};
use kiln_report::{Failure, FailureKind, Reporter};
use kiln_store::{Lease, Snapshot, Store};
use kiln_sys::root::Root;

use super::DiffImage;
use crate::base::{BaseImage, Meter};
use crate::engine::Engine;
use crate::failure::{Context as _, environment, registry};
use crate::frontend::{fetch_config, image_manifest, split_layout};
use crate::job::Result;
use crate::progress::Work;

/// An image whose files are at hand.
pub(crate) struct Side {
    pub(crate) name: String,
    pub(crate) config: Raw<ImageConfig>,
    pub(crate) snapshot: Snapshot,
}

/// Finds an image and has its layers here. What came from elsewhere gets no name, and goes with the next prune.
pub(crate) async fn open(
    engine: &Engine,
    (store, lease): (&Store, &Lease),
    (name, platform): (&str, Option<&Platform>),
    reporter: &Arc<dyn Reporter>,
) -> Result<Side> {
    let (document, source) = match name.split_once(':') {
        Some(("oci", place)) => in_layout(place).await?,
        Some(("oci-layout", place)) => in_layout(place.trim_start_matches("//")).await?,
        Some(("oci-archive" | "docker-archive", place)) => in_archive(Path::new(place)).await?,
        Some(("docker", place)) if place.starts_with("//") => return Err(docker_transport(name, place)),
        _ => match in_store(store, lease, (name, platform))? {
            Some(side) => return Ok(side),
            None => at_registry(engine, store, name).await?,
        },
    };
    let work = Work::start(reporter, format!("reading image {name}"));
    let meter =
        Arc::new(Meter { reporter: work.reporter(), vertex: work.id().clone(), limits: engine.registry().limits() });
    let host = Platform::host();
    let is_index = matches!(document, Document::Index(_));
    let taken = async {
        let (_, manifest) = image_manifest(name, document, &source, platform.unwrap_or(&host)).await?;
        let config = fetch_config(name, &manifest, &source).await?.1;
        if let Some(platform) = platform.filter(|_| !is_index) {
            serves(name, &config.value().platform, platform)?;
        }
        let image = Arc::new(BaseImage {
            name: name.to_owned(),
            config: config.value().clone(),
            blobs: manifest.layers,
            source: Some(source),
            snapshot: None,
        });
        let snapshot = image.unpack(store, lease, &meter).await?;
        Ok(Side { name: name.to_owned(), config, snapshot })
    };
    let taken = taken.await;
    work.end(taken)
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

/// An image of the store, if it has one by that name; of several the one for the platform.
fn in_store(store: &Store, lease: &Lease, (name, platform): (&str, Option<&Platform>)) -> Result<Option<Side>> {
    let record = match store.images().find(name) {
        Ok(_) => crate::images::one(store, name, platform)?.record,
        Err(kiln_store::Error::UnknownImage { .. }) => return Ok(None),
        Err(error) => return Err(Failure::from_error(FailureKind::Usage, &error)),
    };
    let snapshot = record.snapshot.unwrap_or_default();
    if !lease.hold_snapshot(&snapshot).map_err(environment)? {
        let failure = Failure::new(FailureKind::Environment, format!("layers of image `{name}` are gone"));
        return Err(failure.hint("build it again, or pull it again"));
    }
    let bytes = store.content().read(&record.id, kiln_image::limits::CONFIG).map_err(environment)?;
    Ok(Some(Side { name: name.to_owned(), config: Raw::parse(bytes).map_err(environment)?, snapshot }))
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
