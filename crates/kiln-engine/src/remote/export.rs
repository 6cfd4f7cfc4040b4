//! Writes a build's results to caches for others.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use kiln_graph::{Definition, Edge, VertexId};
use kiln_image::{BlobReader, BlobSource};
use kiln_oci::{Descriptor, Digest};
use kiln_solver::CacheKey;
use kiln_store::{LayerId, Snapshot};

use crate::blobs::StoreBlobs;
use crate::cache::Cache;
use crate::failure::environment;
use crate::finish::Finisher;
use crate::job::{Job, Result};
use crate::packing::packing_of;
use crate::progress::Work;
use crate::remote::format::{CREATED, DIFF_ID};
use crate::remote::import::warn;
use crate::remote::records::Packed;
use crate::remote::{CacheSink, Names, Story, inline, sink};
use crate::request::{CacheMode, CachePlace, CacheTo};

/// What there is to give away: a build that succeeded.
pub(crate) struct Built<'a> {
    pub(crate) job: &'a Arc<Job>,
    pub(crate) definition: &'a Definition,
    pub(crate) cache: &'a Cache,
    pub(crate) story: &'a Story,
    pub(crate) names: &'a Arc<Names>,
    /// The results, one for each platform.
    pub(crate) snapshots: &'a [Snapshot],
}

/// An output of a vertex, and its key.
type Output = (VertexId, CacheKey, usize, Kept);

/// One output of a step: here, or at another cache only.
enum Kept {
    Here(Snapshot),
    There(Vec<Descriptor>),
}

impl Built<'_> {
    /// What the config of the image of these files is to say of its cache, if that was asked for.
    pub(crate) async fn inline(&self, to: &[CacheTo], snapshot: &Snapshot) -> Result<Option<String>> {
        if !to.iter().any(|to| to.place == CachePlace::Inline) {
            return Ok(None);
        }
        self.names.read().await?;
        let layers = self.job.finisher.finish(snapshot, None).await?;
        let diff_ids: Vec<Digest> = layers.into_iter().map(|layer| layer.diff_id).collect();
        Ok(Some(inline::write(self.cache, (self.story, self.names), &diff_ids)))
    }

    /// Writes all the caches that were asked for, except those within images.
    pub(crate) async fn export(&self, to: &[CacheTo]) -> Result<()> {
        for to in to {
            let Some(sink) = sink(to, &self.job.registry) else { continue };
            let work = Work::start(&self.job.reporter, sink.title());
            let written = self.write(to, sink.as_ref(), &work).await;
            match work.end(written) {
                Err(failure) if to.ignore_error => {
                    warn(&self.job.reporter, format!("a cache was not written: {failure}"));
                }
                other => other?,
            }
        }
        Ok(())
    }

    async fn write(&self, to: &CacheTo, sink: &dyn CacheSink, work: &Work) -> Result<()> {
        let mut blobs = Blobs { here: self.blobs(), there: HashMap::new() };
        let mut kept = self.kept(to.mode, &mut blobs).await?;
        let Err(failure) = self.give(to, (sink, work), (&kept, &blobs)).await else { return Ok(()) };
        // What was only to be passed on is no reason for a build to fail.
        let broken = blobs.broken_there().await;
        if broken.is_empty() {
            return Err(failure);
        }
        warn(&self.job.reporter, format!("results of an imported cache are not passed on: {failure}"));
        let is_whole = |layers: &[Descriptor]| !layers.iter().any(|layer| broken.contains(&layer.digest));
        kept.retain(|(.., kept)| {
            matches!(kept, Kept::Here(_)) || matches!(kept, Kept::There(layers) if is_whole(layers))
        });
        self.give(to, (sink, work), (&kept, &blobs)).await
    }

    async fn give(
        &self,
        to: &CacheTo,
        (sink, work): (&dyn CacheSink, &Work),
        (kept, blobs): (&[Output], &Blobs),
    ) -> Result<()> {
        let layers = self.layers(kept, to).await?;
        self.names.read().await?;
        let mut packed = Packed::default();
        packed.sign();
        for (vertex, key, output, kept) in kept {
            let layers: Vec<Descriptor> = match kept {
                Kept::Here(snapshot) => snapshot.layers().iter().map(|layer| layers[layer].clone()).collect(),
                Kept::There(layers) => layers.clone(),
            };
            packed.result((key, *output), &layers);
            for record in self.names.records(&Edge { vertex: vertex.clone(), output: *output }, &mut packed) {
                packed.add(record, &layers);
            }
        }
        self.story.keys().iter().for_each(|(_, _, shape)| packed.shape(shape));
        self.story.contents().iter().for_each(|(fact, digest)| packed.content(fact, digest));
        if packed.layers.is_empty() {
            work.part("there are no layers to write");
            return Ok(());
        }
        sink.write(packed, blobs, work).await
    }

    fn blobs(&self) -> StoreBlobs {
        StoreBlobs { store: self.job.store.clone(), lease: self.job.lease.clone() }
    }

    /// The results of the build's steps. What was found at another cache and not fetched, because nothing needed it,
    /// is passed on as it is: else a build that finds everything would leave a cache with nothing below its top.
    async fn kept(&self, mode: CacheMode, blobs: &mut Blobs) -> Result<Vec<Output>> {
        let mut result: HashSet<Digest> = HashSet::new();
        for snapshot in self.snapshots {
            let layers = self.job.finisher.finish(snapshot, None).await?;
            result.extend(layers.into_iter().map(|layer| layer.diff_id));
        }
        let is_wanted = |diff_ids: Option<Vec<Digest>>| {
            mode == CacheMode::Max
                || diff_ids.is_some_and(|diff_ids| diff_ids.iter().all(|diff_id| result.contains(diff_id)))
        };
        let mut kept = Vec::new();
        for (vertex, key, _) in self.story.keys() {
            // Sources are found where they always are.
            if self.definition.vertex(&vertex).is_none_or(|vertex| vertex.inputs.is_empty()) {
                continue;
            }
            let here = self.cache.kept(&key);
            for (output, snapshot) in here.iter().flatten().enumerate() {
                if is_wanted(self.cache.diff_ids(snapshot)) {
                    kept.push((vertex.clone(), key.clone(), output, Kept::Here(snapshot.clone())));
                }
            }
            let there = if here.is_none() { self.cache.elsewhere(&key) } else { None };
            let Some((outputs, source)) = there else { continue };
            for (output, layers) in outputs.into_iter().enumerate() {
                if is_wanted(Some(layers.iter().map(|layer| layer.diff_id.clone()).collect())) {
                    let layers: Vec<Descriptor> = layers.iter().map(|layer| layer.blob.clone()).collect();
                    layers.iter().for_each(|blob| blobs.add(blob, source));
                    kept.push((vertex.clone(), key.clone(), output, Kept::There(layers)));
                }
            }
        }
        Ok(kept)
    }

    /// The layers of results, packed.
    async fn layers(&self, kept: &[Output], to: &CacheTo) -> Result<BTreeMap<LayerId, Descriptor>> {
        let job = self.job;
        let mut ids: Vec<LayerId> = Vec::new();
        for (.., kept) in kept {
            let Kept::Here(snapshot) = kept else { continue };
            ids.extend(snapshot.layers().iter().cloned());
        }
        ids.sort_unstable();
        ids.dedup();
        let packing = packing_of(&to.layers)?;
        let all = Snapshot::new(ids);
        let finished = if job.finisher.packs(packing) {
            job.finisher.finish(&all, Some(packing)).await?
        } else {
            let finisher = Finisher::new(job.store.clone(), job.lease.clone(), vec![packing], job.watch.clone());
            finisher.finish(&all, Some(packing)).await?
        };
        let mut layers = BTreeMap::new();
        for (id, finished) in all.layers().iter().zip(finished) {
            let Some(mut blob) = finished.blob else { continue };
            let made = job.store.layer(id).map_err(environment)?.created;
            blob.annotations = BTreeMap::from([(DIFF_ID.to_owned(), finished.diff_id.to_string())]);
            if let Ok(made) = Timestamp::from_second(made) {
                blob.annotations.insert(CREATED.to_owned(), made.to_string());
            }
            layers.insert(id.clone(), blob);
        }
        Ok(layers)
    }
}

