//! Garbage collection: keeps what is kept below a limit, at the end of builds that added something.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use kiln_sys::lock::LockMode;

use super::{Limits, PruneOptions, PruneReport, PruneScope};
use crate::clean::disk_usage;
use crate::error::{IoContext as _, Result};
use crate::inventory::Foreign;
use crate::lock;
use crate::store::Store;

impl Store {
    /// Whether something was added through this handle or its clones since it was opened.
    pub fn has_grown(&self) -> bool {
        self.shared.grown.load(Ordering::Relaxed)
    }

    /// Removes what was not used for longest until the limits are met. Nothing of running builds goes, and no image that
    /// has a name; those without go with the rest.
    ///
    /// Nothing is done, and `None` answered, when the limits are met, or somebody else is at it. Removing files ends after
    /// `patience`; what is left of them then is swept by the next who prunes.
    pub fn collect(&self, limits: Limits, foreign: Vec<Foreign>, patience: Duration) -> Result<Option<PruneReport>> {
        let until = Instant::now() + patience;
        let path = self.shared.layout.locks().join("gc");
        let Some(_alone) = lock::attempt(&path, LockMode::Exclusive)? else { return Ok(None) };
        self.measure_layers()?;
        let total = self.total(&foreign)?;
        if limits.is_none() || limits.excess(total, self.disk()?.free) == 0 {
            return Ok(None);
        }
        let options = PruneOptions { scope: PruneScope::Cache, limits, foreign, ..PruneOptions::default() };
        self.prune_until(&options, Some(until)).map(Some)
    }

    /// The size of the disk that the state directory is on, and what is free of it.
    #[expect(clippy::disallowed_methods, reason = "the state directory is ours alone")]
    pub fn disk(&self) -> Result<Disk> {
        let root = self.shared.layout.root();
        let stat = rustix::fs::statvfs(root).context("inspect", root)?;
        Ok(Disk { size: stat.f_blocks * stat.f_frsize, free: stat.f_bavail * stat.f_frsize })
    }

    fn total(&self, foreign: &[Foreign]) -> Result<u64> {
        let rows = self.shared.db.read(|db| {
            let sql = "SELECT (SELECT ifnull(sum(disk), 0) FROM layers)
                + (SELECT ifnull(sum((size + 4095) / 4096 * 4096), 0) FROM blobs)";
            db.prepare_cached(sql)?.query_row([], |row| row.get::<_, u64>(0))
        })?;
        let mounts: u64 = self.measured_mounts()?.iter().map(|mount| mount.bytes).sum();
        Ok(rows + mounts + foreign.iter().map(|thing| thing.bytes).sum::<u64>() + self.fixed())
    }

    /// Bytes of what cannot be pruned.
    pub(super) fn fixed(&self) -> u64 {
        let root = self.shared.layout.root();
        ["kiln.db", "kiln.db-wal", "kiln.db-shm", "reserve"].iter().map(|name| disk_usage(&root.join(name))).sum()
    }
}

/// A disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// Bytes it has.
    pub size: u64,
    /// Bytes that may be written to it.
    pub free: u64,
}
