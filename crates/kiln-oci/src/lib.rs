//! The nouns of the field, as the OCI image specification defines them.
//!
//! Plain data: parse, print, compare. This crate must never know IO, async or clocks.
//!
//! ```
//! use kiln_oci::{Digest, Reference};
//! let reference: Reference = "busybox".parse().expect("a valid reference");
//! assert_eq!(reference.to_string(), "docker.io/library/busybox:latest");
//! assert_eq!(Digest::sha256(b"").short(), "e3b0c44298fc");
//! ```
#![forbid(unsafe_code)]

mod config;
mod descriptor;
mod digest;
mod manifest;
mod media_type;
mod platform;
mod raw;
mod reference;

pub use config::{ContainerConfig, Empty, Healthcheck, History, ImageConfig, RootFs};
pub use descriptor::Descriptor;
pub use digest::{Digest, DigestError, Hasher};
pub use manifest::{Document, DocumentError, Index, Manifest};
pub use media_type::MediaType;
pub use platform::{Platform, PlatformError};
pub use raw::Raw;
pub use reference::{Reference, ReferenceError};
