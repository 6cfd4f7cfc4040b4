//! Cache keys: who a vertex is, and how the keys are made.

use std::fmt;

use kiln_oci::{Digest, Hasher};
use serde::{Deserialize, Serialize};

use crate::parts::KeyParts;

/// The name a result is kept under: equal keys mean that one result serves for both.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CacheKey(pub Digest);

impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a step says about its key.
#[derive(Debug, Clone)]
pub struct CacheMap {
    /// Everything that decides what the step does, its inputs aside.
    pub digest: Digest,
    /// The ingredients of `digest` by name, to explain a miss. They decide nothing.
    pub parts: KeyParts,
    /// Whether running it again under the same key gives a result that serves as well. A directory on the user's
    /// disk is not pinned: nothing about it may be kept under its key.
    pub pinned: bool,
    /// How each input counts, in the vertex's order.
    pub inputs: Vec<InputKey>,
}

/// How an input enters the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InputKey {
    /// By who it is: its own key.
    Definition,
    /// By what is in it, as far as the step reads it.
    Content {
        /// Names what is read, so that the digest can be kept as a fact about the input. Equal selectors must mean
        /// equal digests, whichever step asks.
        selector: String,
    },
}

/// One input's share of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The input's own key, and which of its outputs.
    Definition {
        /// Its key.
        key: CacheKey,
        /// Its output, from 0.
        output: usize,
    },
    /// The digest of what is read of it.
    Content(Digest),
}

impl CacheKey {
    /// The key of a step with these inputs.
    ///
    /// Selectors are left out on purpose: what was read counts, not how it was found.
    pub fn new<'a>(digest: &Digest, parts: impl IntoIterator<Item = &'a Part>) -> Self {
        let mut hasher = Hasher::new();
        hasher.field(b"kiln.key.1");
        hasher.field(digest.as_str().as_bytes());
        for part in parts {
            let (kind, digest, output) = match part {
                Part::Definition { key, output } => (0, &key.0, *output),
                Part::Content(digest) => (1, digest, 0),
            };
            input_field(&mut hasher, kind, digest.as_str(), output);
        }
        Self(hasher.finish())
    }
}

/// What is known of a vertex before any content is: whose key it includes, whether it lasts, whether it must be new.
#[derive(Debug, Clone)]
pub(crate) struct Outline {
    /// The key with all contents left out. Equal keys have equal shapes, so a shape never saved cannot hit.
    pub(crate) shape: Digest,
    /// Whether results and facts may be kept under its key: it is pinned, and so is all that its key names.
    pub(crate) is_lasting: bool,
    /// Whether it, or an input its key names, must run whatever is kept.
    pub(crate) is_fresh: bool,
}

impl Outline {
    /// The outline of a step whose inputs have these; an input that counts by content brings none.
    pub(crate) fn new(map: &CacheMap, ignore_cache: bool, inputs: &[Option<(&Self, usize)>]) -> Self {
        let mut hasher = Hasher::new();
        hasher.field(b"kiln.shape.1");
        hasher.field(map.digest.as_str().as_bytes());
        for input in inputs {
            match input {
                Some((outline, output)) => input_field(&mut hasher, 0, outline.shape.as_str(), *output),
                None => input_field(&mut hasher, 1, "", 0),
            }
        }
        let named = || inputs.iter().flatten().map(|(outline, _)| outline);
        Self {
            shape: hasher.finish(),
            is_lasting: map.pinned && named().all(|outline| outline.is_lasting),
            is_fresh: ignore_cache || named().any(|outline| outline.is_fresh),
        }
    }

    /// Whether a result may be taken from what is kept.
    pub(crate) fn may_load(&self) -> bool {
        self.is_lasting && !self.is_fresh
    }
}

fn input_field(hasher: &mut Hasher, kind: u8, digest: &str, output: usize) {
    hasher.update(&[kind]);
    hasher.update(&(output as u64).to_le_bytes());
    hasher.field(digest.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> CacheKey {
        CacheKey(Digest::sha256(name))
    }

    fn named(name: &str, output: usize) -> Part {
        Part::Definition { key: key(name), output }
    }

    fn map(name: &str, inputs: Vec<InputKey>) -> CacheMap {
        CacheMap { digest: Digest::sha256(name), parts: KeyParts::default(), pinned: true, inputs }
    }

    #[test]
    fn keys_never_change_between_versions() {
        let key = CacheKey::new(&Digest::sha256("run"), &[named("base", 1), Part::Content(Digest::sha256("files"))]);
        assert_eq!(key.to_string(), "sha256:fee08561244fb5e2af691d73be950720403ca23bb57552bcc4e4e1ee8870ee50");
    }

    #[test]
    fn everything_in_a_key_counts() {
        let digest = Digest::sha256("run");
        let keys = [
            CacheKey::new(&Digest::sha256("other"), &[named("a", 0), named("b", 0)]),
            CacheKey::new(&digest, &[named("a", 0), named("b", 0)]),
            CacheKey::new(&digest, &[named("b", 0), named("a", 0)]),
            CacheKey::new(&digest, &[named("a", 1), named("b", 0)]),
            CacheKey::new(&digest, &[named("a", 0)]),
            CacheKey::new(&digest, &[Part::Content(key("a").0), named("b", 0)]),
            CacheKey::new(&digest, &[]),
        ];
        let distinct: std::collections::HashSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
    }

    #[test]
    fn a_content_input_ends_what_is_inherited() {
        let mut unpinned = map("context", vec![]);
        unpinned.pinned = false;
        let context = Outline::new(&unpinned, true, &[]);
        assert!(!context.is_lasting && context.is_fresh);
        let by_name = Outline::new(&map("run", vec![InputKey::Definition]), false, &[Some((&context, 0))]);
        assert!(!by_name.is_lasting && by_name.is_fresh && !by_name.may_load());
        let by_content = Outline::new(&map("run", vec![]), false, &[None]);
        assert!(by_content.may_load());
        assert_ne!(by_name.shape, by_content.shape);
    }
}
