//! Solves: drives one job to its results, or to its first error.

use std::sync::Arc;

use kiln_graph::Edge;
use kiln_report::Reporter;

use crate::account::Account;
use crate::error::SolveError;
use crate::forecast::{Forecast, forecast};
use crate::graph::Graph;
use crate::job::{Job, Shared};
use crate::plan::Plan;
use crate::store::{KeyStore, ResultStore};
use crate::turns::Turns;

/// Decides what must run, runs it once, and says why. Solves may overlap; they share the stores and the turns.
pub struct Solver<R> {
    shared: Arc<Shared<R>>,
    reporter: Arc<dyn Reporter>,
}

impl<R: Clone + Send + Sync + 'static> Solver<R> {
    /// A solver whose steps run when it is their turn.
    pub fn new(
        keys: Arc<dyn KeyStore>,
        results: Arc<dyn ResultStore<R>>,
        reporter: Arc<dyn Reporter>,
        turns: Turns,
    ) -> Self {
        Self { shared: Arc::new(Shared { keys, results, turns }), reporter }
    }

    /// Gives the results of `roots`, in order, running only what is not kept.
    ///
    /// The first error ends it; whatever else was running is dropped, and has stopped when this returns. Dropping the
    /// future stops everything too, as soon as each step comes to its next await. Needs a tokio runtime.
    pub async fn solve<E>(&self, plan: &Plan<R, E>, roots: &[Edge]) -> Result<Vec<R>, SolveError<E>>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        self.solve_with_accounts(plan, roots, drop).await
    }

    /// Tells what a solve would do, running nothing and keeping nothing. What is kept is looked at, and what is at hand.
    pub async fn forecast<E>(&self, plan: &Plan<R, E>, roots: &[Edge]) -> Result<Vec<Forecast>, SolveError<E>>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        forecast(&self.shared, plan, roots).await
    }

    /// Does what [`Self::solve`] does, and tells what became of each vertex, inputs first, however it ends; also when it
    /// is dropped.
    pub async fn solve_with_accounts<E>(
        &self,
        plan: &Plan<R, E>,
        roots: &[Edge],
        tell: impl FnOnce(Vec<Account>),
    ) -> Result<Vec<R>, SolveError<E>>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let (job, mut failures) =
            Job::new(Arc::clone(&self.shared), Arc::clone(&self.reporter), Graph::new(plan, roots)?);
        let ending = Ending { job: Arc::clone(&job), tell: Some(tell) };
        let outcome = tokio::select! {
            biased;
            Some(error) = failures.recv() => Err(error),
            results = job.drive() => Ok(results),
        };
        job.stop().await;
        drop(ending);
        outcome
    }
}

/// Ends a job however its solve ends; a future that is dropped has no other place to do it.
struct Ending<R, E, F>
where
    R: Clone + Send + Sync + 'static,
    E: std::error::Error + Send + Sync + 'static,
    F: FnOnce(Vec<Account>),
{
    job: Arc<Job<R, E>>,
    tell: Option<F>,
}

impl<R, E, F> Drop for Ending<R, E, F>
where
    R: Clone + Send + Sync + 'static,
    E: std::error::Error + Send + Sync + 'static,
    F: FnOnce(Vec<Account>),
{
    fn drop(&mut self) {
        self.job.abandon();
        if let Some(tell) = self.tell.take() {
            tell(self.job.accounts());
        }
    }
}
