//! The solver's memory, kept in the store: results as lists of layers, facts as rows.

use std::sync::Arc;

use async_trait::async_trait;
use kiln_fs::layer::{same_but_times, same_root};
use kiln_graph::VertexId;
use kiln_image::BlobSource;
use kiln_oci::{Digest, Hasher};
use kiln_solver::{CacheKey, Claim, ContentFact, Files, KeyParts, KeyStore, ResultStore};
use kiln_store::{Holds, Lease, Maker, Snapshot, Store};

use crate::artifact::Artifact;
use crate::blocking::blocking;
use crate::claim;
use crate::remote::{Imported, Names, Outputs, Story};
use crate::scratch::open_dir;
use crate::worker::Purpose;

/// Kinds of facts.
const CONTENT: &str = "content";
const SHAPE: &str = "shape";
const PARTS: &str = "parts";
const SAME: &str = "same";
const OCCUPANT: &str = "occupant";

/// More files than these, of all sets of a step, are not worth their room: the digests still say that files changed.
const LISTED: usize = 50_000;

/// The step of results that came from others: whose they are is not told.
const IMPORTED: &str = "a step of an imported cache";

/// What the ingredients of a key may take; more is none of ours.
const LARGEST_PARTS: usize = 64 << 20;

/// One build's view of what is kept. What it loads is held by the build's lease.
#[derive(Clone)]
pub(crate) struct Cache {
    store: Store,
    lease: Lease,
    /// The Dockerfile, for people who ask what is kept.
    origin: String,
    /// Caches of others, looked into where the store has nothing.
    imported: Arc<Imported>,
    /// What is asked and learned, when it is to be told to others.
    story: Option<Arc<Story>>,
    /// What BuildKit calls the vertices, when caches are imported or written.
    names: Option<Arc<Names>>,
    /// Whether results are only looked for.
    purpose: Purpose,
}

impl Cache {
    /// Loads and saves under `lease`, on behalf of a Dockerfile.
    pub(crate) fn new(
        store: Store,
        lease: Lease,
        origin: String,
        imported: Imported,
        story: Option<Arc<Story>>,
    ) -> Self {
        let imported = Arc::new(imported);
        Self { store, lease, origin, imported, story, names: None, purpose: Purpose::Build }
    }

    /// With BuildKit's names for the vertices.
    pub(crate) fn with_names(self, names: Option<Arc<Names>>) -> Self {
        Self { names, ..self }
    }

    /// For a forecast: what others keep stays there.
    pub(crate) fn only_looking(self) -> Self {
        Self { purpose: Purpose::Forecast, ..self }
    }

    /// For a build that is done for comparison: nothing it makes is kept, or taken for what was made before.
    pub(crate) fn forgetful(self) -> Self {
        Self { purpose: Purpose::Verify, ..self }
    }

    /// All outputs of a key at caches of others, and where their layers are.
    pub(crate) fn elsewhere(&self, key: &CacheKey) -> Option<(Outputs<'_>, &Arc<dyn BlobSource>)> {
        self.imported.outputs(key, self.names.as_ref()?)
    }

    /// All outputs kept under a key in the store.
    pub(crate) fn kept(&self, key: &CacheKey) -> Option<Vec<Snapshot>> {
        let bytes = self.store.records().get_result(&key.0, &self.lease).ok()??;
        serde_json::from_slice(&bytes).ok()
    }

    /// The digests of a snapshot's layers, base first, unless one of them was never digested.
    pub(crate) fn diff_ids(&self, snapshot: &Snapshot) -> Option<Vec<Digest>> {
        snapshot.layers().iter().map(|layer| self.store.layer(layer).ok()?.diff_id).collect()
    }

    fn fact(&self, kind: &str, key: &str) -> Option<Vec<u8>> {
        fact(&self.store, kind, key)
    }
}

fn fact(store: &Store, kind: &str, key: &str) -> Option<Vec<u8>> {
    // A cache that cannot be read is an empty one.
    store.records().get_fact(kind, key).ok().flatten()
}

