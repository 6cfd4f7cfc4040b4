//! One build: opens a job and a lease, asks the frontend for the graph, solves it, exports the result.

use std::collections::HashSet;
use std::num::NonZero;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures::future::try_join_all;
use kiln_dockerfile::{Dockerfile, Fetch, LowerOptions, PlatformInNames};
use kiln_graph::llb::OpKind;
use kiln_graph::{Definition, Edge, VertexId};
use kiln_oci::{Hasher, Platform};
use kiln_report::{Event, Failure, FailureKind, Reporter, Silent, SourceFile};
use kiln_solver::{Cause, SolveError, Solver, Turns};
use kiln_store::{ActiveLayer, Snapshot, Store};

use crate::ahead;
use crate::answer::BuildResult;
use crate::arrival::{self, Arrived, place_of};
use crate::artifact::Artifact;
use crate::blocking::blocking;
use crate::cache::Cache;
use crate::context::{self, ContextChecks};
use crate::engine::Engine;
use crate::failure::environment;
use crate::frontend::{self, Loaded, Resolver, TimeOf};
use crate::job::{Basis, Images, Job, Result, Subject};
use crate::lock::{self, Pins};
use crate::mounts;
use crate::offline;
use crate::record::Draft;
use crate::remote::{Built, Imported, Names, Story, import};
use crate::request::{BuildRequest, Context, NamedContext, Output};
use crate::rewrite;
use crate::room::Memory;
use crate::scratch::Scratch;
use crate::session::Session;
use crate::space;
use crate::target::{Target, Union, platforms};
use crate::waiter::{Waiter, Watch};
use crate::wreck;

/// Steps wait as much as they work, so that a machine of few cores is good for this many.
const LEAST_JOBS: usize = 4;

/// How often what dead processes left is looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(3600);

/// What a graph is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To be solved.
    Build,
    /// To tell what solving it would do: nothing is fetched but what names lead to, and nothing is kept.
    Forecast,
    /// To be solved for comparison: nothing is kept of it.
    Verify,
}

/// A build that could begin.
pub(crate) struct Prepared {
    pub(crate) job: Arc<Job>,
    pub(crate) definition: Definition,
    /// One for each platform, in the order of the request.
    pub(crate) targets: Vec<Target>,
    pub(crate) unpacked: Vec<Scratch<ActiveLayer>>,
    pub(crate) imported: Imported,
}

/// Builds, and leaves a record of it.
pub(crate) async fn build(
    engine: &Engine,
    request: &BuildRequest,
    session: Arc<dyn Session>,
    reporter: Arc<dyn Reporter>,
) -> Result<BuildResult> {
    let request = &crate::export::settle(engine, with_default_output(request), reporter.as_ref()).await?;
    let store = engine.store()?;
    let mut draft = Draft::new(store.clone(), request, &platforms(request)?);
    let outcome = attempt(engine, request, (session, reporter), &mut draft).await;
    let outcome = outcome.map_err(|failure| space::explain(failure, &store.root()));
    let outcome = outcome.map_err(|failure| context::blame_state(failure, &request.context, &store.root()));
    let outcome = outcome.map_err(|failure| if request.is_locked { lock::blame(failure) } else { failure });
    draft.end(&outcome);
    outcome
}

async fn attempt(
    engine: &Engine,
    request: &BuildRequest,
    (session, reporter): (Arc<dyn Session>, Arc<dyn Reporter>),
    draft: &mut Draft,
) -> Result<BuildResult> {
    let waiter = Waiter::default();
    let prepared = prepare(engine, request, (session, reporter, waiter.watch()), Purpose::Build).await;
    let Prepared { job, definition, targets, unpacked, imported } = prepared?;
    draft.know(&job.project, &definition);
    for target in &targets {
        job.guard.check_config(&target.config)?;
    }
    for image in request.outputs.iter().filter_map(Output::image) {
        job.guard.check_annotations(&image.annotations)?;
    }
    let story = (!request.cache_to.is_empty()).then(Arc::<Story>::default);
    let names = names(request, &job, &definition);
    let cache = Cache::new(job.store.clone(), job.lease.clone(), job.origin.clone(), imported, story.clone());
    let cache = Arc::new(cache.with_names(names.clone()));
    ahead::check(&job, request, &cache, (&definition, &targets)).await?;
    let snapshots = solve(&cache, &job, request, (&definition, &targets), draft).await?;
    let built = story.as_deref().zip(names.as_ref()).map(|(story, names)| Built {
        job: &job,
        definition: &definition,
        cache: &cache,
        story,
        names,
        snapshots: &snapshots,
    });
    let mut solved = Vec::with_capacity(targets.len());
    for (mut target, snapshot) in targets.into_iter().zip(&snapshots) {
        target.config.cache = match &built {
            Some(built) => built.inline(&request.cache_to, snapshot).await?,
            None => None,
        };
        target.epoch = rewrite::epoch(request, target.epoch);
        let snapshot = rewrite::rewrite(&job, request, (snapshot, target.epoch)).await?;
        solved.push(target.solved(snapshot));
    }
    let mut result = crate::export::export(&job, request, &solved).await?;
    if let Some(built) = built {
        built.export(&request.cache_to).await?;
    }
    mounts::after_build(&job, &request.mounts_to).await?;
    result.reference = draft.reference();
    tidy(job, unpacked).await?;
    Ok(result)
}

