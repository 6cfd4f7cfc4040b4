//! Decides, in one transaction, which rows go.

use std::collections::HashSet;

use kiln_oci::Digest;
use rusqlite::{Transaction, params};

use super::{PruneOptions, PruneScope};
use crate::db::now;
use crate::image::column;
use crate::inventory::blocks;
use crate::lease::Live;
use crate::snapshot::LayerId;

/// The rows that went, and what was known before.
#[derive(Default)]
pub(super) struct Marked {
    pub(super) images: Vec<String>,
    pub(super) results: Vec<String>,
    pub(super) layers: Vec<(LayerId, u64)>,
    pub(super) blobs: Vec<(Digest, u64)>,
    /// Cache mounts that are to go, by their names in the state directory.
    pub(super) mounts: Vec<(String, u64)>,
    /// What others are to remove.
    pub(super) foreign: Vec<(String, u64)>,
    /// Bytes of all that is left.
    pub(super) left: u64,
    /// Bytes of what images with names need.
    pub(super) named: u64,
    /// All layers with a row before anything was marked.
    pub(super) known_layers: HashSet<String>,
    /// All content with a row before anything was marked.
    pub(super) known_blobs: HashSet<String>,
}

/// Facts that nobody asked for in sixty days go with any prune: they are small, but without it they only add up.
const STALE_FACTS: i64 = 60 * 24 * 3600;

pub(super) fn mark(db: &Transaction<'_>, options: &PruneOptions, live: &Live) -> rusqlite::Result<Marked> {
    let held = Held::of(live);
    let mut marked = known(db)?;
    marked.images = images(db, options)?;
    results(db, options, &held, &mut marked)?;
    facts(db, options)?;
    let layers = "DELETE FROM layers WHERE
            NOT EXISTS (SELECT 1 FROM image_layers WHERE layer = id)
        AND NOT EXISTS (SELECT 1 FROM result_layers WHERE layer = id)
        AND id NOT IN (SELECT value FROM json_each(?1))
        RETURNING id, disk";
    delete_layers(db, layers, params![held.layers], &mut marked)?;
    let blobs = "DELETE FROM blobs WHERE
            NOT EXISTS (SELECT 1 FROM image_blobs WHERE blob = digest)
        AND NOT EXISTS (SELECT 1 FROM result_blobs WHERE blob = digest)
        AND NOT EXISTS (SELECT 1 FROM layer_blobs WHERE layer_blobs.digest = blobs.digest)
        AND digest NOT IN (SELECT value FROM json_each(?1))
        RETURNING digest, size";
    delete_blobs(db, blobs, params![held.blobs], &mut marked)?;
    Ok(marked)
}

/// What has a row, nothing of it marked.
pub(super) fn known(db: &rusqlite::Connection) -> rusqlite::Result<Marked> {
    Ok(Marked {
        known_layers: column(db, "SELECT id FROM layers", [])?.into_iter().collect(),
        known_blobs: column(db, "SELECT digest FROM blobs", [])?.into_iter().collect(),
        ..Marked::default()
    })
}

/// What live leases hold, as JSON arrays, which SQL can look into.
struct Held {
    layers: String,
    blobs: String,
}

impl Held {
    fn of(live: &Live) -> Self {
        let quoted = |words: Vec<&str>| format!("[{}]", words.join(","));
        let layers: Vec<_> = live.layers.iter().map(|id| format!("\"{id}\"")).collect();
        let blobs: Vec<_> = live.blobs.iter().map(|digest| format!("\"{digest}\"")).collect();
        Self {
            layers: quoted(layers.iter().map(String::as_str).collect()),
            blobs: quoted(blobs.iter().map(String::as_str).collect()),
        }
    }
}

pub(super) fn images(db: &Transaction<'_>, options: &PruneOptions) -> rusqlite::Result<Vec<String>> {
    let which = match options.scope {
        PruneScope::Dangling | PruneScope::Cache => "NOT EXISTS (SELECT 1 FROM names WHERE image = id)",
        PruneScope::Everything => "TRUE",
    };
    let sql = format!("DELETE FROM images WHERE stored < ?1 AND {which} RETURNING id");
    column(db, &sql, [options.cutoff()])
}

/// Not what a running build uses.
fn results(db: &Transaction<'_>, options: &PruneOptions, held: &Held, marked: &mut Marked) -> rusqlite::Result<()> {
    let which = match options.scope {
        PruneScope::Dangling => {
            "EXISTS (SELECT 1 FROM result_layers AS mine WHERE mine.result = key AND NOT EXISTS (
                 SELECT 1 FROM image_layers WHERE image_layers.layer = mine.layer))"
        }
        PruneScope::Cache | PruneScope::Everything => "TRUE",
    };
    let sql = format!(
        "DELETE FROM results WHERE {which}
         AND NOT EXISTS (SELECT 1 FROM result_layers WHERE result = key
             AND layer IN (SELECT value FROM json_each(?1)))
         AND NOT EXISTS (SELECT 1 FROM result_blobs WHERE result = key
             AND blob IN (SELECT value FROM json_each(?2)))
         RETURNING key"
    );
    marked.results = column(db, &sql, params![held.layers, held.blobs])?;
    Ok(())
}

pub(super) fn facts(db: &Transaction<'_>, options: &PruneOptions) -> rusqlite::Result<()> {
    let cutoff = match options.scope {
        PruneScope::Cache | PruneScope::Everything if options.filter.is_empty() && options.limits.is_none() => {
            options.cutoff()
        }
        _ => now() - STALE_FACTS,
    };
    db.execute("DELETE FROM facts WHERE used < ?1", [cutoff])?;
    db.execute("DELETE FROM stat_pages WHERE used < ?1", [cutoff])?;
    Ok(())
}

pub(super) fn delete_layers(
    db: &Transaction<'_>,
    sql: &str,
    args: impl rusqlite::Params,
    marked: &mut Marked,
) -> rusqlite::Result<()> {
    for (id, size) in deleted(db, sql, args)? {
        marked.layers.extend(id.parse().ok().map(|id| (id, size)));
    }
    Ok(())
}

pub(super) fn delete_blobs(
    db: &Transaction<'_>,
    sql: &str,
    args: impl rusqlite::Params,
    marked: &mut Marked,
) -> rusqlite::Result<()> {
    for (digest, size) in deleted(db, sql, args)? {
        marked.blobs.extend(digest.parse().ok().map(|digest| (digest, blocks(size))));
    }
    Ok(())
}

fn deleted(db: &Transaction<'_>, sql: &str, args: impl rusqlite::Params) -> rusqlite::Result<Vec<(String, u64)>> {
    let mut delete = db.prepare_cached(sql)?;
    let rows = delete.query_map(args, |row| Ok((row.get(0)?, row.get::<_, Option<u64>>(1)?.unwrap_or(0))))?;
    rows.collect()
}

impl Marked {
    /// Bytes of disk of all that goes.
    pub(super) fn bytes(&self) -> u64 {
        let layers: u64 = self.layers.iter().map(|(_, bytes)| bytes).sum();
        let blobs: u64 = self.blobs.iter().map(|(_, bytes)| bytes).sum();
        layers + blobs + self.mounts.iter().chain(&self.foreign).map(|(_, bytes)| bytes).sum::<u64>()
    }
}