/// The last sets of ingredients of a step.
pub(crate) fn parts(store: &Store, identity: &str) -> Vec<KeyParts> {
    let text = fact(store, PARTS, identity).and_then(|kept| zstd::bulk::decompress(&kept, LARGEST_PARTS).ok());
    text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

fn content_key(fact: &ContentFact) -> String {
    let mut hasher = Hasher::new();
    hasher.field(fact.input.0.as_str().as_bytes());
    hasher.field(&fact.output.to_le_bytes());
    hasher.field(fact.selector.as_bytes());
    hasher.finish().hex().to_owned()
}

impl KeyStore for Cache {
    fn content(&self, fact: &ContentFact) -> Option<Digest> {
        let kept = || String::from_utf8(self.fact(CONTENT, &content_key(fact))?).ok()?.parse().ok();
        if let Some(digest) = kept() {
            if let Some(story) = &self.story {
                story.content(fact, &digest);
            }
            return Some(digest);
        }
        let digest = self.imported.content(fact)?;
        self.put_content(fact, &digest);
        Some(digest)
    }

    fn put_content(&self, fact: &ContentFact, digest: &Digest) {
        if let Some(story) = &self.story {
            story.content(fact, digest);
        }
        self.store.records().put_fact(CONTENT, &content_key(fact), digest.as_str().as_bytes());
    }

    fn has_shape(&self, shape: &Digest) -> bool {
        self.fact(SHAPE, shape.hex()).is_some() || self.imported.has_shape(shape)
    }

    fn put_shape(&self, shape: &Digest) {
        self.store.records().put_fact(SHAPE, shape.hex(), b"");
    }

    fn same_as(&self, key: &CacheKey) -> Option<CacheKey> {
        String::from_utf8(self.fact(SAME, key.0.hex())?).ok()?.parse().ok().map(CacheKey)
    }

    fn put_same_as(&self, key: &CacheKey, older: &CacheKey) {
        self.store.records().put_fact(SAME, key.0.hex(), older.0.as_str().as_bytes());
    }

    fn identified(&self, vertex: &VertexId, key: &CacheKey, shape: &Digest) {
        if let Some(story) = &self.story {
            story.identified(vertex, key, shape);
        }
        if let Some(names) = &self.names {
            names.identified(vertex, key);
        }
        if self.imported.has_shape(shape) && self.fact(SHAPE, shape.hex()).is_none() {
            self.put_shape(shape);
        }
    }

    fn is_lost(&self, key: &CacheKey) -> bool {
        self.store.records().is_lost(&key.0).unwrap_or_default()
    }

    fn parts(&self, identity: &str) -> Vec<KeyParts> {
        parts(&self.store, identity)
    }

    fn put_parts(&self, identity: &str, mut sets: Vec<KeyParts>) {
        if self.purpose == Purpose::Verify {
            return;
        }
        bound_listings(&mut sets);
        // Numbers hardly shrink; it is the paths that do.
        let text = serde_json::to_vec(&sets).map(|text| zstd::bulk::compress(&text, 1));
        if let Ok(Ok(text)) = text {
            self.store.records().put_fact(PARTS, identity, &text);
        }
    }

    fn occupant(&self, place: &str) -> Option<String> {
        String::from_utf8(self.fact(OCCUPANT, place)?).ok()
    }

    fn put_occupant(&self, place: &str, identity: &str) {
        self.store.records().put_fact(OCCUPANT, place, identity.as_bytes());
    }
}

/// Drops listings, the oldest first, until few enough files are listed in all.
fn bound_listings(sets: &mut [KeyParts]) {
    let mut listed = 0;
    for input in sets.iter_mut().flat_map(|parts| &mut parts.inputs) {
        if listed + input.files.len() > LISTED {
            input.files = Files::new();
        }
        listed += input.files.len();
    }
}

#[async_trait]
impl ResultStore<Artifact> for Cache {
    async fn load(&self, key: &CacheKey) -> Option<Vec<Artifact>> {
        if let Some(kept) = self.kept(key) {
            return Some(kept.into_iter().map(Artifact::Snapshot).collect());
        }
        let names = self.names.as_ref().filter(|_| self.purpose == Purpose::Build)?;
        let fetched = self.imported.load((key, names), &self.store, &self.lease).await?;
        let outputs: Vec<Artifact> = fetched.into_iter().map(Artifact::Snapshot).collect();
        self.save(key, &outputs, IMPORTED).await;
        Some(outputs)
    }

    async fn count(&self, key: &CacheKey) -> usize {
        if let Some(kept) = self.kept(key) {
            return kept.len();
        }
        let Some(names) = &self.names else { return 0 };
        self.imported.count(key, names).await
    }

    async fn save(&self, key: &CacheKey, outputs: &[Artifact], step: &str) {
        if self.purpose == Purpose::Verify {
            return;
        }
        let snapshots: Option<Vec<&Snapshot>> = outputs.iter().map(|output| output.snapshot().ok()).collect();
        let Some(snapshots) = snapshots else { return };
        let Ok(bytes) = serde_json::to_vec(&snapshots) else { return };
        let holds = Holds::snapshots(snapshots);
        let maker = Maker { step: step.to_owned(), origin: self.origin.clone() };
        let (store, key) = (self.store.clone(), key.0.clone());
        let save = move || store.records().put_result_of(&maker, &key, &bytes, &holds);
        let saved = tokio::task::spawn_blocking(save).await;
        // A result that could not be saved is made again next time; the build has it all the same.
        drop(saved);
    }

    async fn same(&self, older: &CacheKey, outputs: &[Artifact]) -> Option<Vec<Artifact>> {
        if self.purpose == Purpose::Verify {
            return None;
        }
        let kept = self.load(older).await?;
        let pairs: Option<Vec<(Snapshot, Snapshot)>> = (kept.len() == outputs.len())
            .then(|| kept.iter().zip(outputs))?
            .map(|(old, new)| Some((old.snapshot().ok()?.clone(), new.snapshot().ok()?.clone())))
            .collect();
        let (store, pairs) = (self.store.clone(), pairs?);
        let is_same = blocking(move || Ok(pairs.iter().all(|(old, new)| same_files(&store, old, new)))).await;
        is_same.is_ok_and(|is_same| is_same).then_some(kept)
    }

    fn try_claim(&self, key: &CacheKey) -> Option<Claim> {
        // Where nothing can be claimed, work may be done twice, and nothing worse.
        self.store.try_claim(&key.0).map_or_else(|_| Some(Claim::free()), |claim| claim.map(Claim::held))
    }

    async fn unclaimed(&self, key: &CacheKey, told: &(dyn for<'a> Fn(&'a str) + Send + Sync)) {
        claim::unclaimed(&self.store, &key.0, told).await;
    }
}

