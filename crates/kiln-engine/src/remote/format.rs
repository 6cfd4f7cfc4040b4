//! BuildKit's format of a cache: layers, and records that lead from one key to the next. Its field names are the wire's.
//!
//! A record is named by a digest. One without inputs is found by that name alone; one with inputs is found from the
//! records of its inputs. Readers leave alone the records whose digests they do not look for, so that several builders
//! can keep theirs in one cache.

use kiln_oci::{Digest, MediaType};
use serde::{Deserialize, Serialize};

/// The media type of a [`CacheConfig`].
pub(crate) const CONFIG: &str = "application/vnd.buildkit.cacheconfig.v0";

/// The annotation of a layer that has the digest of its uncompressed tar.
pub(crate) const DIFF_ID: &str = "containerd.io/uncompressed";

/// The annotation of a layer that has the time it was made.
pub(crate) const CREATED: &str = "buildkit/createdat";

/// A cache without its blobs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct CacheConfig {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) layers: Vec<CacheLayer>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) records: Vec<CacheRecord>,
}

/// A layer upon the layers below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CacheLayer {
    pub(crate) blob: Digest,
    /// The layer below, by position; -1 for none.
    #[serde(default, rename = "parent", skip_serializing_if = "is_zero")]
    pub(crate) parent: i64,
    /// What a manifest would say of the blob, where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) annotations: Option<LayerAnnotations>,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// A blob's description, in caches of stores that know no manifests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LayerAnnotations {
    #[serde(rename = "mediaType")]
    pub(crate) media_type: MediaType,
    #[serde(rename = "diffID")]
    pub(crate) diff_id: Digest,
    pub(crate) size: u64,
    #[serde(rename = "createdAt")]
    pub(crate) created_at: String,
}

/// One key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CacheRecord {
    /// Results that are a layer and all below it.
    #[serde(default, rename = "layers", skip_serializing_if = "Vec::is_empty")]
    pub(crate) results: Vec<CacheResult>,
    /// Results that are a list of layers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) chains: Vec<ChainedResult>,
    pub(crate) digest: Digest,
    /// For each input the records that may stand for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) inputs: Vec<Vec<CacheInput>>,
}

/// A result: a layer with all below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CacheResult {
    pub(crate) layer: usize,
    #[serde(default, rename = "createdAt")]
    pub(crate) created_at: String,
}

/// A result: these layers, base first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChainedResult {
    pub(crate) layers: Vec<usize>,
    #[serde(default, rename = "createdAt")]
    pub(crate) created_at: String,
}

/// A record that may stand for an input.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct CacheInput {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) selector: String,
    /// Its position.
    pub(crate) link: usize,
}

/// The digest of one output of a key's step, as records have it.
pub(crate) fn output_digest(key: &Digest, output: usize) -> Digest {
    Digest::sha256(format!("{key}@{output}"))
}
