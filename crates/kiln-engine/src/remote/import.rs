//! Caches of others while a build uses them: what they know is read at once, layers when a result is wanted.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::join_all;
use jiff::Timestamp;
use kiln_fs::Limits;
use kiln_image::BlobSource;
use kiln_oci::{Digest, ImageConfig, Platform};
use kiln_report::{Event, Reporter};
use kiln_solver::{CacheKey, ContentFact};
use kiln_store::{Lease, Snapshot, Store};

use crate::base::{BaseImage, Meter};
use crate::failure::environment;
use crate::job::Result;
use crate::progress::Work;
use crate::registry::Registry;
use crate::remote::format::CREATED;
use crate::remote::records::{Known, Layer, Outputs};
use crate::remote::{CacheSource, Names, source};
use crate::request::BuildRequest;

/// The caches of others that a build may use. Whatever is wrong with them is a miss, and said once.
pub(crate) struct Imported {
    caches: Vec<Import>,
    reporter: Arc<dyn Reporter>,
}

struct Import {
    name: String,
    known: Vec<Known>,
    blobs: Arc<dyn BlobSource>,
    /// How much a layer of it may ask for.
    limits: Limits,
    /// Results that were not what they should be.
    broken: Mutex<HashSet<CacheKey>>,
}

/// Reads what all caches know. One that cannot be read is none, and a build that uses no cached results needs none.
pub(crate) async fn import(
    request: &BuildRequest,
    registry: &Arc<Registry>,
    platforms: &[Platform],
    reporter: &Arc<dyn Reporter>,
) -> Imported {
    let from = if request.no_cache { &[] } else { request.cache_from.as_slice() };
    let caches = join_all(from.iter().map(|from| async move {
        let source = source(from, registry);
        let work = Work::start(reporter, format!("importing cache manifest from {}", source.name()));
        let read = read(source.as_ref(), platforms, registry.limits()).await;
        if let Ok(import) = &read {
            let results: usize = import.known.iter().map(Known::len).sum();
            work.part(format!("{results} results are kept there"));
            let unusable: usize = import.known.iter().map(Known::unusable).sum();
            if unusable > 0 {
                let name = source.name();
                let why = "the cache does not describe all their layers";
                warn(reporter, format!("{unusable} results of cache `{name}` are not used: {why}"));
            }
        }
        let name = source.name();
        // That there is no cache is no error of the build.
        let _ = work.end(Ok(()));
        read.map_err(|failure| warn(reporter, format!("cache `{name}` is not used: {failure}"))).ok()
    }));
    Imported { caches: caches.await.into_iter().flatten().collect(), reporter: Arc::clone(reporter) }
}

async fn read(source: &dyn CacheSource, platforms: &[Platform], limits: Limits) -> Result<Import> {
    let found = source.read(platforms).await?;
    let known = found.caches.iter().map(|(config, blobs)| Known::read(config, blobs)).collect::<Result<_>>()?;
    Ok(Import { name: source.name(), known, blobs: found.blobs, limits, broken: Mutex::default() })
}

/// Says what is wrong with a cache without being wrong with the build.
pub(super) fn warn(reporter: &Arc<dyn Reporter>, text: String) {
    reporter.report(Event::Note(format!("warning: {text}")));
}

impl Imported {
    /// No cache at all.
    pub(crate) fn nothing(reporter: &Arc<dyn Reporter>) -> Self {
        Self { caches: Vec::new(), reporter: Arc::clone(reporter) }
    }

    /// The digest of what a step reads of another, as the first that knows has it.
    pub(crate) fn content(&self, fact: &ContentFact) -> Option<Digest> {
        self.known().find_map(|known| known.content(fact)).cloned()
    }

    /// Whether any has a result of this shape.
    pub(crate) fn has_shape(&self, shape: &Digest) -> bool {
        // Results by other names have no shapes: to ask before one knows costs less than to miss them.
        self.known().any(|known| known.has_shape(shape) || known.has_strangers())
    }

    fn known(&self) -> impl Iterator<Item = &Known> {
        self.caches.iter().flat_map(|import| &import.known)
    }

