//! What a caller decides about a build, and what it knows about images.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kiln_graph::llb::{NetMode, SourceOp, Ulimit};
use kiln_graph::{Definition, Edge};
use kiln_oci::{Digest, ImageConfig, Platform};
use kiln_report::{Diagnostic, SourceFile, Span};

use super::ContextRead;
use crate::check::CheckConfig;

/// What the caller decides about a build.
#[derive(Debug, Clone)]
pub struct LowerOptions {
    /// The text the Dockerfile was parsed from; spans of vertices point into it.
    pub source: Arc<SourceFile>,
    /// The wanted stage, by name or number; the last one when `None`.
    pub target: Option<String>,
    /// Values given for `ARG`s.
    pub build_args: BTreeMap<String, String>,
    /// Labels put on the image last of all.
    pub labels: BTreeMap<String, String>,
    /// The platform to build for.
    pub platform: Platform,
    /// Whether the user chose it; if not, the base image's own stands in the config.
    pub platform_is_chosen: bool,
    /// The platform the build runs on.
    pub build_platform: Platform,
    /// Whether several platforms are built at once, so that step names say which.
    pub platform_in_names: PlatformInNames,
    /// Contexts by name; they stand for a stage, an image or a `--from` of that name, `name::platform` for one
    /// platform only.
    pub contexts: BTreeMap<String, NamedContext>,
    /// Which steps must not use cached results.
    pub no_cache: NoCache,
    /// Network of steps that do not choose one.
    pub network: NetMode,
    /// Host name inside steps; the executor's own when `None`.
    pub hostname: Option<String>,
    /// Lines for `/etc/hosts` in steps: host name and address.
    pub extra_hosts: Vec<(String, String)>,
    /// Size of `/dev/shm` in steps, in bytes.
    pub shm_size: Option<u64>,
    /// Resource limits of steps.
    pub ulimits: Vec<Ulimit>,
    /// Parent cgroup of steps.
    pub cgroup_parent: Option<String>,
    /// Prefix of cache mount ids, so that builds can be kept apart.
    pub cache_namespace: String,
    /// Privileges the user allowed, such as `network.host` and `security.insecure`.
    pub entitlements: BTreeSet<String>,
    /// The time of the build context, where it has one: of a commit, of a download. `SOURCE_DATE_EPOCH=context`
    /// stands for it.
    pub context_time: Option<i64>,
    /// Check settings that replace the file's own `# check=` line.
    pub check: Option<CheckConfig>,
}

impl LowerOptions {
    /// Options that build the last stage of `source` for this machine and decide nothing else.
    pub fn new(source: Arc<SourceFile>) -> Self {
        Self {
            source,
            target: None,
            build_args: BTreeMap::new(),
            labels: BTreeMap::new(),
            platform: Platform::host(),
            platform_is_chosen: false,
            build_platform: Platform::host(),
            platform_in_names: PlatformInNames::Hidden,
            contexts: BTreeMap::new(),
            no_cache: NoCache::Never,
            network: NetMode::Unset,
            hostname: None,
            extra_hosts: Vec::new(),
            shm_size: None,
            ulimits: Vec::new(),
            cgroup_parent: None,
            cache_namespace: String::new(),
            entitlements: BTreeSet::new(),
            context_time: None,
            check: None,
        }
    }
}

/// Whether step names begin with the platform: `[linux/amd64 build 2/4] RUN …`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlatformInNames {
    /// They do, because several platforms are built at once.
    Shown,
    /// They do not.
    Hidden,
}

/// What a `--build-context` stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedContext {
    /// A directory, read by the source op `local://NAME`.
    Local {
        /// The name the engine knows the directory by.
        name: String,
    },
    /// An image; asked for as it is written.
    Image {
        /// As in `FROM`.
        reference: String,
    },
    /// An image in an OCI layout; asked for as `oci-layout://…`.
    OciLayout {
        /// What follows `oci-layout://`.
        reference: String,
    },
    /// A stage of the Dockerfile itself.
    Stage {
        /// Its name or number.
        name: String,
    },
}

/// Which steps must not use cached results.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum NoCache {
    /// None: all may.
    #[default]
    Never,
    /// All of them (`--no-cache`).
    Always,
    /// Those of these stages (`--no-cache-filter`).
    Stages(BTreeSet<String>),
}

