//! A definition: the vertices of one graph, by id, with what people are told about them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use kiln_oci::Digest;
use kiln_report::SourceFile;

use crate::builder::VertexMeta;
use crate::llb;

/// The identity of a vertex: the digest of its op's bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VertexId(pub Digest);

impl fmt::Display for VertexId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One output of a vertex.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Edge {
    /// The vertex.
    pub vertex: VertexId,
    /// Which of its outputs, from 0.
    pub output: usize,
}

/// One operation of the graph.
#[derive(Debug, Clone)]
pub struct Vertex {
    /// Its identity.
    pub id: VertexId,
    /// The operation, inputs and platform included.
    pub op: llb::Op,
    /// The bytes the identity was taken from.
    pub bytes: Vec<u8>,
    /// The edges it reads, in the op's order.
    pub inputs: Vec<Edge>,
    /// What people are told, and how the cache is to treat it.
    pub meta: VertexMeta,
}

/// A validated graph. Every input of every vertex is in it, and there is no cycle.
#[derive(Debug, Clone, Default)]
pub struct Definition {
    pub(crate) vertices: BTreeMap<VertexId, Vertex>,
    pub(crate) sources: Vec<Arc<SourceFile>>,
}

impl Definition {
    /// The vertex of this id, if it is part of the graph.
    pub fn vertex(&self, id: &VertexId) -> Option<&Vertex> {
        self.vertices.get(id)
    }

    /// All vertices, ordered by id.
    pub fn vertices(&self) -> impl Iterator<Item = &Vertex> {
        self.vertices.values()
    }

    /// The texts that vertices' spans point into.
    pub fn sources(&self) -> &[Arc<SourceFile>] {
        &self.sources
    }

    /// Adds another graph's vertices; equal vertices become one.
    pub fn merge(&mut self, other: Self) {
        let shift = self.sources.len();
        self.sources.extend(other.sources);
        for (id, mut vertex) in other.vertices {
            vertex.meta.source = vertex.meta.source.map(|(index, span)| (index + shift, span));
            self.vertices.entry(id).or_insert(vertex);
        }
    }

    /// What a frontend result needs of the graph: everything `edge` depends on, itself included, inputs first.
    pub fn reachable(&self, edge: &Edge) -> Vec<VertexId> {
        let mut order = Vec::new();
        let mut seen = std::collections::HashSet::new();
        // An explicit stack, because chains of a hundred thousand steps must not overflow ours.
        let mut stack = vec![(edge.vertex.clone(), false)];
        while let Some((id, done)) = stack.pop() {
            if done {
                order.push(id);
                continue;
            }
            if !seen.insert(id.clone()) {
                continue;
            }
            stack.push((id.clone(), true));
            let inputs = self.vertices.get(&id).map(|v| v.inputs.as_slice()).unwrap_or_default();
            stack.extend(inputs.iter().rev().map(|input| (input.vertex.clone(), false)));
        }
        order
    }
}
