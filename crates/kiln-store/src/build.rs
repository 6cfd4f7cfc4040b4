//! The record of builds: what was asked for, and what became of it. The newest are kept.
//!
//! Nothing kept here may contain a secret; see [`crate::Records`].

use rusqlite::{OptionalExtension as _, Row, Transaction, params};

use crate::db::now;
use crate::error::Result;
use crate::store::Shared;

/// So many builds are kept.
const KEPT: u32 = 200;

/// Builds are kept so long, in seconds.
const LONGEST: i64 = 30 * 24 * 3600;

/// The record of builds.
pub struct Builds<'a> {
    shared: &'a Shared,
}

/// One build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// Its name; no two have the same.
    pub id: String,
    /// What was built: builds of one target can be compared.
    pub target: String,
    /// For a build that found everything: what it found. The next one of its target that finds the same takes its place.
    pub state: Option<String>,
    /// The rest, in the words of whoever builds.
    pub value: Vec<u8>,
}

impl<'a> Builds<'a> {
    pub(crate) fn new(shared: &'a Shared) -> Self {
        Self { shared }
    }

    /// Adds a build, and forgets those that are too many or too old. What was collected in memory is written along.
    pub fn put(&self, build: &Build) -> Result<()> {
        let (touched, pages) = (self.shared.touched.take(), self.shared.pages.take_dirty());
        self.shared.db.write(|db| {
            touched.write(db)?;
            pages.write(db)?;
            take_place(db, build)?;
            let insert = "INSERT INTO builds (id, target, state, value, ended) VALUES (?1, ?2, ?3, ?4, ?5)";
            db.prepare_cached(insert)?.execute(params![build.id, build.target, build.state, build.value, now()])?;
            let surplus = "DELETE FROM builds WHERE ended < ?1
                           OR number <= (SELECT number FROM builds ORDER BY number DESC LIMIT 1 OFFSET ?2)";
            db.prepare_cached(surplus)?.execute(params![now() - LONGEST, KEPT]).map(drop)
        })
    }

    /// All builds, newest first.
    pub fn list(&self) -> Result<Vec<Build>> {
        self.shared.db.read(|db| {
            let mut select = db.prepare_cached("SELECT id, target, state, value FROM builds ORDER BY number DESC")?;
            select.query_map([], build)?.collect()
        })
    }
}

/// Removes the last build of the target when it found what this one found.
fn take_place(db: &Transaction<'_>, build: &Build) -> rusqlite::Result<()> {
    let Some(state) = &build.state else { return Ok(()) };
    let select = "SELECT number, state FROM builds WHERE target = ?1 ORDER BY number DESC LIMIT 1";
    let last = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, Option<String>>(1)?));
    match db.prepare_cached(select)?.query_row([&build.target], last).optional()? {
        Some((number, Some(found))) if found == *state => {
            db.prepare_cached("DELETE FROM builds WHERE number = ?1")?.execute([number]).map(drop)
        }
        _ => Ok(()),
    }
}

fn build(row: &Row<'_>) -> rusqlite::Result<Build> {
    Ok(Build { id: row.get(0)?, target: row.get(1)?, state: row.get(2)?, value: row.get(3)? })
}
