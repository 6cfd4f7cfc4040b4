//! Merge steps: inputs laid over each other. Layers stand alone, so nothing is copied.

use async_trait::async_trait;
use kiln_graph::llb::MergeOp;
use kiln_oci::Digest;
use kiln_report::{Failure, FailureKind};
use kiln_solver::{CacheMap, InputKey, KeyParts, Step};
use kiln_store::Snapshot;

use crate::artifact::Artifact;
use crate::step::Place;

/// One merge vertex.
pub(crate) struct MergeStep {
    pub(crate) place: Place,
    pub(crate) op: MergeOp,
}

#[async_trait]
impl Step<Artifact, Failure> for MergeStep {
    async fn cache_map(&self) -> Result<CacheMap, Failure> {
        let mut hasher = self.place.hasher("merge");
        self.op.inputs.iter().for_each(|input| hasher.field(&input.input.to_le_bytes()));
        let inputs = vec![InputKey::Definition; self.place.inputs];
        Ok(self.place.cache_map(hasher.finish(), inputs, KeyParts::default()))
    }

    async fn content_digest(&self, _input: usize, _result: &Artifact) -> Result<Digest, Failure> {
        Err(Failure::new(FailureKind::Bug, "a merge reads no content"))
    }

    async fn run(&self, inputs: Vec<Artifact>) -> Result<Vec<Artifact>, Failure> {
        let mut merged = Snapshot::scratch();
        for input in &self.op.inputs {
            let index = usize::try_from(input.input).ok().and_then(|index| inputs.get(index));
            if let Some(artifact) = index {
                merged = merged.stacked(artifact.snapshot()?);
            }
        }
        Ok(vec![Artifact::Snapshot(merged)])
    }
}
