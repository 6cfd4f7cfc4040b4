//! The store as its users see it, one module for each thing it keeps.
#![allow(clippy::disallowed_methods, reason = "tests name files of the machine")]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod builds;
mod cache_mounts;
mod doubt;
mod fsck;
mod images;
mod opening;
mod prune;
mod records;
mod space;
mod stat_cache;
mod suites;

use std::path::Path;

use kiln_oci::{Digest, Platform};
use kiln_store::{ImageRecord, Lease, Snapshot, Snapshotter as _, Store};
use tempfile::TempDir;

/// A store in a directory of its own.
struct Fixture {
    store: Store,
    dir: TempDir,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state")).unwrap();
        Self { store, dir }
    }

    fn root(&self) -> std::path::PathBuf {
        self.dir.path().join("state")
    }

    /// A snapshot with one layer more, which holds one file of `bytes` bytes.
    fn grow(&self, parent: &Snapshot, lease: &Lease, bytes: usize) -> Snapshot {
        let active = self.store.prepare(Some(parent), lease).unwrap();
        std::fs::write(active.upper_dir().join("file"), vec![7; bytes]).unwrap();
        self.store.commit(active).unwrap()
    }

    /// The record of an image that holds a config of its own and, perhaps, a tree.
    fn image(&self, lease: &Lease, config: &str, snapshot: Option<Snapshot>) -> ImageRecord {
        let config = self.store.content().put(lease, "application/json", config.as_bytes()).unwrap();
        ImageRecord {
            id: config.digest.clone(),
            manifest: None,
            snapshot,
            blobs: vec![config.digest],
            repo_digests: Vec::new(),
            platform: Platform::linux("amd64"),
            created: None,
            size: 0,
            members: Vec::new(),
        }
    }
}

fn key(text: &str) -> Digest {
    Digest::sha256(text)
}

/// Names in a directory of the state.
fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}
