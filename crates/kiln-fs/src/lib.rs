//! Trees on disk: walk, match, digest, copy, tar, apply, diff, compress.
//!
//! Every path inside an image or a context is resolved inside a root, never joined. This crate must never know
//! registries, metadata or snapshots.
//!
//! ```
//! use kiln_fs::{CopySpec, MemoryCache, SourceTree, copy, digest_copy, layer};
//! use kiln_sys::root::Root;
//! # let (context, upper) = (tempfile::tempdir()?, tempfile::tempdir()?);
//! # std::fs::write(context.path().join("main.go"), "package main")?;
//! let tree = SourceTree::snapshot(Root::open_ambient(context.path())?);
//! let spec = CopySpec::docker("*.go", "/src/");
//! let key = digest_copy(&tree, &spec, &MemoryCache::default())?;
//! copy(&tree, &Root::open_ambient(upper.path())?, &spec)?;
//! let mut tar = Vec::new();
//! let stats = layer::pack(&Root::open_ambient(upper.path())?, &mut tar)?;
//! assert_eq!((key.hex().len(), stats.entries), (64, 2));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests name files of the machine"))]

pub mod archive;
mod blank;
mod clean;
pub mod compress;
pub mod copy;
mod digest;
mod error;
pub mod flat;
pub mod layer;
mod limits;
mod meta;
mod others;
pub mod pattern;
mod record;
mod remove;
mod search;
mod share;
mod tarsum;
mod tree;

pub use copy::{CopySpec, CopyStats, Presence, Target, copy, copy_upon, materialize, own_directory, probe};
pub use digest::{Prints, Reading, digest_copy, digest_tree, list_tree, read_copy};
pub use error::{Error, Result};
pub use limits::Limits;
pub use others::{remove_others, remove_unnamed, shared_file};
pub use remove::remove_tree;
pub use search::{Found, FoundIn, Patterns, search_layer};
pub use tarsum::tarsum;
pub use tree::{
    LeftOut, MemoryCache, NoCache, Ownership, Sent, SourceTree, StatCache, StatKey, Survey, Verdict, survey, verdict,
};
