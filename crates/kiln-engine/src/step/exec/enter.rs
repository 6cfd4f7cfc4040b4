//! Into a step, to look around: its op with another command, on somebody's terminal or streams.

use std::sync::Arc;

use kiln_exec::{ExitStatus, Stdio};
use kiln_graph::llb::{ExecOp, Platform};
use kiln_report::Failure;

use super::ExecStep;
use super::attempt::discard;
use crate::artifact::Artifact;
use crate::blocking::blocking;
use crate::job::{Job, Result};
use crate::step::Place;

/// Runs an op outside a graph. Nothing of what it writes is kept, but for what goes into cache mounts.
pub(crate) async fn enter(
    job: &Arc<Job>,
    op: ExecOp,
    platform: Platform,
    inputs: Vec<Artifact>,
    stdio: Stdio,
) -> Result<ExitStatus> {
    let place = Place { platform: Some(platform), ..Place::outside(job, None) };
    let step = ExecStep::new(place, op)?;
    let ready = blocking(move || {
        crate::emulation::check(&kiln_oci::Platform::from(&step.place.platform()))?;
        step.prepare(&inputs)
    });
    let (spec, held, _) = ready.await?;
    let status = job.executor.run(spec, stdio).await;
    discard(held).await;
    status.map_err(|error| Failure::from_error(crate::run::kind(&error), &error))
}
