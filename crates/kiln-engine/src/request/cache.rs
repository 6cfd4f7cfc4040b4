//! Caches that others keep: where results may be taken from, and where they go.

use std::path::PathBuf;

use kiln_image::objects::ObjectOptions;
use kiln_oci::{Digest, Reference};

use super::LayerOptions;

/// A cache that a build may take results from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheFrom {
    /// A cache, or an image that carries one, in a registry.
    Registry {
        /// Its name.
        reference: Reference,
        /// Whether plain http and unknown certificates will do.
        may_be_insecure: bool,
    },
    /// An OCI layout directory.
    Local {
        /// The directory.
        dir: PathBuf,
        /// What of it.
        entry: CacheEntry,
    },
    /// A store of objects.
    Objects(ObjectOptions),
}

/// One of the caches of a layout directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheEntry {
    /// The one of this tag.
    Tag(String),
    /// The one of this digest.
    Digest(Digest),
}

/// Where a build's results go, for other builds to take them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheTo {
    /// Where to.
    pub place: CachePlace,
    /// Which results.
    pub mode: CacheMode,
    /// How their layers are written.
    pub layers: LayerOptions,
    /// What the cache looks like to a registry.
    pub manifest: CacheManifest,
    /// Whether the build is all right although the cache could not be written.
    pub ignore_error: bool,
}

/// A place that caches are written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CachePlace {
    /// The image itself: its config says which steps its layers are the results of.
    Inline,
    /// A registry.
    Registry {
        /// The name the cache gets.
        reference: Reference,
        /// Whether plain http and unknown certificates will do.
        may_be_insecure: bool,
    },
    /// An OCI layout directory.
    Local {
        /// The directory.
        dir: PathBuf,
        /// The tag the cache gets.
        tag: String,
        /// Whether blobs of the directory that none of its caches needs are removed.
        reset: bool,
    },
    /// A store of objects.
    Objects(ObjectOptions),
}

/// Which results a cache gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheMode {
    /// Those the result of the build consists of.
    #[default]
    Min,
    /// All, those of stages that are only copied from too.
    Max,
}

/// The document that names a cache's parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheManifest {
    /// An image manifest whose layers are the cache's.
    #[default]
    Image,
    /// An index of layers, as older builders write.
    Index,
}
