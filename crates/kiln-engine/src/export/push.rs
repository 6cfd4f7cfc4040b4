//! Results to registries.

use std::sync::Arc;
use std::time::SystemTime;

use kiln_image::{BlobSource, CopyOptions, Either, MemoryBlobs, RegistryClient, Transfer, TransferState, copy_graph};
use kiln_oci::{Descriptor, Digest, Reference};
use kiln_report::Event;

use crate::blobs::StoreBlobs;
use crate::failure::sending;
use crate::job::{Job, Result};
use crate::progress::Work;

/// Pushes under every name.
pub(crate) async fn all(
    job: &Arc<Job>,
    (documents, root): (&MemoryBlobs, &Descriptor),
    names: &[Reference],
    may_be_insecure: bool,
) -> Result<()> {
    // What is on its way need not be looked for.
    job.early.settle().await;
    let blobs = StoreBlobs { store: job.store.clone(), lease: job.lease.clone() };
    let from = Either(documents, &blobs);
    let origins = job.images.origins();
    for name in names {
        let work = Work::start(&job.reporter, format!("pushing {name}"));
        let client = job.registry.client_for(&name.registry, may_be_insecure);
        let done = push(&from, &client, root, (name, &origins), &work).await;
        work.end(done)?;
    }
    Ok(())
}

/// Where blobs are known to be: so that a registry takes them over from another of its repositories.
pub(crate) type Origins = [(Digest, Reference)];

/// Pushes a manifest, and all it names, under one name.
pub(crate) async fn push(
    from: &dyn BlobSource,
    client: &RegistryClient,
    root: &Descriptor,
    (name, origins): (&Reference, &Origins),
    work: &Work,
) -> Result<()> {
    let options = CopyOptions { progress: Some(meter(work)), root_suffices: true, ..CopyOptions::default() };
    let sink = client.sink(name).with_origins(near(name, origins));
    copy_graph(from, &sink, root, &options).await.map_err(sending)?;
    work.part(format!("pushing manifest for {}", name.with_digest(root.digest.clone())));
    Ok(())
}

/// Other repositories of the registry of `name` that have blobs.
pub(super) fn near(name: &Reference, origins: &Origins) -> impl Iterator<Item = (Digest, String)> {
    let near = origins.iter().filter(|(_, at)| at.registry == name.registry && at.repository != name.repository);
    near.map(|(digest, at)| (digest.clone(), at.repository.clone())).collect::<Vec<_>>().into_iter()
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
