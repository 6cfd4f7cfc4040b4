//! One build while it runs: what its steps share.

use std::collections::HashMap;
use std::ffi::OsString;
use std::sync::{Arc, Mutex, Once, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use kiln_exec::Executor;
use kiln_fs::Reading;
use kiln_graph::llb;
use kiln_oci::{Digest, Platform, Reference};
use kiln_report::{Failure, FailureKind, Reporter};
use kiln_store::{ActiveLayer, Lease, Store};

use crate::base::BaseImage;
use crate::blobs::StoreBlobs;
use crate::devices::Devices;
use crate::engine::Engine;
use crate::export::{Daemons, Early};
use crate::finish::Finisher;
use crate::frontend::Trees;
use crate::guard::Guard;
use crate::ids::Ids;
use crate::lock::Pins;
use crate::mounts::Returning;
use crate::network::StepNetworks;
use crate::packing::Packing;
use crate::registry::Registry;
use crate::request::{BuildRequest, PerStage, Ulimit, UserIds};
use crate::scratch::Scratch;
use crate::session::Session;
use crate::trust::Trust;
use crate::verify::Witness;
use crate::waiter::Watch;
use crate::worker::Purpose;
use crate::wreck::Wrecks;

/// What the steps of one build share. Everything made under its lease survives until the job is dropped.
pub(crate) struct Job {
    /// Tells this project's steps from those of others, to explain misses.
    pub(crate) project: String,
    /// What people call the project: its Dockerfile and its directory.
    pub(crate) origin: String,
    pub(crate) store: Store,
    pub(crate) lease: Lease,
    pub(crate) registry: Arc<Registry>,
    pub(crate) session: Arc<dyn Session>,
    pub(crate) reporter: Arc<dyn Reporter>,
    /// Looks for what the session lends in what steps make.
    pub(crate) guard: Guard,
    pub(crate) executor: Executor,
    pub(crate) networks: StepNetworks,
    pub(crate) ids: Arc<Ids>,
    pub(crate) user_ids: UserIds,
    pub(crate) trust: Trust,
    pub(crate) trees: Trees,
    pub(crate) images: Arc<Images>,
    pub(crate) finisher: Finisher,
    /// Uploads layers while others are made.
    pub(crate) early: Arc<Early>,
    pub(crate) seen: Seen,
    /// What steps made that ran.
    pub(crate) witness: Witness,
    pub(crate) limits: Limits,
    pub(crate) patience: Patience,
    /// Steps that failed.
    pub(crate) wrecks: Wrecks,
    pub(crate) devices: Devices,
    /// All of the environment that programs of the host get: where others are found, and proxies.
    pub(crate) host_env: Vec<(String, OsString)>,
    /// How an image gets into what runs containers here.
    pub(crate) daemons: Daemons,
    pub(crate) materialized: Materialized,
    /// Cache mounts that were exported, for steps that find none of theirs here.
    pub(crate) returning: Returning,
    /// Whether somebody still waits for the build.
    pub(crate) watch: Watch,
    pub(crate) settling: Once,
    /// What its steps are for.
    pub(crate) purpose: Purpose,
    /// What names of sources are locked to.
    pub(crate) pins: Arc<Pins>,
}

/// What a build has before it knows what to build.
pub(crate) struct Basis {
    pub(crate) store: Store,
    pub(crate) lease: Lease,
    pub(crate) session: Arc<dyn Session>,
    pub(crate) reporter: Arc<dyn Reporter>,
    pub(crate) watch: Watch,
    pub(crate) purpose: Purpose,
    pub(crate) pins: Arc<Pins>,
}

/// What a job is about.
#[derive(Default)]
pub(crate) struct Subject {
    pub(crate) project: String,
    pub(crate) origin: String,
    pub(crate) trees: Trees,
    pub(crate) images: Arc<Images>,
    /// How layers are packed while others are made, when they will be wanted packed.
    pub(crate) packings: Vec<Packing>,
    /// The name of the only stage, where there is one.
    pub(crate) only_stage: String,
}

/// The kernel writes files back within half a minute: older ones cost little to sync.
const SETTLE_AGE: Duration = Duration::from_secs(60);

impl Job {
    /// A job of a build, which may have several.
    pub(crate) fn new(engine: &Engine, request: &BuildRequest, basis: &Basis, subject: Subject) -> Result<Arc<Self>> {
        let Subject { project, origin, trees, images, packings, only_stage } = subject;
        let Basis { store, lease, session, reporter, watch, purpose, pins } = basis;
        let registry = engine.registry();
        let blobs = StoreBlobs { store: store.clone(), lease: lease.clone() };
        let with = (Arc::clone(&registry), Arc::clone(reporter), Arc::clone(&images));
        let early = Arc::new(Early::new(request, blobs, with)?);
        Ok(Arc::new(Self {
            project,
            origin,
            finisher: Finisher::new(store.clone(), lease.clone(), packings, watch.clone())
                .uploading(Arc::clone(&early)),
            early,
            returning: Returning::new(&request.mounts_from, store, (&registry, reporter)),
            executor: engine.executor(),
            networks: engine.networks(),
            ids: engine.ids(),
            user_ids: request.user_ids,
            trust: Trust::new(&request.ca_certs)?,
            store: store.clone(),
            lease: lease.clone(),
            registry,
            session: Arc::clone(session),
            reporter: Arc::clone(reporter),
            guard: Guard::new(session, reporter, &request.accepted_leaks),
            trees,
            images,
            seen: Default::default(),
            witness: Default::default(),
            limits: Limits::new(request)?,
            patience: Patience::new(request, only_stage),
            wrecks: Wrecks::default(),
            devices: Devices::new(engine.device_specs(), request.allowed.clone()),
            host_env: engine.host_env(),
            daemons: engine.daemons(),
            materialized: Default::default(),
            watch: watch.clone(),
            purpose: *purpose,
            pins: Arc::clone(pins),
            settling: Once::new(),
        }))
    }

    /// Called by steps that start a process. The first one has the layers of earlier builds synced, on a thread that nobody
    /// waits for, so that a power cut costs none of them. A build that only copies is over before that would be, and a process
    /// cannot end while the kernel syncs for it.
    pub(crate) fn settle(&self) {
        let store = &self.store;
        self.settling.call_once(|| {
            let store = store.clone();
            // Failing to sync only leaves them doubted after a power cut.
            std::thread::spawn(move || store.settle(SETTLE_AGE));
        });
    }
}

/// What RUN steps get beyond their op.
#[derive(Debug, Clone, Default)]
pub(crate) struct Limits {
    pub(crate) shm_size: Option<u64>,
    pub(crate) ulimits: Vec<kiln_exec::Ulimit>,
    pub(crate) resources: kiln_exec::Resources,
    /// Whether it was said that some cannot be.
    pub(crate) told: OnceLock<()>,
}

impl Limits {
    /// Their share of a step's key. A step may look at its limits; without any, keys are what they always were.
    pub(crate) fn key(&self) -> Option<String> {
        let has_any = self.shm_size.is_some() || !self.ulimits.is_empty();
        let limits = self.ulimits.iter().map(|u| format!(" {:?} {:?} {:?}", u.limit, u.soft, u.hard));
        has_any.then(|| format!("limits {:?}{}", self.shm_size, limits.collect::<String>()))
    }

    /// What the request says.
    pub(crate) fn new(request: &BuildRequest) -> Result<Self> {
        Ok(Self {
            shm_size: request.shm_size,
            ulimits: ulimits(&request.ulimits)?,
            resources: request.resources.clone(),
            told: OnceLock::new(),
        })
    }
}

/// How long steps may run, how often they are tried, and how often they were.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    timeouts: PerStage<Duration>,
    retries: PerStage<u32>,
    /// The name of the only stage, whose steps do not say it.
    only_stage: String,
    attempts: Mutex<HashMap<Digest, u32>>,
}

