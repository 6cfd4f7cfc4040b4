//! Safe wrappers for Linux, and the only place in kiln where `unsafe` is written.
//!
//! Everything works on file descriptors: a [`root::Root`] resolves paths that strangers wrote, [`mount`] makes mounts
//! that no namespace sees, and what is dropped is gone. Nothing here knows images, layers or builds.
#![allow(unsafe_code, reason = "this crate is where the system calls are")]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests name files of the machine"))]
#![deny(unsafe_op_in_unsafe_fn)]

pub mod caps;
pub mod command;
pub mod container;
pub mod copy;
mod dumpable;
mod error;
pub mod limits;
pub mod lock;
pub mod metadata;
pub mod mount;
pub mod net;
pub mod passing;
pub mod personality;
mod raw;
pub mod root;
pub mod seccomp;
pub mod secret;
pub mod userns;
pub mod xattr;

pub use error::{Error, Result};
