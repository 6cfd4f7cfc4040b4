//! Plans: the vertices of a graph joined to what does them.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use kiln_graph::{Edge, VertexId};
use kiln_oci::Digest;

use crate::key::CacheMap;
use crate::parts::Files;

/// Does one vertex. `R` is a result, cheap to clone; `E` is how it fails.
///
/// All of it may be dropped at any await: a solve that ends early drops what it no longer needs.
#[async_trait]
pub trait Step<R, E>: Send + Sync {
    /// Says who the step is. Asked once a solve, for every vertex that can be reached, so it should cost little.
    async fn cache_map(&self) -> Result<CacheMap, E>;

    /// Digests what the step reads of an input that counts by content.
    async fn content_digest(&self, input: usize, result: &R) -> Result<Digest, E>;

    /// Lists what the step reads of an input that counts by content, so that a miss can name a file. Asked only of
    /// a step that runs, before and after; empty when it cannot say.
    async fn listing(&self, _input: usize, _result: &R) -> Files {
        Files::new()
    }

    /// Whether two results differ surely when what was read of this input does, and no look at them is needed. To say no is
    /// never wrong.
    fn shows(&self, _input: usize) -> bool {
        false
    }

    /// Its outputs, where they are there without any work: a directory on the user's disk.
    async fn at_hand(&self) -> Option<Vec<R>> {
        None
    }

    /// Does it; gives its outputs in order.
    async fn run(&self, inputs: Vec<R>) -> Result<Vec<R>, E>;
}

/// One vertex of a [`Plan`].
pub struct PlanVertex<R, E> {
    /// The edges it reads, in the order its step knows them.
    pub inputs: Vec<Edge>,
    /// What does it.
    pub step: Arc<dyn Step<R, E>>,
    /// What people call it.
    pub name: String,
    /// Whether it must run although a result is kept. Its result replaces the kept one.
    pub ignore_cache: bool,
}

/// What could be done. What will be done is up to the roots asked for and to what is kept.
pub struct Plan<R, E> {
    vertices: HashMap<VertexId, PlanVertex<R, E>>,
}

impl<R, E> Plan<R, E> {
    /// Nothing.
    pub fn new() -> Self {
        Self { vertices: HashMap::new() }
    }

    /// Adds a vertex, or replaces the one of the same id.
    pub fn add(&mut self, id: VertexId, vertex: PlanVertex<R, E>) {
        self.vertices.insert(id, vertex);
    }

    /// The vertex of this id, if it is planned.
    pub fn vertex(&self, id: &VertexId) -> Option<&PlanVertex<R, E>> {
        self.vertices.get(id)
    }

    /// How many vertices there are.
    pub fn len(&self) -> usize {
        self.vertices.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.vertices.is_empty()
    }
}

impl<R, E> Default for Plan<R, E> {
    fn default() -> Self {
        Self::new()
    }
}
