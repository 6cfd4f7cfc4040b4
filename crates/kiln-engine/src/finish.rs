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
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::behind::Behind;
use crate::blocking::blocking;
use crate::export::Early;
use crate::failure::{Context as _, environment};
use crate::follow::{Feed, Follower, follow};
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
    running: Mutex<HashMap<LayerId, Task>>,
}

type Running = Shared<BoxFuture<'static, Result<()>>>;

/// Work on one layer.
#[derive(Clone)]
struct Task {
    running: Running,
    begun: Arc<Mutex<Option<UnboundedReceiver<Begun>>>>,
}

/// A blob that is begun, for whoever wants to read it already.
type Begun = (Packing, Follower);

/// A layer's blob.
pub(crate) enum Packed {
    /// All of it is in the store.
    Whole(Descriptor),
    /// It is being written.
    Growing(Follower),
}

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

    fn start(&self, layer: &LayerId) -> Task {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = || {
            let (tell, begun) = unbounded_channel();
            let begun = Arc::new(Mutex::new(Some(begun)));
            let (work, layer, early, untaken) = (self.work.clone(), layer.clone(), self.early.clone(), begun.clone());
            // Nobody may wait for it until the build is over.
            let task = tokio::spawn(async move {
                let finished = finish_and_tell(work, layer, early, tell).await;
                drop(untaken.lock().unwrap_or_else(PoisonError::into_inner).take());
                finished
            });
            let running = async move { task.await.unwrap_or_else(|error| Err(stopped(&error))) }.boxed().shared();
            Task { running, begun }
        };
        running.entry(layer.clone()).or_insert_with(begin).clone()
    }

    /// A layer's blob, as soon as there is something of it. Who asks first may follow it as it grows; it is named when
    /// it is [`packed`](Self::packed).
    pub(crate) async fn begun(&self, layer: &LayerId, packing: Packing) -> Result<Packed> {
        if let Some(Finished { blob: Some(blob), .. }) = known(&self.work.store, Some(packing), layer)? {
            return Ok(Packed::Whole(blob));
        }
        let begun = self.start(layer).begun.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut begun) = begun {
            while let Some((way, follower)) = begun.recv().await {
                if way == packing {
                    return Ok(Packed::Growing(follower));
                }
            }
        }
        self.packed(layer, packing).await.map(Packed::Whole)
    }

    /// A layer's blob, when it is whole.
    pub(crate) async fn packed(&self, layer: &LayerId, packing: Packing) -> Result<Descriptor> {
        self.start(layer).running.await?;
        let known = known(&self.work.store, Some(packing), layer)?;
        known.and_then(|known| known.blob).ok_or_else(|| stopped(&"nobody packs it this way"))
    }

    /// All layers of a snapshot, base first, when they are ready: packed in one of the finisher's ways, or only digested.
    pub(crate) async fn finish(&self, snapshot: &Snapshot, packing: Option<Packing>) -> Result<Vec<Finished>> {
        let find = |layer| known(&self.work.store, packing, layer);
        let mut finished = Vec::with_capacity(snapshot.layers().len());
        for layer in snapshot.layers() {
            let known = find(layer)?;
            let running = known.is_none().then(|| self.start(layer).running);
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

async fn finish_and_tell(
    work: Finishing,
    layer: LayerId,
    early: Option<Arc<Early>>,
    tell: UnboundedSender<Begun>,
) -> Result<()> {
    let (here, made) = (work.clone(), layer.clone());
    blocking(move || finish(&here, &made, &tell)).await?;
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
fn finish(work: &Finishing, layer: &LayerId, tell: &UnboundedSender<Begun>) -> Result<()> {
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
        let (feed, follower) = follow(ingest.reader().or_environment(doing)?, 0);
        // Nobody need listen.
        let _ = tell.send((packing, follower));
        let to = Behind::new(Followed { ingest, feed });
        let threads = Compressor::<std::io::Sink>::all_threads();
        out.packers.push((packing, Compressor::new(to, packing.compression, threads).or_environment(doing)?));
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
        let Followed { ingest, feed } = out.finish().or_environment(doing)?;
        feed.finish();
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
    packers: Vec<(Packing, Compressor<Behind<Followed>>)>,
    watch: &'a Watch,
}

/// A blob being written, that somebody may read meanwhile.
struct Followed {
    ingest: Ingest,
    feed: Feed,
}

impl Write for Followed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.ingest.write(bytes)?;
        self.ingest.flush()?;
        // Whoever read it may have had enough.
        let _ = self.feed.growth().reached(self.ingest.size());
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.ingest.flush()
    }
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
