//! Trees on disk: walk, match, digest, copy, tar, apply, diff, compress.
//!
//! Every path inside an image or a context is resolved inside a root, never joined. This crate must never know
//! registries, metadata or snapshots.
#![forbid(unsafe_code)]

mod clean;
pub mod compress;
mod limits;
pub mod pattern;

pub use limits::Limits;