impl NoCache {
    pub(crate) fn covers(&self, stage: Option<&str>) -> bool {
        match self {
            Self::Never => false,
            Self::Always => true,
            Self::Stages(names) => stage.is_some_and(|stage| names.iter().any(|n| n.eq_ignore_ascii_case(stage))),
        }
    }
}

/// An image the graph cannot be made without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRequest {
    /// As written, with arguments filled in; an image in a layout begins with `oci-layout://`.
    pub reference: String,
    /// For which platform.
    pub platform: Platform,
    /// Who asks.
    pub span: Span,
    /// A stage of nearly the same name: what to suggest when there is no such image.
    pub similar_stage: Option<String>,
}

/// What is known about an image for one platform.
#[derive(Debug, Clone, PartialEq)]
pub struct ResolvedImage {
    /// Digest of the manifest, or of the config when there is no manifest.
    pub digest: Digest,
    /// The source op's identifier, pinned: `docker-image://docker.io/library/busybox:latest@sha256:…`.
    pub identifier: String,
    /// Its config.
    pub config: ImageConfig,
    /// Whether it was found here: its digest says nothing to anybody else, and is not shown.
    pub is_local: bool,
}

/// The images known so far.
#[derive(Debug, Clone, Default)]
pub struct ImageFacts {
    images: BTreeMap<(String, Platform), ResolvedImage>,
}

impl ImageFacts {
    /// Nothing known.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    /// Answers a request; `reference` and `platform` as the request has them.
    pub fn insert(&mut self, reference: impl Into<String>, platform: Platform, image: ResolvedImage) {
        self.images.insert((reference.into(), platform), image);
    }

    /// What is known about an image.
    pub fn find(&self, reference: &str, platform: &Platform) -> Option<&ResolvedImage> {
        self.images.get(&(reference.to_owned(), platform.clone()))
    }
}

/// What an `ADD` fetches.
#[derive(Debug, Clone, PartialEq)]
pub struct Fetch {
    /// The source op: a file from the web, or a repository.
    pub op: SourceOp,
    /// Who asks.
    pub span: Span,
}

/// The answer of one round of lowering.
#[derive(Debug, Clone)]
pub enum Lowering {
    /// Resolve these, add them to the facts and ask again. Each round asks for something new.
    NeedsImages(Vec<ImageRequest>),
    /// The graph.
    Done(Box<Lowered>),
}

/// A Dockerfile as a graph.
#[derive(Debug, Clone)]
pub struct Lowered {
    /// The graph.
    pub definition: Definition,
    /// Its end; `None` for an image without any layer.
    pub root: Option<Edge>,
    /// The config of the image to be: without layers and times, with the whole history.
    pub config: ImageConfig,
    /// The config of the image at the bottom, as it was.
    pub base_config: Option<ImageConfig>,
    /// Name of the target stage, or `stage-N`.
    pub target_name: String,
    /// All reachable stages, in the file's order.
    pub stages: Vec<LoweredStage>,
    /// Findings that need the build's options or the base images' configs.
    pub warnings: Vec<Diagnostic>,
    /// The secrets steps want.
    pub secrets: Vec<CredentialUse>,
    /// The SSH agents steps want.
    pub ssh: Vec<CredentialUse>,
    /// What the reachable stages take from contexts.
    pub context_reads: Vec<ContextRead>,
    /// What the reachable stages fetch.
    pub fetches: Vec<Fetch>,
    /// `SOURCE_DATE_EPOCH`, when given.
    pub epoch: Option<i64>,
}

/// One stage of the graph.
#[derive(Debug, Clone)]
pub struct LoweredStage {
    /// Its name, or `stage-N`.
    pub name: String,
    /// Its end; `None` when it has no layer.
    pub root: Option<Edge>,
    /// For which platform.
    pub platform: Platform,
    /// Its `FROM`.
    pub span: Span,
}

/// A secret or SSH agent that a step wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialUse {
    /// Its id.
    pub id: String,
    /// Whether the step cannot do without.
    pub required: bool,
    /// The first mount that wants it.
    pub span: Span,
}
