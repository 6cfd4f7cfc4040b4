//! Why a solve ended without results.

use kiln_graph::VertexId;

/// The first thing that went wrong in a solve, and where.
#[derive(Debug, thiserror::Error)]
#[error("cannot do `{name}`")]
pub struct SolveError<E: std::error::Error + 'static> {
    /// The vertex that failed.
    pub vertex: VertexId,
    /// What people call it; its id when the plan does not know it.
    pub name: String,
    /// Why.
    pub source: Cause<E>,
}

/// Why a vertex failed.
#[derive(Debug, thiserror::Error)]
pub enum Cause<E: std::error::Error + 'static> {
    /// Its step said so.
    #[error(transparent)]
    Step(E),
    /// Its step, or a store asked on its behalf, panicked.
    #[error("it broke off with `{message}`")]
    Panicked {
        /// What the panic said.
        message: String,
    },
    /// Somebody wants an output that its step did not give.
    #[error("it gave {given} outputs, but {wanted} are wanted")]
    MissingOutput {
        /// How many there are.
        given: usize,
        /// How many are wanted.
        wanted: usize,
    },
    /// Its step's cache map does not fit its inputs.
    #[error("its cache map has {mapped} inputs, but {inputs} are planned")]
    InputCount {
        /// Inputs of the cache map.
        mapped: usize,
        /// Inputs of the vertex.
        inputs: usize,
    },
    /// Something reads a vertex that is not in the plan.
    #[error("it is not in the plan")]
    Unknown,
    /// It waits for itself.
    #[error("it depends on itself")]
    Cycle,
}

impl<E: std::error::Error + 'static> SolveError<E> {
    /// What the step said, when it was the step that failed.
    pub fn step_error(&self) -> Option<&E> {
        match &self.source {
            Cause::Step(error) => Some(error),
            _ => None,
        }
    }
}
