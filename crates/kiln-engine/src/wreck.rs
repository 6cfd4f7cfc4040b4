//! What is left of a step that failed: its files, and what it saw besides, for `kiln shell`. One for each Dockerfile.
//!
//! The files are a layer like any other, held by a result that no step has. So they take part in all that is done about
//! space, and nobody finds them by chance.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kiln_dockerfile::check::sounds_secret;
use kiln_exec::Resources;
use kiln_graph::VertexId;
use kiln_graph::llb::{ExecOp, Platform};
use kiln_oci::Digest;
use kiln_report::Failure;
use kiln_store::{ActiveSnapshot, Holds, Lease, Maker, Snapshot, Store};
use prost::Message as _;
use serde::{Deserialize, Serialize};

use crate::artifact::Artifact;
use crate::blocking::blocking;
use crate::failure::environment;
use crate::job::{Job, Result};
use crate::request::{BuildRequest, Entitlement, Ulimit, UserIds};
use crate::scratch::Scratch;
use crate::step::{Held, Place};

/// The steps of a build that failed, until it is known which of them the build ends with.
#[derive(Default)]
pub(crate) struct Wrecks(Mutex<BTreeMap<Digest, Wreck>>);

/// A step that failed.
pub(crate) struct Wreck {
    root: Scratch<ActiveSnapshot>,
    inputs: Vec<Artifact>,
    step: String,
    op: ExecOp,
    absent: Vec<String>,
    platform: Platform,
}

/// What a step saw, its root as it was in the end. Never a secret, and no value that sounds like one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Scene {
    /// The build it failed in.
    pub(crate) build: String,
    /// What people call it.
    pub(crate) step: String,
    /// Its files.
    pub(crate) root: Snapshot,
    op: String,
    pub(crate) inputs: Vec<Input>,
    /// Variables whose values are not kept.
    pub(crate) absent: Vec<String>,
    /// Of the machine: system, architecture, variant.
    pub(crate) platform: [String; 3],
    pub(crate) surroundings: Surroundings,
}

/// Something that a step reads besides its root.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Input {
    Snapshot(Snapshot),
    /// A context, by its name: where it is the record of the build says.
    Context(String),
}

/// What steps of a build get beyond their op.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Surroundings {
    allowed: Vec<Entitlement>,
    has_host_ids: bool,
    ca_certs: Vec<PathBuf>,
    shm_size: Option<u64>,
    ulimits: Vec<Ulimit>,
    #[serde(with = "Taken")]
    resources: Resources,
}

/// As [`Resources`] is written.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Resources")]
struct Taken {
    processes: Option<u64>,
    memory: Option<u64>,
    memory_and_swap: Option<i64>,
    cpu_shares: Option<u64>,
    cpu_period: Option<u64>,
    cpu_quota: Option<i64>,
    cpus: Option<String>,
    mems: Option<String>,
    parent: Option<String>,
}

impl Wrecks {
    /// Notes one.
    pub(crate) fn put(&self, vertex: &Digest, wreck: Wreck) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(vertex.clone(), wreck);
    }

    /// Takes one, and throws away all others.
    fn take(&self, vertex: &VertexId) -> Option<Wreck> {
        let mut all = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        all.remove(&vertex.0)
    }
}

impl Wreck {
    /// What a step held when it failed; nothing if its files are no result, or hold a secret.
    pub(crate) fn new(place: &Place, op: &ExecOp, inputs: Vec<Artifact>, held: Held) -> Option<Self> {
        let output = op.mounts.iter().find(|mount| mount.dest == "/")?.output;
        let (mut op, mut absent) = (op.clone(), Vec::new());
        if let Some(meta) = &mut op.meta {
            meta.proxy_env = None;
            let is_private = |name: &str| sounds_secret(name) && place.args.iter().any(|arg| arg == name);
            meta.env.retain(|pair| {
                let name = pair.split('=').next().unwrap_or(pair);
                if is_private(name) {
                    absent.push(name.to_owned());
                }
                !is_private(name)
            });
        }
        let (step, platform) = (place.name.clone(), place.platform());
        Some(Self { root: held.into_output(output, &place.job)?, inputs, step, op, absent, platform })
    }

