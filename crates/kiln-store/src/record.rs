//! The solver's tables: results by key, and facts.
//!
//! Nothing kept here may contain a secret: records outlive builds and are readable by whoever reads the state directory.
//! The store cannot tell; whoever writes them answers for it.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use kiln_oci::Digest;
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use crate::db::{locked, now};
use crate::error::Result;
use crate::image::column;
use crate::lease::{Item, Lease};
use crate::snapshot::{LayerId, Snapshot};
use crate::store::Shared;
use crate::testing::reached;

/// Results and facts of the solver.
pub struct Records<'a> {
    shared: &'a Shared,
}

/// What a result needs to be of use. When any of it goes, so does the result: a miss, never a broken hit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Holds {
    /// Layers.
    pub layers: Vec<LayerId>,
    /// Content.
    pub blobs: Vec<Digest>,
}

/// Who made a result, for people who ask what is kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Maker {
    /// The step, as the progress names it.
    pub step: String,
    /// The Dockerfile it stands in.
    pub origin: String,
}

impl Holds {
    /// All layers of these snapshots.
    pub fn snapshots<'s>(snapshots: impl IntoIterator<Item = &'s Snapshot>) -> Self {
        let layers = snapshots.into_iter().flat_map(|snapshot| snapshot.layers().iter().cloned());
        Self { layers: layers.collect(), blobs: Vec::new() }
    }

    fn items(&self) -> impl Iterator<Item = Item> + '_ {
        self.layers.iter().cloned().map(Item::Layer).chain(self.blobs.iter().cloned().map(Item::Blob))
    }
}

impl<'a> Records<'a> {
    pub(crate) fn new(shared: &'a Shared) -> Self {
        Self { shared }
    }

    /// The result kept under a key; what it holds is held by `lease` from now on.
    pub fn get_result(&self, key: &Digest, lease: &Lease) -> Result<Option<Vec<u8>>> {
        let _no_sweep = self.shared.no_sweep()?;
        let found = self.shared.db.read(|db| {
            let mut select = db.prepare_cached("SELECT value, used FROM results WHERE key = ?1")?;
            let row = select.query_row([key.as_str()], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
            let Some((value, used)) = row else { return Ok(None) };
            Ok(Some((value, used, held_by(db, key)?)))
        })?;
        let Some((value, used, held)) = found else { return Ok(None) };
        for item in &held {
            if !self.shared.is_present(item)? {
                return Ok(None);
            }
        }
        reached("result: found");
        lease.note(&held)?;
        self.shared.touched.result(key, used);
        Ok(Some(value))
    }

    /// Whether there was a result that went with something broken: it was not removed on purpose.
    pub fn is_lost(&self, key: &Digest) -> Result<bool> {
        self.shared.db.read(|db| {
            let mut select = db.prepare_cached("SELECT 1 FROM facts WHERE kind = ?1 AND key = ?2")?;
            Ok(select.query_row([LOST, key.as_str()], |_| Ok(())).optional()?.is_some())
        })
    }

    /// Whether there is a result, without using it.
    pub fn has_result(&self, key: &Digest) -> Result<bool> {
        self.shared.db.read(|db| {
            let mut select = db.prepare_cached("SELECT 1 FROM results WHERE key = ?1")?;
            Ok(select.query_row([key.as_str()], |_| Ok(())).optional()?.is_some())
        })
    }

    /// Keeps a result, instead of any older one, as long as all that it holds is there. Facts put before it go along.
    pub fn put_result(&self, key: &Digest, value: &[u8], holds: &Holds) -> Result<()> {
        self.put_result_of(&Maker::default(), key, value, holds)
    }

    /// As [`Self::put_result`], saying who made it.
    pub fn put_result_of(&self, maker: &Maker, key: &Digest, value: &[u8], holds: &Holds) -> Result<()> {
        let facts = self.shared.touched.take();
        let missing = self.shared.db.write(|db| {
            facts.write(db)?;
            for item in holds.items() {
                if !item.exists(db)? {
                    return Ok(Some(item));
                }
            }
            write_result(db, maker, (key, value), holds)?;
            Ok(None)
        })?;
        missing.map_or(Ok(()), |item| Err(item.unknown()))
    }

    /// Forgets a result.
    pub fn remove_result(&self, key: &Digest) -> Result<()> {
        self.shared
            .db
            .write(|db| db.prepare_cached("DELETE FROM results WHERE key = ?1")?.execute([key.as_str()]).map(drop))
    }

    /// The fact kept under a kind (`content`, `parts`, …) and a key.
    pub fn get_fact(&self, kind: &str, key: &str) -> Result<Option<Vec<u8>>> {
        if let Some(value) = self.shared.touched.pending_fact(kind, key) {
            return Ok(Some(value));
        }
        let found = self.shared.db.read(|db| {
            let mut select = db.prepare_cached("SELECT value, used FROM facts WHERE kind = ?1 AND key = ?2")?;
            select.query_row([kind, key], |row| Ok((row.get(0)?, row.get(1)?))).optional()
        })?;
        let Some((value, used)) = found else { return Ok(None) };
        self.shared.touched.fact(kind, key, used);
        Ok(Some(value))
    }

    /// Keeps a fact, instead of any older one. It is seen at once by this process, and by others after the next
    /// [`Self::put_result`] or [`crate::Store::flush`].
    pub fn put_fact(&self, kind: &str, key: &str, value: &[u8]) {
        self.shared.touched.put_fact(kind, key, value);
    }
}

/// The kind of facts that say which results were lost.
const LOST: &str = "lost";

/// Notes that a result goes with something broken.
pub(crate) fn mark_lost(db: &Transaction<'_>, key: &str) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO facts (kind, key, value, used) VALUES (?1, ?2, x'', ?3)";
    db.prepare_cached(sql)?.execute(params![LOST, key, now()]).map(drop)
}

fn held_by(db: &Connection, key: &Digest) -> rusqlite::Result<Vec<Item>> {
    let layers = column(db, "SELECT layer FROM result_layers WHERE result = ?1", [key.as_str()])?;
    let blobs = column(db, "SELECT blob FROM result_blobs WHERE result = ?1", [key.as_str()])?;
    let layers = layers.iter().filter_map(|id| id.parse().ok()).map(Item::Layer);
    let blobs = blobs.iter().filter_map(|digest| digest.parse().ok()).map(Item::Blob);
    Ok(layers.chain(blobs).collect())
}

fn write_result(
    db: &Transaction<'_>,
    maker: &Maker,
    (key, value): (&Digest, &[u8]),
    holds: &Holds,
) -> rusqlite::Result<()> {
    let key = key.as_str();
    db.prepare_cached("DELETE FROM results WHERE key = ?1")?.execute([key])?;
    db.prepare_cached("DELETE FROM facts WHERE kind = ?1 AND key = ?2")?.execute([LOST, key])?;
    let sql = "INSERT INTO results (key, value, created, used, step, origin) VALUES (?1, ?2, ?3, ?3, ?4, ?5)";
    db.prepare_cached(sql)?.execute(params![key, value, now(), maker.step, maker.origin])?;
    let mut layer = db.prepare_cached("INSERT OR IGNORE INTO result_layers (result, layer) VALUES (?1, ?2)")?;
    for held in &holds.layers {
        layer.execute([key, held.as_str()])?;
    }
    let mut blob = db.prepare_cached("INSERT OR IGNORE INTO result_blobs (result, blob) VALUES (?1, ?2)")?;
    for held in &holds.blobs {
        blob.execute([key, held.as_str()])?;
    }
    Ok(())
}

/// What is to be written with the next transaction: times of last use, and facts.
#[derive(Default)]
pub(crate) struct Touched(Mutex<Pending>);

/// See [`Touched`].
#[derive(Default)]
pub(crate) struct Pending {
    results: HashSet<String>,
    used_facts: HashSet<(String, String)>,
    facts: HashMap<(String, String), Vec<u8>>,
}

/// A time of last use is good to the hour, so that a build that finds everything writes nothing.
pub(crate) const USE_RESOLUTION: i64 = 3600;

impl Touched {
    fn result(&self, key: &Digest, used: i64) {
        if now() - used >= USE_RESOLUTION {
            locked(&self.0).results.insert(key.to_string());
        }
    }

