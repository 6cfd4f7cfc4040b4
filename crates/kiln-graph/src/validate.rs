//! Reads a definition that came over the wire, trusting nothing in it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kiln_oci::Digest;
use kiln_report::SourceFile;
use prost::Message;

use crate::builder::VertexMeta;
use crate::definition::{Definition, Edge, Vertex, VertexId};
use crate::llb;

/// Says why bytes are no graph.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// Not protobuf of the right shape.
    #[error("vertex {index} cannot be decoded")]
    Decode {
        /// Position in the definition.
        index: usize,
        /// What protobuf said.
        #[source]
        source: prost::DecodeError,
    },
    /// An input names no vertex of the definition.
    #[error("vertex {vertex} reads `{input}`, which is not in the definition")]
    UnknownInput {
        /// Who reads.
        vertex: VertexId,
        /// What it names.
        input: String,
    },
    /// An input or mount index is negative or past the end.
    #[error("vertex {vertex} has index {index} where {limit} is the limit")]
    Index {
        /// Whose.
        vertex: VertexId,
        /// What it says.
        index: i64,
        /// What it may say at most.
        limit: usize,
    },
    /// The graph has no end or more than one.
    #[error("definition is empty")]
    Empty,
    /// Steps that wait for each other.
    #[error("vertex {0} depends on itself")]
    Cycle(VertexId),
}

impl Definition {
    /// Reads BuildKit's wire form. The last op names the wanted edge by its only input.
    pub fn from_llb(wire: &llb::Definition) -> Result<(Self, Edge), GraphError> {
        let mut vertices = BTreeMap::new();
        let mut last = None;
        for (index, bytes) in wire.def.iter().enumerate() {
            let op = llb::Op::decode(bytes.as_slice()).map_err(|source| GraphError::Decode { index, source })?;
            let id = VertexId(Digest::sha256(bytes));
            let meta = vertex_meta(wire, &id);
            last = Some(id.clone());
            vertices.insert(id.clone(), Vertex { id, op, bytes: bytes.clone(), inputs: Vec::new(), meta });
        }
        let last = last.ok_or(GraphError::Empty)?;
        link(&mut vertices)?;
        let root = vertices.remove(&last).and_then(|v| v.inputs.first().cloned()).ok_or(GraphError::Empty)?;
        let sources = wire.source.iter().flat_map(|s| &s.infos).map(|info| {
            Arc::new(SourceFile::new(info.filename.clone(), String::from_utf8_lossy(&info.data).into_owned()))
        });
        let definition = Self { sources: sources.collect(), vertices };
        check_cycles(&definition)?;
        Ok((definition, root))
    }

    /// Writes BuildKit's wire form of everything `root` needs.
    pub fn to_llb(&self, root: &Edge) -> llb::Definition {
        let mut wire = llb::Definition::default();
        for id in self.reachable(root) {
            let Some(vertex) = self.vertices.get(&id) else { continue };
            let mut description = vertex.meta.description.clone();
            if !vertex.meta.name.is_empty() {
                description.insert("llb.customname".into(), vertex.meta.name.clone());
            }
            let meta = llb::OpMetadata { ignore_cache: vertex.meta.ignore_cache, description };
            wire.metadata.insert(id.to_string(), meta);
            wire.def.push(vertex.bytes.clone());
        }
        let input = llb::Input { digest: root.vertex.to_string(), index: root.output as i64 };
        wire.def.push(llb::Op { inputs: vec![input], ..llb::Op::default() }.encode_to_vec());
        wire
    }
}

fn vertex_meta(wire: &llb::Definition, id: &VertexId) -> VertexMeta {
    let Some(meta) = wire.metadata.get(id.0.as_str()) else { return VertexMeta::default() };
    VertexMeta {
        name: meta.description.get("llb.customname").cloned().unwrap_or_default(),
        source: None,
        ignore_cache: meta.ignore_cache,
        description: meta.description.clone(),
    }
}

