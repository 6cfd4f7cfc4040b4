//! Caches that others keep: read before a build, written after it.
//!
//! The wire is BuildKit's cache format (`format.rs`); what kiln says in it is in `records.rs`. A place that caches are
//! kept in is a [`CacheSource`] and a [`CacheSink`]: one file, and one line in [`source`] and [`sink`] each.

mod export;
mod format;
mod import;
mod inline;
mod local;
mod manifest;
mod names;
mod objects;
mod records;
mod registry;
mod story;

use std::sync::Arc;

use async_trait::async_trait;
use kiln_image::BlobSource;
use kiln_oci::{Descriptor, Platform};

pub(crate) use export::Built;
pub(crate) use import::{Imported, import};
pub(crate) use names::Names;
pub(crate) use objects::failure as store_failure;
pub(crate) use records::Outputs;
pub(crate) use story::Story;

use crate::job::Result;
use crate::progress::Work;
use crate::registry::Registry;
use crate::request::{CacheFrom, CachePlace, CacheTo};
use format::CacheConfig;
use records::Packed;

/// A place that caches are read from.
#[async_trait]
trait CacheSource: Send + Sync {
    /// What people call it.
    fn name(&self) -> String;

    /// Reads what is known there. Layers stay where they are until a result is wanted.
    async fn read(&self, platforms: &[Platform]) -> Result<Found>;
}

/// What a place has.
struct Found {
    /// Caches, and the layers that each speaks of.
    caches: Vec<(CacheConfig, Vec<Descriptor>)>,
    /// Where the layers are.
    blobs: Arc<dyn BlobSource>,
}

/// A place that caches are written to.
#[async_trait]
trait CacheSink: Send + Sync {
    /// What its vertex is called.
    fn title(&self) -> String;

    /// Writes a cache whose layers are in `blobs`. What is half written must not be found.
    async fn write(&self, cache: Packed, blobs: &dyn BlobSource, work: &Work) -> Result<()>;
}

/// The table of places to read from.
fn source(from: &CacheFrom, registry: &Arc<Registry>) -> Arc<dyn CacheSource> {
    match from.clone() {
        CacheFrom::Registry { reference, may_be_insecure } => {
            let client = registry.client_for(&reference.registry, may_be_insecure);
            Arc::new(registry::Source::new(client, reference))
        }
        CacheFrom::Local { dir, entry } => Arc::new(local::Source::new(dir, entry)),
        CacheFrom::Objects(options) => Arc::new(objects::Place::new(Arc::clone(registry), options)),
    }
}

/// The table of places to write to; none when the image itself is the place.
fn sink(to: &CacheTo, registry: &Arc<Registry>) -> Option<Box<dyn CacheSink>> {
    let shape = manifest::Shape::of(to);
    Some(match to.place.clone() {
        CachePlace::Inline => return None,
        CachePlace::Registry { reference, may_be_insecure } => {
            let client = registry.client_for(&reference.registry, may_be_insecure);
            Box::new(registry::Sink::new(client, reference, shape))
        }
        CachePlace::Objects(options) => Box::new(objects::Place::new(Arc::clone(registry), options)),
        CachePlace::Local { dir, tag, reset } => Box::new(local::Sink::new((dir, tag), reset, shape)),
    })
}
