//! Results to registries.

use std::sync::Arc;
use std::time::SystemTime;

use kiln_image::{BlobSource, CopyOptions, Either, Transfer, TransferState, copy_graph};
use kiln_oci::{Descriptor, Digest, Reference};
use kiln_report::{Event, Failure, FailureKind};

use crate::base::registry;
use crate::blobs::StoreBlobs;
use crate::export::archive::documents;
use crate::export::image::note_pushed;
use crate::export::{Made, image};
use crate::job::{Job, Result};
use crate::progress::Work;
use crate::registry::Registry;
use crate::request::LayerOptions;

/// Pushes under every name; gives the manifest, or for several images the index.
pub(crate) async fn all(
    job: &Arc<Job>,
    made: &[Made],
    names: &[Reference],
    (options, is_stored): (&LayerOptions, bool),
) -> Result<Descriptor> {
    let blobs = StoreBlobs { store: job.store.clone(), lease: job.lease.clone() };
    let (documents, root) = documents(made, options.oci_media_types.unwrap_or(true))?;
    let from = Either(&documents, &blobs);
    let origins = job.images.origins();
    let mut pushed = None;
    for name in names {
        let work = Work::start(&job.reporter, format!("pushing {name}"));
        let done = push(&from, &job.registry, &root, (name, &origins), &work).await;
        pushed = Some(work.end(done.map(|()| root.clone()))?);
    }
    if is_stored {
        let id = image::id_of(made).ok_or_else(|| Failure::new(FailureKind::Bug, "nothing was pushed"))?;
        note_pushed(&blobs, &id, (&documents, &root), names).await?;
    }
    pushed.ok_or_else(|| Failure::new(FailureKind::Bug, "a push without a name was let through"))
}

/// Where blobs are known to be: so that a registry takes them over from another of its repositories.
pub(crate) type Origins = [(Digest, Reference)];

/// Pushes a manifest, and all it names, under one name.
pub(crate) async fn push(
    from: &dyn BlobSource,
    registry_client: &Registry,
    root: &Descriptor,
    (name, origins): (&Reference, &Origins),
    work: &Work,
) -> Result<()> {
    let options = CopyOptions { progress: Some(meter(work)), ..CopyOptions::default() };
    let near = origins.iter().filter(|(_, at)| at.registry == name.registry && at.repository != name.repository);
    let near = near.map(|(digest, at)| (digest.clone(), at.repository.clone()));
    let sink = registry_client.client().sink(name).with_origins(near);
    copy_graph(from, &sink, root, &options).await.map_err(registry)?;
    work.part(format!("pushing manifest for {}", name.with_digest(root.digest.clone())));
    Ok(())
}

/// Maps transfers to statuses of a piece of work.
pub(crate) fn meter(work: &Work) -> Arc<dyn kiln_image::Progress> {
    let (reporter, vertex) = (work.reporter(), work.id().clone());
    let started = SystemTime::now();
    Arc::new(move |transfer: Transfer| {
        let at = SystemTime::now();
        reporter.report(Event::Status {
            vertex: vertex.clone(),
            id: format!("layer {}", transfer.descriptor.digest),
            current: transfer.done,
            total: transfer.descriptor.size,
            started,
            completed: matches!(transfer.state, TransferState::Done(_)).then_some(at),
            at,
        });
    })
}
