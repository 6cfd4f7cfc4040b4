//! What became of each vertex of a solve, for whoever keeps a record of it.

use std::time::Duration;

use kiln_graph::VertexId;
use serde::{Deserialize, Serialize};

use crate::explain::MissReason;
use crate::parts::KeyParts;

/// What became of one vertex.
#[derive(Debug, Clone)]
pub struct Account {
    /// Which.
    pub id: VertexId,
    /// What people call it.
    pub name: String,
    /// Positions of the vertices it reads.
    pub inputs: Vec<usize>,
    /// What became of it.
    pub fate: Fate,
    /// How long it ran; nothing if it did not.
    pub time: Duration,
    /// Why it ran. What never lasts needs no reason.
    pub reason: Option<MissReason>,
    /// Whether it ran and gave what it gave before.
    pub is_same: bool,
    /// The ingredients of its key without the names of files, as far as the key was made and lasts.
    pub parts: Option<KeyParts>,
}

/// What became of a vertex.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// Its result was kept.
    Cached,
    /// All that reads it was cached.
    NotNeeded,
    /// It ran to its end.
    Ran,
    /// It could not be done.
    Failed,
    /// It was running when the solve ended.
    Canceled,
    /// The solve ended before it could begin.
    NotReached,
}
