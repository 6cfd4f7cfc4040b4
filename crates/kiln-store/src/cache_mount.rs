//! Cache mounts: directories that outlive builds, by id, with docker's three ways of sharing.
//!
//! The id becomes a hash and is never a path. A directory appears whole, by rename, and the lock on it is the
//! kernel's, so a killed build leaves neither half a directory nor a lock.
#![expect(clippy::disallowed_methods, reason = "the state directory is ours alone")]

use std::collections::HashSet;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kiln_oci::Digest;
use kiln_sys::lock::LockMode;
use rusqlite::{OptionalExtension as _, params};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::claim;
use crate::clean::{disk_usage, remove_dir};
use crate::db::now;
use crate::error::{IoContext as _, Result};
use crate::holder::{Process, holders};
use crate::layout::make_private_dir;
use crate::lease::Lease;
use crate::lock::{self, Guard};
use crate::record::USE_RESOLUTION;
use crate::store::Shared;
use crate::testing::reached;

/// The cache mounts of a store.
pub struct CacheMounts<'a> {
    shared: &'a Arc<Shared>,
}

/// Who may use a cache mount at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sharing {
    /// Any number of steps. While a private or locked one has the directory, they share another.
    #[default]
    Shared,
    /// One step; another gets a directory of its own.
    Private,
    /// One step; others wait.
    Locked,
}

/// Which cache mount is wanted, and what it is like when it is new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheMountSpec {
    /// Any text.
    pub id: String,
    /// What a new one begins with, if with anything. Those of one id that begin with different things are different.
    pub origin: Option<Digest>,
    /// Who else may use it meanwhile.
    pub sharing: Sharing,
    /// Owner of a new directory.
    pub uid: u32,
    /// Group of a new directory.
    pub gid: u32,
    /// Mode of a new directory.
    pub mode: u32,
}

impl CacheMountSpec {
    /// A shared one of mode 0755 that belongs to root.
    pub fn new(id: impl Into<String>) -> Self {
        Self { id: id.into(), origin: None, sharing: Sharing::default(), uid: 0, gid: 0, mode: 0o755 }
    }

    /// What tells it from others, on any machine.
    pub fn name(&self) -> CacheMountName {
        let text = match &self.origin {
            None => Digest::sha256(&self.id),
            Some(origin) => Digest::sha256(format!("{}\0{origin}", self.id)),
        };
        CacheMountName(text.hex()[..NAME_LENGTH].to_owned())
    }
}

/// What tells a cache mount from others: a hash of its id and what it began with.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CacheMountName(String);

/// Hexadecimal digits of a name.
const NAME_LENGTH: usize = 32;

