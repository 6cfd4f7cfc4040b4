//! What steps hand to each other.

use std::sync::Arc;

use kiln_report::{Failure, FailureKind};
use kiln_store::Snapshot;

use crate::frontend::LocalTree;

/// A step's result.
#[derive(Debug, Clone)]
pub(crate) enum Artifact {
    /// A file system: layers, base first.
    Snapshot(Snapshot),
    /// A directory of the machine, read in place.
    Tree(Arc<LocalTree>),
}

impl Artifact {
    /// The file system, where a directory of the machine makes no sense.
    pub(crate) fn snapshot(&self) -> Result<&Snapshot, Failure> {
        match self {
            Self::Snapshot(snapshot) => Ok(snapshot),
            Self::Tree(tree) => {
                let message = format!("context `{}` cannot be the root of a step", tree.name());
                Err(Failure::new(FailureKind::Build, message))
            }
        }
    }
}
