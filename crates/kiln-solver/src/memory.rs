//! Stores that live in memory: for tests, and for builds that are to leave nothing behind.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use kiln_oci::Digest;

use crate::key::CacheKey;
use crate::parts::KeyParts;
use crate::store::{ContentFact, KeyStore, ResultStore};

/// A [`KeyStore`] in memory.
#[derive(Debug, Default)]
pub struct MemoryKeys(Mutex<Facts>);

#[derive(Debug, Default)]
struct Facts {
    contents: HashMap<ContentFact, Digest>,
    shapes: HashSet<Digest>,
    parts: HashMap<String, KeyParts>,
}

impl MemoryKeys {
    fn facts(&self) -> std::sync::MutexGuard<'_, Facts> {
        // Every change is one insertion, so there is no half-made state to fear.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KeyStore for MemoryKeys {
    fn content(&self, fact: &ContentFact) -> Option<Digest> {
        self.facts().contents.get(fact).cloned()
    }

    fn put_content(&self, fact: &ContentFact, digest: &Digest) {
        self.facts().contents.insert(fact.clone(), digest.clone());
    }

    fn has_shape(&self, shape: &Digest) -> bool {
        self.facts().shapes.contains(shape)
    }

    fn put_shape(&self, shape: &Digest) {
        self.facts().shapes.insert(shape.clone());
    }

    fn parts(&self, identity: &str) -> Option<KeyParts> {
        self.facts().parts.get(identity).cloned()
    }

    fn put_parts(&self, parts: &KeyParts) {
        self.facts().parts.insert(parts.identity.clone(), parts.clone());
    }
}

/// A [`ResultStore`] in memory.
#[derive(Debug)]
pub struct MemoryResults<R>(Mutex<HashMap<CacheKey, Vec<R>>>);

impl<R> MemoryResults<R> {
    fn results(&self) -> std::sync::MutexGuard<'_, HashMap<CacheKey, Vec<R>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The keys it has results for.
    pub fn keys(&self) -> Vec<CacheKey> {
        self.results().keys().cloned().collect()
    }

    /// Forgets a result; gives what it was.
    pub fn remove(&self, key: &CacheKey) -> Option<Vec<R>> {
        self.results().remove(key)
    }
}

impl<R> Default for MemoryResults<R> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

#[async_trait]
impl<R: Clone + Send + Sync> ResultStore<R> for MemoryResults<R> {
    async fn load(&self, key: &CacheKey) -> Option<Vec<R>> {
        self.results().get(key).cloned()
    }

    async fn save(&self, key: &CacheKey, outputs: &[R]) {
        self.results().insert(key.clone(), outputs.to_vec());
    }
}
