//! What is asked of the engine, in plain data: one type per verb.

mod cache;
mod output;
mod steps;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

use kiln_exec::Isolation;
use kiln_image::SettingsFiles;
use kiln_oci::{Platform, Reference};
use kiln_store::{Condition, Stacking};
use serde::{Deserialize, Serialize};

pub use cache::{CacheEntry, CacheFrom, CacheManifest, CacheMode, CachePlace, CacheTo};
pub use output::{
    Annotated, Annotation, CompressionKind, Daemon, Dest, ImageOptions, LayerOptions, Naming, OtherFiles, Output,
};
pub use steps::PerStage;

use crate::mounts::{MountsFrom, MountsTo};

/// How an engine is set up. Everything the environment says arrives here.
#[derive(Debug, Clone, Default)]
pub struct EngineConfig {
    /// The state directory.
    pub state: PathBuf,
    /// `config.json` with registry credentials.
    pub docker_config: Option<PathBuf>,
    /// Where registries are set up: mirrors, certificates, who is insecure.
    pub registries: SettingsFiles,
    /// The most bytes a layer from elsewhere may expand to; by default 64 GiB.
    pub largest_layer: Option<u64>,
    /// Where programs of the machine are found: `PATH`.
    pub search_path: Option<OsString>,
    /// Where devices of the machine are described, in the Container Device Interface; later directories go before.
    pub device_specs: Vec<PathBuf>,
    /// How much is kept after builds that add something; without it, whatever they leave. When no most is said, it is
    /// 10 % of the disk, and no more than 20 GiB.
    pub gc: Option<SpaceLimits>,
    /// Where docker listens: `DOCKER_HOST`.
    pub docker_host: Option<String>,
    /// What podman's and containerd's programs are told of their surroundings.
    pub daemon_env: Vec<(String, OsString)>,
    /// Proxy variables (`HTTP_PROXY`, …) given to RUN steps; in no cache key.
    pub proxies: BTreeMap<String, String>,
    /// What is said of user ids when the first step runs.
    pub ids_note: Option<String>,
    /// Whether [`crate::become_root`] was called, after which layers are read and written.
    pub has_become_root: bool,
    /// What keeps steps apart from the machine.
    pub isolation: Isolation,
    /// How layers become trees; by default overlayfs does it, where it can.
    pub stacking: Option<Stacking>,
    /// Whether nothing is asked of the network. RUN steps are another matter: they have the network they are given.
    pub is_offline: bool,
}

/// One build.
#[derive(Debug, Clone, Default)]
pub struct BuildRequest {
    /// Where files come from.
    pub context: Context,
    /// Where the Dockerfile's text comes from.
    pub dockerfile: DockerfileSource,
    /// The ignore file; by default the Dockerfile's own, else the context's.
    pub ignorefile: Option<PathBuf>,
    /// The names of the result.
    pub tags: Vec<Reference>,
    /// Build arguments.
    pub build_args: BTreeMap<String, String>,
    /// The stage to build; by default the last.
    pub target: Option<String>,
    /// The platforms; by default the machine's.
    pub platforms: Vec<Platform>,
    /// How many steps may run at once; by default one per core, at least 4, because steps wait as much as they work.
    pub jobs: Option<NonZero<usize>>,
    /// Whether cached results are not used.
    pub no_cache: bool,
    /// Stages whose cached results are not used.
    pub no_cache_filter: Vec<String>,
    /// When registries are asked for base images.
    pub pull: Pull,
    /// Whether names of sources stand for what the lock beside the Dockerfile says, and for nothing else.
    pub is_locked: bool,
    /// Labels added to the image.
    pub labels: BTreeMap<String, String>,
    /// What to do with the result; by default it goes to the local store.
    pub outputs: Vec<Output>,
    /// Named contexts.
    pub contexts: BTreeMap<String, NamedContext>,
    /// The network of RUN steps.
    pub network: NetworkMode,
    /// What steps may do beyond the usual.
    pub allowed: Vec<Entitlement>,
    /// Ids of secrets that may be in the image.
    pub accepted_leaks: Vec<String>,
    /// Lines for `/etc/hosts`: name and address.
    pub extra_hosts: Vec<(String, String)>,
    /// Whose user ids RUN steps have.
    pub user_ids: UserIds,
    /// Files of certificates that steps trust besides those of their image.
    pub ca_certs: Vec<PathBuf>,
    /// Size of `/dev/shm` in bytes.
    pub shm_size: Option<u64>,
    /// Resource limits.
    pub ulimits: Vec<Ulimit>,
    /// What a step may take of the machine.
    pub resources: kiln_exec::Resources,
    /// How long a RUN step may run; in no cache key, as the next one.
    pub timeouts: PerStage<Duration>,
    /// How often a RUN step that failed is tried again.
    pub retries: PerStage<u32>,
    /// Seconds since 1970 that stand for every time in the image. Steps learn it by the build argument of that name, which counts
    /// when nothing is said here.
    pub source_date_epoch: Option<i64>,
    /// What becomes of the times of files in new layers, when there is a time that stands for all.
    pub rewrite: Rewrite,
    /// Whether nothing may count that differs from machine to machine: times, and what a checkout adds to files of a
    /// context. Without another time 1970 began, or the time of a context that has one, stands for all.
    pub reproducible: bool,
    /// The host name steps see.
    pub hostname: Option<String>,
    /// Caches of others; the first that has a result counts.
    pub cache_from: Vec<CacheFrom>,
    /// Caches for others, written when the build succeeded.
    pub cache_to: Vec<CacheTo>,
    /// Where cache mounts come from that are not here when a step wants them.
    pub mounts_from: Vec<MountsFrom>,
    /// Where cache mounts go after the build.
    pub mounts_to: Vec<MountsTo>,
}

