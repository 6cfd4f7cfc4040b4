//! Reports the engine's own work, what is no vertex of the graph, as vertices of their own.

use std::sync::Arc;
use std::time::SystemTime;

use kiln_oci::Digest;
use kiln_report::{Event, Failure, Reporter, VertexState};

/// One piece of the engine's own work, such as `[internal] load build definition from Dockerfile`.
pub(crate) struct Work {
    reporter: Arc<dyn Reporter>,
    id: Digest,
    name: String,
    started: SystemTime,
}

impl Work {
    /// Says that it begins.
    pub(crate) fn start(reporter: &Arc<dyn Reporter>, name: impl Into<String>) -> Self {
        let name = name.into();
        let work = Self {
            reporter: Arc::clone(reporter),
            id: Digest::sha256(format!("work {name}")),
            name,
            started: SystemTime::now(),
        };
        work.report(VertexState::Started { at: work.started, reason: None });
        work
    }

    /// Where it reports to.
    pub(crate) fn reporter(&self) -> Arc<dyn Reporter> {
        Arc::clone(&self.reporter)
    }

    /// Its identity, for statuses.
    pub(crate) fn id(&self) -> &Digest {
        &self.id
    }

    /// Says that one part of it is over: BuildKit's `naming to … done`.
    pub(crate) fn part(&self, name: impl Into<String>) {
        let now = SystemTime::now();
        self.reporter.report(Event::Status {
            vertex: self.id.clone(),
            id: name.into(),
            current: 0,
            total: 0,
            started: now,
            completed: Some(now),
            at: now,
        });
    }

    /// Says how it ended.
    pub(crate) fn end<T>(self, result: Result<T, Failure>) -> Result<T, Failure> {
        let error = result.as_ref().err().map(ToString::to_string);
        self.complete(error, false);
        result
    }

    fn complete(&self, error: Option<String>, cached: bool) {
        let at = SystemTime::now();
        self.report(VertexState::Completed { started: self.started, at, cached, error, reason: None });
    }

    fn report(&self, state: VertexState) {
        self.reporter.report(Event::Vertex { id: self.id.clone(), name: self.name.clone(), inputs: Vec::new(), state });
    }
}
