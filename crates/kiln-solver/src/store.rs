//! What outlives a solve: facts about keys, and results.

use async_trait::async_trait;
use kiln_graph::VertexId;
use kiln_oci::Digest;

use crate::key::CacheKey;
use crate::parts::KeyParts;

/// Names a content digest: what of which output of whom.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ContentFact {
    /// The key of the vertex it is about.
    pub input: CacheKey,
    /// Which of its outputs.
    pub output: usize,
    /// What is read of it.
    pub selector: String,
}

/// Keeps facts about keys. All of it may be lost at any time: that costs work, never rightness.
///
/// Called from async code without a thread of its own, so each call should take microseconds. The solver writes only
/// after something ran or was digested, never for a build that found everything.
pub trait KeyStore: Send + Sync {
    /// The content digest kept for this.
    fn content(&self, fact: &ContentFact) -> Option<Digest>;

    /// Keeps a content digest; a new one replaces the old.
    fn put_content(&self, fact: &ContentFact, digest: &Digest);

    /// Whether a result was ever saved for a key of this shape. To say yes wrongly costs parallelism; to say no
    /// wrongly may run inputs of a step that turns out to be kept.
    fn has_shape(&self, shape: &Digest) -> bool;

    /// Remembers the shape of a key whose result was saved. Whoever saves results by another way tells it too.
    fn put_shape(&self, shape: &Digest);

    /// The older key whose result serves for this one too.
    fn same_as(&self, key: &CacheKey) -> Option<CacheKey>;

    /// Remembers that running under `key` gave what `older` has. Called before the result is saved.
    fn put_same_as(&self, key: &CacheKey, older: &CacheKey);

    /// What went into the key when the step of this identity ran, the last few times it was something else; newest first.
    fn parts(&self, identity: &str) -> Vec<KeyParts>;

    /// Keeps them, instead of what was kept under this identity.
    fn put_parts(&self, identity: &str, sets: Vec<KeyParts>);

    /// The identity of the step that ran last of those that stood at a place.
    fn occupant(&self, place: &str) -> Option<String>;

    /// Notes that a step ran that stands at a place.
    fn put_occupant(&self, place: &str, identity: &str);

    /// Whether the result of a key was lost: it was broken, and nobody removed it on purpose.
    fn is_lost(&self, _key: &CacheKey) -> bool {
        false
    }

    /// Hears the key of a vertex whose results may be kept, and its shape; twice, when what it was made of turned out
    /// to be something else. Who gives a build's results away needs to know.
    fn identified(&self, _vertex: &VertexId, _key: &CacheKey, _shape: &Digest) {}
}

/// The right to run the step of one key, among all who share a store. Dropping it lets the next one in.
pub struct Claim(Option<Box<dyn Send + Sync>>);

impl Claim {
    /// A claim that `guard` lets go of when it is dropped.
    pub fn held(guard: impl Send + Sync + 'static) -> Self {
        Self(Some(Box::new(guard)))
    }

    /// A claim where nobody else shares the store.
    pub fn free() -> Self {
        Self(None)
    }
}

impl std::fmt::Debug for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Claim({})", if self.0.is_some() { "held" } else { "free" })
    }
}

/// Keeps results by key.
///
/// Trouble with the cache is no trouble with the build: what cannot be loaded is not there, what cannot be saved is
/// lost, and it is up to the store to say so.
#[async_trait]
pub trait ResultStore<R>: Send + Sync {
    /// All outputs kept under a key, if they can still be used.
    async fn load(&self, key: &CacheKey) -> Option<Vec<R>>;

    /// How many outputs are kept under a key. Unlike loading them this never takes long: what another machine keeps
    /// counts, and is not fetched.
    async fn count(&self, key: &CacheKey) -> usize {
        self.load(key).await.map_or(0, |outputs| outputs.len())
    }

    /// Keeps all outputs under a key; new ones replace the old. `step` is the name of the step that gave them, for
    /// people who ask what is kept.
    async fn save(&self, key: &CacheKey, outputs: &[R], step: &str);

    /// Whether what a step gave now is, for all that can follow, what is kept under an older key of the same step: then
    /// those outputs, which serve instead.
    async fn same(&self, _older: &CacheKey, _outputs: &[R]) -> Option<Vec<R>> {
        None
    }

    /// Claims the work for a key, unless another solve has it, in this process or another. Who gets it looks again
    /// whether there is a result.
    fn try_claim(&self, _key: &CacheKey) -> Option<Claim> {
        Some(Claim::free())
    }

    /// Waits until nobody has claimed the work for a key: it is done, or could not be done, or who did it is dead.
    /// `told` hears, once, who does it.
    async fn unclaimed(&self, _key: &CacheKey, _told: &(dyn for<'a> Fn(&'a str) + Send + Sync)) {}
}
