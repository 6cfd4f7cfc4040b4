//! Prune: mark in the database, sweep in the directories.
//!
//! Roots are images, results that stay, and live leases; everything else goes. The sweeper is alone while it decides
//! and moves things out of sight; what takes long (removing trees) comes after, when nobody waits any more.

mod mark;
mod sweep;

use std::os::unix::fs::OpenOptionsExt as _;
use std::time::{Duration, SystemTime};

use crate::clean::disk_usage;
use crate::db::now;
use crate::error::Result;
use crate::lease::Live;
use crate::store::Store;
use crate::testing::reached;

/// How much may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PruneScope {
    /// Images without a name, and results that no image needs. What leads to a kept image still hits.
    #[default]
    Dangling,
    /// Also all other results and facts, file digests and cache mounts: the whole build cache.
    Cache,
    /// Also images with names.
    Everything,
}

/// What to prune. The default removes what is dangling.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PruneOptions {
    /// How much may go.
    pub scope: PruneScope,
    /// Only what was not used for so long.
    pub unused_for: Option<Duration>,
    /// Results go only until layers and content take no more than so many bytes, longest unused first. Cache mounts
    /// stay then.
    pub keep_bytes: Option<u64>,
    /// Only say what would go.
    pub dry_run: bool,
}

impl PruneOptions {
    fn cutoff(&self) -> i64 {
        self.unused_for.map_or(i64::MAX, |age| now().saturating_sub(i64::try_from(age.as_secs()).unwrap_or(i64::MAX)))
    }
}

/// What kind of thing was pruned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PrunedKind {
    /// An image's record; its layers and content are listed by themselves.
    Image,
    /// A step's result.
    Result,
    /// A layer.
    Layer,
    /// Content.
    Blob,
    /// A cache mount.
    CacheMount,
    /// What a dead process left.
    Leftover,
}

/// A thing that was pruned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pruned {
    /// What it was.
    pub kind: PrunedKind,
    /// Its digest, id or name.
    pub id: String,
    /// Bytes of disk that it gave back.
    pub bytes: u64,
}

/// What was pruned, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PruneReport {
    /// One by one.
    pub items: Vec<Pruned>,
}

impl PruneReport {
    /// Bytes of disk given back.
    pub fn bytes(&self) -> u64 {
        self.items.iter().map(|item| item.bytes).sum()
    }

    /// How many things of a kind.
    pub fn count(&self, kind: PrunedKind) -> usize {
        self.items.iter().filter(|item| item.kind == kind).count()
    }

    fn add(&mut self, kind: PrunedKind, id: impl Into<String>, bytes: u64) {
        self.items.push(Pruned { kind, id: id.into(), bytes });
    }
}

impl Store {
    /// Removes what nobody needs. Whatever a live process holds stays, whoever runs it.
    pub fn prune(&self, options: &PruneOptions) -> Result<PruneReport> {
        let lease = self.lease()?;
        self.measure_layers()?;
        if options.scope != PruneScope::Dangling {
            self.shared.pages.clear();
        }
        let mut report = PruneReport::default();
        let graves = {
            let _alone = self.shared.sweeper()?;
            let live = Live::read(&self.shared.layout.leases())?;
            let mut graves = sweep::Graves::new(&self.shared.layout, &lease, options.dry_run);
            // First what needs no transaction: on a full disk it makes room for the log.
            graves.bury_leftovers(&live, &mut report)?;
            let marked = self.mark(options, &live)?;
            reached("prune: recorded");
            graves.bury_orphans(&live, &marked, &mut report)?;
            graves.bury(marked, &mut report)?;
            reached("prune: moved");
            graves
        };
        graves.empty(&mut report)?;
        self.prune_cache_mounts(options, &lease, &mut report)?;
        if !options.dry_run {
            self.remove_stray_claims()?;
        }
        if !options.dry_run && (options.scope != PruneScope::Dangling || !report.items.is_empty()) {
            self.shared.layout.keep_reserve();
            self.shared.db.shrink()?;
        }
        Ok(report)
    }

    /// Removes what dead processes left, if nobody did so for `every`. Meant for the end of a build that did work.
    pub fn sweep_if_due(&self, every: Duration) -> Result<()> {
        let stamp = self.shared.layout.locks().join("swept");
        let last = std::fs::metadata(&stamp).and_then(|file| file.modified());
        let is_fresh = |last: SystemTime| last.elapsed().is_ok_and(|age| age < every);
        if last.is_ok_and(is_fresh) {
            return Ok(());
        }
        // Before the work, so that of several processes one does it. It is only a hint: failure to write it is none.
        let _ = std::fs::File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&stamp)
            .and_then(|file| file.set_modified(SystemTime::now()));
        let lease = self.lease()?;
        let mut report = PruneReport::default();
        let graves = {
            let Some(_alone) = self.shared.try_sweeper()? else { return Ok(()) };
            let live = Live::read(&self.shared.layout.leases())?;
            let mut graves = sweep::Graves::new(&self.shared.layout, &lease, false);
            graves.bury_leftovers(&live, &mut report)?;
            graves
        };
        self.remove_stray_claims()?;
        graves.empty(&mut report)
    }

    /// Lists what dead processes left, or removes it: also what was moved into place and got no row.
    pub(crate) fn leftovers(&self, dry_run: bool) -> Result<Vec<Pruned>> {
        let lease = self.lease()?;
        let mut report = PruneReport::default();
        let graves = {
            let _alone = self.shared.sweeper()?;
            let live = Live::read(&self.shared.layout.leases())?;
            let mut graves = sweep::Graves::new(&self.shared.layout, &lease, dry_run);
            graves.bury_leftovers(&live, &mut report)?;
            graves.bury_orphans(&live, &self.shared.db.read(mark::known)?, &mut report)?;
            graves
        };
        graves.empty(&mut report)?;
        if !dry_run {
            self.remove_stray_claims()?;
        }
        Ok(report.items)
    }

    /// Decides in one transaction; on a full disk after giving up the space kept for this.
    fn mark(&self, options: &PruneOptions, live: &Live) -> Result<mark::Marked> {
        if options.dry_run {
            return self.shared.db.rehearse(|db| mark::mark(db, options, live));
        }
        match self.shared.db.write(|db| mark::mark(db, options, live)) {
            Err(error) if error.is_no_space() => {
                self.shared.layout.give_up_reserve();
                self.shared.db.write(|db| mark::mark(db, options, live))
            }
            outcome => outcome,
        }
    }

    fn prune_cache_mounts(&self, options: &PruneOptions, lease: &crate::Lease, report: &mut PruneReport) -> Result<()> {
        if options.scope == PruneScope::Dangling || options.keep_bytes.is_some() {
            return Ok(());
        }
        let mounts = self.cache_mounts();
        for mount in mounts.list()?.into_iter().filter(|mount| mount.used < options.cutoff() && !mount.is_used) {
            let bytes = disk_usage(&self.shared.layout.cache_mounts().join(&mount.key));
            if options.dry_run || mounts.remove_key(&mount.key, lease)? {
                report.add(PrunedKind::CacheMount, mount.id, bytes);
            }
        }
        if options.dry_run {
            return Ok(());
        }
        mounts.remove_stray_locks(lease)
    }
}
