//! What the engine answers, in plain data.

use std::collections::BTreeMap;

use kiln_oci::{Descriptor, Digest, ImageConfig, Platform, Reference};

/// What a build made.
#[derive(Debug, Clone, Default)]
pub struct BuildResult {
    /// The platforms it was for, in the order of the request. An image of several is an index.
    pub platforms: Vec<Platform>,
    /// The image's id: the digest of its config, or of its index. None when no image was asked for.
    pub image_id: Option<Digest>,
    /// The ids of the images that an index is of: the digests of their configs.
    pub images: Vec<Digest>,
    /// The manifest or index, when one was written.
    pub descriptor: Option<Descriptor>,
    /// The names it got, in full.
    pub names: Vec<String>,
    /// The build's own id.
    pub reference: String,
}

impl BuildResult {
    /// Adds names it has not got yet.
    pub(crate) fn name(&mut self, names: &[Reference]) {
        for name in names.iter().map(ToString::to_string) {
            if !self.names.contains(&name) {
                self.names.push(name);
            }
        }
    }
}

/// What a pull brought.
#[derive(Debug, Clone)]
pub struct PullResult {
    /// The digest the registry's tag stands for.
    pub digest: Digest,
    /// The image's id.
    pub id: Digest,
    /// Whether it was here already.
    pub up_to_date: bool,
}

/// An image, in a line.
#[derive(Debug, Clone)]
pub struct ImageSummary {
    /// The digest of its config; of several images one that stands for all.
    pub id: Digest,
    /// Its names, `busybox:latest`.
    pub names: Vec<String>,
    /// Its names by digest, `busybox@sha256:…`.
    pub digests: Vec<String>,
    /// RFC 3339 time of creation.
    pub created: Option<String>,
    /// Bytes of its layers, uncompressed.
    pub size: u64,
    /// Its platform; of several the first.
    pub platform: Platform,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The images it stands for, when these are several: one for each platform.
    pub members: Vec<ImageMember>,
}

/// An image that shares its name with those for other platforms.
#[derive(Debug, Clone)]
pub struct ImageMember {
    /// The digest of its config.
    pub id: Digest,
    /// Its platform.
    pub platform: Platform,
    /// RFC 3339 time of creation.
    pub created: Option<String>,
    /// Bytes of its layers, uncompressed.
    pub size: u64,
}

/// An image, whole.
#[derive(Debug, Clone)]
pub struct ImageDetails {
    /// The line.
    pub summary: ImageSummary,
    /// Its config.
    pub config: ImageConfig,
    /// Its manifest as a registry has it, when known.
    pub manifest: Option<Descriptor>,
    /// Bytes of each layer, base first.
    pub layer_sizes: Vec<u64>,
}

/// What removing a name did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// This name is gone.
    Untagged(String),
    /// This image is gone.
    Deleted(Digest),
}

/// What is wrong with a state directory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FsckAnswer {
    /// What is broken.
    pub problems: Vec<FsckProblem>,
    /// What dead processes left, and the bytes it takes: harmless.
    pub leftovers: Vec<(String, u64)>,
    /// How many things of which kind were looked at.
    pub checked: Vec<(&'static str, usize)>,
}

/// Something broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FsckProblem {
    /// `index`, `blob`, `layer`, `image` or `result`.
    pub kind: &'static str,
    /// Which one.
    pub id: String,
    /// What is wrong with it.
    pub what: String,
    /// What is lost when it is taken out.
    pub lost: Vec<String>,
    /// Whether it was taken out.
    pub is_repaired: bool,
}

/// An image that was loaded.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Its name, if the archive gave it one.
    pub name: Option<String>,
    /// Its id.
    pub id: Digest,
}

/// What pruning removed.
#[derive(Debug, Clone, Default)]
pub struct PruneAnswer {
    /// What.
    pub removed: Vec<Pruned>,
}

impl PruneAnswer {
    /// Bytes given back.
    pub fn bytes(&self) -> u64 {
        self.removed.iter().map(|thing| thing.bytes).sum()
    }
}

/// A thing that was pruned.
#[derive(Debug, Clone)]
pub struct Pruned {
    /// What it was: `image`, `result`, `layer`, …
    pub kind: &'static str,
    /// Its id.
    pub id: String,
    /// Bytes of disk.
    pub bytes: u64,
}

/// What was done to keep within the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Collected {
    /// Bytes given back.
    pub freed: u64,
    /// Bytes that are kept at most.
    pub most: u64,
    /// Bytes of what images with names need, which stay.
    pub named: u64,
}
