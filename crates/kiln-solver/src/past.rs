//! What a step is compared with when it has to run: its own last times, else those of the one whose place it has taken.

use crate::explain::{MissReason, explain, nearest};
use crate::key::Part;
use crate::parts::{Files, KeyParts, remember};
use crate::store::KeyStore;

/// What is known of a step from builds before.
#[derive(Debug, Default)]
pub(crate) struct Past {
    /// Sets of ingredients, newest first.
    pub(crate) sets: Vec<KeyParts>,
    /// Whether its place was that of a step that now stands elsewhere.
    is_inserted: bool,
}

impl Past {
    pub(crate) fn of(keys: &dyn KeyStore, parts: &KeyParts) -> Self {
        let sets = keys.parts(&parts.identity);
        if !sets.is_empty() || parts.place.is_empty() {
            return Self { sets, is_inserted: false };
        }
        match keys.occupant(&parts.place) {
            Some(occupant) if parts.around.contains(&occupant) => Self { sets, is_inserted: true },
            Some(occupant) => Self { sets: keys.parts(&occupant), is_inserted: false },
            None => Self::default(),
        }
    }

    /// The set that a step differs least from.
    pub(crate) fn nearest(&self, parts: &KeyParts) -> Option<&KeyParts> {
        nearest(&self.sets, parts)
    }

    /// What an input has consisted of when it was this; empty if it was never listed. Nothing if it was only ever
    /// listed when it was something else: then it is worth a look.
    pub(crate) fn files(&self, input: usize, part: &Part) -> Option<Files> {
        let mut listed =
            self.sets.iter().filter_map(|set| set.inputs.get(input)).filter(|before| !before.files.is_empty());
        let same = listed.clone().find(|before| before.part == *part).map(|before| before.files.clone());
        same.or_else(|| listed.next().is_none().then(Files::new))
    }

    /// Why a step that differs from all of these runs.
    pub(crate) fn reason(&self, keys: &dyn KeyStore, parts: &KeyParts) -> MissReason {
        let Some(before) = self.nearest(parts) else { return self.unknown() };
        match explain(before, parts) {
            MissReason::ResultPruned if parts.key().is_some_and(|key| keys.is_lost(&key)) => MissReason::ResultLost,
            reason => reason,
        }
    }

    /// Why a step runs that is compared with none.
    pub(crate) fn unknown(&self) -> MissReason {
        if self.is_inserted { MissReason::NewInstruction } else { MissReason::FirstBuild }
    }

    /// Keeps what a step ran with.
    pub(crate) fn go_on(self, keys: &dyn KeyStore, parts: KeyParts) {
        let (identity, place) = (parts.identity.clone(), parts.place.clone());
        keys.put_parts(&identity, remember(self.sets, parts));
        if !place.is_empty() {
            keys.put_occupant(&place, &identity);
        }
    }
}