impl CacheMountName {
    /// The text, if it is a name.
    pub fn parse(text: &str) -> Option<Self> {
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (text.len() == NAME_LENGTH && text.bytes().all(is_hex)).then(|| Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A cache mount in use. Dropping it lets others have it.
#[derive(Debug)]
pub struct CacheMount {
    dir: PathBuf,
    _lock: Guard,
}

impl CacheMount {
    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

/// A cache mount in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheMountInfo {
    /// Its id; empty when its step was killed before it could be noted.
    pub id: String,
    /// Its name in the state directory.
    pub key: String,
    /// Seconds since 1970.
    pub created: i64,
    /// Seconds since 1970.
    pub used: i64,
    /// Whether a step uses it now.
    pub is_used: bool,
}

impl CacheMountInfo {
    /// What it is called on any machine, if it is the one that steps share and not another that one of them had alone.
    pub fn name(&self) -> Option<CacheMountName> {
        self.key.strip_suffix(".0").and_then(CacheMountName::parse)
    }
}

/// What became of a cache mount that came from elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restored {
    /// It is here now.
    Made,
    /// There was one, which stays.
    Kept,
    /// A step has it to itself.
    InUse,
}

/// Time between two looks at a lock that a locked cache mount waits for.
const LOOK: Duration = Duration::from_millis(10);

/// A private cache mount is the first free of so many.
const MAX_SLOTS: u32 = 10_000;

impl<'a> CacheMounts<'a> {
    pub(crate) fn new(shared: &'a Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Gets a cache mount, waiting for it at most `patience` when it is locked. None when it stayed taken.
    ///
    /// A step with several takes them in the order of [`CacheMountSpec::name`], lest two steps wait for each other.
    /// `fill` is called on a new directory before anybody sees it, by one process at a time.
    pub fn acquire(
        &self,
        spec: &CacheMountSpec,
        lease: &Lease,
        patience: Duration,
        fill: &dyn Fn(&Path) -> io::Result<()>,
    ) -> Result<Option<CacheMount>> {
        let since = Instant::now();
        loop {
            if let Some((slot, lock)) = self.take_slot(spec)? {
                let dir = slot.join("fs");
                if !dir.is_dir() {
                    let owner = Owner { uid: spec.uid, gid: spec.gid, mode: spec.mode };
                    self.furnish(owner, lease, &slot, fill)?;
                }
                self.note_use(&spec.id, &slot)?;
                return Ok(Some(CacheMount { dir, _lock: lock }));
            }
            let left = patience.saturating_sub(since.elapsed());
            if left.is_zero() {
                return Ok(None);
            }
            std::thread::sleep(left.min(LOOK));
        }
    }

    /// All cache mounts, by id.
    pub fn list(&self) -> Result<Vec<CacheMountInfo>> {
        let mut all = self.recorded()?;
        // A directory whose process died before it wrote the row; its id is not known any more.
        let known: HashSet<_> = all.iter().map(|mount| mount.key.clone()).collect();
        let dir = self.shared.layout.cache_mounts();
        for entry in std::fs::read_dir(&dir).context("list", &dir)? {
            let key = entry.context("list", &dir)?.file_name().to_string_lossy().into_owned();
            if !key.ends_with(".lock") && !known.contains(&key) {
                all.push(CacheMountInfo { id: String::new(), key, created: 0, used: 0, is_used: false });
            }
        }
        // Looking takes the lock for a moment; a step that wants it must not take that for another step.
        let _nobody_takes = self.alone()?;
        for mount in &mut all {
            mount.is_used = lock::is_held(&lock_of(&self.slot_dir(&mount.key)))?;
        }
        Ok(all)
    }

    fn recorded(&self) -> Result<Vec<CacheMountInfo>> {
        self.shared.db.read(|db| {
            let mut select = db.prepare_cached("SELECT id, key, created, used FROM cache_mounts ORDER BY id, key")?;
            let rows = select.query_map([], |row| {
                let (id, key) = (row.get(0)?, row.get(1)?);
                Ok(CacheMountInfo { id, key, created: row.get(2)?, used: row.get(3)?, is_used: false })
            })?;
            rows.collect()
        })
    }

    /// Takes the directory that steps share, for reading while they use it. None when there is none, or when a step
    /// that wants it alone has had it for all of `patience`.
    pub fn borrow(&self, name: &CacheMountName, patience: Duration) -> Result<Option<CacheMount>> {
        let slot = self.first_slot(name);
        let since = Instant::now();
        loop {
            if !slot.join("fs").is_dir() {
                return Ok(None);
            }
            let lock = {
                let _nobody_looks = self.taking()?;
                lock::attempt(&lock_of(&slot), LockMode::Shared)?
            };
            if let Some(lock) = lock {
                return Ok(Some(CacheMount { dir: slot.join("fs"), _lock: lock }));
            }
            let left = patience.saturating_sub(since.elapsed());
            if left.is_zero() {
                return Ok(None);
            }
            std::thread::sleep(left.min(LOOK));
        }
    }

    /// Makes a cache mount of which there is none, filled with what came from elsewhere.
    pub fn restore(
        &self,
        name: &CacheMountName,
        id: &str,
        lease: &Lease,
        fill: &dyn Fn(&Path) -> io::Result<()>,
    ) -> Result<Restored> {
        let slot = self.first_slot(name);
        let lock = {
            let _nobody_looks = self.taking()?;
            lock::attempt(&lock_of(&slot), LockMode::Shared)?
        };
        let Some(_lock) = lock else { return Ok(Restored::InUse) };
        if slot.join("fs").is_dir() {
            return Ok(Restored::Kept);
        }
        self.furnish(Owner { uid: 0, gid: 0, mode: 0o755 }, lease, &slot, fill)?;
        self.note_use(id, &slot)?;
        Ok(Restored::Made)
    }

    /// Bytes of disk that a directory of a listing takes.
    pub fn disk_usage(&self, key: &str) -> u64 {
        disk_usage(&self.slot_dir(key))
    }

    /// The processes that use a directory of a listing, as far as one may know.
    pub fn users(&self, key: &str) -> Vec<Process> {
        holders(&lock_of(&self.slot_dir(key)))
    }

    fn first_slot(&self, name: &CacheMountName) -> PathBuf {
        self.slot_dir(&format!("{}.0", name.as_str()))
    }

    /// Removes all directories of an id that nobody uses; says how many.
    pub fn remove(&self, id: &str) -> Result<usize> {
        let keys = self.list()?.into_iter().filter(|mount| mount.id == id).map(|mount| mount.key);
        let mut removed = 0;
        let lease = Lease::new(self.shared.clone())?;
        for key in keys {
            removed += usize::from(self.remove_key(&key, &lease)?);
        }
        Ok(removed)
    }

    /// Removes locks without a directory: of processes that died between taking the one and making the other.
    pub(crate) fn remove_stray_locks(&self, lease: &Lease) -> Result<()> {
        let dir = self.shared.layout.cache_mounts();
        for entry in std::fs::read_dir(&dir).context("list", &dir)? {
            let name = entry.context("list", &dir)?.file_name();
            if let Some(key) = name.to_string_lossy().strip_suffix(".lock")
                && !self.slot_dir(key).exists()
            {
                self.remove_key(key, lease)?;
            }
        }
        Ok(())
    }

    /// Removes one directory of a listing unless it is used.
    pub fn remove_key(&self, key: &str, lease: &Lease) -> Result<bool> {
        let slot = self.slot_dir(key);
        let grave = self.shared.layout.tmp().join(lease.fresh_name());
        {
            let _nobody_takes = self.alone()?;
            let Some(_lock) = lock::attempt(&lock_of(&slot), LockMode::Exclusive)? else { return Ok(false) };
            match std::fs::rename(&slot, &grave) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).context("rename", &slot),
                _ => {}
            }
            let delete = "DELETE FROM cache_mounts WHERE key = ?1";
            self.shared.write_somehow(|db| db.prepare_cached(delete)?.execute([key]))?;
            let _ = std::fs::remove_file(lock_of(&slot));
        }
        remove_dir(&grave)?;
        Ok(true)
    }

    fn taking(&self) -> Result<Guard> {
        lock::wait(&self.shared.layout.locks().join("cache-mounts"), LockMode::Shared)
    }

    fn alone(&self) -> Result<Guard> {
        lock::wait(&self.shared.layout.locks().join("cache-mounts"), LockMode::Exclusive)
    }

    fn slot_dir(&self, key: &str) -> PathBuf {
        self.shared.layout.cache_mounts().join(key)
    }

    fn take_slot(&self, spec: &CacheMountSpec) -> Result<Option<(PathBuf, Guard)>> {
        let name = spec.name();
        let (slots, mode) = match spec.sharing {
            Sharing::Shared => (MAX_SLOTS, LockMode::Shared),
            Sharing::Private => (MAX_SLOTS, LockMode::Exclusive),
            Sharing::Locked => (1, LockMode::Exclusive),
        };
        let _nobody_looks = self.taking()?;
        for number in 0..slots {
            let slot = self.slot_dir(&format!("{}.{number}", name.as_str()));
            if let Some(lock) = lock::attempt(&lock_of(&slot), mode)? {
                return Ok(Some((slot, lock)));
            }
        }
        Ok(None)
    }

    /// Makes a new directory out of sight, then moves it into place unless another step was quicker.
    fn furnish(&self, owner: Owner, lease: &Lease, slot: &Path, fill: &dyn Fn(&Path) -> io::Result<()>) -> Result<()> {
        let work = Digest::sha256(format!("cache mount {}", key_of(slot)));
        let _nobody_else_fills = claim::wait(&self.shared.layout, &work)?;
        if slot.join("fs").is_dir() {
            return Ok(());
        }
        let draft = self.shared.layout.tmp().join(lease.fresh_name());
        make_private_dir(&draft).context("create", &draft)?;
        let dir = draft.join("fs");
        std::fs::create_dir(&dir).context("create", &dir)?;
        chown(&dir, Some(owner.uid), Some(owner.gid)).context("change the owner of", &dir)?;
        let mode = Permissions::from_mode(owner.mode & 0o7777);
        std::fs::set_permissions(&dir, mode).context("change the mode of", &dir)?;
        // What it is filled with may bring an owner and a mode of its own.
        fill(&dir).context("fill", &dir)?;
        reached("cache mount: made");
        match renameat_with(CWD, &draft, CWD, slot, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(Errno::EXIST) => remove_dir(&draft)?,
            Err(error) => Err(error).context("rename", &draft)?,
        }
        self.shared.grew();
        reached("cache mount: in place");
        Ok(())
    }

    /// Its times are good to the hour, so that a step writes nothing unless what it takes was measured since.
    fn note_use(&self, id: &str, slot: &Path) -> Result<()> {
        let key = key_of(slot);
        let noted = self.shared.db.read(|db| {
            let mut select = db.prepare_cached("SELECT used FROM cache_mounts WHERE key = ?1 AND disk IS NULL")?;
            select.query_row([&key], |row| row.get::<_, i64>(0)).optional()
        })?;
        if noted.is_some_and(|used| now() - used < USE_RESOLUTION) {
            return Ok(());
        }
        let now = now();
        self.shared.db.write(|db| {
            let sql = "INSERT INTO cache_mounts (key, id, created, used) VALUES (?1, ?2, ?3, ?3)
                       ON CONFLICT DO UPDATE SET disk = NULL, uses = uses + (used < ?4), used = max(used, ?3)";
            db.prepare_cached(sql)?.execute(params![key, id, now, now - USE_RESOLUTION]).map(drop)
        })
    }
}

fn key_of(slot: &Path) -> String {
    slot.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What a new directory is like.
struct Owner {
    uid: u32,
    gid: u32,
    mode: u32,
}

/// Beside the directory, not in it: it must be there before the directory is.
fn lock_of(slot: &Path) -> PathBuf {
    let mut path = slot.as_os_str().to_owned();
    path.push(".lock");
    path.into()
}
