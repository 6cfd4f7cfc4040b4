//! What kiln keeps: content, snapshots, images, cache records, leases.
//!
//! One state directory, used by any number of kiln processes at once; there is no daemon. All of it is of mode 0700.
//!
//! ```text
//! <state>/
//!   kiln.db               SQLite: what is known of all the rest
//!   blobs/sha256/<hex>    content, whole and verified
//!   ingest/<name>         content being received; <hex>: some that broke off, to be continued
//!   layers/<id>/fs        layers, each the upper directory of an overlay: whiteouts, opaque marks
//!   work/<id>/{fs,work}   layers being written; flat: all of a tree, where there is no overlay
//!   cache-mounts/<key>/fs directories of `RUN --mount=type=cache`; <key>.lock beside them
//!   leases/<id>           one locked file for each live lease, naming what it holds
//!   locks/                the locks of the sweeper, the schema, the cache mounts; claim-<hex>: work being done
//!   tmp/<name>            on its way in or out
//!   empty/                stays empty
//!   native                why layers are copied, if they are
//!   standing              with whose rights and ids layers were written
//!   reserve               space put aside for pruning a full disk
//! ```
//!
//! Names in `ingest`, `work` and `tmp` begin with the id of the lease they were made under. When the lease's process
//! dies, the kernel drops its lock, and whoever prunes next removes what it left. What is to be continued is only removed
//! by a prune that chooses nothing, or after a day.
//!
//! ```
//! use kiln_store::{Snapshotter as _, Store};
//! # let dir = tempfile::tempdir().unwrap();
//! # let root = dir.path().join("state");
//! let store = Store::open(&root)?;
//! let lease = store.lease()?; // what is made or used from here on stays until it is dropped
//! let active = store.prepare(None, &lease)?;
//! std::fs::write(active.upper_dir().join("hello"), "world").expect("the directory is ours");
//! let snapshot = store.commit(active)?;
//! assert_eq!(store.prepare(Some(&snapshot), &lease)?.parent(), &snapshot);
//! # Ok::<(), kiln_store::Error>(())
//! ```
//!
//! This crate must never know registries, the solver or Dockerfiles.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests name files of the machine"))]

mod build;
mod cache_mount;
mod claim;
mod clean;
mod content;
mod db;
mod doubt;
mod error;
mod fsck;
mod holder;
mod image;
mod ingest;
mod inventory;
mod layer;
mod layout;
mod lease;
mod lock;
mod native;
mod overlay;
mod owner;
mod prune;
mod record;
mod schema;
mod snapshot;
mod stat_cache;
mod store;
pub mod testing;
mod why;

pub use build::{Build, Builds};
pub use cache_mount::{CacheMount, CacheMountInfo, CacheMountName, CacheMountSpec, CacheMounts, Restored, Sharing};
pub use claim::Claim;
pub use content::ContentStore;
pub use error::{Error, Result};
pub use fsck::{FsckOptions, FsckReport, Problem, ProblemKind, fsck};
pub use holder::Process;
pub use image::{Image, ImageRecord, Images, Removed};
pub use ingest::Ingest;
pub use inventory::{Entry, EntryKind, Foreign, Need, RecordType};
pub use layer::Unpacked;
pub use lease::Lease;
pub use native::Stacking;
pub use owner::Standing;
pub use prune::{
    Condition, Disk, Field, Limits, Pattern, PatternError, PruneOptions, PruneReport, PruneScope, Pruned, PrunedKind,
    Test,
};
pub use record::{Holds, Maker, Records};
pub use snapshot::{ActiveLayer, ActiveSnapshot, LayerId, LayerIdError, LayerInfo, Snapshot, Snapshotter};
pub use stat_cache::StatCache;
pub use store::Store;
pub use why::{Holder, Why};
