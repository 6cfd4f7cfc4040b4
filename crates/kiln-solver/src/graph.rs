//! The reachable part of a plan, inputs first, by position instead of by digest.

use std::collections::HashMap;
use std::sync::Arc;

use kiln_graph::{Edge, VertexId};

use crate::error::{Cause, SolveError};
use crate::plan::{Plan, Step};

/// What the roots depend on. Inputs have lower positions than their readers.
pub(crate) struct Graph<R, E> {
    pub(crate) nodes: Vec<Node<R, E>>,
    pub(crate) roots: Vec<Input>,
}

pub(crate) struct Node<R, E> {
    pub(crate) id: VertexId,
    pub(crate) name: String,
    pub(crate) step: Arc<dyn Step<R, E>>,
    pub(crate) ignore_cache: bool,
    pub(crate) inputs: Vec<Input>,
    /// How many outputs it must have so that everyone gets theirs.
    pub(crate) wanted: usize,
    /// How many edges lead to it, the roots' included.
    pub(crate) readers: usize,
}

/// An output of the node at a position.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Input {
    pub(crate) node: usize,
    pub(crate) output: usize,
}

/// Where the walk is with a vertex.
enum Mark {
    Open,
    Done(usize),
}

impl<R, E: std::error::Error + 'static> Graph<R, E> {
    /// Orders what `roots` depend on.
    pub(crate) fn new(plan: &Plan<R, E>, roots: &[Edge]) -> Result<Self, SolveError<E>> {
        let mut graph = Self { nodes: Vec::new(), roots: Vec::new() };
        let mut marks: HashMap<&VertexId, Mark> = HashMap::with_capacity(plan.len());
        // An explicit stack, because a chain may be longer than ours is deep.
        let mut stack: Vec<(&VertexId, bool)> = roots.iter().rev().map(|root| (&root.vertex, false)).collect();
        while let Some((id, inputs_done)) = stack.pop() {
            let unknown = || SolveError { vertex: id.clone(), name: id.to_string(), source: Cause::Unknown };
            let vertex = plan.vertex(id).ok_or_else(unknown)?;
            match marks.get(id) {
                Some(Mark::Done(_)) => continue,
                Some(Mark::Open) if !inputs_done => {
                    return Err(SolveError { vertex: id.clone(), name: vertex.name.clone(), source: Cause::Cycle });
                }
                _ => {}
            }
            if !inputs_done {
                marks.insert(id, Mark::Open);
                stack.push((id, true));
                stack.extend(vertex.inputs.iter().rev().map(|input| (&input.vertex, false)));
                continue;
            }
            let inputs = vertex.inputs.iter().map(|edge| graph.read(&marks, edge)).collect();
            marks.insert(id, Mark::Done(graph.nodes.len()));
            graph.nodes.push(Node {
                id: id.clone(),
                name: vertex.name.clone(),
                step: Arc::clone(&vertex.step),
                ignore_cache: vertex.ignore_cache,
                inputs,
                wanted: 0,
                readers: 0,
            });
        }
        graph.roots = roots.iter().map(|edge| graph.read(&marks, edge)).collect();
        Ok(graph)
    }

    /// Finds a node that is already ordered, and counts the reader.
    fn read(&mut self, marks: &HashMap<&VertexId, Mark>, edge: &Edge) -> Input {
        let Some(Mark::Done(node)) = marks.get(&edge.vertex) else { unreachable!("inputs are ordered first") };
        self.nodes[*node].readers += 1;
        self.nodes[*node].wanted = self.nodes[*node].wanted.max(edge.output + 1);
        Input { node: *node, output: edge.output }
    }
}
