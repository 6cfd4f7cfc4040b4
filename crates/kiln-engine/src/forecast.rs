//! What a build would do, told without doing it.

use std::sync::Arc;

use kiln_graph::Edge;
use kiln_report::Reporter;
use kiln_solver::{MissReason, Solver, Verdict};
use serde::Serialize;

use crate::cache::Cache;
use crate::engine::Engine;
use crate::job::Result;
use crate::request::BuildRequest;
use crate::session::Session;
use crate::waiter::Waiter;
use crate::worker::{self, Prepared, Purpose};

/// What a build would do.
#[derive(Debug, Clone, Serialize)]
pub struct Forecast {
    /// How many steps would run for sure.
    pub would_run: usize,
    /// How many steps may hit: that depends on what others make.
    pub may_hit: usize,
    /// How many steps are cached, or not needed because all that reads them is.
    pub cached: usize,
    /// The steps, inputs first.
    pub steps: Vec<ForecastStep>,
}

/// What would become of a step.
#[derive(Debug, Clone, Serialize)]
pub struct ForecastStep {
    /// What people call it.
    pub name: String,
    /// What would become of it.
    pub verdict: Verdict,
    /// Why it would run.
    pub reason: Option<MissReason>,
    /// The same in words, or what it depends on.
    pub text: Option<String>,
    /// First and last line of its instruction, from 1.
    pub lines: Option<(usize, usize)>,
}

/// Reads what is to be built, and what is kept. Nothing of it is written.
pub(crate) async fn forecast(
    engine: &Engine,
    request: &BuildRequest,
    session: Arc<dyn Session>,
    reporter: Arc<dyn Reporter>,
) -> Result<Forecast> {
    let request = &worker::with_default_output(request);
    let waiter = Waiter::default();
    let store = engine.store()?;
    let prepared = worker::prepare(engine, request, (session, reporter, waiter.watch()), Purpose::Forecast).await;
    let steps = match prepared {
        Ok(prepared) => steps(request, prepared).await,
        Err(failure) => Err(failure),
    };
    // Leases write down what was collected when they end; what is left by now is only what was looked at.
    store.forget_pending();
    let steps = steps?;
    let count = |verdicts: &[Verdict]| steps.iter().filter(|step| verdicts.contains(&step.verdict)).count();
    Ok(Forecast {
        would_run: count(&[Verdict::WouldRun]),
        may_hit: count(&[Verdict::MayHit]),
        cached: count(&[Verdict::Cached, Verdict::NotNeeded]),
        steps,
    })
}

async fn steps(request: &BuildRequest, prepared: Prepared) -> Result<Vec<ForecastStep>> {
    let Prepared { job, definition, targets, imported, .. } = prepared;
    let roots: Vec<Edge> = targets.into_iter().filter_map(|target| target.root).collect();
    if roots.is_empty() {
        return Ok(Vec::new());
    }
    let definition = &definition;
    let plan = crate::step::plan(definition, &job, &|_| false)?;
    let cache = Cache::new(job.store.clone(), job.lease.clone(), job.origin.clone(), imported, None);
    let cache = Arc::new(cache.with_names(worker::names(request, &job, definition)).only_looking());
    let solver = Solver::new(cache.clone(), cache, Arc::clone(&job.reporter), worker::turns(request));
    let forecast = solver.forecast(&plan, &roots).await;
    job.store.forget_pending();
    let step = |vertex: kiln_solver::Forecast| {
        let lines = crate::record::lines(definition, &vertex.id)?;
        let kiln_solver::Forecast { name, verdict, reason, text, .. } = vertex;
        Some(ForecastStep { name, verdict, reason, text, lines: Some(lines) })
    };
    Ok(forecast.map_err(worker::solve_failure)?.into_iter().filter_map(step).collect())
}
