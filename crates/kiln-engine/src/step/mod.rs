//! One file per operation: what its key is made of, and how it is done.

mod exec;
mod file;
mod identity;
#[cfg(test)]
mod keys;
mod merge;
pub(crate) mod missing;
mod mounts;
mod place;
mod source;

pub(crate) use file::copy_spec;

pub(crate) use exec::{enter, make_cwd};
pub(crate) use identity::place_of;
pub(crate) use mounts::{Held, lacking, stubs};
pub(crate) use source::{lock_name, remove_repository, repositories};

use std::sync::{Arc, PoisonError};

use kiln_graph::llb::{self, OpKind, SourceOp};
use kiln_graph::{Definition, Vertex};
use kiln_oci::{Digest, Hasher};
use kiln_report::{Excerpt, Failure, FailureKind, without_credentials};
use kiln_solver::{CacheMap, InputKey, KeyParts, Plan, PlanVertex, Step};
use kiln_sys::root::Root;

use crate::artifact::Artifact;
use crate::failure::{Context as _, environment};
use crate::job::{Job, Result};
use identity::Identity;

/// Joins every vertex of a graph to what does it.
pub(crate) fn plan(
    definition: &Definition,
    job: &Arc<Job>,
    is_finished: &dyn Fn(&Vertex) -> bool,
) -> Result<Plan<Artifact, Failure>> {
    let mut plan = Plan::new();
    let mut identities = identity::identities(definition, &job.project);
    for vertex in definition.vertices() {
        let planned = PlanVertex {
            inputs: vertex.inputs.clone(),
            step: step(
                definition,
                vertex,
                job,
                (identities.remove(&vertex.id).unwrap_or_default(), is_finished(vertex)),
            )?,
            name: vertex.meta.name.clone(),
            ignore_cache: vertex.meta.ignore_cache,
        };
        plan.add(vertex.id.clone(), planned);
    }
    Ok(plan)
}

/// What every step knows of itself.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) job: Arc<Job>,
    pub(crate) vertex: Digest,
    /// What people call it.
    pub(crate) name: String,
    pub(crate) excerpt: Option<Excerpt>,
    pub(crate) identity: Identity,
    pub(crate) platform: Option<llb::Platform>,
    pub(crate) inputs: usize,
    /// Names of the build arguments it sees.
    pub(crate) args: Vec<String>,
    /// Whether its layer is part of an image to be exported, so that its digest is wanted at once.
    pub(crate) is_finished: bool,
}

/// Whether it is known what a source stands for, without asking anybody.
pub(crate) async fn known(job: &Arc<Job>, op: SourceOp, excerpt: Excerpt) -> Result<()> {
    source::known(Place::outside(job, Some(excerpt)), op).await
}

/// What a source stands for now, as a lock says it.
pub(crate) async fn pin(job: &Arc<Job>, op: SourceOp, excerpt: Option<Excerpt>) -> Result<String> {
    source::pin(Place::outside(job, excerpt), op).await
}

/// Fails when a vertex is a source whose content would have to be fetched.
pub(crate) async fn lacks(definition: &Definition, vertex: &Vertex, job: &Arc<Job>) -> Result<()> {
    let Some(OpKind::Source(op)) = vertex.op.op.clone() else { return Ok(()) };
    let place = Place { vertex: vertex.id.0.clone(), ..Place::outside(job, excerpt(definition, vertex)) };
    source::lacks(place, op).await
}

/// Where a vertex comes from.
pub(crate) fn excerpt(definition: &Definition, vertex: &Vertex) -> Option<Excerpt> {
    let (index, span) = vertex.meta.source?;
    Some(Excerpt { file: Arc::clone(definition.sources().get(index)?), span })
}

fn step(
    definition: &Definition,
    vertex: &Vertex,
    job: &Arc<Job>,
    (identity, is_finished): (Identity, bool),
) -> Result<Arc<dyn Step<Artifact, Failure>>> {
    let place = Place {
        job: Arc::clone(job),
        vertex: vertex.id.0.clone(),
        name: vertex.meta.name.clone(),
        excerpt: excerpt(definition, vertex),
        identity,
        platform: vertex.op.platform.clone(),
        inputs: vertex.inputs.len(),
        args: vertex
            .meta
            .description
            .get(kiln_dockerfile::ARGS)
            .into_iter()
            .flat_map(|args| args.split(' '))
            .map(str::to_owned)
            .collect(),
        is_finished,
    };
    let unsupported =
        |what: &str| Failure::new(FailureKind::Build, format!("`{what}` operations are not supported yet"));
    Ok(match vertex.op.op.clone() {
        Some(OpKind::Exec(op)) => Arc::new(exec::ExecStep::new(place, op)?),
        Some(OpKind::File(op)) => Arc::new(file::FileStep { place, op }),
        Some(OpKind::Merge(op)) => Arc::new(merge::MergeStep { place, op }),
        Some(OpKind::Source(op)) => source::step(place, op)?,
        Some(OpKind::Diff(_)) => return Err(unsupported("diff")),
        Some(OpKind::Build(_)) => return Err(unsupported("build")),
        None => return Err(unsupported("unknown")),
    })
}

