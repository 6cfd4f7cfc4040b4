//! Where things are in the state directory, and that nobody else may look there.
#![expect(clippy::disallowed_methods, reason = "the state directory is ours alone")]

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use kiln_oci::Digest;
use rustix::fs::{CWD, FallocateFlags, FileType, Mode, fallocate, mknodat};

use crate::error::{Error, IoContext as _, Result};
use crate::snapshot::LayerId;

/// The paths of one state directory.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
}

/// SQLite takes names of 512 bytes (`MAX_PATHNAME` of its `os_unix.c`), and the longest here is `/kiln.db-journal`.
const LONGEST_PATH: usize = 512 - "/kiln.db-journal".len();

/// Enough for the log of a prune of some thousand rows.
const RESERVE: u64 = 256 << 10;

const DIRS: &[&str] =
    &["blobs", "blobs/sha256", "ingest", "layers", "work", "cache-mounts", "locks", "leases", "tmp", "empty"];

impl Layout {
    /// Finds a state directory, or makes it and the parents it needs, all of mode 0700.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let layout = Self { root: std::path::absolute(root).context("resolve", root)? };
        let path = std::fs::canonicalize(&layout.root).unwrap_or_else(|_| layout.root.clone());
        if path.as_os_str().len() > LONGEST_PATH {
            return Err(Error::PathTooLong { path, limit: LONGEST_PATH });
        }
        match std::fs::metadata(&layout.root) {
            Ok(found) if found.is_dir() => layout.keep_private(found.mode())?,
            Ok(_) => return Err(layout.not_writable(io::ErrorKind::NotADirectory.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if let Some(link) = layout.root.ancestors().find(|at| at.is_symlink() && !at.exists()) {
                    let target = std::fs::read_link(link).context("read", link)?;
                    return Err(Error::DanglingLink { link: link.to_owned(), target });
                }
                make_private_parents(&layout.root).map_err(|error| layout.not_writable(error))?;
            }
            Err(error) => return Err(layout.not_writable(error)),
        }
        Ok(layout)
    }

    /// Makes the directories that are missing: programs that copy or tidy leave out empty ones.
    pub(crate) fn make_dirs(&self) -> Result<()> {
        DIRS.iter()
            .try_for_each(|name| make_private_dir(&self.root.join(name)).map_err(|error| self.not_writable(error)))?;
        // Deletions and owners are written otherwise by who is not root, and root would not see it.
        let owner = std::fs::metadata(self.layers()).context("inspect", &self.layers())?.uid();
        let is_ours = owner == rustix::process::geteuid().as_raw();
        if is_ours { Ok(()) } else { Err(Error::Others { path: self.root.clone(), owner }) }
    }

    /// Makes what a new state directory holds. Harmless when some or all of it is there.
    pub(crate) fn furnish(&self) -> Result<()> {
        self.make_dirs()?;
        // Made without opening it: closing any descriptor of a database file drops the locks that other connections of
        // this process have on it (fcntl(2), "record locks"; https://sqlite.org/howtocorrupt.html §2.2).
        self.keep_reserve();
        let db = self.db();
        match mknodat(CWD, &db, FileType::RegularFile, Mode::RUSR | Mode::WUSR, 0) {
            Ok(()) => {
                std::fs::set_permissions(&db, Permissions::from_mode(0o600)).map_err(|error| self.not_writable(error))
            }
            Err(rustix::io::Errno::EXIST) => Ok(()),
            Err(error) => Err(self.not_writable(error.into())),
        }
    }

    /// Whether there is nothing that a database would know of.
    pub(crate) fn is_bare(&self) -> Result<bool> {
        for dir in [self.blobs(), self.layers()] {
            if std::fs::read_dir(&dir).context("list", &dir)?.next().is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether there are trees whose files have owners.
    pub(crate) fn has_trees(&self) -> Result<bool> {
        for dir in [self.layers(), self.cache_mounts()] {
            if std::fs::read_dir(&dir).context("list", &dir)?.next().is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Puts space aside, so that pruning can write its log when the disk is full.
    pub(crate) fn keep_reserve(&self) {
        let reserve = self.reserve();
        if reserve.exists() {
            return;
        }
        // Without it all works but that one case; on a full disk the next prune tries again.
        let made = File::options().create_new(true).write(true).mode(0o600).open(&reserve);
        let kept = made.and_then(|file| Ok(fallocate(file, FallocateFlags::empty(), 0, RESERVE)?));
        if kept.is_err() {
            self.give_up_reserve();
        }
    }

    /// Does what makes room; on a full disk after giving up the space kept for that.
    pub(crate) fn somehow<T>(&self, work: impl Fn() -> Result<T>) -> Result<T> {
        match work() {
            Err(error) if error.is_no_space() => {
                self.give_up_reserve();
                work()
            }
            outcome => outcome,
        }
    }

    fn give_up_reserve(&self) {
        // Not there: given up before.
        let _ = std::fs::remove_file(self.reserve());
    }

    fn reserve(&self) -> PathBuf {
        self.root.join("reserve")
    }

    fn keep_private(&self, mode: u32) -> Result<()> {
        if mode & 0o077 == 0 {
            return Ok(());
        }
        std::fs::set_permissions(&self.root, Permissions::from_mode(0o700)).map_err(|error| self.not_writable(error))
    }

    pub(crate) fn not_writable(&self, source: io::Error) -> Error {
        Error::NotWritable { path: self.root.clone(), source }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn db(&self) -> PathBuf {
        self.root.join("kiln.db")
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        let mut path = self.root.join("blobs");
        path.push(digest.algorithm());
        path.push(digest.hex());
        path
    }

    pub(crate) fn ingest(&self) -> PathBuf {
        self.root.join("ingest")
    }

    pub(crate) fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    /// The directory of a layer; its tree is `fs` in it.
    pub(crate) fn layer(&self, id: &LayerId) -> PathBuf {
        self.layers().join(id.as_str())
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.root.join("work")
    }

    pub(crate) fn cache_mounts(&self) -> PathBuf {
        self.root.join("cache-mounts")
    }

    pub(crate) fn leases(&self) -> PathBuf {
        self.root.join("leases")
    }

    pub(crate) fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    pub(crate) fn locks(&self) -> PathBuf {
        self.root.join("locks")
    }

    /// A directory that stays empty: the lower of a snapshot without layers, since overlayfs wants at least one.
    pub(crate) fn empty(&self) -> PathBuf {
        self.root.join("empty")
    }
}

/// Makes a directory of mode 0700 whatever the umask; one that is there stays as it is.
pub(crate) fn make_private_dir(path: &Path) -> io::Result<()> {
    match std::fs::create_dir(path) {
        Ok(()) => std::fs::set_permissions(path, Permissions::from_mode(0o700)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

fn make_private_parents(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_private_parents(parent)?;
    }
    make_private_dir(path)
}
