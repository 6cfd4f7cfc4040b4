//! Results to registries.

use std::sync::Arc;
use std::time::SystemTime;

use kiln_image::{CopyOptions, Either, Transfer, TransferState, copy_graph};
use kiln_oci::{Descriptor, Reference};
use kiln_report::{Event, Failure, FailureKind};

use crate::base::registry;
use crate::blobs::StoreBlobs;
use crate::export::Made;
use crate::export::archive::documents;
use crate::job::{Job, Result};
use crate::progress::Work;
use crate::registry::Registry;
use crate::request::LayerOptions;

/// Pushes under every name; gives the manifest.
pub(crate) async fn all(
    job: &Arc<Job>,
    made: &Made,
    names: &[Reference],
    options: &LayerOptions,
) -> Result<Descriptor> {
    let blobs = StoreBlobs { store: job.store.clone(), lease: job.lease.clone() };
    let mut pushed = None;
    for name in names {
        let work = Work::start(&job.reporter, format!("pushing {name}"));
        let is_oci = options.oci_media_types.unwrap_or(true);
        let done = push(&blobs, &job.registry, made, (name, is_oci), &work).await;
        pushed = Some(work.end(done)?);
    }
    pushed.ok_or_else(|| Failure::new(FailureKind::Bug, "a push without a name was let through"))
}

/// Pushes under one name.
pub(crate) async fn push(
    blobs: &StoreBlobs,
    registry_client: &Registry,
    made: &Made,
    (name, is_oci): (&Reference, bool),
    work: &Work,
) -> Result<Descriptor> {
    let (documents, root) = documents(made, is_oci)?;
    let options = CopyOptions { progress: Some(meter(work)), ..CopyOptions::default() };
    let sink = registry_client.client().sink(name);
    copy_graph(&Either(&documents, blobs), &sink, &root, &options).await.map_err(registry)?;
    work.part(format!("pushing manifest for {}", name.with_digest(root.digest.clone())));
    Ok(root)
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