impl Patience {
    fn new(request: &BuildRequest, only_stage: String) -> Self {
        let (timeouts, retries) = (request.timeouts.clone(), request.retries.clone());
        Self { timeouts, retries, only_stage, attempts: Mutex::default() }
    }

    /// How long a step of this stage may run; empty is the only one.
    pub(crate) fn timeout(&self, stage: &str) -> Option<Duration> {
        self.timeouts.of(self.named(stage)).filter(|limit| !limit.is_zero())
    }

    /// How often a step of this stage is tried again.
    pub(crate) fn retries(&self, stage: &str) -> u32 {
        self.retries.of(self.named(stage)).unwrap_or_default()
    }

    fn named<'a>(&'a self, stage: &'a str) -> &'a str {
        if stage.is_empty() { &self.only_stage } else { stage }
    }

    /// Notes which attempt a vertex came to.
    pub(crate) fn note(&self, vertex: &Digest, attempt: u32) {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner).insert(vertex.clone(), attempt);
    }

    /// How often a vertex was tried, if more than once.
    pub(crate) fn attempts(&self, vertex: &Digest) -> Option<u32> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner).get(vertex).copied()
    }
}

/// Resource limits by the kernel's numbers.
pub(crate) fn ulimits(asked: &[Ulimit]) -> Result<Vec<kiln_exec::Ulimit>> {
    let known = asked.iter().map(|ulimit| {
        let limit = kiln_exec::Limit::from_name(&ulimit.name)
            .ok_or_else(|| Failure::new(FailureKind::Usage, format!("`{}` is no resource limit", ulimit.name)))?;
        Ok(kiln_exec::Ulimit { limit, soft: u64::try_from(ulimit.soft).ok(), hard: u64::try_from(ulimit.hard).ok() })
    });
    known.collect()
}

