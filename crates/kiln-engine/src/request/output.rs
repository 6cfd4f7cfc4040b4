//! What becomes of a build's result.

use std::fmt;
use std::path::PathBuf;

use kiln_oci::{Platform, Reference};

/// What to do with a result.
#[derive(Debug, Clone)]
pub enum Output {
    /// Into the local store; also to the registries of its names when `push`.
    Image {
        /// Its names and how it is written.
        image: ImageOptions,
        /// Whether it is pushed.
        push: bool,
        /// Whether it goes into the local store.
        store: bool,
        /// What it is called besides.
        naming: Naming,
    },
    /// An OCI archive or, when `tar` is false, an OCI layout directory.
    Oci {
        /// Its names and how it is written.
        image: ImageOptions,
        /// Where to.
        dest: Dest,
        /// An archive, or a directory.
        tar: bool,
    },
    /// A Docker archive, as `docker load` reads it, or a layout directory.
    Docker {
        /// Its names and how it is written.
        image: ImageOptions,
        /// Where to.
        dest: Dest,
        /// An archive, or a directory.
        tar: bool,
    },
    /// Into the local store, and into what runs containers here.
    Load {
        /// Its names and how it is written.
        image: ImageOptions,
        /// Into which; by default the first that is there, if any is.
        into: Option<Daemon>,
    },
    /// The files as one tar.
    Tar {
        /// Where to.
        dest: Dest,
        /// Whether each platform has a directory; by default when there are several.
        platform_split: Option<bool>,
    },
    /// The files in a directory.
    Local {
        /// The directory.
        dest: PathBuf,
        /// What becomes of other files that are there.
        others: OtherFiles,
        /// Whether each platform has a directory; by default when there are several.
        platform_split: Option<bool>,
    },
    /// Nothing; only the cache is filled.
    CacheOnly,
}

impl Output {
    /// An image for the local store, under the request's names.
    pub fn store() -> Self {
        Self::Image { image: ImageOptions::default(), push: false, store: true, naming: Naming::default() }
    }

    /// How an image is written, if it is one.
    pub fn image(&self) -> Option<&ImageOptions> {
        match self {
            Self::Image { image, .. }
            | Self::Oci { image, .. }
            | Self::Docker { image, .. }
            | Self::Load { image, .. } => Some(image),
            Self::Tar { .. } | Self::Local { .. } | Self::CacheOnly => None,
        }
    }

    /// The same, to be changed.
    pub fn image_mut(&mut self) -> Option<&mut ImageOptions> {
        match self {
            Self::Image { image, .. }
            | Self::Oci { image, .. }
            | Self::Docker { image, .. }
            | Self::Load { image, .. } => Some(image),
            Self::Tar { .. } | Self::Local { .. } | Self::CacheOnly => None,
        }
    }
}

/// How an image is written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageOptions {
    /// Names besides the request's.
    pub names: Vec<Reference>,
    /// How layers are written for others.
    pub layers: LayerOptions,
    /// What its documents are annotated with.
    pub annotations: Vec<Annotation>,
    /// Whether the registries it is pushed to may speak plain http, or have certificates that nobody knows.
    pub may_be_insecure: bool,
}

impl ImageOptions {
    /// Whether a manifest is to say or hold what one does not by default: whoever pushes the image later is to send that.
    pub(crate) fn has_wishes(&self) -> bool {
        // Out of eStargz layers comes more than the store has, so that the image would be another.
        let is_same = self.layers.compression != Some(CompressionKind::Estargz);
        !self.annotations.is_empty() || (is_same && self.layers != LayerOptions::default())
    }
}

/// How layers are written for others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LayerOptions {
    /// The compression of new layers; by default gzip.
    pub compression: Option<CompressionKind>,
    /// Its level.
    pub level: Option<u32>,
    /// Whether layers that came with the base are compressed anew, too.
    pub force: bool,
    /// Whether OCI media types are used; if not, Docker's.
    pub oci_media_types: Option<bool>,
}

impl LayerOptions {
    /// Whether OCI media types are used, as they are unless somebody says otherwise.
    pub(crate) fn is_oci(&self) -> bool {
        self.oci_media_types.unwrap_or(true)
    }
}

/// Layer compressions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompressionKind {
    /// Plain tar.
    Uncompressed,
    /// gzip.
    Gzip,
    /// gzip whose files can be fetched one by one.
    Estargz,
    /// zstd.
    Zstd,
}

/// What an image is called besides its names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Naming {
    /// Pushed without a tag: only its digest names it.
    pub by_digest: bool,
    /// Each name also with its digest.
    pub canonical: bool,
    /// This name with its digest, too.
    pub dangling_prefix: Option<String>,
    /// That only when it has no other.
    pub dangling_when_nameless: bool,
}

impl Naming {
    /// Whether a name is wanted that has the digest in it.
    pub(crate) fn has_digest(&self) -> bool {
        self.canonical || self.dangling_prefix.is_some()
    }
}

/// A key and a value on one of an image's documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotation {
    /// On which.
    pub on: Annotated,
    /// Of which platform only.
    pub platform: Option<Platform>,
    /// The key.
    pub key: String,
    /// The value.
    pub value: String,
}

/// What an annotation is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Annotated {
    /// The manifest.
    Manifest,
    /// What points at the manifest.
    ManifestDescriptor,
    /// The index of several platforms.
    Index,
    /// What points at the index.
    IndexDescriptor,
}

/// What runs containers on this machine and takes images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Daemon {
    /// docker.
    Docker,
    /// podman.
    Podman,
    /// containerd.
    Containerd,
}

impl fmt::Display for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Containerd => "containerd",
        })
    }
}

/// What becomes of files in a directory that are not the result's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OtherFiles {
    /// They stay.
    #[default]
    Keep,
    /// They are deleted.
    Delete,
}

/// Where a file goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dest {
    /// To a file of the machine.
    Path(PathBuf),
    /// To standard output.
    Stdout,
}
