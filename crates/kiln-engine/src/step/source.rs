//! Source steps: base images, contexts, files from the web, git repositories.

use std::sync::Arc;

use async_trait::async_trait;
use kiln_graph::llb::SourceOp;
use kiln_oci::Digest;
use kiln_report::{Failure, FailureKind};
use kiln_solver::{Base, CacheMap, KeyParts, Step};

use crate::arrival::shown;
use crate::artifact::Artifact;
use crate::base::{BaseImage, Meter};
use crate::frontend::LocalTree;
use crate::job::Result;
use crate::lock::Kind;
use crate::offline::not_here;
use crate::step::Place;

mod git;
mod http;

pub(crate) use git::{list as repositories, remove_mirror as remove_repository};

/// Picks what brings a source in, by its scheme.
pub(crate) fn step(place: Place, op: SourceOp) -> Result<Arc<dyn Step<Artifact, Failure>>> {
    let unknown = |what: &str| Failure::new(FailureKind::Bug, format!("source `{}` {what}", op.identifier));
    match op.identifier.split_once("://") {
        Some(("docker-image" | "oci-layout", _)) => {
            let image =
                place.job.images.find(&op.identifier, &place.platform()).ok_or_else(|| unknown("was not resolved"))?;
            Ok(Arc::new(ImageStep { place, image, identifier: op.identifier }))
        }
        Some(("local", name)) => match place.job.trees.get(name) {
            Some(tree) => Ok(Arc::new(TreeStep { tree: Some(Arc::clone(tree)), place })),
            None => Ok(Arc::new(TreeStep { tree: None, place })),
        },
        Some(("git", _)) => Ok(Arc::new(git::GitStep::new(place, op)?)),
        Some(("http" | "https", _)) => Ok(Arc::new(http::HttpStep::new(place, op))),
        _ => Err(Failure::new(FailureKind::Build, format!("source `{}` is of a kind kiln cannot read", op.identifier))),
    }
}

/// What a lock calls what an op fetches; none when the op itself says what that must be, and for images.
pub(crate) fn lock_name(op: &SourceOp) -> Option<(Kind, String)> {
    match op.identifier.split_once("://") {
        Some(("git", _)) => git::lock_name(op.clone()).map(|name| (Kind::Repository, name)),
        Some(("http" | "https", _)) => {
            let is_open = !op.attrs.contains_key("http.checksum");
            is_open.then(|| (Kind::Download, shown(&op.identifier)))
        }
        _ => None,
    }
}

/// What an op stands for now, as a lock says it.
pub(super) async fn pin(place: Place, op: SourceOp) -> Result<String> {
    match op.identifier.split_once("://") {
        Some(("git", _)) => git::GitStep::new(place, op)?.pin().await,
        _ => http::HttpStep::new(place, op).pin().await,
    }
}

/// Whether it is known what an op stands for. Images are asked about before there are ops.
pub(super) async fn known(place: Place, op: SourceOp) -> Result<()> {
    match op.identifier.split_once("://") {
        Some(("git", _)) => git::GitStep::new(place, op)?.known().await,
        Some(("http" | "https", _)) => http::HttpStep::new(place, op).known().await,
        _ => Ok(()),
    }
}

/// Fails when what an op stands for would have to be fetched, and must not be.
pub(super) async fn lacks(place: Place, op: SourceOp) -> Result<()> {
    match op.identifier.split_once("://") {
        Some(("docker-image", _)) => {
            let Some(image) = place.job.images.find(&op.identifier, &place.platform()) else { return Ok(()) };
            match image.is_here(&place.job.store)? {
                true => Ok(()),
                false => Err(place.blame(not_here(&format!("image `{}`, or a layer of it,", image.name)))),
            }
        }
        Some(("git", _)) if place.job.registry.is_offline() => git::GitStep::new(place, op)?.lacks().await,
        Some(("http" | "https", _)) if place.job.registry.is_offline() => http::HttpStep::new(place, op).lacks().await,
        _ => Ok(()),
    }
}

/// A base image.
struct ImageStep {
    place: Place,
    image: Arc<BaseImage>,
    identifier: String,
}

#[async_trait]
impl Step<Artifact, Failure> for ImageStep {
    /// An image's files are its layers: two names for the same layers are one step, whoever serves them.
    async fn cache_map(&self) -> Result<CacheMap> {
        let mut hasher = self.place.hasher("image");
        let diff_ids = &self.image.config.rootfs.diff_ids;
        diff_ids.iter().for_each(|diff_id| hasher.field(diff_id.as_str().as_bytes()));
        let digest = hasher.finish();
        let reference = self.identifier.split_once("://").map_or("", |(_, name)| name);
        let reference = reference.split('@').next().unwrap_or(reference).to_owned();
        let parts = KeyParts { base: Some(Base { reference, digest: digest.clone() }), ..KeyParts::default() };
        Ok(self.place.cache_map(digest, Vec::new(), parts))
    }

    async fn content_digest(&self, _input: usize, _result: &Artifact) -> Result<Digest> {
        Err(no_inputs())
    }

    async fn run(&self, _inputs: Vec<Artifact>) -> Result<Vec<Artifact>> {
        let job = &self.place.job;
        let meter = Arc::new(Meter {
            reporter: Arc::clone(&job.reporter),
            vertex: self.place.vertex.clone(),
            limits: job.registry.limits(),
        });
        let snapshot = self.image.unpack(&job.store, &job.lease, &meter).await;
        job.registry.tell_mirrors(job.reporter.as_ref());
        let snapshot = snapshot.map_err(|failure| self.place.blame(failure))?;
        self.image.keep_documents(&job.store, &snapshot);
        Ok(vec![Artifact::Snapshot(snapshot)])
    }
}

/// A context. It is read in place, so to "run" it is only to hand it on, and nothing about it lasts.
struct TreeStep {
    tree: Option<Arc<LocalTree>>,
    place: Place,
}

#[async_trait]
impl Step<Artifact, Failure> for TreeStep {
    async fn cache_map(&self) -> Result<CacheMap> {
        let mut hasher = self.place.hasher("tree");
        hasher.field(self.place.vertex.as_str().as_bytes());
        let map = self.place.cache_map(hasher.finish(), Vec::new(), KeyParts::default());
        Ok(CacheMap { pinned: false, ..map })
    }

    async fn content_digest(&self, _input: usize, _result: &Artifact) -> Result<Digest> {
        Err(no_inputs())
    }

    async fn at_hand(&self) -> Option<Vec<Artifact>> {
        self.tree.as_ref().map(|tree| vec![Artifact::Tree(Arc::clone(tree))])
    }

    async fn run(&self, _inputs: Vec<Artifact>) -> Result<Vec<Artifact>> {
        match &self.tree {
            Some(tree) => Ok(vec![Artifact::Tree(Arc::clone(tree))]),
            None => {
                let failure = Failure::new(FailureKind::Build, "there is no build context to copy from");
                Err(self.place.blame(failure.hint("name a directory as the build context, instead of `-`")))
            }
        }
    }
}

fn no_inputs() -> Failure {
    Failure::new(FailureKind::Bug, "a source has no inputs")
}