/// BuildKit's names, when caches are exchanged.
pub(crate) fn names(request: &BuildRequest, job: &Job, definition: &Definition) -> Option<Arc<Names>> {
    let is_exchanged = !(request.cache_from.is_empty() && request.cache_to.is_empty());
    let limits = job.limits.key();
    is_exchanged.then(|| Arc::new(Names::of(definition, (&job.images, &job.trees), limits.as_deref())))
}

/// Reads and checks what is to be built, and makes its graph.
pub(crate) async fn prepare(
    engine: &Engine,
    request: &BuildRequest,
    (session, reporter, watch): (Arc<dyn Session>, Arc<dyn Reporter>, Watch),
    purpose: Purpose,
) -> Result<Prepared> {
    let platforms = platforms(request)?;
    let packings = crate::packing::packings(&request.outputs, &request.cache_to)?;
    crate::export::check(request)?;
    if engine.registry().is_offline() {
        offline::refuse_what_leaves(request)?;
    }
    let store = engine.store()?;
    let lease = store.lease().map_err(environment)?;
    let pins = Arc::default();
    let mut basis = Basis { store, lease, session, reporter, watch, purpose, pins };
    if request.is_locked {
        lock::must_be_pinned(request)?;
    }
    let mut arrived = arrival::receive(engine, request, &basis).await?;
    if request.is_locked {
        basis.pins = Arc::new(pins_of(engine, &arrived, &platforms)?);
    }
    arrived.receive_named(engine, &basis).await?;
    let Arrived { request, directory, unpacked, time, named_time } = arrived;
    let (request, reporter) = (&request, &basis.reporter);
    let Loaded { source, trees } = frontend::load(request, directory.as_deref(), reporter)?;
    let mut options = lower_options(engine, request, (Arc::clone(&source), &platforms));
    let file = frontend::parse(&options, reporter.as_ref())?;
    let whose = frontend::time_of(&file, &options, request);
    let time = time_of(engine, (request, directory.as_deref()), (&whose, time, named_time)).await;
    frontend::settle_epoch(&mut options, (request, &whose, time), reporter.as_ref());
    frontend::filters(&file, request, reporter.as_ref());
    let images = Arc::new(Images::default());
    let registry = engine.registry();
    let resolver = Resolver::new(engine, &basis, (Arc::clone(&images), request.pull), names_of(&platforms))
        .beside(directory.as_deref());
    let settings = frontend::settings(&source, &file, &request.build_args)?;
    frontend::judge(&source, &settings, frontend::check(&file, &settings, &options), reporter.as_ref())?;
    let imported = import(request, &registry, &platforms, reporter);
    let lowered = try_join_all(platforms.iter().map(|platform| {
        let options = LowerOptions { platform: platform.clone(), ..options.clone() };
        let (file, resolver) = (&file, &resolver);
        async move { Ok((platform.clone(), frontend::lower(file, &options, resolver).await?)) }
    }));
    let (lowered, imported) = tokio::join!(lowered, imported);
    let lowered = match registry.is_offline() {
        true => {
            let lone = Job::new(engine, request, &basis, Subject::default())?;
            let mut failures = offline::unknown(&lone, fetches(&file, &options, &platforms), &source).await;
            let lowered = lowered.map_err(|failure| failures.insert(0, failure));
            offline::joined(failures, offline::NEEDED)?;
            lowered.expect("its failure was one of them")
        }
        false => lowered?,
    };
    if request.is_locked {
        for (_, lowered) in &lowered {
            lock::require_fetches(&basis.pins, &lowered.fetches, &source)?;
        }
    }
    let Union { definition, targets, mut warnings, context_reads } = Union::of(lowered);
    warnings.extend(context::check(&trees, &context_reads, &settings.check, ContextChecks::Rules)?);
    frontend::judge(&source, &settings, settings.admit(&file, warnings), reporter.as_ref())?;
    let only_stage = frontend::only_stage(&file);
    let project = project(&request.context, source.name());
    let origin = origin(&request.context, source.name());
    let job = Job::new(engine, request, &basis, Subject { project, origin, trees, images, packings, only_stage })?;
    Ok(Prepared { job, definition, targets, unpacked, imported })
}