    /// The outputs of the step of a key as layers, and where these are, without fetching anything.
    pub(crate) fn outputs(&self, key: &CacheKey, names: &Names) -> Option<(Outputs<'_>, &Arc<dyn BlobSource>)> {
        self.caches.iter().find_map(|import| import.outputs(key, names).map(|outputs| (outputs, &import.blobs)))
    }

    /// How many outputs the step of a key has, without fetching anything.
    pub(crate) async fn count(&self, key: &CacheKey, names: &Arc<Names>) -> usize {
        if !self.can_name(names).await {
            return 0;
        }
        self.outputs(key, names).map_or(0, |(outputs, _)| outputs.len())
    }

    /// Where others' names count, they have to be made.
    async fn can_name(&self, names: &Arc<Names>) -> bool {
        !self.known().any(Known::has_strangers) || names.read().await.is_ok()
    }

    /// Fetches all outputs of the step of a key, from the first that has them.
    pub(crate) async fn load(
        &self,
        (key, names): (&CacheKey, &Arc<Names>),
        store: &Store,
        lease: &Lease,
    ) -> Option<Vec<Snapshot>> {
        if !self.can_name(names).await {
            return None;
        }
        for import in &self.caches {
            let Some(outputs) = import.outputs(key, names) else { continue };
            match import.fetch(outputs, (store, lease), &self.reporter).await {
                Ok(snapshots) => return Some(snapshots),
                Err(failure) => {
                    import.broken.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone());
                    warn(&self.reporter, format!("a result of cache `{}` is not used: {failure}", import.name));
                }
            }
        }
        None
    }
}

impl Import {
    fn outputs(&self, key: &CacheKey, names: &Names) -> Option<Outputs<'_>> {
        if self.broken.lock().unwrap_or_else(PoisonError::into_inner).contains(key) {
            return None;
        }
        let own = self.known.iter().map(|known| known.outputs(key)).find(|outputs| !outputs.is_empty());
        own.or_else(|| {
            let vertex = names.vertex(key)?;
            let strangers = self.known.iter().filter(|known| known.has_strangers());
            strangers.map(|known| known.named_outputs(&vertex, names)).find(|outputs| !outputs.is_empty())
        })
    }

    async fn fetch(
        &self,
        outputs: Outputs<'_>,
        (store, lease): (&Store, &Lease),
        reporter: &Arc<dyn Reporter>,
    ) -> Result<Vec<Snapshot>> {
        let mut snapshots = Vec::with_capacity(outputs.len());
        for layers in outputs {
            let missing = layers.iter().map(|layer| is_missing(store, layer)).collect::<Result<Vec<bool>>>()?;
            let work = missing.contains(&true).then(|| {
                let top = layers.last().map_or("", |layer| layer.diff_id.short());
                Work::start(reporter, format!("fetching result {top} from cache {}", self.name))
            });
            let vertex = work.as_ref().map_or_else(|| Digest::sha256(""), |work| work.id().clone());
            let meter = Arc::new(Meter { reporter: Arc::clone(reporter), vertex, limits: self.limits.clone() });
            let snapshot = self.image(layers).unpack(store, lease, &meter).await;
            let snapshot = match work {
                Some(work) => work.end(snapshot)?,
                None => snapshot?,
            };
            for ((layer, id), _) in layers.iter().zip(snapshot.layers()).zip(&missing).filter(|(_, missing)| **missing)
            {
                let made: Option<Timestamp> = layer.blob.annotations.get(CREATED).and_then(|time| time.parse().ok());
                made.map_or(Ok(()), |made| store.set_created(id, made.as_second())).map_err(environment)?;
            }
            snapshots.push(snapshot);
        }
        Ok(snapshots)
    }

    fn image(&self, layers: &[Layer]) -> Arc<BaseImage> {
        let mut config = ImageConfig::default();
        config.rootfs.diff_ids = layers.iter().map(|layer| layer.diff_id.clone()).collect();
        Arc::new(BaseImage {
            name: self.name.clone(),
            config,
            blobs: layers.iter().map(|layer| layer.blob.clone()).collect(),
            source: Some(Arc::clone(&self.blobs)),
            documents: Vec::new(),
            snapshot: None,
        })
    }
}

fn is_missing(store: &Store, layer: &Layer) -> Result<bool> {
    Ok(store.find_layer_by_diff_id(&layer.diff_id).map_err(environment)?.is_none())
}
