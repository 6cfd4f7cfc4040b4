//! Finishes layers while the build goes on: their tars are digested, and packed where an output wants them packed,
//! as soon as their steps are done. There is no exporting phase.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::{BoxFuture, FutureExt as _, Shared};
use kiln_fs::compress::{self, Compressor};
use kiln_fs::layer;
use kiln_oci::{Descriptor, Digest, Hasher};
use kiln_report::{Failure, FailureKind};
use kiln_store::{Ingest, LayerId, LayerInfo, Lease, Snapshot, Store};

use crate::behind::Behind;
use crate::blocking::blocking;
use crate::export::Early;
use crate::failure::{Context as _, environment};
use crate::job::Result;
use crate::packing::{Packing, is_from_elsewhere, own_diff_id};
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

/// Works on layers in the background, each once, as long as somebody waits.
pub(crate) struct Finisher {
    work: Finishing,
    /// Hears of every layer that is finished.
    early: Option<Arc<Early>>,
    running: Mutex<HashMap<LayerId, Running>>,
}

type Running = Shared<BoxFuture<'static, Result<()>>>;

#[derive(Clone)]
struct Finishing {
    store: Store,
    lease: Lease,
    packings: Vec<Packing>,
    watch: Watch,
}

impl Finisher {
    /// A finisher that packs layers in all these ways; without any, they are only digested.
    pub(crate) fn new(store: Store, lease: Lease, packings: Vec<Packing>, watch: Watch) -> Self {
        Self { work: Finishing { store, lease, packings, watch }, early: None, running: Mutex::default() }
    }

    /// The same, that has layers uploaded while others are made.
    pub(crate) fn uploading(self, early: Arc<Early>) -> Self {
        Self { early: Some(early), ..self }
    }

    /// Whether it packs layers this way.
    pub(crate) fn packs(&self, packing: Packing) -> bool {
        self.work.packings.contains(&packing)
    }

    /// Begins with the topmost layer of a snapshot, which a step just made.
    pub(crate) fn begin(&self, snapshot: &Snapshot) {
        if let Some(layer) = snapshot.layers().last() {
            drop(self.start(layer));
        }
    }

    fn start(&self, layer: &LayerId) -> Running {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = || {
            // Nobody may wait for it until the build is over.
            let task = tokio::spawn(finish_and_tell(self.work.clone(), layer.clone(), self.early.clone()));
            async move { task.await.unwrap_or_else(|error| Err(stopped(&error))) }.boxed().shared()
        };
        running.entry(layer.clone()).or_insert_with(begin).clone()
    }

    /// All layers of a snapshot, base first, when they are ready: packed in one of the finisher's ways, or only digested.
    pub(crate) async fn finish(&self, snapshot: &Snapshot, packing: Option<Packing>) -> Result<Vec<Finished>> {
        let find = |layer| known(&self.work.store, packing, layer);
        let mut finished = Vec::with_capacity(snapshot.layers().len());
        for layer in snapshot.layers() {
            let known = find(layer)?;
            let running = known.is_none().then(|| self.start(layer));
            finished.push((known, running));
        }
        let mut all = Vec::with_capacity(finished.len());
        for ((known, running), layer) in finished.into_iter().zip(snapshot.layers()) {
            if let Some(running) = running {
                running.await?;
            }
            let known = known.map_or_else(|| find(layer), |known| Ok(Some(known)))?;
            all.push(known.ok_or_else(|| stopped(&"nobody packs it this way"))?);
        }
        Ok(all)
    }
}

fn stopped(why: &dyn std::fmt::Display) -> Failure {
    Failure::new(FailureKind::Bug, format!("a layer could not be finished: {why}"))
}

async fn finish_and_tell(work: Finishing, layer: LayerId, early: Option<Arc<Early>>) -> Result<()> {
    let (here, made) = (work.clone(), layer.clone());
    blocking(move || finish(&here, &made)).await?;
    if let Some(early) = early {
        early.offer(|packing| known(&work.store, Some(packing), &layer).ok()??.blob);
    }
    Ok(())
}

