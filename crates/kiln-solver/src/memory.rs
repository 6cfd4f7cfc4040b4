//! Stores that live in memory: for tests, and for builds that are to leave nothing behind.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use kiln_oci::Digest;
use tokio::sync::Notify;

use crate::key::CacheKey;
use crate::parts::KeyParts;
use crate::store::{Claim, ContentFact, KeyStore, ResultStore};

/// A [`KeyStore`] in memory.
#[derive(Debug, Default)]
pub struct MemoryKeys(Mutex<Facts>);

#[derive(Debug, Default)]
struct Facts {
    contents: HashMap<ContentFact, Digest>,
    shapes: HashSet<Digest>,
    same: HashMap<CacheKey, CacheKey>,
    parts: HashMap<String, Vec<KeyParts>>,
    occupants: HashMap<String, String>,
}

impl MemoryKeys {
    fn facts(&self) -> MutexGuard<'_, Facts> {
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

    fn same_as(&self, key: &CacheKey) -> Option<CacheKey> {
        self.facts().same.get(key).cloned()
    }

    fn put_same_as(&self, key: &CacheKey, older: &CacheKey) {
        self.facts().same.insert(key.clone(), older.clone());
    }

    fn parts(&self, identity: &str) -> Vec<KeyParts> {
        self.facts().parts.get(identity).cloned().unwrap_or_default()
    }

    fn put_parts(&self, identity: &str, sets: Vec<KeyParts>) {
        self.facts().parts.insert(identity.to_owned(), sets);
    }

    fn occupant(&self, place: &str) -> Option<String> {
        self.facts().occupants.get(place).cloned()
    }

    fn put_occupant(&self, place: &str, identity: &str) {
        self.facts().occupants.insert(place.to_owned(), identity.to_owned());
    }
}

/// A [`ResultStore`] in memory.
#[derive(Debug)]
pub struct MemoryResults<R> {
    results: Mutex<HashMap<CacheKey, Vec<R>>>,
    claims: Arc<Claims>,
}

#[derive(Debug, Default)]
struct Claims {
    claimed: Mutex<HashSet<CacheKey>>,
    let_go: Notify,
}

impl Claims {
    fn claimed(&self) -> MutexGuard<'_, HashSet<CacheKey>> {
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets go of a key.
struct Claimed {
    key: CacheKey,
    claims: Arc<Claims>,
}

impl Drop for Claimed {
    fn drop(&mut self) {
        self.claims.claimed().remove(&self.key);
        self.claims.let_go.notify_waiters();
    }
}

impl<R> MemoryResults<R> {
    fn results(&self) -> MutexGuard<'_, HashMap<CacheKey, Vec<R>>> {
        self.results.lock().unwrap_or_else(PoisonError::into_inner)
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
        Self { results: Mutex::default(), claims: Arc::default() }
    }
}

#[async_trait]
impl<R: Clone + Send + Sync> ResultStore<R> for MemoryResults<R> {
    async fn load(&self, key: &CacheKey) -> Option<Vec<R>> {
        self.results().get(key).cloned()
    }

    async fn save(&self, key: &CacheKey, outputs: &[R], _step: &str) {
        self.results().insert(key.clone(), outputs.to_vec());
    }

    fn try_claim(&self, key: &CacheKey) -> Option<Claim> {
        let is_first = self.claims.claimed().insert(key.clone());
        is_first.then(|| Claim::held(Claimed { key: key.clone(), claims: Arc::clone(&self.claims) }))
    }

    async fn unclaimed(&self, key: &CacheKey, told: &(dyn for<'a> Fn(&'a str) + Send + Sync)) {
        told("waiting for another build that runs this step");
        loop {
            let let_go = self.claims.let_go.notified();
            if !self.claims.claimed().contains(key) {
                return;
            }
            let_go.await;
        }
    }
}
