//! The build graph: operations joined by edges, and the definition that carries them.
//!
//! The operations are BuildKit's LLB, and a vertex is named by the digest of its protobuf bytes, so that graphs
//! travel to and from BuildKit's clients. This crate must never know Dockerfiles, caches or execution.
#![forbid(unsafe_code)]

mod builder;
mod definition;
pub mod llb;
mod validate;

pub use builder::{Builder, VertexMeta};
pub use definition::{Definition, Edge, Vertex, VertexId};
pub use validate::GraphError;
