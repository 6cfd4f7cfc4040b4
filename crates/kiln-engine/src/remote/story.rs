//! What a build asked and learned, so that it can be told to other builds.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use kiln_graph::VertexId;
use kiln_oci::Digest;
use kiln_solver::{CacheKey, ContentFact};

/// Hears a build's keys and facts. Kept only when they are to be given away.
#[derive(Debug, Default)]
pub(crate) struct Story(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    keys: BTreeMap<VertexId, BTreeSet<(CacheKey, Digest)>>,
    contents: HashMap<ContentFact, Digest>,
}

impl Story {
    /// A vertex has this key and shape.
    pub(crate) fn identified(&self, vertex: &VertexId, key: &CacheKey, shape: &Digest) {
        self.told().keys.entry(vertex.clone()).or_default().insert((key.clone(), shape.clone()));
    }

    /// What is read of another step's result has this digest. What was learned last counts.
    pub(crate) fn content(&self, fact: &ContentFact, digest: &Digest) {
        self.told().contents.insert(fact.clone(), digest.clone());
    }

    /// The keys and shapes of all vertices, in an order that does not depend on which was told first.
    pub(crate) fn keys(&self) -> Vec<(VertexId, CacheKey, Digest)> {
        let told = self.told();
        let all = told.keys.iter().flat_map(|(vertex, keys)| {
            keys.iter().map(move |(key, shape)| (vertex.clone(), key.clone(), shape.clone()))
        });
        all.collect()
    }

    /// All facts about contents, in such an order too.
    pub(crate) fn contents(&self) -> Vec<(ContentFact, Digest)> {
        let mut all: Vec<_> =
            self.told().contents.iter().map(|(fact, digest)| (fact.clone(), digest.clone())).collect();
        all.sort_by(|(a, _), (b, _)| (&a.input, a.output, &a.selector).cmp(&(&b.input, b.output, &b.selector)));
        all
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
