//! The ingredients of a key by name, kept beside what ran so that the next miss can be explained.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kiln_oci::Digest;
use serde::{Deserialize, Serialize};

use crate::key::{CacheKey, Part};

/// What went into a step's key, by name. The key decides; this explains.
///
/// Secrets are no part of a key and so never in here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeyParts {
    /// Who the step is from build to build: project, stage and instruction. A step without one is neither kept nor
    /// explained.
    pub identity: String,
    /// Where it stands: project, stage and number. A step that nobody knows is compared with the one that stood there.
    #[serde(skip)]
    pub place: String,
    /// Who is in its build. One of these has not become another, wherever it stands now.
    #[serde(skip)]
    pub around: Arc<BTreeSet<String>>,
    /// What it does, as its author wrote it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Build arguments it sees, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub args: BTreeMap<String, Setting>,
    /// Environment it sees, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, Setting>,
    /// Its mounts, each as text.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<String>,
    /// The platform it runs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// The image it fetches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<Base>,
    /// All else with a name: network, user, working directory.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, Setting>,
    /// [`CacheMap::digest`](crate::CacheMap::digest); the solver fills it in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// What each input brought; the solver fills it in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<InputPart>,
}

impl KeyParts {
    /// The key they were made into; nothing when they are not whole.
    pub fn key(&self) -> Option<CacheKey> {
        Some(CacheKey::new(self.digest.as_ref()?, self.inputs.iter().map(|input| &input.part)))
    }
}

/// So many sets of ingredients are kept of a step: what alternates between a few is compared with its like.
const KEPT: usize = 3;

/// The sets to keep when a step ran with `new`: newest first, each once.
pub(crate) fn remember(before: Vec<KeyParts>, new: KeyParts) -> Vec<KeyParts> {
    let key = new.key();
    let others = before.into_iter().filter(|parts| parts.key() != key).take(KEPT - 1);
    std::iter::once(new).chain(others).collect::<Vec<_>>()
}

/// An image as it is named and what the name led to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// Its name.
    pub reference: String,
    /// What it led to.
    pub digest: Digest,
}

/// A value that a person may be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Setting {
    /// The value itself.
    Shown(String),
    /// One that is long, or may be private.
    Hidden {
        /// Its digest.
        digest: Digest,
    },
}

impl Setting {
    /// A value to show, unless it is too long for a line.
    pub fn shown(value: &str) -> Self {
        const LONGEST: usize = 120;
        if value.len() > LONGEST || value.contains(char::is_control) {
            return Self::hidden(value);
        }
        Self::Shown(value.to_owned())
    }

    /// A value to hide.
    pub fn hidden(value: &str) -> Self {
        Self::Hidden { digest: Digest::sha256(value) }
    }
}

/// What was read, by path: a fingerprint of all that counts of each file.
pub type Files = BTreeMap<String, u64>;

/// What one input brought to a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputPart {
    /// What people call the input.
    pub name: String,
    /// Its share of the key.
    pub part: Part,
    /// For content: what was read, as far as the step lists it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: Files,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_sets_are_kept_newest_first_and_each_once() {
        let parts = |name: &str| KeyParts { digest: Some(Digest::sha256(name)), ..KeyParts::default() };
        let mut sets = Vec::new();
        for name in ["a", "b", "a", "c", "d"] {
            sets = remember(sets, parts(name));
        }
        assert_eq!(sets, ["d", "c", "a"].map(parts));
    }
}