impl Place {
    /// The place of a source that is no part of a graph.
    fn outside(job: &Arc<Job>, excerpt: Option<Excerpt>) -> Self {
        Self {
            job: Arc::clone(job),
            vertex: Digest::sha256(""),
            name: String::new(),
            excerpt,
            identity: Identity::default(),
            platform: None,
            inputs: 0,
            args: Vec::new(),
            is_finished: false,
        }
    }

    /// Says where a failure happened.
    pub(crate) fn blame(&self, failure: Failure) -> Failure {
        match (&failure.excerpt, &self.excerpt) {
            (None, Some(excerpt)) => Failure { excerpt: Some(excerpt.clone()), ..failure },
            _ => failure,
        }
    }

    /// A cache map whose parts carry the step's name and command.
    pub(crate) fn cache_map(&self, digest: Digest, inputs: Vec<InputKey>, parts: KeyParts) -> CacheMap {
        let command = self.excerpt.as_ref().and_then(|e| e.file.text().get(e.span.range())).map(without_credentials);
        let Identity { name: identity, place, around } = self.identity.clone();
        let platform = self.platform.as_ref().map(|p| format!("{}/{}", p.os, p.architecture));
        let parts = KeyParts { identity, place, around, command: parts.command.or(command), platform, ..parts };
        CacheMap { digest, parts, pinned: true, inputs }
    }

    /// The stage it stands in; empty for the only one.
    pub(crate) fn stage(&self) -> &str {
        identity::stage_of(&self.name)
    }

    /// The platform it is for; the machine's unless the graph says otherwise.
    pub(crate) fn platform(&self) -> llb::Platform {
        self.platform.clone().unwrap_or_else(|| llb::Platform::from(&kiln_oci::Platform::host()))
    }

    /// Begins the digest of a step that makes a layer of an image.
    pub(crate) fn layer_hasher(&self, kind: &str) -> Hasher {
        let mut hasher = self.hasher(kind);
        if let Some(accepted) = self.job.guard.key() {
            hasher.field(b"accepted leaks");
            hasher.field(accepted.as_bytes());
        }
        hasher
    }

    /// Begins the digest of a step: its kind and its platform.
    pub(crate) fn hasher(&self, kind: &str) -> Hasher {
        let mut hasher = Hasher::new();
        hasher.field(kind.as_bytes());
        let platform = self.platform.as_ref();
        hasher.field(platform.map_or("", |p| p.os.as_str()).as_bytes());
        hasher.field(platform.map_or("", |p| p.architecture.as_str()).as_bytes());
        hasher.field(platform.map_or("", |p| p.variant.as_str()).as_bytes());
        hasher
    }

    /// Opens an artifact for reading.
    pub(crate) fn open(&self, artifact: &Artifact) -> Result<Opened> {
        match artifact {
            Artifact::Tree(tree) => Ok(Opened::Tree(Arc::clone(tree))),
            Artifact::Snapshot(snapshot) => {
                let mount = self.view(snapshot)?;
                let tree = kiln_fs::SourceTree::snapshot(Root::new(mount));
                Ok(Opened::Snapshot(Box::new(tree)))
            }
        }
    }

    /// Notes what the step made, and has its layer finished when it will be wanted.
    pub(crate) fn made(&self, snapshots: &[kiln_store::Snapshot]) {
        if let Some(first) = snapshots.first() {
            let mut made = self.job.witness.lock().unwrap_or_else(PoisonError::into_inner);
            made.insert(self.vertex.clone(), first.clone());
        }
        if self.is_finished {
            snapshots.iter().for_each(|snapshot| self.job.finisher.begin(snapshot));
        }
    }

    /// Mounts a snapshot for reading, nowhere.
    pub(crate) fn view(&self, snapshot: &kiln_store::Snapshot) -> Result<std::os::fd::OwnedFd> {
        view(&self.job.store, snapshot)
    }
}

/// Mounts a snapshot for reading, nowhere: it is gone with its descriptor. Without overlayfs it is a directory.
pub(crate) fn view(store: &kiln_store::Store, snapshot: &kiln_store::Snapshot) -> Result<std::os::fd::OwnedFd> {
    use kiln_store::Snapshotter as _;
    if store.stacking() == kiln_store::Stacking::Native {
        let dir = store.flat_view(snapshot).map_err(environment)?;
        return crate::scratch::open_dir(&dir).map(Root::into_fd);
    }
    let overlay = store.view(snapshot).or_environment(|| "cannot mount a snapshot".into())?;
    overlay.mount_detached().or_environment(|| "cannot mount a snapshot".into())
}

/// An artifact opened for reading.
pub(crate) enum Opened {
    /// A context.
    Tree(Arc<crate::frontend::LocalTree>),
    /// A mounted snapshot.
    Snapshot(Box<kiln_fs::SourceTree>),
}

impl Opened {
    /// Its files.
    pub(crate) fn tree(&self) -> &kiln_fs::SourceTree {
        match self {
            Self::Tree(local) => local.tree(),
            Self::Snapshot(tree) => tree,
        }
    }
}