/// What an earlier build or a pull left: nothing is to be done.
fn known(store: &Store, packing: Option<Packing>, layer: &LayerId) -> Result<Option<Finished>> {
    let info = store.layer(layer).map_err(environment)?;
    let Some(diff_id) = info.diff_id else { return Ok(None) };
    let Some(packing) = packing else { return Ok(Some(Finished { diff_id, blob: None })) };
    let mut fitting: Vec<_> = info.blobs.into_iter().filter_map(|blob| Some((packing.fit(&blob)?, blob))).collect();
    fitting.sort_by_key(|(fit, _)| *fit);
    for (_, blob) in fitting {
        if store.content().has(&blob.digest).map_err(environment)? {
            let diff_id = own_diff_id(&blob).unwrap_or(diff_id);
            return Ok(Some(Finished { diff_id, blob: Some(blob) }));
        }
    }
    Ok(None)
}

/// Packs a layer in all ways that are missing: one pass gives the tar's digest and the packed blobs. A layer that came
/// packed keeps its own tar, whose digest stands in configs; ours of the same files may well be another.
fn finish(work: &Finishing, layer: &LayerId) -> Result<()> {
    let Finishing { store, lease, packings, watch } = work;
    let mut missing = Vec::new();
    for packing in packings {
        if known(store, Some(*packing), layer)?.is_none() {
            missing.push(*packing);
        }
    }
    if missing.is_empty() && known(store, None, layer)?.is_some() {
        return Ok(());
    }
    let doing = || format!("cannot pack layer `{layer}`");
    let info = store.layer(layer).or_environment(doing)?;
    let mut out = Fan { hasher: Hasher::new(), bytes: 0, packers: Vec::new(), watch };
    for packing in missing {
        let ingest = store.content().ingest(lease).or_environment(doing)?.passing();
        let threads = Compressor::<std::io::Sink>::all_threads();
        out.packers
            .push((packing, Compressor::new(Behind::new(ingest), packing.compression, threads).or_environment(doing)?));
    }
    let size = match packed(store, &info)? {
        Some(mut tar) => {
            std::io::copy(&mut tar, &mut out).or_environment(doing)?;
            info.size.unwrap_or_default()
        }
        None => layer::pack(&open_dir(&store.layer_dir(layer))?, &mut out).or_environment(doing)?.content,
    };
    let Fan { hasher, bytes, packers, .. } = out;
    let diff_id = hasher.clone().finish();
    if info.diff_id.as_ref().is_some_and(|known| *known != diff_id) {
        return Err(changed(layer));
    }
    for (packing, packer) in packers {
        let (out, toc) = packer.finish_with_toc().or_environment(doing)?;
        let ingest = out.finish().or_environment(doing)?;
        let unpacked = toc.map(|toc| {
            let (mut all, bytes) = (hasher.clone(), bytes + toc.tar.len() as u64);
            all.update(&toc.tar);
            (toc, all.finish(), bytes)
        });
        let blob = ingest.commit(None, packing.media_type()).or_environment(doing)?;
        let blob = packing.described(blob, unpacked.as_ref().map(|(toc, digest, bytes)| (toc, digest, *bytes)));
        store.add_blob(layer, &blob).or_environment(doing)?;
    }
    store.set_diff_id(layer, &diff_id, size).or_environment(doing)
}

/// The tar a layer came as, if it came as one.
fn packed(store: &Store, info: &LayerInfo) -> Result<Option<Box<dyn Read>>> {
    for blob in info.blobs.iter().filter(|blob| is_from_elsewhere(blob)) {
        if store.content().has(&blob.digest).map_err(environment)? {
            let file = store.content().open(&blob.digest).map_err(environment)?;
            let file = std::io::BufReader::with_capacity(256 << 10, file);
            let tar = compress::decompressor(file, &kiln_fs::Limits::of_known());
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

/// Digests a tar and packs it, in all ways at once. Refuses to go on when nobody waits any more.
struct Fan<'a> {
    hasher: Hasher,
    bytes: u64,
    packers: Vec<(Packing, Compressor<Behind<Ingest>>)>,
    watch: &'a Watch,
}

impl Write for Fan<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.watch.is_left() {
            return Err(std::io::Error::other("nobody waits for it any more"));
        }
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        for (_, packer) in &mut self.packers {
            packer.write_all(bytes)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
