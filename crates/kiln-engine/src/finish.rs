//! Finishes layers while the build goes on: their tars are digested, and packed where an output wants them packed,
//! as soon as their steps are done. There is no exporting phase.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

use kiln_fs::compress::{Compression, Compressor};
use kiln_fs::layer;
use kiln_oci::{Descriptor, Digest, Hasher, MediaType};
use kiln_report::{Failure, FailureKind};
use kiln_store::{LayerId, Lease, Snapshot, Store};
use tokio::task::JoinHandle;

use crate::failure::{Context as _, environment};
use crate::frontend::open_root;
use crate::job::Result;

/// A layer as others may have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finished {
    /// The digest of its tar.
    pub(crate) diff_id: Digest,
    /// It packed, in the content store, when packing was asked for.
    pub(crate) blob: Option<Descriptor>,
}

/// How layers are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Packing {
    /// The compression of new layers.
    pub(crate) compression: Compression,
    /// Whether layers that are packed otherwise are packed anew.
    pub(crate) force: bool,
}

/// Works on layers in the background, each once.
pub(crate) struct Finisher {
    store: Store,
    lease: Lease,
    packing: Option<Packing>,
    running: Mutex<HashMap<LayerId, JoinHandle<Result<Finished>>>>,
}

impl Finisher {
    /// A finisher; without `packing` layers are only digested.
    pub(crate) fn new(store: Store, lease: Lease, packing: Option<Packing>) -> Self {
        Self { store, lease, packing, running: Mutex::default() }
    }

    /// Begins with the topmost layer of a snapshot, which a step just made.
    pub(crate) fn begin(&self, snapshot: &Snapshot) {
        if let Some(layer) = snapshot.layers().last() {
            self.start(layer);
        }
    }

    fn start(&self, layer: &LayerId) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.entry(layer.clone()).or_insert_with(|| {
            let (store, lease, packing, layer) = (self.store.clone(), self.lease.clone(), self.packing, layer.clone());
            tokio::task::spawn_blocking(move || finish(&store, &lease, packing, &layer))
        });
    }

    /// All layers of a snapshot, base first, when they are ready.
    pub(crate) async fn finish(&self, snapshot: &Snapshot) -> Result<Vec<Finished>> {
        let mut finished = Vec::with_capacity(snapshot.layers().len());
        for layer in snapshot.layers() {
            if let Some(known) = known(&self.store, self.packing, layer)? {
                finished.push(Some(known));
                continue;
            }
            self.start(layer);
            finished.push(None);
        }
        for (slot, layer) in finished.iter_mut().zip(snapshot.layers()) {
            if slot.is_none() {
                let handle = self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(layer);
                *slot = Some(match handle {
                    Some(handle) => handle.await.unwrap_or_else(|error| Err(stopped(&error)))?,
                    // The same layer twice in one image: the first time finished it.
                    None => known(&self.store, self.packing, layer)?.ok_or_else(|| stopped(&"it is not finished"))?,
                });
            }
        }
        Ok(finished.into_iter().flatten().collect())
    }
}

fn stopped(why: &dyn std::fmt::Display) -> Failure {
    Failure::new(FailureKind::Bug, format!("a layer could not be finished: {why}"))
}

/// What an earlier build or a pull left: nothing is to be done.
fn known(store: &Store, packing: Option<Packing>, layer: &LayerId) -> Result<Option<Finished>> {
    let info = store.layer(layer).map_err(environment)?;
    let Some(diff_id) = info.diff_id else { return Ok(None) };
    let Some(packing) = packing else { return Ok(Some(Finished { diff_id, blob: None })) };
    for blob in info.blobs {
        let fits = compression_of(&blob.media_type).is_some_and(|kind| kind == kind_of(packing.compression));
        if (fits || !packing.force) && store.content().has(&blob.digest).map_err(environment)? {
            return Ok(Some(Finished { diff_id, blob: Some(blob) }));
        }
    }
    Ok(None)
}

/// Packs a layer: one pass over its files gives the tar's digest and the packed blob.
fn finish(store: &Store, lease: &Lease, packing: Option<Packing>, layer: &LayerId) -> Result<Finished> {
    if let Some(known) = known(store, packing, layer)? {
        return Ok(known);
    }
    let doing = || format!("cannot pack layer `{layer}`");
    let root = open_root(&store.layer_dir(layer))?;
    let mut hasher = Hasher::new();
    let (stats, blob) = match packing {
        None => (layer::pack(&root, &mut hasher).or_environment(doing)?, None),
        Some(packing) => {
            let ingest = store.content().ingest(lease).or_environment(doing)?;
            let threads = Compressor::<std::io::Sink>::all_threads();
            let packed = Compressor::new(ingest, packing.compression, threads).or_environment(doing)?;
            let mut both = Both(&mut hasher, packed);
            let stats = layer::pack(&root, &mut both).or_environment(doing)?;
            let ingest = both.1.finish().or_environment(doing)?;
            let blob = ingest.commit(None, media_type(packing.compression)).or_environment(doing)?;
            store.add_blob(layer, &blob).or_environment(doing)?;
            (stats, Some(blob))
        }
    };
    let diff_id = hasher.finish();
    store.set_diff_id(layer, &diff_id, stats.bytes).or_environment(doing)?;
    Ok(Finished { diff_id, blob })
}

struct Both<A, B>(A, B);

impl<A: Write, B: Write> Write for Both<A, B> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write_all(bytes)?;
        self.1.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.1.flush()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    None,
    Gzip,
    Zstd,
}

fn kind_of(compression: Compression) -> Kind {
    match compression {
        Compression::None => Kind::None,
        Compression::Gzip { .. } => Kind::Gzip,
        Compression::Zstd { .. } => Kind::Zstd,
    }
}

fn compression_of(media_type: &MediaType) -> Option<Kind> {
    match media_type.as_str() {
        MediaType::OCI_LAYER | MediaType::DOCKER_LAYER => Some(Kind::None),
        MediaType::OCI_LAYER_GZIP | MediaType::DOCKER_LAYER_GZIP => Some(Kind::Gzip),
        MediaType::OCI_LAYER_ZSTD => Some(Kind::Zstd),
        _ => None,
    }
}

fn media_type(compression: Compression) -> &'static str {
    match compression {
        Compression::None => MediaType::OCI_LAYER,
        Compression::Gzip { .. } => MediaType::OCI_LAYER_GZIP,
        Compression::Zstd { .. } => MediaType::OCI_LAYER_ZSTD,
    }
}

/// The same content under OCI's or Docker's name for it. Docker has no name for zstd; OCI's is kept.
pub(crate) fn spelled(blob: &Descriptor, is_oci: bool) -> Descriptor {
    let name = match (compression_of(&blob.media_type), is_oci) {
        (Some(Kind::None), true) => MediaType::OCI_LAYER,
        (Some(Kind::Gzip), true) => MediaType::OCI_LAYER_GZIP,
        (Some(Kind::None), false) => MediaType::DOCKER_LAYER,
        (Some(Kind::Gzip), false) => MediaType::DOCKER_LAYER_GZIP,
        (Some(Kind::Zstd) | None, _) => return blob.clone(),
    };
    Descriptor { media_type: name.into(), urls: Vec::new(), annotations: Default::default(), ..blob.clone() }
}