    fn fact(&self, kind: &str, key: &str, used: i64) {
        if now() - used >= USE_RESOLUTION {
            locked(&self.0).used_facts.insert((kind.to_owned(), key.to_owned()));
        }
    }

    fn put_fact(&self, kind: &str, key: &str, value: &[u8]) {
        locked(&self.0).facts.insert((kind.to_owned(), key.to_owned()), value.to_owned());
    }

    fn pending_fact(&self, kind: &str, key: &str) -> Option<Vec<u8>> {
        let pending = locked(&self.0);
        if pending.facts.is_empty() {
            return None;
        }
        pending.facts.get(&(kind.to_owned(), key.to_owned())).cloned()
    }

    pub(crate) fn take(&self) -> Pending {
        std::mem::take(&mut *locked(&self.0))
    }
}

impl Pending {
    pub(crate) fn is_empty(&self) -> bool {
        self.results.is_empty() && self.used_facts.is_empty() && self.facts.is_empty()
    }

    pub(crate) fn write(&self, db: &Transaction<'_>) -> rusqlite::Result<()> {
        let now = now();
        for key in &self.results {
            db.prepare_cached("UPDATE results SET used = ?2, uses = uses + 1 WHERE key = ?1")?
                .execute(params![key, now])?;
        }
        for (kind, key) in &self.used_facts {
            let sql = "UPDATE facts SET used = ?3 WHERE kind = ?1 AND key = ?2";
            db.prepare_cached(sql)?.execute(params![kind, key, now])?;
        }
        for ((kind, key), value) in &self.facts {
            let sql = "INSERT INTO facts (kind, key, value, used) VALUES (?1, ?2, ?3, ?4)
                       ON CONFLICT DO UPDATE SET value = excluded.value, used = excluded.used";
            db.prepare_cached(sql)?.execute(params![kind, key, value, now])?;
        }
        Ok(())
    }
}
