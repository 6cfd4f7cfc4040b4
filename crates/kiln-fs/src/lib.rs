//! Trees on disk: walk, match, digest, copy, tar, apply, diff, compress.
//!
//! Every path inside an image or a context is resolved inside a root, never joined. This crate must never know
//! registries, metadata or snapshots.
#![forbid(unsafe_code)]

pub mod archive;
mod clean;
pub mod compress;
pub mod copy;
mod digest;
mod error;
pub mod layer;
mod limits;
mod meta;
pub mod pattern;
mod remove;
mod tree;

pub use copy::{CopySpec, CopyStats, copy, materialize};
pub use digest::{digest_copy, digest_tree};
pub use error::{Error, Result};
pub use limits::Limits;
pub use remove::remove_tree;
pub use tree::{MemoryCache, NoCache, Ownership, SourceTree, StatCache, StatKey};
