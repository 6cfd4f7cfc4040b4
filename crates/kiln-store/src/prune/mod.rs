//! Prune: mark in the database, sweep in the directories.
//!
//! Roots are images, results that stay, and live leases; everything else goes. The sweeper is alone while it decides
//! and moves things out of sight; what takes long (removing trees) comes after, when nobody waits any more.

mod condition;
mod gc;
mod limits;
mod mark;
mod select;
mod single;
mod sweep;

use std::os::unix::fs::OpenOptionsExt as _;
use std::time::{Duration, Instant, SystemTime};

use crate::db::now;
use crate::error::Result;
use crate::inventory::Foreign;
use crate::lease::Live;
use crate::store::Store;
use crate::testing::reached;

pub use condition::{Condition, Field, Pattern, PatternError, Test};
pub use gc::Disk;
pub use limits::Limits;

/// So long content that broke off is kept for whoever wants to go on with it.
const PARTIAL: Duration = Duration::from_secs(24 * 3600);

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
#[derive(Debug, Clone, Default)]
pub struct PruneOptions {
    /// How much may go.
    pub scope: PruneScope,
    /// Only what was not used for so long.
    pub unused_for: Option<Duration>,
    /// Things go only until so much is kept, longest unused first.
    pub limits: Limits,
    /// Only things that are all of this.
    pub filter: Vec<Condition>,
    /// What others keep in the state directory. They remove what the report says.
    pub foreign: Vec<Foreign>,
    /// Only say what would go.
    pub dry_run: bool,
}

impl PruneOptions {
    fn cutoff(&self) -> i64 {
        self.unused_for.map_or(i64::MAX, |age| now().saturating_sub(i64::try_from(age.as_secs()).unwrap_or(i64::MAX)))
    }

    /// Whether things are chosen one by one. Without any of this, whole kinds of things go.
    fn is_selective(&self) -> bool {
        self.unused_for.is_some() || !self.limits.is_none() || !self.filter.is_empty()
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
    /// What others keep, and are to remove.
    Foreign,
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
    /// Bytes of all that is left, when there were limits.
    pub left: u64,
    /// Bytes of what images with names need, when there were limits.
    pub named: u64,
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
        self.prune_until(options, None)
    }

    /// As [`Self::prune`]; at `until` removing files ends.
    fn prune_until(&self, options: &PruneOptions, until: Option<Instant>) -> Result<PruneReport> {
        let lease = self.shared.somehow(|| self.lease())?;
        self.measure_layers()?;
        let aside = self.aside(options)?;
        if options.scope != PruneScope::Dangling && !options.is_selective() {
            self.shared.pages.clear();
        }
        let mut report = PruneReport::default();
        let (graves, mounts) = {
            let _alone = self.shared.sweeper()?;
            let live = Live::read(&self.shared.layout.leases())?;
            let mut graves = sweep::Graves::new(&self.shared.layout, &lease, options.dry_run);
            let spared = if options.is_selective() { PARTIAL } else { Duration::ZERO };
            graves.bury_leftovers(&live, spared, &mut report)?;
            let mut marked = self.mark(options, &live, &aside)?;
            reached("prune: recorded");
            let mounts = std::mem::take(&mut marked.mounts);
            graves.bury_orphans(&live, &marked, &mut report)?;
            graves.bury(marked, &mut report)?;
            reached("prune: moved");
            (graves, mounts)
        };
        graves.empty(&mut report, until)?;
        match options.is_selective() {
            true => self.remove_mounts(mounts, options, &lease, &mut report)?,
            false => self.prune_cache_mounts(options, &lease, &mut report)?,
        }
        if !options.dry_run {
            self.remove_stray_claims()?;
        }
        if !options.dry_run && (options.scope != PruneScope::Dangling || !report.items.is_empty()) {
            self.shared.db.shrink()?;
            self.shared.layout.keep_reserve();
        }
        Ok(report)
    }

    fn aside(&self, options: &PruneOptions) -> Result<select::Aside> {
        match options.is_selective() {
            true => Ok(select::Aside { mounts: self.measured_mounts()?, fixed: self.fixed(), free: self.disk()?.free }),
            false => Ok(select::Aside::default()),
        }
    }

    /// Removes what dead processes left, if nobody did so for `every`. Meant for the end of a build that did work.
    #[expect(clippy::disallowed_methods, reason = "the state directory is ours alone")]
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
            graves.bury_leftovers(&live, PARTIAL, &mut report)?;
            graves
        };
        self.remove_stray_claims()?;
        graves.empty(&mut report, None)
    }

    /// Lists what dead processes left, or removes it: also what was moved into place and got no row.
    pub(crate) fn leftovers(&self, dry_run: bool) -> Result<Vec<Pruned>> {
        let lease = self.lease()?;
        let mut report = PruneReport::default();
        let graves = {
            let _alone = self.shared.sweeper()?;
            let live = Live::read(&self.shared.layout.leases())?;
            let mut graves = sweep::Graves::new(&self.shared.layout, &lease, dry_run);
            graves.bury_leftovers(&live, PARTIAL, &mut report)?;
            graves.bury_orphans(&live, &self.shared.db.read(mark::known)?, &mut report)?;
            graves
        };
        graves.empty(&mut report, None)?;
        if !dry_run {
            self.remove_stray_claims()?;
        }
        Ok(report.items)
    }

    /// Decides in one transaction.
    fn mark(&self, options: &PruneOptions, live: &Live, aside: &select::Aside) -> Result<mark::Marked> {
        let mark = |db: &rusqlite::Transaction<'_>| match options.is_selective() {
            true => select::select(db, options, live, aside),
            false => mark::mark(db, options, live),
        };
        match options.dry_run {
            true => self.shared.somehow(|| self.shared.db.rehearse(mark)),
            false => self.shared.write_somehow(mark),
        }
    }

    fn prune_cache_mounts(&self, options: &PruneOptions, lease: &crate::Lease, report: &mut PruneReport) -> Result<()> {
        if options.scope == PruneScope::Dangling {
            return Ok(());
        }
        let mounts = self.measured_mounts()?.into_iter().filter(|mount| !mount.info.is_used);
        self.remove_mounts(mounts.map(|mount| (mount.info.key, mount.bytes)).collect(), options, lease, report)
    }

    fn remove_mounts(
        &self,
        mounts: Vec<(String, u64)>,
        options: &PruneOptions,
        lease: &crate::Lease,
        report: &mut PruneReport,
    ) -> Result<()> {
        for (key, bytes) in mounts {
            if options.dry_run || self.cache_mounts().remove_key(&key, lease)? {
                report.add(PrunedKind::CacheMount, key, bytes);
            }
        }
        if options.dry_run { Ok(()) } else { self.cache_mounts().remove_stray_locks(lease) }
    }
}