    /// Keeps it in the place of the one before it.
    fn keep(self, job: &Job, build: &str, surroundings: Surroundings) -> Result<()> {
        let (store, key) = (&job.store, key(&job.project));
        // The lease it was found under is gone again when it is removed.
        let before = load(store, &job.project)?.and_then(|(scene, _)| scene.root.layers().last().cloned());
        let root = self.root.commit()?;
        let input = |artifact: Artifact| match artifact {
            Artifact::Snapshot(snapshot) => Input::Snapshot(snapshot),
            Artifact::Tree(tree) => Input::Context(tree.name().to_owned()),
        };
        let Platform { os, architecture, variant, .. } = self.platform;
        let scene = Scene {
            build: build.to_owned(),
            step: self.step,
            root,
            op: STANDARD.encode(self.op.encode_to_vec()),
            inputs: self.inputs.into_iter().map(input).collect(),
            absent: self.absent,
            platform: [os, architecture, variant],
            surroundings,
        };
        let value = serde_json::to_vec(&scene).expect("plain data serialises");
        let inputs = scene.inputs.iter().filter_map(|input| match input {
            Input::Snapshot(snapshot) => Some(snapshot),
            Input::Context(_) => None,
        });
        let holds = Holds::snapshots(inputs.chain([&scene.root]));
        let maker = Maker { step: format!("{} (failed)", scene.step), origin: job.origin.clone() };
        store.records().put_result_of(&maker, &key, &value, &holds).map_err(environment)?;
        // One that somebody still looks at goes with a later prune.
        before.map_or(Ok(false), |layer| store.remove_layer(&layer)).map(drop).map_err(environment)
    }
}

impl Scene {
    /// The step's op, without what is not kept of it.
    pub(crate) fn op(&self) -> Option<ExecOp> {
        ExecOp::decode(STANDARD.decode(&self.op).ok()?.as_slice()).ok()
    }
}

impl Surroundings {
    fn of(request: &BuildRequest) -> Self {
        Self {
            allowed: request.allowed.clone(),
            has_host_ids: request.user_ids == UserIds::Host,
            ca_certs: request.ca_certs.iter().filter_map(|path| std::path::absolute(path).ok()).collect(),
            shm_size: request.shm_size,
            ulimits: request.ulimits.clone(),
            resources: request.resources.clone(),
        }
    }

    /// The request of a build whose steps have them.
    pub(crate) fn request(&self) -> BuildRequest {
        BuildRequest {
            allowed: self.allowed.clone(),
            user_ids: if self.has_host_ids { UserIds::Host } else { UserIds::Own },
            ca_certs: self.ca_certs.clone(),
            shm_size: self.shm_size,
            ulimits: self.ulimits.clone(),
            resources: self.resources.clone(),
            ..BuildRequest::default()
        }
    }
}

/// Keeps the step that a build failed with, and says so. What cannot be kept changes nothing about the failure.
pub(crate) async fn keep(
    job: &Arc<Job>,
    request: &BuildRequest,
    (vertex, build): (&VertexId, &str),
    failure: Failure,
) -> Failure {
    let Some(wreck) = job.wrecks.take(vertex) else { return failure };
    let (held, id, surroundings) = (Arc::clone(job), build.to_owned(), Surroundings::of(request));
    match blocking(move || wreck.keep(&held, &id, surroundings)).await {
        Ok(()) => {
            let hint = format!("look at the step's files as it left them with `kiln shell {}`", short(build));
            Failure { kept: Some(build.to_owned()), ..failure.hint(hint) }
        }
        Err(_) => failure,
    }
}

fn short(build: &str) -> &str {
    build.get(..12).unwrap_or(build)
}

/// The step that the last failed build of a project ended with, if it is kept, held by a lease.
pub(crate) fn load(store: &Store, project: &str) -> Result<Option<(Scene, Lease)>> {
    let lease = store.lease().map_err(environment)?;
    let value = store.records().get_result(&key(project), &lease).map_err(environment)?;
    Ok(value.and_then(|value| serde_json::from_slice(&value).ok()).map(|scene| (scene, lease)))
}

fn key(project: &str) -> Digest {
    Digest::sha256(format!("failed step of {project}"))
}