/// Blobs of the store, and of caches that were imported.
struct Blobs {
    here: StoreBlobs,
    there: HashMap<Digest, (Descriptor, Arc<dyn BlobSource>)>,
}

impl Blobs {
    fn add(&mut self, blob: &Descriptor, source: &Arc<dyn BlobSource>) {
        self.there.entry(blob.digest.clone()).or_insert_with(|| (blob.clone(), Arc::clone(source)));
    }

    /// Those of other caches that cannot be read to their end.
    async fn broken_there(&self) -> HashSet<Digest> {
        let mut broken = HashSet::new();
        for (digest, (blob, there)) in &self.there {
            let read = async {
                let mut reader = there.fetch(blob).await?;
                while reader.chunk().await?.is_some() {}
                Ok::<(), kiln_image::Error>(())
            };
            if read.await.is_err() {
                broken.insert(digest.clone());
            }
        }
        broken
    }
}

#[async_trait]
impl BlobSource for Blobs {
    async fn fetch(&self, descriptor: &Descriptor) -> kiln_image::Result<BlobReader> {
        let is_here = self.here.store.content().has(&descriptor.digest).unwrap_or(false);
        match self.there.get(&descriptor.digest) {
            Some((_, there)) if !is_here => there.fetch(descriptor).await,
            _ => self.here.fetch(descriptor).await,
        }
    }

    fn tries(&self, descriptor: &Descriptor) -> u32 {
        self.there.get(&descriptor.digest).map_or(1, |(_, there)| there.tries(descriptor))
    }
}
