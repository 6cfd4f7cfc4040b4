//! What a build would read, all of it here, for those who only look: checks, outlines, lists of files.

use std::path::PathBuf;
use std::sync::Arc;

use kiln_report::{Reporter, SourceFile};
use kiln_store::{ActiveLayer, Lease};

use crate::arrival::{self, Arrived};
use crate::context::Contexts;
use crate::engine::Engine;
use crate::failure::environment;
use crate::frontend;
use crate::job::{Basis, Result};
use crate::request::{BuildRequest, Context, DockerfileSource, NamedContext};
use crate::scratch::Scratch;
use crate::session::Session;
use crate::waiter::Waiter;
use crate::worker::Purpose;

/// A build's request, with all of its contexts in directories. What was fetched goes with it.
pub struct Gathered {
    request: BuildRequest,
    directory: Option<PathBuf>,
    _unpacked: Vec<Scratch<ActiveLayer>>,
    _lease: Option<Lease>,
}

impl BuildRequest {
    /// Whether all contexts are on this machine, and none in a tar.
    pub fn is_here(&self) -> bool {
        let is_remote = |context: &NamedContext| matches!(context, NamedContext::Remote(_));
        matches!(self.context, Context::Dir(_) | Context::Empty)
            && !matches!(self.dockerfile, DockerfileSource::Remote(_))
            && !self.contexts.values().any(is_remote)
    }
}

impl Gathered {
    /// A request for which [`BuildRequest::is_here`] holds.
    pub fn here(request: BuildRequest) -> Self {
        let directory = match &request.context {
            Context::Dir(path) => Some(path.clone()),
            Context::Empty | Context::Stdin | Context::Remote(_) => None,
        };
        Self { request, directory, _unpacked: Vec::new(), _lease: None }
    }

    /// The request.
    pub fn request(&self) -> &BuildRequest {
        &self.request
    }

    /// Reads the Dockerfile.
    pub fn dockerfile(&self) -> Result<SourceFile> {
        frontend::read_dockerfile(&self.request, self.directory.as_deref())
    }

    /// Opens the contexts, with their ignore rules. The Dockerfile need not be there.
    pub fn contexts(&self) -> Result<Contexts> {
        Contexts::of(&self.request, self.directory.as_deref())
    }
}

/// Fetches and unpacks what is elsewhere.
pub(crate) async fn gather(
    engine: &Engine,
    request: &BuildRequest,
    (session, reporter): (Arc<dyn Session>, Arc<dyn Reporter>),
) -> Result<Gathered> {
    let store = engine.store()?;
    let lease = store.lease().map_err(environment)?;
    let watch = Waiter::default().watch();
    let pins = Arc::default();
    let basis = Basis { store, lease, session, reporter, watch, purpose: Purpose::Build, pins };
    let mut arrived = arrival::receive(engine, request, &basis).await?;
    arrived.receive_named(engine, &basis).await?;
    let Arrived { request, directory, unpacked, .. } = arrived;
    Ok(Gathered { request, directory, _unpacked: unpacked, _lease: Some(basis.lease) })
}
