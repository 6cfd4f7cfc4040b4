//! The image of a build: its config is written, and the local store gets to know it.

use std::sync::Arc;

use jiff::Timestamp;
use kiln_image::{BlobSource as _, MemoryBlobs};
use kiln_oci::{Descriptor, Digest, ImageConfig, MediaType, Raw, Reference};
use kiln_report::{Failure, FailureKind};
use kiln_store::{ImageRecord, Lease, Snapshot, Store};

use crate::answer::BuildResult;
use crate::base::registry;
use crate::blobs::StoreBlobs;
use crate::blocking::blocking;
use crate::config::{LayerFacts, assemble};
use crate::failure::{Context as _, environment};
use crate::finish::Finished;
use crate::job::{Job, Result};
use crate::packing::Packing;
use crate::progress::Work;

/// An image that is made: its config and its layers.
pub(crate) struct Made {
    pub(crate) config: Raw<ImageConfig>,
    pub(crate) snapshot: Snapshot,
    pub(crate) layers: Vec<Finished>,
}

/// Finishes the layers, packed if an output wants them so, and writes the config.
pub(crate) async fn make(
    job: &Arc<Job>,
    (config, epoch): (ImageConfig, Option<i64>),
    snapshot: &Snapshot,
    packing: Option<Packing>,
) -> Result<Made> {
    let layers = job.finisher.finish(snapshot, packing).await?;
    let mut facts = Vec::with_capacity(layers.len());
    for (id, layer) in snapshot.layers().iter().zip(&layers) {
        let info = job.store.layer(id).map_err(environment)?;
        facts.push(LayerFacts { diff_id: layer.diff_id.clone(), created: Some(time(info.created)?) });
    }
    let epoch = epoch.map(time).transpose()?;
    let config = assemble(config, &facts, epoch, &Timestamp::now().to_string());
    let config = Raw::new(config);
    let (size, limit) = (config.bytes().len() as u64, kiln_image::limits::CONFIG);
    if size > limit {
        let message = format!("the image's config has {size} bytes, and nobody reads more than {limit}");
        return Err(
            Failure::new(FailureKind::Build, message).hint("put large values into files instead of `ENV` or `LABEL`")
        );
    }
    Ok(Made { config, snapshot: snapshot.clone(), layers })
}

/// RFC 3339 of seconds since 1970.
fn time(seconds: i64) -> Result<String> {
    Ok(Timestamp::from_second(seconds).or_build(|| format!("{seconds} is no time"))?.to_string())
}

/// Says what the image is and gives it its names.
pub(crate) async fn keep(
    job: &Arc<Job>,
    made: &Made,
    names: &[Reference],
    is_stored: bool,
    result: &mut BuildResult,
) -> Result<()> {
    let work = Work::start(&job.reporter, "exporting to image");
    work.part(format!("writing image {}", made.config.digest()));
    if is_stored {
        let stored = store(&job.store, &job.lease, made, names, None).await;
        if stored.is_err() {
            return work.end(stored);
        }
    }
    for name in names {
        work.part(format!("naming to {name}"));
        result.names.push(name.to_string());
    }
    work.end(Ok(()))
}

/// Puts an image into the local store. `origin` is where a registry has it.
pub(crate) async fn store(
    store: &Store,
    lease: &Lease,
    made: &Made,
    names: &[Reference],
    origin: Option<(Descriptor, Vec<String>)>,
) -> Result<()> {
    let config = made.config.value();
    let (manifest, repo_digests) = origin.map_or((None, Vec::new()), |(manifest, digests)| (Some(manifest), digests));
    let before = store.images().get(&made.config.digest()).map_err(environment)?;
    // An image that is built again stays the one that was pulled or pushed.
    let known = before.and_then(|image| image.record.manifest);
    let is_held = known.as_ref().map_or(Ok(false), |known| lease.hold_blob(&known.digest)).map_err(environment)?;
    let manifest = manifest.or(known.filter(|_| is_held));
    let record = ImageRecord {
        id: made.config.digest(),
        blobs: std::iter::once(made.config.digest()).chain(manifest.iter().map(|m| m.digest.clone())).collect(),
        manifest,
        snapshot: Some(made.snapshot.clone()),
        repo_digests,
        platform: config.platform.clone(),
        created: config.created.clone(),
        size: 0,
    };
    let (store, lease, names, bytes) = (store.clone(), lease.clone(), names.to_vec(), made.config.bytes().to_vec());
    blocking(move || {
        let mut record = record;
        for layer in record.snapshot.iter().flat_map(|snapshot| snapshot.layers()) {
            record.size += store.layer(layer).map_err(environment)?.size.unwrap_or_default();
        }
        store.content().put(&lease, MediaType::OCI_CONFIG, &bytes).map_err(environment)?;
        store.images().put(&record, &names).map_err(environment)
    })
    .await
}

/// Notes in the record of a stored image what it was pushed as, and where to.
pub(crate) async fn note_pushed(
    StoreBlobs { store, lease }: &StoreBlobs,
    id: &Digest,
    (documents, root): (&MemoryBlobs, &Descriptor),
    names: &[Reference],
) -> Result<()> {
    let Some(mut record) = store.images().get(id).map_err(environment)?.map(|image| image.record) else {
        return Ok(());
    };
    if let Ok(manifest) = documents.fetch(root).await {
        let manifest = manifest.bytes("keep the manifest", root.size).await.map_err(registry)?;
        store.content().put(lease, root.media_type.clone(), &manifest).map_err(environment)?;
    }
    record.manifest = Some(root.clone());
    record.blobs = vec![id.clone(), root.digest.clone()];
    record.repo_digests = names.iter().map(|name| format!("{}@{}", name.name(), root.digest)).collect();
    store.images().put(&record, &[]).map_err(environment)
}
