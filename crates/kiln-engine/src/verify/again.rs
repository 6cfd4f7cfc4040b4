//! One build for the sake of comparison: every step runs, nothing of it is kept, and what each step made is at hand.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use kiln_fs::layer::Times;
use kiln_graph::llb::OpKind;
use kiln_graph::{Definition, Edge};
use kiln_oci::{Digest, Platform};
use kiln_report::{Failure, FailureKind, Reporter};
use kiln_solver::{Account, Base, Solver};
use kiln_store::{LayerId, Snapshot};

use super::{Twin, since};
use crate::cache::Cache;
use crate::engine::Engine;
use crate::export::{Made, make_all};
use crate::job::{Job, Result};
use crate::request::{BuildRequest, Output};
use crate::rewrite;
use crate::session::Session;
use crate::target::{Solved, Target};
use crate::waiter::Waiter;
use crate::worker::{self, Prepared, Purpose};

/// What steps made, by the digest of their vertex.
pub(crate) type Witness = Mutex<HashMap<Digest, Snapshot>>;

/// A build that was done, and still holds what it made.
pub(super) struct Again {
    made: Made,
    /// Steps that made a layer, in the order of the graph.
    pub(super) steps: Vec<StepLayer>,
    /// The image's layers that are new, by their positions among the steps.
    chain: Vec<Digest>,
    base: usize,
    pub(super) times: Times,
    /// The Dockerfile's text.
    pub(super) dockerfile: String,
    /// The base images.
    pub(super) bases: Vec<Base>,
    _job: Arc<Job>,
}

/// A step and the layer it made.
#[derive(Clone)]
pub(super) struct StepLayer {
    pub(super) vertex: Digest,
    pub(super) name: String,
    pub(super) lines: Option<(usize, usize)>,
    pub(super) layer: LayerId,
    pub(super) is_copy: bool,
    /// Whether it is made of files of a context.
    pub(super) is_of_context: bool,
    pub(super) is_in_image: bool,
}

/// Builds, for each platform of the request in its order.
pub(super) async fn build(
    engine: &Engine,
    request: &BuildRequest,
    (session, reporter): (&Arc<dyn Session>, &Arc<dyn Reporter>),
) -> Result<Vec<Again>> {
    let request = &alone(request);
    let waiter = Waiter::default();
    let lent = (Arc::clone(session), Arc::clone(reporter), waiter.watch());
    let prepared = worker::prepare(engine, request, lent, Purpose::Build).await?;
    let Prepared { job, definition, targets, unpacked, imported } = prepared;
    let plan = crate::step::plan(&definition, &job, &|_| false)?;
    let cache = Cache::new(job.store.clone(), job.lease.clone(), job.origin.clone(), imported, None);
    let cache = Arc::new(cache.forgetful());
    let solver = Solver::new(cache.clone(), cache, Arc::clone(reporter), worker::turns(request));
    let roots: Vec<Edge> = targets.iter().filter_map(|target| target.root.clone()).collect();
    let mut bases = Vec::new();
    let tell =
        |accounts: Vec<Account>| bases = since::bases(accounts.iter().filter_map(|account| account.parts.as_ref()));
    let mut results = match roots.as_slice() {
        [] => Vec::new(),
        roots => solver.solve_with_accounts(&plan, roots, tell).await.map_err(worker::solve_failure)?,
    }
    .into_iter();
    drop(unpacked);
    let mut all = Vec::with_capacity(targets.len());
    for target in targets {
        let ended = || Failure::new(FailureKind::Bug, "a build ended without a file system");
        let snapshot = match &target.root {
            None => Snapshot::scratch(),
            Some(_) => results.next().ok_or_else(ended)?.snapshot()?.clone(),
        };
        all.push(again(&job, request, (&definition, target, &snapshot), &bases).await?);
    }
    Ok(all)
}

/// Makes the image of one platform, and finds which steps made what of it.
async fn again(
    job: &Arc<Job>,
    request: &BuildRequest,
    (definition, target, snapshot): (&Definition, Target, &Snapshot),
    bases: &[Base],
) -> Result<Again> {
    let (mut steps, mut in_image) = (Vec::new(), Vec::new());
    if let Some(root) = &target.root {
        in_image = worker::layers_of(definition, root);
        steps = step_layers((definition, root), job, &|vertex| in_image.iter().any(|id| id.0 == *vertex));
    }
    let base = rewrite::base_layers(job, snapshot)?;
    let is_step = |vertex: &Digest| steps.iter().any(|step| step.vertex == *vertex);
    let chain = in_image.into_iter().rev().map(|id| id.0).filter(is_step).collect();
    let epoch = rewrite::epoch(request, target.epoch);
    let snapshot = rewrite::rewrite(job, request, (snapshot, epoch)).await?;
    let solved = Solved { epoch, ..target.solved(snapshot) };
    let ended = || Failure::new(FailureKind::Bug, "a build ended without an image");
    let made = make_all(job, &[solved], None).await?.pop().ok_or_else(ended)?;
    Ok(Again {
        made,
        steps,
        chain,
        base,
        times: rewrite::times(request, epoch),
        dockerfile: definition.sources().first().map(|source| source.text().to_owned()).unwrap_or_default(),
        bases: bases.to_vec(),
        _job: Arc::clone(job),
    })
}

/// The request without what is of others: names, outputs, caches.
fn alone(request: &BuildRequest) -> BuildRequest {
    BuildRequest {
        no_cache: true,
        tags: Vec::new(),
        outputs: vec![Output::CacheOnly],
        cache_from: Vec::new(),
        cache_to: Vec::new(),
        mounts_to: Vec::new(),
        ..request.clone()
    }
}

fn step_layers(
    (definition, root): (&Definition, &Edge),
    job: &Job,
    is_in_image: &dyn Fn(&Digest) -> bool,
) -> Vec<StepLayer> {
    let made = job.witness.lock().unwrap_or_else(PoisonError::into_inner);
    let is_context = |input: &Edge| {
        let op = definition.vertex(&input.vertex).and_then(|vertex| vertex.op.op.as_ref());
        matches!(op, Some(OpKind::Source(source)) if source.identifier.starts_with("local://"))
    };
    let step = |vertex: &kiln_graph::Vertex| {
        let layer = made.get(&vertex.id.0)?.layers().last()?.clone();
        Some(StepLayer {
            vertex: vertex.id.0.clone(),
            name: vertex.meta.name.clone(),
            lines: crate::record::lines(definition, &vertex.id),
            layer,
            is_copy: matches!(vertex.op.op, Some(OpKind::File(_))),
            is_of_context: matches!(vertex.op.op, Some(OpKind::File(_))) && vertex.inputs.iter().any(is_context),
            is_in_image: is_in_image(&vertex.id.0),
        })
    };
    definition.reachable(root).iter().filter_map(|id| step(definition.vertex(id)?)).collect()
}

impl Again {
    pub(super) fn platform(&self) -> &Platform {
        &self.made.platform
    }

    pub(super) fn id(&self) -> Digest {
        self.made.config.digest()
    }

    pub(super) fn twin(&self) -> Twin<'_> {
        Twin { config: self.made.config.value(), id: self.id(), layers: self.made.snapshot.layers() }
    }

    /// The step that made the layer at a place of the image, when each new layer has one.
    pub(super) fn step_of(&self, place: usize) -> Option<&StepLayer> {
        let is_told = self.made.snapshot.layers().len() == self.base + self.chain.len();
        let vertex = self.chain.get(place.checked_sub(self.base)?).filter(|_| is_told)?;
        self.steps.iter().find(|step| step.vertex == *vertex)
    }
}
