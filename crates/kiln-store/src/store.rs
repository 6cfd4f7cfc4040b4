//! The store: one state directory, opened.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use kiln_oci::Digest;
use kiln_sys::lock::LockMode;
use rusqlite::Transaction;

use crate::build::Builds;
use crate::cache_mount::CacheMounts;
use crate::content::ContentStore;
use crate::db::Db;
use crate::error::Result;
use crate::image::Images;
use crate::layout::Layout;
use crate::lease::{Item, Lease};
use crate::lock::{self, Guard};
use crate::native::{Stacking, Views};
use crate::record::{Records, Touched};
use crate::stat_cache::{Pages, StatCache};

/// What kiln keeps, in one state directory. Cheap to clone; clones share connections and caches.
///
/// Any number of threads and processes may have one state directory open at once.
#[derive(Clone)]
pub struct Store {
    pub(crate) shared: Arc<Shared>,
}

/// What all handles of one opened store share.
pub(crate) struct Shared {
    pub(crate) layout: Layout,
    pub(crate) db: Db,
    pub(crate) touched: Touched,
    pub(crate) pages: Pages,
    /// What was found broken, until somebody asks.
    pub(crate) notes: Mutex<Vec<String>>,
    /// Whether something was added.
    pub(crate) grown: AtomicBool,
    /// Content that this process wrote, whose bytes it knows without reading them.
    pub(crate) written: Mutex<HashSet<Digest>>,
    /// How layers become trees, once it is known.
    pub(crate) stacking: OnceLock<Stacking>,
    pub(crate) views: Mutex<Views>,
    /// What could not be looked at, and why.
    pub(crate) undecided: Mutex<HashMap<Item, String>>,
}

impl Store {
    /// Opens the state directory `root`, making it when it is not there.
    pub fn open(root: &Path) -> Result<Self> {
        let layout = Layout::open(root)?;
        let db = layout.somehow(|| Db::open(&layout))?;
        layout.make_dirs()?;
        let shared = Shared {
            layout,
            db,
            touched: Touched::default(),
            pages: Pages::default(),
            notes: Mutex::default(),
            grown: AtomicBool::new(false),
            written: Mutex::default(),
            stacking: OnceLock::new(),
            views: Mutex::default(),
            undecided: Mutex::default(),
        };
        let store = Self { shared: Arc::new(shared) };
        store.doubt_unsynced()?;
        Ok(store)
    }

    /// The state directory.
    pub fn root(&self) -> PathBuf {
        self.shared.layout.root().to_owned()
    }

    /// Starts a lease: what is made or used under it stays until it is dropped.
    pub fn lease(&self) -> Result<Lease> {
        Lease::new(self.shared.clone())
    }

    /// Content by digest.
    pub fn content(&self) -> ContentStore {
        ContentStore::new(self.shared.clone())
    }

    /// Images and their names.
    pub fn images(&self) -> Images<'_> {
        Images::new(&self.shared)
    }

    /// The solver's results and facts.
    pub fn records(&self) -> Records<'_> {
        Records::new(&self.shared)
    }

    /// The record of builds.
    pub fn builds(&self) -> Builds<'_> {
        Builds::new(&self.shared)
    }

    /// Directories that outlive builds, for `RUN --mount=type=cache`.
    pub fn cache_mounts(&self) -> CacheMounts<'_> {
        CacheMounts::new(&self.shared)
    }

    /// Digests of files by what `stat` says of them.
    pub fn stat_cache(&self) -> StatCache {
        StatCache::new(self.shared.clone())
    }

    /// Writes down, in one transaction, what was collected in memory: times of last use, file digests.
    ///
    /// Also done when a lease ends and when the last handle is dropped; then without telling of failure.
    pub fn flush(&self) -> Result<()> {
        self.shared.flush()
    }

    /// Forgets what was collected in memory and not yet written.
    pub fn forget_pending(&self) {
        drop((self.shared.touched.take(), self.shared.pages.take_dirty()));
    }
}

impl Shared {
    /// Keeps the sweeper out for as long as the guard lives: a moment between seeing a thing and holding it.
    pub(crate) fn no_sweep(&self) -> Result<Guard> {
        lock::wait(&self.sweep_lock(), LockMode::Shared)
    }

    /// Becomes the sweeper, alone.
    pub(crate) fn sweeper(&self) -> Result<Guard> {
        lock::wait(&self.sweep_lock(), LockMode::Exclusive)
    }

    /// Becomes the sweeper unless somebody is in the way.
    pub(crate) fn try_sweeper(&self) -> Result<Option<Guard>> {
        lock::attempt(&self.sweep_lock(), LockMode::Exclusive)
    }

    fn sweep_lock(&self) -> PathBuf {
        self.layout.locks().join("sweep")
    }

    /// Does what makes room; on a full disk after giving up the space kept for that.
    pub(crate) fn somehow<T>(&self, work: impl Fn() -> Result<T>) -> Result<T> {
        self.layout.somehow(work)
    }

    /// Writes what makes room.
    pub(crate) fn write_somehow<T>(&self, write: impl Fn(&Transaction<'_>) -> rusqlite::Result<T>) -> Result<T> {
        self.somehow(|| self.db.write(&write))
    }

    /// Notes that there is more than there was.
    pub(crate) fn grew(&self) {
        self.grown.store(true, Ordering::Relaxed);
    }

    pub(crate) fn flush(&self) -> Result<()> {
        let (touched, pages) = (self.touched.take(), self.pages.take_dirty());
        if touched.is_empty() && pages.is_empty() {
            return Ok(());
        }
        self.db.write(|db| {
            touched.write(db)?;
            pages.write(db)
        })
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Both are only hints: a lost one costs a little time later.
        let _ = self.flush();
    }
}