/// The time of a context. A directory of this machine has that of its commit.
async fn time_of(
    engine: &Engine,
    (request, directory): (&BuildRequest, Option<&Path>),
    (whose, main, named): (&TimeOf, Option<i64>, Option<i64>),
) -> Option<i64> {
    let (arrived, directory) = match whose {
        TimeOf::Nothing => return None,
        TimeOf::Context => (main, directory.filter(|_| matches!(request.context, Context::Dir(_)))),
        TimeOf::Named(name) => match request.contexts.get(name) {
            Some(NamedContext::Dir(path)) => (named, Some(path.as_path())),
            _ => (named, None),
        },
    };
    match (arrived, directory) {
        (None, Some(directory)) => frontend::commit_time(engine.host_env(), directory).await,
        _ => arrived,
    }
}

/// Steps of several platforms are told apart by their names.
fn names_of(platforms: &[Platform]) -> PlatformInNames {
    if platforms.len() > 1 { PlatformInNames::Shown } else { PlatformInNames::Hidden }
}

/// What is fetched for any of the platforms, as far as that is known without images.
fn fetches(file: &Dockerfile, options: &LowerOptions, platforms: &[Platform]) -> Vec<Fetch> {
    let mut all: Vec<Fetch> = Vec::new();
    for platform in platforms {
        let options = LowerOptions { platform: platform.clone(), ..options.clone() };
        for fetch in kiln_dockerfile::fetches(file, &options) {
            if !all.contains(&fetch) {
                all.push(fetch);
            }
        }
    }
    all
}

/// What the lock beside the Dockerfile holds. Fails when that is not all the build would ask for.
fn pins_of(engine: &Engine, arrived: &Arrived, platforms: &[Platform]) -> Result<Pins> {
    let Arrived { request, directory, .. } = arrived;
    let home = lock::Home::find(request, directory.as_deref())?;
    let Some(section) = home.section() else {
        return Err(home.missing());
    };
    let pins = Pins::all(section.clone(), home.path.clone());
    let source = frontend::read(request, directory.as_deref())?;
    let options = lower_options(engine, request, (source, platforms));
    let file = frontend::parse(&options, &Silent)?;
    for platform in platforms {
        lock::require(&pins, request, &file, &LowerOptions { platform: platform.clone(), ..options.clone() })?;
    }
    Ok(pins)
}

/// What the language is told, for the first of the platforms: also of the proxies that are given to steps.
fn lower_options(
    engine: &Engine,
    request: &BuildRequest,
    (source, platforms): (Arc<SourceFile>, &[Platform]),
) -> LowerOptions {
    let mut options = frontend::options(request, source, platforms[0].clone());
    options.platform_in_names = names_of(platforms);
    options.build_args.extend(engine.proxies().filter(|(name, _)| !request.build_args.contains_key(name)));
    options
}

/// Says what was kept and turned out to be broken: steps run again because of it.
fn tell_losses(store: &Store, reporter: &dyn Reporter) {
    for note in store.take_notes() {
        reporter.report(Event::Note(format!("warning: {note}")));
    }
}

/// Removes what the build no longer needs, and now and then what dead processes left. The result stands: trouble with
/// this is met by the next who writes.
async fn tidy(job: Arc<Job>, unpacked: Vec<Scratch<ActiveLayer>>) -> Result<()> {
    blocking(move || {
        drop(unpacked);
        job.materialized.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let _ = job.store.flush();
        let _ = job.store.sweep_if_due(SWEEP_EVERY);
        Ok(())
    })
    .await
}

/// A name for the project in the records of this machine: its directory and its Dockerfile.
fn project(context: &Context, dockerfile: &str) -> String {
    let mut hasher = Hasher::new();
    hasher.field(place_of(context).as_bytes());
    hasher.field(dockerfile.as_bytes());
    hasher.finish().short().to_owned()
}

