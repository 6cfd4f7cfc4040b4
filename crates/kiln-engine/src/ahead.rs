//! What is sure to fail is told before anything runs: content that must not be fetched, programs that nothing here can run,
//! secrets that nobody lends.

use std::collections::BTreeMap;
use std::sync::Arc;

use kiln_graph::llb::OpKind;
use kiln_graph::{Definition, Edge, Vertex, VertexId};
use kiln_oci::Platform;
use kiln_report::Failure;
use kiln_solver::{Solver, Verdict};

use crate::blocking::blocking;
use crate::cache::Cache;
use crate::job::{Job, Result};
use crate::offline::{NEEDED, joined};
use crate::request::{BuildRequest, Pull};
use crate::target::Target;
use crate::worker::{solve_failure, turns};
use crate::{emulation, step};

/// Fails when steps that are sure to run take from what is not here and stays away, run for another machine than any
/// that is here or emulated, or want secrets and agents that are not lent.
pub(crate) async fn check(
    job: &Arc<Job>,
    request: &BuildRequest,
    cache: &Cache,
    (definition, targets): (&Definition, &[Target]),
) -> Result<()> {
    let roots: Vec<Edge> = targets.iter().filter_map(|target| target.root.clone()).collect();
    let asks_nobody = job.registry.is_offline() || request.pull == Pull::Never;
    let (foreign, lacking) = (foreign(definition).await?, lacking(definition, job)?);
    if roots.is_empty() || !asks_nobody && foreign.is_empty() && lacking.is_empty() {
        return Ok(());
    }
    let plan = step::plan(definition, job, &|_| false)?;
    let cache = Arc::new(cache.clone().only_looking());
    let solver = Solver::new(cache.clone(), cache, Arc::clone(&job.reporter), turns(request));
    let forecast = solver.forecast(&plan, &roots).await.map_err(solve_failure)?;
    let needed = forecast.iter().filter(|step| step.verdict == Verdict::WouldRun);
    let vertices: Vec<&Vertex> = needed.filter_map(|step| definition.vertex(&step.id)).collect();
    let first = vertices.iter().find_map(|vertex| Some((vertex, foreign.get(&runs_for(vertex)?.to_string())?)));
    if let Some((vertex, failure)) = first {
        let excerpt = step::excerpt(definition, vertex);
        return Err(excerpt.into_iter().fold(failure.clone(), Failure::at));
    }
    let mut failures = Vec::new();
    for vertex in &vertices {
        let excerpt = step::excerpt(definition, vertex);
        let failure = lacking.get(&vertex.id).cloned();
        failures.extend(failure.map(|failure| excerpt.into_iter().fold(failure, Failure::at)));
    }
    joined(failures, NEEDED)?;
    if !asks_nobody {
        return Ok(());
    }
    let asked = vertices.into_iter().map(|vertex| step::lacks(definition, vertex, job));
    joined(futures::future::join_all(asked).await.into_iter().filter_map(Result::err).collect(), NEEDED)
}

/// The steps that must have what is not lent.
fn lacking(definition: &Definition, job: &Job) -> Result<BTreeMap<VertexId, Failure>> {
    let mut lacking = BTreeMap::new();
    for vertex in definition.vertices() {
        let Some(OpKind::Exec(op)) = &vertex.op.op else { continue };
        if let Some(failure) = step::lacking(op, job.session.as_ref())? {
            lacking.insert(vertex.id.clone(), failure);
        }
    }
    Ok(lacking)
}

/// The platforms that steps run for and nothing here can, each with the failure that says so.
async fn foreign(definition: &Definition) -> Result<BTreeMap<String, Failure>> {
    let wanted: BTreeMap<String, Platform> =
        definition.vertices().filter_map(runs_for).map(|platform| (platform.to_string(), platform)).collect();
    let check = |(name, platform): (String, Platform)| Some((name, emulation::check(&platform).err()?));
    blocking(move || Ok(wanted.into_iter().filter_map(check).collect())).await
}

/// The platform that a step runs programs of.
fn runs_for(vertex: &Vertex) -> Option<Platform> {
    let is_exec = matches!(vertex.op.op, Some(OpKind::Exec(_)));
    vertex.op.platform.as_ref().filter(|_| is_exec).map(Platform::from)
}
