//! Leases: what a live process made or uses stays until it lets go, however it ends.
//!
//! A lease is a file in `leases/` that its process keeps locked. Its lines name what it holds. The kernel drops the
//! lock when the process dies, so there is nothing to expire and nothing to renew.
#![expect(clippy::disallowed_methods, reason = "the state directory is ours alone")]

use std::collections::HashSet;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use kiln_oci::Digest;
use rusqlite::{Connection, OptionalExtension as _};

use crate::db::locked;
use crate::error::{Error, IoContext as _, Result};
use crate::lock::{self, Guard};
use crate::snapshot::{LayerId, Snapshot};
use crate::store::Shared;
use crate::testing::reached;

/// Protects what was made or is used under it. Clones share it; it ends when the last one is dropped.
#[derive(Clone)]
pub struct Lease(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    id: String,
    path: PathBuf,
    held: Mutex<HashSet<Item>>,
    next: AtomicU64,
    /// Dropped after the file is removed: what can be locked is dead.
    lock: Guard,
}

/// Something a lease can hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Item {
    Layer(LayerId),
    Blob(Digest),
}

impl From<LayerId> for Item {
    fn from(layer: LayerId) -> Self {
        Self::Layer(layer)
    }
}

impl From<Digest> for Item {
    fn from(digest: Digest) -> Self {
        Self::Blob(digest)
    }
}

impl Item {
    fn parse(line: &str) -> Option<Self> {
        match line.split_once(' ')? {
            ("layer", id) => id.parse().ok().map(Self::Layer),
            ("blob", digest) => digest.parse().ok().map(Self::Blob),
            _ => None,
        }
    }

    /// What it is called.
    pub(crate) fn label(&self) -> String {
        match self {
            Self::Layer(id) => format!("layer {id}"),
            Self::Blob(digest) => format!("content {digest}"),
        }
    }

    fn line(&self) -> String {
        match self {
            Self::Layer(id) => format!("layer {id}\n"),
            Self::Blob(digest) => format!("blob {digest}\n"),
        }
    }

    /// The error of not finding it.
    pub(crate) fn unknown(self) -> Error {
        match self {
            Self::Layer(layer) => Error::UnknownLayer { layer },
            Self::Blob(digest) => Error::UnknownBlob { digest },
        }
    }

    pub(crate) fn exists(&self, db: &Connection) -> rusqlite::Result<bool> {
        let (sql, key) = match self {
            Self::Layer(id) => ("SELECT 1 FROM layers WHERE id = ?1", id.as_str()),
            Self::Blob(digest) => ("SELECT 1 FROM blobs WHERE digest = ?1", digest.as_str()),
        };
        Ok(db.prepare_cached(sql)?.query_row([key], |_| Ok(())).optional()?.is_some())
    }
}

impl Lease {
    pub(crate) fn new(shared: Arc<Shared>) -> Result<Self> {
        // The sweeper takes a lease it can lock for a dead one: it must not come between making and locking.
        let _no_sweep = shared.no_sweep()?;
        let id = fresh_id()?;
        let path = shared.layout.leases().join(&id);
        let file = File::options().create_new(true).append(true).mode(0o600).open(&path).context("create", &path)?;
        let lock = lock::hold(file, &path)?;
        Ok(Self(Arc::new(Inner { shared, id, path, held: Mutex::default(), next: AtomicU64::new(1), lock })))
    }

    /// Holds all layers of a snapshot. False, and nothing is held, when one of them is gone.
    pub fn hold_snapshot(&self, snapshot: &Snapshot) -> Result<bool> {
        let items: Vec<_> = snapshot.layers().iter().cloned().map(Item::Layer).collect();
        Ok(self.hold(&items)?.is_none())
    }

    /// Holds content. False when it is gone.
    pub fn hold_blob(&self, digest: &Digest) -> Result<bool> {
        Ok(self.hold(&[Item::Blob(digest.clone())])?.is_none())
    }

    /// Holds all of it, or nothing and says what is missing.
    pub(crate) fn hold(&self, items: &[Item]) -> Result<Option<Item>> {
        let shared = &self.0.shared;
        let _no_sweep = shared.no_sweep()?;
        let missing = shared.db.read(|db| {
            for item in items {
                if !item.exists(db)? {
                    return Ok(Some(item.clone()));
                }
            }
            Ok(None)
        })?;
        if missing.is_some() {
            return Ok(missing);
        }
        for item in items {
            if !shared.is_present(item)? {
                return Ok(Some(item.clone()));
            }
        }
        reached("lease: seen");
        self.note(items)?;
        Ok(None)
    }

    /// Writes down what is held. The caller keeps the sweeper out, from here until the thing has its row.
    pub(crate) fn note(&self, items: &[Item]) -> Result<()> {
        let mut held = locked(&self.0.held);
        let new: Vec<&Item> = items.iter().filter(|item| !held.contains(item)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let lines: String = new.iter().map(|item| item.line()).collect();
        (&mut self.0.lock.file()).write_all(lines.as_bytes()).context("write", &self.0.path)?;
        let new: Vec<Item> = new.into_iter().cloned().collect();
        held.extend(new);
        Ok(())
    }

    /// A name nothing else has, which tells the sweeper whose it is: `<lease>.<number>`.
    pub(crate) fn fresh_name(&self) -> String {
        format!("{}.{:x}", self.0.id, self.0.next.fetch_add(1, Ordering::Relaxed))
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lease({})", self.0.id)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // One that stays behind is unlocked and therefore swept.
        let _ = std::fs::remove_file(&self.path);
        // The end of a build is when what it learned is written. Only hints: a lost one costs a little time later.
        let _ = self.shared.flush();
    }
}

/// What all live leases hold, and who they are.
#[derive(Debug, Default)]
pub(crate) struct Live {
    pub(crate) leases: HashSet<String>,
    pub(crate) layers: HashSet<LayerId>,
    pub(crate) blobs: HashSet<Digest>,
}

impl Live {
    /// Reads the live leases and removes the dead ones. The caller is the sweeper.
    pub(crate) fn read(leases: &Path) -> Result<Self> {
        let mut live = Self::default();
        for entry in std::fs::read_dir(leases).context("list", leases)? {
            let entry = entry.context("list", leases)?;
            let path = entry.path();
            if !entry.file_type().context("inspect", &path)?.is_file() {
                continue;
            }
            if !lock::is_held(&path)? {
                let _ = std::fs::remove_file(&path);
                continue;
            }
            let text = match std::fs::read_to_string(&path) {
                Ok(text) => text,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(source) => return Err(Error::Io { action: "read", path, source }),
            };
            live.leases.insert(entry.file_name().to_string_lossy().into_owned());
            for item in text.lines().filter_map(Item::parse) {
                match item {
                    Item::Layer(id) => live.layers.insert(id),
                    Item::Blob(digest) => live.blobs.insert(digest),
                };
            }
        }
        Ok(live)
    }

    /// Whether a name made by [`Lease::fresh_name`] belongs to a live lease.
    pub(crate) fn owns(&self, name: &str) -> bool {
        name.split_once('.').is_some_and(|(lease, _)| self.leases.contains(lease))
    }
}

fn fresh_id() -> Result<String> {
    let mut bytes = [0_u8; 6];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(std::io::Error::from)
        .context("read", Path::new("/dev/urandom"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