/// What people call the project.
fn origin(context: &Context, dockerfile: &str) -> String {
    match place_of(context).as_str() {
        "" => dockerfile.to_owned(),
        directory => format!("{dockerfile} of {directory}"),
    }
}

pub(crate) fn with_default_output(request: &BuildRequest) -> BuildRequest {
    let mut request = request.clone();
    if request.outputs.is_empty() {
        request.outputs.push(Output::store());
    }
    request
}

fn wants_layers(request: &BuildRequest) -> bool {
    let is_tree = |output: &Output| matches!(output, Output::Tar { .. } | Output::Local { .. } | Output::CacheOnly);
    !request.outputs.iter().all(is_tree)
}

/// The files of every target.
async fn solve(
    cache: &Arc<Cache>,
    job: &Arc<Job>,
    request: &BuildRequest,
    (definition, targets): (&Definition, &[Target]),
    draft: &mut Draft,
) -> Result<Vec<Snapshot>> {
    let roots: Vec<Edge> = targets.iter().filter_map(|target| target.root.clone()).collect();
    if roots.is_empty() {
        return Ok(targets.iter().map(|_| Snapshot::scratch()).collect());
    }
    // Layers whose times are rewritten are others in the end.
    let is_final = wants_layers(request) && !rewrite::is_asked(request);
    let wanted = if is_final { roots.as_slice() } else { &[] };
    let image: HashSet<VertexId> = wanted.iter().flat_map(|root| layers_of(definition, root)).collect();
    let plan = crate::step::plan(definition, job, &|vertex| image.contains(&vertex.id))?;
    let solver = Solver::new(cache.clone(), cache.clone(), Arc::clone(&job.reporter), turns(request));
    let tell = |accounts| draft.steps(definition, &job.patience, accounts);
    let solved = solver.solve_with_accounts(&plan, &roots, tell).await;
    job.seen.forget();
    tell_losses(&job.store, job.reporter.as_ref());
    let mut solved = match solved {
        Ok(solved) => solved.into_iter(),
        Err(error) => {
            let vertex = error.vertex.clone();
            return Err(wreck::keep(job, request, (&vertex, draft.id()), solve_failure(error)).await);
        }
    };
    let snapshot = |target: &Target| match target.root.as_ref().map(|_| solved.next()) {
        None => Ok(Snapshot::scratch()),
        Some(Some(Artifact::Snapshot(snapshot))) => Ok(snapshot),
        Some(_) => Err(Failure::new(FailureKind::Bug, "a build ended without a file system")),
    };
    targets.iter().map(snapshot).collect()
}

/// As many as were asked for; else as many as the machine is good for, and fewer while its memory is short.
pub(crate) fn turns(request: &BuildRequest) -> Turns {
    let cores = || std::thread::available_parallelism().map_or(1, NonZero::get);
    match request.jobs {
        Some(jobs) => Turns::new(jobs.get()),
        None => Turns::new(cores().max(LEAST_JOBS)).within(Arc::new(Memory::default())),
    }
}

/// The vertices whose layers end up in the image: down from the root along what each one builds on.
pub(crate) fn layers_of(definition: &Definition, root: &Edge) -> Vec<VertexId> {
    let mut found = Vec::new();
    let mut open = vec![root.vertex.clone()];
    while let Some(vertex) = open.pop().and_then(|id| definition.vertex(&id)) {
        found.push(vertex.id.clone());
        let bases: Vec<i64> = match &vertex.op.op {
            Some(OpKind::Exec(op)) => {
                op.mounts.iter().filter(|mount| mount.dest == "/").map(|mount| mount.input).collect()
            }
            Some(OpKind::File(op)) => op.actions.iter().map(|action| action.input).collect(),
            Some(OpKind::Merge(op)) => op.inputs.iter().map(|input| input.input).collect(),
            _ => Vec::new(),
        };
        let inputs = bases.into_iter().filter_map(|base| vertex.inputs.get(usize::try_from(base).ok()?));
        open.extend(inputs.map(|edge| edge.vertex.clone()).filter(|id| !found.contains(id)));
    }
    found
}

/// A step's failure is the build's.
pub(crate) fn solve_failure(error: SolveError<Failure>) -> Failure {
    match error.source {
        Cause::Step(failure) => failure,
        other => Failure::from_error(FailureKind::Bug, &SolveError { source: other, ..error }),
    }
}