fn link(vertices: &mut BTreeMap<VertexId, Vertex>) -> Result<(), GraphError> {
    let outputs: HashMap<VertexId, usize> = vertices.iter().map(|(id, v)| (id.clone(), output_count(&v.op))).collect();
    for vertex in vertices.values_mut() {
        for input in &vertex.op.inputs {
            let unknown = || GraphError::UnknownInput { vertex: vertex.id.clone(), input: input.digest.clone() };
            let id = VertexId(input.digest.parse().map_err(|_| unknown())?);
            let limit = *outputs.get(&id).ok_or_else(unknown)?;
            let output = index(&vertex.id, input.index, limit)?;
            vertex.inputs.push(Edge { vertex: id, output });
        }
        check_indices(vertex)?;
    }
    Ok(())
}

fn output_count(op: &llb::Op) -> usize {
    match &op.op {
        Some(llb::OpKind::Exec(exec)) => exec.mounts.iter().filter(|m| m.output >= 0).count(),
        Some(llb::OpKind::File(file)) => file.actions.iter().filter(|a| a.output >= 0).count(),
        _ => 1,
    }
}

fn index(vertex: &VertexId, index: i64, limit: usize) -> Result<usize, GraphError> {
    let wrong = || GraphError::Index { vertex: vertex.clone(), index, limit };
    usize::try_from(index).ok().filter(|i| *i < limit).ok_or_else(wrong)
}

/// Every index an op may use: -1 for "none", inputs of the vertex, and for file ops also earlier actions.
fn check_indices(vertex: &Vertex) -> Result<(), GraphError> {
    let inputs = vertex.inputs.len();
    let within = |value: i64, limit: usize| if value == -1 { Ok(0) } else { index(&vertex.id, value, limit) };
    match &vertex.op.op {
        Some(llb::OpKind::Exec(exec)) => {
            for mount in &exec.mounts {
                within(mount.input, inputs)?;
                within(mount.output, exec.mounts.len())?;
            }
        }
        Some(llb::OpKind::File(file)) => {
            for (position, action) in file.actions.iter().enumerate() {
                within(action.input, inputs + position)?;
                within(action.secondary_input, inputs + position)?;
                within(action.output, file.actions.len())?;
            }
        }
        Some(llb::OpKind::Merge(merge)) => {
            merge.inputs.iter().try_for_each(|input| within(input.input, inputs).map(drop))?;
        }
        Some(llb::OpKind::Diff(diff)) => {
            let sides = diff.lower.iter().map(|l| l.input).chain(diff.upper.iter().map(|u| u.input));
            sides.map(|side| within(side, inputs)).try_for_each(|r| r.map(drop))?;
        }
        Some(llb::OpKind::Source(_) | llb::OpKind::Build(_)) | None => {}
    }
    Ok(())
}

/// Kahn's algorithm: what cannot be taken away is on a cycle. Digests make cycles next to impossible; hostile
/// input is checked all the same.
fn check_cycles(definition: &Definition) -> Result<(), GraphError> {
    let mut waiting: HashMap<&VertexId, usize> = HashMap::new();
    let mut readers: HashMap<&VertexId, Vec<&VertexId>> = HashMap::new();
    for vertex in definition.vertices.values() {
        waiting.insert(&vertex.id, vertex.inputs.len());
        vertex.inputs.iter().for_each(|input| readers.entry(&input.vertex).or_default().push(&vertex.id));
    }
    let mut ready: Vec<&VertexId> = waiting.iter().filter(|(_, n)| **n == 0).map(|(id, _)| *id).collect();
    while let Some(id) = ready.pop() {
        waiting.remove(id);
        for reader in readers.get(id).into_iter().flatten() {
            let Some(left) = waiting.get_mut(reader) else { continue };
            *left -= 1;
            if *left == 0 {
                ready.push(reader);
            }
        }
    }
    waiting.keys().next().map_or(Ok(()), |id| Err(GraphError::Cycle((*id).clone())))
}
