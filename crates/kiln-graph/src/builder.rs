//! Builds a definition op by op.

use std::collections::BTreeMap;
use std::sync::Arc;

use kiln_oci::{Digest, Platform};
use kiln_report::{SourceFile, Span};
use prost::Message;

use crate::definition::{Definition, Edge, Vertex, VertexId};
use crate::llb;

/// What people are told about a vertex, and how the cache is to treat it. No part of its identity.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct VertexMeta {
    /// Its name in progress output: `[build 2/4] RUN go build`.
    pub name: String,
    /// Which text (index into [`Definition::sources`]) and where in it.
    pub source: Option<(usize, Span)>,
    /// Whether cached results must not be used (`--no-cache`).
    pub ignore_cache: bool,
    /// Free description, BuildKit's `OpMetadata.description`.
    pub description: BTreeMap<String, String>,
}

/// Collects ops into a [`Definition`]. Equal ops become one vertex.
#[derive(Debug, Default)]
pub struct Builder {
    definition: Definition,
}

impl Builder {
    /// An empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a text for spans to point into; gives its index.
    pub fn source(&mut self, file: Arc<SourceFile>) -> usize {
        self.definition.sources.push(file);
        self.definition.sources.len() - 1
    }

    /// Adds an op that reads `inputs`. Gives its first output; other outputs are the same vertex with a higher index.
    ///
    /// # Panics
    /// When an input is not from this builder.
    pub fn add(&mut self, op: llb::OpKind, inputs: Vec<Edge>, platform: Option<&Platform>, meta: VertexMeta) -> Edge {
        for input in &inputs {
            assert!(self.definition.vertices.contains_key(&input.vertex), "input {} is not in the graph", input.vertex);
        }
        let op = llb::Op {
            inputs: inputs
                .iter()
                .map(|edge| llb::Input { digest: edge.vertex.to_string(), index: edge.output as i64 })
                .collect(),
            op: Some(op),
            platform: platform.map(llb::Platform::from),
            constraints: None,
        };
        let bytes = op.encode_to_vec();
        let id = VertexId(Digest::sha256(&bytes));
        let vertex = Vertex { id: id.clone(), op, bytes, inputs, meta };
        // Whoever was first keeps its name; being told to ignore the cache by anyone counts.
        let ignore_cache = vertex.meta.ignore_cache;
        self.definition.vertices.entry(id.clone()).or_insert(vertex).meta.ignore_cache |= ignore_cache;
        Edge { vertex: id, output: 0 }
    }

    /// The graph.
    pub fn finish(self) -> Definition {
        self.definition
    }
}
