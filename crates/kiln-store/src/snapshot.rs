//! Layers and snapshots: what a step starts from and what it leaves.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use kiln_oci::{Descriptor, Digest};
use kiln_sys::mount::Overlay;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::Result;
use crate::lease::Lease;

/// The name of a layer in one store. It says nothing about what is in the layer, so it never enters a digest.
///
/// Made of lower-case hex digits and dots, so that it is safe as a path component.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LayerId(Arc<str>);

/// Says why a text is not a layer id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a layer id")]
pub struct LayerIdError(String);

impl LayerId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LayerId {
    type Err = LayerIdError;

    fn from_str(text: &str) -> Result<Self, LayerIdError> {
        let is_part = |part: &str| !part.is_empty() && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        match text.split_once('.') {
            Some((lease, number)) if text.len() <= 40 && is_part(lease) && is_part(number) => Ok(Self(text.into())),
            _ => Err(LayerIdError(text.chars().take(60).collect())),
        }
    }
}

impl fmt::Display for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for LayerId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for LayerId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A committed file tree: layers, base first. Layers stand alone, so joining snapshots is joining lists.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Snapshot {
    layers: Arc<[LayerId]>,
}

impl Snapshot {
    /// A snapshot of these layers, base first.
    pub fn new(layers: impl IntoIterator<Item = LayerId>) -> Self {
        Self { layers: layers.into_iter().collect() }
    }

    /// The empty tree, what `FROM scratch` starts from.
    pub fn scratch() -> Self {
        Self::default()
    }

    /// The layers, base first.
    pub fn layers(&self) -> &[LayerId] {
        &self.layers
    }

    /// This snapshot with one more layer on top.
    #[must_use]
    pub fn with(&self, layer: LayerId) -> Self {
        Self::new(self.layers.iter().cloned().chain([layer]))
    }

    /// This snapshot with all of `other` on top: a merge.
    #[must_use]
    pub fn stacked(&self, other: &Self) -> Self {
        Self::new(self.layers.iter().chain(other.layers.iter()).cloned())
    }
}

impl Serialize for Snapshot {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.layers.iter())
    }
}

impl<'de> Deserialize<'de> for Snapshot {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::new(Vec::deserialize(deserializer)?))
    }
}

/// A tree being written on top of a parent. It is neither cloned nor a parent: commit or discard it.
///
/// Dropping it leaves its directory to the next sweep, which comes after its lease has ended.
#[derive(Debug)]
pub struct ActiveSnapshot {
    pub(crate) layer: ActiveLayer,
    pub(crate) parent: Snapshot,
}

impl ActiveSnapshot {
    /// The directory that receives what changes, in overlay's own format.
    pub fn upper_dir(&self) -> PathBuf {
        self.layer.tree()
    }

    /// Where all of it is once it was copied ([`crate::Store::lay`]).
    pub fn flat_dir(&self) -> PathBuf {
        self.layer.flat()
    }

    /// Where what makes room in the copy may wait.
    pub fn stash_dir(&self) -> PathBuf {
        self.layer.stash()
    }

    /// What it stands on.
    pub fn parent(&self) -> &Snapshot {
        &self.parent
    }
}

/// A layer being written directly, without anything below it: an image layer being unpacked, a `COPY --link`.
#[derive(Debug)]
pub struct ActiveLayer {
    pub(crate) id: LayerId,
    pub(crate) dir: PathBuf,
    pub(crate) lease: Lease,
}

impl ActiveLayer {
    /// The directory to fill, in overlay's own format.
    pub fn tree(&self) -> PathBuf {
        self.dir.join("fs")
    }

    pub(crate) fn overlay_work(&self) -> PathBuf {
        self.dir.join("work")
    }

    /// Where all of the tree is, where there is no overlay.
    pub(crate) fn flat(&self) -> PathBuf {
        self.dir.join("flat")
    }

    /// Where what makes room in it waits.
    pub(crate) fn stash(&self) -> PathBuf {
        self.dir.join("stash")
    }

    /// The lease it is made under.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }
}

/// What is known of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerInfo {
    /// The digest of its tar, once it was packed or unpacked.
    pub diff_id: Option<Digest>,
    /// Bytes of its files, once it was packed or unpacked.
    pub size: Option<u64>,
    /// When it was made here, in seconds since 1970.
    pub created: i64,
    /// Its packed forms, whether they are in the content store or only known to be somewhere.
    pub blobs: Vec<Descriptor>,
}

/// Makes, mounts and keeps file trees.
///
/// Every implementation passes [`crate::snapshotter_suite!`].
pub trait Snapshotter: Send + Sync {
    /// Starts a tree on top of `parent`, under `lease`, which also holds the parent from then on.
    fn prepare(&self, parent: Option<&Snapshot>, lease: &Lease) -> Result<ActiveSnapshot>;

    /// How to mount a tree being written.
    fn mounts(&self, active: &ActiveSnapshot) -> Result<Overlay>;

    /// How to mount a committed tree for reading. Hold the snapshot by a lease as long as the mount is used.
    fn view(&self, snapshot: &Snapshot) -> Result<Overlay>;

    /// Keeps what was written as a layer on top of the parent. Nothing may have it mounted for writing any more.
    fn commit(&self, active: ActiveSnapshot) -> Result<Snapshot>;

    /// Throws away what was written.
    fn discard(&self, active: ActiveSnapshot) -> Result<()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layer_ids_cannot_leave_their_directory() {
        assert!("0123456789ab.1f".parse::<LayerId>().is_ok());
        for bad in ["", ".", "..", "a", "a.", ".a", "../a", "a/b.c", "A.1", "a.1.2", &format!("{}.1", "a".repeat(60))] {
            assert!(bad.parse::<LayerId>().is_err(), "{bad}");
            assert!(serde_json::from_value::<LayerId>(bad.into()).is_err(), "{bad}");
        }
    }

    #[test]
    fn snapshots_are_lists_of_layers() {
        let [a, b, c] = ["a.1", "a.2", "a.3"].map(|id| id.parse::<LayerId>().unwrap());
        let base = Snapshot::scratch().with(a.clone());
        let merged = base.stacked(&Snapshot::new([b.clone(), c.clone()]));
        assert_eq!(merged.layers(), [a, b, c]);
        let text = serde_json::to_string(&merged).unwrap();
        assert_eq!(text, r#"["a.1","a.2","a.3"]"#);
        assert_eq!(serde_json::from_str::<Snapshot>(&text).unwrap(), merged);
    }
}