/// Whether two snapshots differ at most in when their last layer was made. One that cannot be read is another.
fn same_files(store: &Store, old: &Snapshot, new: &Snapshot) -> bool {
    let (Some((old_top, old_below)), Some((new_top, new_below))) =
        (old.layers().split_last(), new.layers().split_last())
    else {
        return old == new;
    };
    let open = |layer| open_dir(&store.layer_dir(layer));
    old_below == new_below
        && (old_top == new_top
            || matches!((open(old_top), open(new_top)), (Ok(old), Ok(new)) if same_root(&old, &new).unwrap_or(false) && same_but_times(&old, &new).unwrap_or(false)))
}

#[cfg(test)]
mod tests {
    use kiln_solver::{InputPart, Part};

    use super::*;

    #[test]
    fn the_newest_listings_are_kept_as_far_as_they_have_room() {
        let set = |files: usize| KeyParts {
            inputs: vec![InputPart {
                name: "context".to_owned(),
                part: Part::Content(Digest::sha256("x")),
                files: (0..files).map(|file| (file.to_string(), 0)).collect(),
            }],
            ..KeyParts::default()
        };
        let kept = |counts: &[usize]| -> Vec<usize> {
            let mut sets: Vec<KeyParts> = counts.iter().map(|count| set(*count)).collect();
            bound_listings(&mut sets);
            sets.iter().map(|set| set.inputs[0].files.len()).collect()
        };
        assert_eq!(kept(&[LISTED - 1, 1, 1]), [LISTED - 1, 1, 0]);
        assert_eq!(kept(&[LISTED + 1, 2, 1]), [0, 2, 1]);
    }
}
