//! Finishes layers while the build goes on: their tars are digested, and packed where an output wants them packed,
//! as soon as their steps are done. There is no exporting phase.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::sync::{Mutex, PoisonError};

use kiln_fs::compress::{self, Compression, Compressor};
use kiln_fs::layer;
use kiln_oci::{Descriptor, Digest, Hasher, MediaType};
use kiln_report::{Failure, FailureKind};
use kiln_store::{LayerId, LayerInfo, Lease, Snapshot, Store};
use tokio::task::JoinHandle;

use crate::failure::{Context as _, environment};
use crate::job::Result;
use crate::scratch::open_dir;
use crate::waiter::Watch;

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

/// Works on layers in the background, each once, as long as somebody waits.
pub(crate) struct Finisher {
    work: Finishing,
    running: Mutex<HashMap<LayerId, JoinHandle<Result<Finished>>>>,
}

#[derive(Clone)]
struct Finishing {
    store: Store,
    lease: Lease,
    packing: Option<Packing>,
    watch: Watch,
}

impl Finisher {
    /// A finisher; without `packing` layers are only digested.
    pub(crate) fn new(store: Store, lease: Lease, packing: Option<Packing>, watch: Watch) -> Self {
        Self { work: Finishing { store, lease, packing, watch }, running: Mutex::default() }
    }

    /// Whether it packs layers this way.
    pub(crate) fn packs(&self, packing: Packing) -> bool {
        self.work.packing == Some(packing)
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
            let (work, layer) = (self.work.clone(), layer.clone());
            tokio::task::spawn_blocking(move || finish(&work, &layer))
        });
    }

    /// All layers of a snapshot, base first, when they are ready.
    pub(crate) async fn finish(&self, snapshot: &Snapshot) -> Result<Vec<Finished>> {
        let mut finished = Vec::with_capacity(snapshot.layers().len());
        for layer in snapshot.layers() {
            if let Some(known) = known(&self.work.store, self.work.packing, layer)? {
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
                    None => known(&self.work.store, self.work.packing, layer)?
                        .ok_or_else(|| stopped(&"it is not finished"))?,
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
    let fits = |blob: &Descriptor| compression_of(&blob.media_type) == Some(kind_of(packing.compression));
    let (fitting, others): (Vec<_>, Vec<_>) = info.blobs.into_iter().partition(fits);
    for blob in fitting.into_iter().chain(others.into_iter().filter(|_| !packing.force)) {
        if store.content().has(&blob.digest).map_err(environment)? {
            return Ok(Some(Finished { diff_id, blob: Some(blob) }));
        }
    }
    Ok(None)
}

/// Packs a layer: one pass gives the tar's digest and the packed blob. A layer that came packed keeps its own tar,
/// whose digest stands in configs; ours of the same files may well be another.
fn finish(work: &Finishing, layer: &LayerId) -> Result<Finished> {
    let Finishing { store, lease, packing, .. } = work;
    if let Some(known) = known(store, *packing, layer)? {
        return Ok(known);
    }
    let doing = || format!("cannot pack layer `{layer}`");
    let info = store.layer(layer).or_environment(doing)?;
    let tar = packed(store, &info)?;
    let write = |out: &mut dyn Write| -> Result<u64> {
        let mut out = Stoppable { inner: out, watch: &work.watch };
        match tar {
            Some(mut tar) => {
                std::io::copy(&mut tar, &mut out).or_environment(doing)?;
                Ok(info.size.unwrap_or_default())
            }
            None => Ok(layer::pack(&open_dir(&store.layer_dir(layer))?, &mut out).or_environment(doing)?.bytes),
        }
    };
    let mut hasher = Hasher::new();
    let (size, blob) = match *packing {
        None => (write(&mut hasher)?, None),
        Some(packing) => {
            let ingest = store.content().ingest(lease).or_environment(doing)?;
            let threads = Compressor::<std::io::Sink>::all_threads();
            let packed = Compressor::new(ingest, packing.compression, threads).or_environment(doing)?;
            let mut both = Both(&mut hasher, packed);
            let size = write(&mut both)?;
            let ingest = both.1.finish().or_environment(doing)?;
            (size, Some(ingest.commit(None, media_type(packing.compression)).or_environment(doing)?))
        }
    };
    let diff_id = hasher.finish();
    if info.diff_id.as_ref().is_some_and(|known| *known != diff_id) {
        return Err(changed(layer));
    }
    if let Some(blob) = &blob {
        store.add_blob(layer, blob).or_environment(doing)?;
    }
    store.set_diff_id(layer, &diff_id, size).or_environment(doing)?;
    Ok(Finished { diff_id, blob })
}

/// The tar a layer came as, if it came as one.
fn packed(store: &Store, info: &LayerInfo) -> Result<Option<Box<dyn Read>>> {
    for blob in &info.blobs {
        if store.content().has(&blob.digest).map_err(environment)? {
            let file = store.content().open(&blob.digest).map_err(environment)?;
            let file = std::io::BufReader::with_capacity(256 << 10, file);
            let tar = compress::decompressor(file, &kiln_fs::Limits::default());
            return Ok(Some(Box::new(tar.or_environment(|| format!("cannot read layer {}", blob.digest))?)));
        }
    }
    Ok(None)
}

fn changed(layer: &LayerId) -> Failure {
    let message = format!("the files of layer `{layer}` are no longer what its digest says");
    Failure::new(FailureKind::Environment, message)
        .hint("remove the image with `kiln rmi`, run `kiln prune --all`, and build or pull it again")
}

/// Refuses to go on when nobody waits any more.
struct Stoppable<'a, W: ?Sized> {
    inner: &'a mut W,
    watch: &'a Watch,
}

impl<W: Write + ?Sized> Write for Stoppable<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.watch.is_left() {
            return Err(std::io::Error::other("nobody waits for it any more"));
        }
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
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