/// When registries are asked for the images that a build takes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pull {
    /// When the local store has no image of the name.
    #[default]
    Missing,
    /// Always.
    Always,
    /// Always; if they cannot be asked, what is here counts.
    Newer,
    /// Never.
    Never,
}

/// What becomes of modification times in new layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Rewrite {
    /// They stay.
    #[default]
    Never,
    /// Those after the time that stands for all become that.
    NotAfter,
    /// All become that.
    Exactly,
}

/// Where the files of a build come from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Context {
    /// No files.
    #[default]
    Empty,
    /// A directory, read in place.
    Dir(PathBuf),
    /// A tar, compressed or not, on the session's standard input.
    Stdin,
    /// A repository, or a download that is a tar or a Dockerfile, by its URL.
    Remote(String),
}

/// Where the Dockerfile's text comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum DockerfileSource {
    /// The context's own, by the name it has there.
    #[default]
    Default,
    /// A file of the machine, named by the user.
    Path(PathBuf),
    /// A file of the context, by its path in it.
    InContext(String),
    /// The text itself, from standard input.
    Text(String),
    /// A download, by its URL.
    Remote(String),
    /// Several of these, one after the other.
    Several(Vec<Self>),
}

/// A context by name, for `FROM name` and `COPY --from=name`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NamedContext {
    /// A directory.
    Dir(PathBuf),
    /// A repository, or a download that is a tar, by its URL.
    Remote(String),
    /// An image, as written after `docker-image://`.
    Image(String),
    /// An image of an OCI layout directory.
    OciLayout {
        /// The directory.
        path: PathBuf,
        /// A tag or digest in it; may be left out when it holds one image.
        reference: Option<String>,
    },
    /// A stage of the Dockerfile itself, by its name or number.
    Stage(String),
}

/// The network a step sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum NetworkMode {
    /// What kiln gives when nothing is said.
    #[default]
    Default,
    /// Only its own loopback.
    None,
    /// The machine's.
    Host,
}

/// What steps may do only when the user allows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entitlement {
    /// Use the machine's network, by `RUN --network=host`.
    NetworkHost,
    /// Run with all privileges, by `RUN --security=insecure`.
    SecurityInsecure,
    /// Use any device of the machine, by `RUN --device`.
    AllDevices,
    /// Use these devices.
    Device {
        /// A CDI name, a class, or a name with `*`.
        name: String,
        /// The name that the Dockerfile has for it.
        alias: Option<String>,
    },
}

/// A resource limit of steps, as `--ulimit nofile=1024:2048`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// `nofile`, `nproc`, …
    pub name: String,
    /// The soft limit; -1 for none.
    pub soft: i64,
    /// The hard limit; -1 for none.
    pub hard: i64,
}

/// A container to run.
#[derive(Debug, Clone, Default)]
pub struct RunRequest {
    /// A name or id.
    pub image: String,
    /// Replaces the image's `Cmd` when not empty.
    pub command: Vec<String>,
    /// Replaces the image's `Entrypoint`.
    pub entrypoint: Option<Vec<String>>,
    /// Added to the image's environment, `K=V`.
    pub env: Vec<String>,
    /// Replaces the image's working directory.
    pub workdir: Option<String>,
    /// Replaces the image's user.
    pub user: Option<String>,
    /// Directories or files of the machine.
    pub volumes: Vec<Volume>,
    /// The network.
    pub network: NetworkMode,
    /// The host name.
    pub hostname: Option<String>,
    /// The platform, when the name stands for several images.
    pub platform: Option<Platform>,
    /// Lines for `/etc/hosts`: name and address.
    pub extra_hosts: Vec<(String, String)>,
    /// Size of `/dev/shm` in bytes.
    pub shm_size: Option<u64>,
    /// Resource limits.
    pub ulimits: Vec<Ulimit>,
    /// What it may take of the machine.
    pub resources: kiln_exec::Resources,
}

/// A path of the machine in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// On the machine.
    pub source: PathBuf,
    /// In the container.
    pub target: String,
    /// Whether the container may not write to it.
    pub readonly: bool,
}

/// How closely to look at a state directory, and what to do about what is broken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FsckRequest {
    /// Take it out, with what needs it.
    pub repair: bool,
    /// Read every layer, too.
    pub deep: bool,
}

/// What may be pruned.
#[derive(Debug, Clone, Default)]
pub struct PruneRequest {
    /// Also what leads to images, cache mounts, repositories: everything no name holds.
    pub all: bool,
    /// Only what was not used for so long.
    pub unused_for: Option<Duration>,
    /// Only things that are all of this.
    pub filter: Vec<Condition>,
    /// Only until these limits are met, longest unused first.
    pub limits: SpaceLimits,
    /// Only say what would go.
    pub dry_run: bool,
}

/// Limits of what is kept, as people set them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpaceLimits {
    /// So much is always kept.
    pub reserved: Option<Amount>,
    /// So much is kept at most.
    pub max_used: Option<Amount>,
    /// So much is to be free on the disk.
    pub min_free: Option<Amount>,
}

/// An amount of disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// Bytes.
    Bytes(u64),
    /// A share of the disk that the state directory is on.
    Percent(u8),
}

impl Amount {
    /// Its bytes, on a disk of so many.
    pub(crate) fn of(self, disk: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => disk / 100 * u64::from(percent),
        }
    }
}

/// Whose user ids steps have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UserIds {
    /// Ids that nobody else has, where the machine can do that.
    #[default]
    Own,
    /// The machine's: the root of a step is its root.
    Host,
}
