//! Attempts at a step: how long each may run, and what becomes of one that failed.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use kiln_exec::{ContainerSpec, Error, ExitStatus, ProcessIo};
use kiln_report::{Event, Failure, FailureKind, LogStream};
use kiln_store::Snapshot;

use super::{ExecStep, hints};
use crate::artifact::Artifact;
use crate::blocking::blocking;
use crate::job::Result;
use crate::limited;
use crate::output::Output;
use crate::space;
use crate::step::mounts::{Held, unlent};
use crate::wreck::Wreck;

/// How long it takes until the second attempt; twice as long before each that follows.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(32);

/// How a process ended.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    /// By itself, or by a signal.
    Exited(ExitStatus),
    /// It had run as long as it may.
    OutOfTime(Duration),
}

/// What came of an attempt.
pub(super) enum Attempt {
    /// The results.
    Made(Vec<Snapshot>),
    /// Nothing.
    Failed(Broken),
}

/// A step that failed, and its files as it left them.
pub(super) struct Broken {
    held: Held,
    end: End,
    failure: Failure,
    /// Whether another attempt cannot fare better.
    is_final: bool,
}

impl ExecStep {
    /// Runs the step, again if it fails and may be tried again, each time from where it began.
    pub(super) async fn execute(&self, inputs: Vec<Artifact>) -> Result<Vec<Artifact>> {
        let (job, vertex) = (&self.place.job, &self.place.vertex);
        let attempts = 1 + job.patience.retries(self.place.stage());
        let (mut attempt, mut pause) = (1, FIRST_PAUSE);
        loop {
            let broken = match self.attempt(&inputs).await? {
                Attempt::Made(snapshots) => {
                    self.place.made(&snapshots);
                    return Ok(snapshots.into_iter().map(Artifact::Snapshot).collect());
                }
                Attempt::Failed(broken) => broken,
            };
            if attempt >= attempts || broken.is_final {
                return Err(self.give_up(broken, inputs, attempt).await);
            }
            let text = format!("attempt {attempt} of {attempts} failed ({}), the next is in {pause:?}\n", broken.end);
            let (stream, data, at) = (LogStream::Stderr, text.into_bytes(), SystemTime::now());
            job.reporter.report(Event::Log { vertex: vertex.clone(), stream, data, at });
            discard(broken.held).await;
            tokio::time::sleep(pause).await;
            attempt += 1;
            pause = (pause * 2).min(LONGEST_PAUSE);
            job.patience.note(vertex, attempt);
        }
    }

    /// Leaves the step's files for whoever wants to look at them, and says how it failed.
    async fn give_up(&self, broken: Broken, inputs: Vec<Artifact>, attempts: u32) -> Failure {
        let Broken { held, mut failure, is_final, .. } = broken;
        if attempts > 1 {
            failure.causes.push(format!("{attempts} attempts failed"));
        }
        let step = self.clone();
        let left = blocking(move || {
            let wreck = if is_final { None } else { Wreck::new(&step.place, &step.op, inputs, held) };
            wreck.into_iter().for_each(|wreck| step.place.job.wrecks.put(&step.place.vertex, wreck));
            Ok(())
        });
        // What cannot be kept is only not there to be looked at.
        let _ = left.await;
        failure
    }

    async fn attempt(&self, inputs: &[Artifact]) -> Result<Attempt> {
        let (step, inputs) = (self.clone(), inputs.to_vec());
        let platform = kiln_oci::Platform::from(&self.place.platform());
        let ready = blocking(move || {
            crate::emulation::check(&platform)?;
            step.prepare(&inputs)
        });
        let (spec, held, redactor) = ready.await?;
        let job = &self.place.job;
        let output = Output::new(Arc::clone(&job.reporter), self.place.vertex.clone(), redactor);
        let pipes = output.pipes()?;
        let group = spec.group.clone();
        let (end, ()) = tokio::join!(self.run_in_time(spec, pipes.container), output.forward(pipes.ours));
        let reached = limited::reached(group.as_deref());
        // Trees are kept or removed on a thread that may take its time.
        let end = match end {
            Ok(End::Exited(status)) if self.is_success(status) => {
                let job = Arc::clone(job);
                let keep = move || {
                    drop(group);
                    held.commit(&job)
                };
                return blocking(keep).await.map(Attempt::Made);
            }
            Ok(end) => end,
            Err(error) => {
                discard(held).await;
                return Err(self.not_started(&error));
            }
        };
        let state = job.store.root();
        let look = move || {
            drop(group);
            // Asked before what the step wrote is gone.
            Ok(space::is_full(&state))
        };
        let is_full = blocking(look).await?;
        let failure = self.failed(end, &output, reached);
        // When nothing can be written any more it is hardly the process's fault.
        let failure = if is_full { space::blame(failure, &job.store.root()) } else { failure };
        Ok(Attempt::Failed(Broken { held, end, failure, is_final: is_full }))
    }

    /// Runs the process. When its time is over all of the container is killed, and gone when this returns.
    async fn run_in_time(&self, spec: ContainerSpec, io: ProcessIo) -> std::result::Result<End, Error> {
        let job = &self.place.job;
        let running = job.executor.run(spec, io);
        let Some(limit) = job.patience.timeout(self.place.stage()) else {
            return running.await.map(End::Exited);
        };
        match tokio::time::timeout(limit, running).await {
            Ok(status) => status.map(End::Exited),
            Err(_) => Ok(End::OutOfTime(limit)),
        }
    }

    /// The process ended badly.
    fn failed(&self, end: End, output: &Output, reached: Option<(String, String)>) -> Failure {
        let message = format!("process `{}` did not complete successfully: {end}", self.command());
        let lines = output.last_lines();
        let (causes, mut hints) = match (end, reached) {
            // What met a limit says no more by what it printed.
            (_, Some((cause, hint))) => (vec![cause], vec![hint]),
            (End::Exited(status), None) => (Vec::new(), hints::for_failure(status, &lines)),
            (End::OutOfTime(_), None) => {
                (Vec::new(), vec!["give it more time with `--timeout`, or find out what it waited for".to_owned()])
            }
        };
        hints.extend(unlent(&self.op, self.place.job.session.as_ref()));
        Failure { output: lines, hints, causes, ..Failure::new(FailureKind::Build, message) }
    }
}

/// Removes trees on a thread that may take its time.
pub(super) async fn discard(held: Held) {
    let removed = blocking(move || {
        drop(held);
        Ok(())
    });
    // What cannot be removed now goes with the next sweep.
    let _ = removed.await;
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(ExitStatus::Code(code)) => write!(f, "exit code: {code}"),
            Self::Exited(ExitStatus::Signal(signal)) => write!(f, "killed by signal {signal}"),
            Self::OutOfTime(limit) => write!(f, "stopped after {limit:?}, as long as it may run"),
        }
    }
}
