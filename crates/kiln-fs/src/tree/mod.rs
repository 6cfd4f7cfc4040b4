//! A tree to read from: a build context with its ignore patterns, or a snapshot.

mod list;
mod locate;
mod near;
mod survey;

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::RwLock;

use kiln_oci::Digest;
use kiln_sys::metadata::Metadata;
use kiln_sys::root::Root;

pub(crate) use list::{Directory, Entry, Listing, Selection, join, open_beneath, open_directory};
pub(crate) use locate::{LastLink, Located, split};
pub use survey::{LeftOut, Sent, Survey, Verdict, survey, verdict};

use crate::meta::{Xattr, xattrs};
use crate::pattern::PatternSet;

/// A directory tree as a build sees it: what the ignore patterns hide is not there.
#[derive(Debug)]
pub struct SourceTree {
    /// Where the tree is.
    pub root: Root,
    /// What is hidden. Hidden files are never opened, hidden directories only if something in them is not.
    pub ignore: Option<PatternSet>,
    /// Whom its files belong to.
    pub ownership: Ownership,
}

/// Whom the files of a tree belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// Their owners on disk.
    Keep,
    /// Root: a context must mean the same on every machine.
    Reset,
    /// Root, with modes as git has them, no extended attributes, and each name a file of its own: what a checkout and its umask
    /// add does not count.
    Plain,
}

impl SourceTree {
    /// A snapshot: everything is there, owners count.
    pub fn snapshot(root: Root) -> Self {
        Self { root, ignore: None, ownership: Ownership::Keep }
    }

    /// A build context.
    pub fn context(root: Root, ignore: Option<PatternSet>) -> Self {
        Self { root, ignore, ownership: Ownership::Reset }
    }

    /// The same context, of which only that counts which git keeps.
    pub fn plain(self) -> Self {
        Self { ownership: Ownership::Plain, ..self }
    }

    /// What is known of a file, as far as it counts.
    pub(crate) fn seen(&self, file: Metadata) -> Metadata {
        if self.ownership != Ownership::Plain || file.is_symlink() {
            return file;
        }
        let is_executable = file.is_dir() || file.mode & 0o100 != 0;
        Metadata { mode: if is_executable { 0o755 } else { 0o644 }, nlink: 1, ..file }
    }

    /// Extended attributes of a file, as far as they count: git keeps none.
    pub(crate) fn attributes(&self, handle: impl AsFd) -> std::io::Result<Vec<Xattr>> {
        if self.ownership == Ownership::Plain { Ok(Vec::new()) } else { xattrs(handle) }
    }

    /// Owner and group of a file, as the tree has them.
    pub(crate) fn owner(&self, metadata: &Metadata) -> (u32, u32) {
        match self.ownership {
            Ownership::Keep => (metadata.uid, metadata.gid),
            Ownership::Reset | Ownership::Plain => (0, 0),
        }
    }
}

/// What tells one state of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StatKey {
    /// The filesystem.
    pub dev: u64,
    /// The inode.
    pub ino: u64,
    /// Bytes.
    pub size: u64,
    /// Last change of the content, in nanoseconds since the epoch.
    pub mtime_ns: i64,
    /// Last change of content or attributes, in nanoseconds since the epoch. Nobody can set it back.
    pub ctime_ns: i64,
}

impl StatKey {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        let nanos = |time: kiln_sys::metadata::Timestamp| {
            time.secs.saturating_mul(1_000_000_000).saturating_add(i64::from(time.nanos))
        };
        Self {
            dev: metadata.dev,
            ino: metadata.ino,
            size: metadata.size,
            mtime_ns: nanos(metadata.mtime),
            ctime_ns: nanos(metadata.ctime),
        }
    }
}

/// Remembers the digests of files that have not changed. Called from several threads at once.
pub trait StatCache: Sync {
    /// Hears what will be asked for, so that it can be read at once.
    fn expect(&self, _: &mut dyn Iterator<Item = StatKey>) {}
    /// The digest kept for exactly this state of a file.
    fn get(&self, key: &StatKey) -> Option<Digest>;
    /// Keeps a digest. Only called for files that were last changed a moment ago or earlier.
    fn put(&self, key: &StatKey, digest: Digest);
}

/// Remembers nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoCache;

impl StatCache for NoCache {
    fn get(&self, _: &StatKey) -> Option<Digest> {
        None
    }

    fn put(&self, _: &StatKey, _: Digest) {}
}

/// Remembers in memory.
#[derive(Debug, Default)]
pub struct MemoryCache(RwLock<HashMap<StatKey, Digest>>);

impl StatCache for MemoryCache {
    fn get(&self, key: &StatKey) -> Option<Digest> {
        self.0.read().ok()?.get(key).cloned()
    }

    fn put(&self, key: &StatKey, digest: Digest) {
        if let Ok(mut kept) = self.0.write() {
            kept.insert(*key, digest);
        }
    }
}
