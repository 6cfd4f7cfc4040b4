//! How much there is of what, and how much of it pruning would give back.

use rusqlite::Connection;

use crate::clean::disk_usage;
use crate::error::Result;
use crate::store::Store;

/// How many things of a kind, and the disk they take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Total {
    /// How many.
    pub count: u64,
    /// Bytes of disk.
    pub bytes: u64,
    /// Bytes that no image needs: what pruning the build cache gives back, if no build holds it.
    pub reclaimable: u64,
}

/// What a state directory holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Images; their bytes are those of the layers and content they hold, shared ones once.
    pub images: Total,
    /// Results of steps; their layers count as layers.
    pub results: Total,
    /// Layers.
    pub layers: Total,
    /// Content.
    pub blobs: Total,
    /// Cache mounts.
    pub cache_mounts: Total,
}

impl Store {
    /// Counts and measures. New layers and all cache mounts are walked, so this takes as long as that does.
    pub fn usage(&self) -> Result<Usage> {
        self.measure_layers()?;
        let mut usage = self.shared.db.read(|db| {
            let held = "SELECT (SELECT ifnull(sum(disk), 0) FROM layers WHERE id IN (SELECT layer FROM image_layers))
                + (SELECT ifnull(sum(size), 0) FROM blobs WHERE digest IN (SELECT blob FROM image_blobs))";
            let images = Total { count: count(db, "images")?, bytes: number(db, held)?, reclaimable: 0 };
            let layers = "SELECT ifnull(sum(disk), 0) FROM layers WHERE id NOT IN (SELECT layer FROM image_layers)";
            let blobs = "SELECT ifnull(sum(size), 0) FROM blobs WHERE digest NOT IN (SELECT blob FROM image_blobs)
                AND digest NOT IN (SELECT digest FROM layer_blobs JOIN image_layers USING (layer))";
            let total = |table: &str, column: &str, reclaimable: &str| -> rusqlite::Result<Total> {
                let bytes = number(db, &format!("SELECT ifnull(sum({column}), 0) FROM {table}"))?;
                Ok(Total { count: count(db, table)?, bytes, reclaimable: number(db, reclaimable)? })
            };
            let (layers, blobs) = (total("layers", "disk", layers)?, total("blobs", "size", blobs)?);
            let results = Total { count: count(db, "results")?, ..Total::default() };
            Ok(Usage { images, results, layers, blobs, cache_mounts: Total::default() })
        })?;
        for mount in self.cache_mounts().list()? {
            let bytes = disk_usage(&self.shared.layout.cache_mounts().join(&mount.key));
            let total = &mut usage.cache_mounts;
            total.count += 1;
            total.bytes += bytes;
            total.reclaimable += if mount.is_used { 0 } else { bytes };
        }
        Ok(usage)
    }

    /// Measures layers that were not measured yet: not when they are made, since a build does not need to know.
    pub(crate) fn measure_layers(&self) -> Result<()> {
        let unknown = self.shared.db.read(|db| {
            let mut select = db.prepare_cached("SELECT id FROM layers WHERE disk IS NULL")?;
            let rows = select.query_map([], |row| row.get::<_, String>(0))?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        })?;
        if unknown.is_empty() {
            return Ok(());
        }
        let measured = unknown.into_iter().map(|id| (disk_usage(&self.shared.layout.layers().join(&id)), id));
        let measured: Vec<_> = measured.collect();
        self.shared.db.write(|db| {
            let mut update = db.prepare_cached("UPDATE layers SET disk = ?1 WHERE id = ?2")?;
            measured.iter().try_for_each(|(bytes, id)| update.execute((bytes, id)).map(drop))
        })
    }
}

fn count(db: &Connection, table: &str) -> rusqlite::Result<u64> {
    number(db, &format!("SELECT count(*) FROM {table}"))
}

fn number(db: &Connection, sql: &str) -> rusqlite::Result<u64> {
    db.prepare_cached(sql)?.query_row([], |row| row.get(0))
}