/// Copies of contexts, for steps that mount them; by name.
pub(crate) type Materialized = Mutex<HashMap<String, Arc<Scratch<ActiveLayer>>>>;

/// What copies read of contexts when keys were made of it, by context and selector.
#[derive(Default)]
pub(crate) struct Seen(Mutex<HashMap<(String, String), Readings>>);

/// One reading for each copy, and when the last was made.
#[derive(Clone)]
pub(crate) struct Readings {
    pub(crate) each: Arc<[Reading]>,
    pub(crate) time: Instant,
}

impl Seen {
    /// Remembers some.
    pub(crate) fn put(&self, tree: &str, selector: &str, readings: Readings) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert((tree.to_owned(), selector.to_owned()), readings);
    }

    /// Forgets all: outputs need the room.
    pub(crate) fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Recalls some.
    pub(crate) fn get(&self, tree: &str, selector: &str) -> Option<Readings> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&(tree.to_owned(), selector.to_owned())).cloned()
    }
}

/// The base images of a build, by the identifier of their source op and its platform: one name may stand for several.
#[derive(Default)]
pub(crate) struct Images(Mutex<HashMap<(String, String), Arc<BaseImage>>>);

impl Images {
    /// Adds one.
    pub(crate) fn insert(&self, identifier: String, platform: &Platform, image: Arc<BaseImage>) {
        let key = (identifier, platform.to_string());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key, image);
    }

    /// Where the registries of base images have their layers.
    pub(crate) fn origins(&self) -> Vec<(Digest, Reference)> {
        let images = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let named = images.iter().filter_map(|((identifier, _), image)| {
            let reference: Reference = identifier.strip_prefix("docker-image://")?.parse().ok()?;
            Some(image.blobs.iter().map(move |blob| (blob.digest.clone(), reference.clone())))
        });
        named.flatten().collect()
    }

    /// The layers of each, base first.
    pub(crate) fn layers(&self) -> Vec<Vec<Digest>> {
        let images = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        images.values().map(|image| image.config.rootfs.diff_ids.clone()).collect()
    }

    /// Finds one.
    pub(crate) fn find(&self, identifier: &str, platform: &llb::Platform) -> Option<Arc<BaseImage>> {
        let key = (identifier.to_owned(), Platform::from(platform).to_string());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned()
    }
}

/// What a step or verb of the engine ends with.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_in_keys_only_when_there_are_any() {
        let limits = |shm_size, ulimits: &[(&str, i64)]| {
            let ulimits = ulimits.iter().map(|(name, n)| Ulimit { name: (*name).into(), soft: *n, hard: *n });
            Limits::new(&BuildRequest { shm_size, ulimits: ulimits.collect(), ..BuildRequest::default() })
        };
        assert_eq!(limits(None, &[]).unwrap().key(), None);
        let all = [
            limits(Some(1), &[]),
            limits(Some(2), &[]),
            limits(None, &[("nofile", 1)]),
            limits(None, &[("nofile", -1)]),
        ];
        let keys: std::collections::BTreeSet<_> =
            all.into_iter().map(|limits| limits.unwrap().key().unwrap()).collect();
        assert_eq!(keys.len(), 4);
        assert_eq!(limits(None, &[("nosuch", 1)]).unwrap_err().kind, FailureKind::Usage);
    }
}
