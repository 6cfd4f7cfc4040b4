//! Images as views: registries, layouts and archives, and copies from one to the other.
//!
//! Everything that holds images is a [`BlobSource`], everything that takes them a [`BlobSink`]; [`copy_graph`] joins
//! the two. This crate must never know snapshots or builds.
//!
//! ```no_run
//! # async fn example() -> kiln_image::Result<()> {
//! use kiln_image::{CopyOptions, Layout, RegistryClient, RegistryOptions, Selector, copy_graph};
//! let client = RegistryClient::new(RegistryOptions::default());
//! let reference = "localhost:5000/app:1".parse().expect("a reference");
//! let layout = Layout::open("out".as_ref()).await?;
//! let root = layout.resolve(&Selector::Only).await?;
//! copy_graph(&layout, &client.sink(&reference), &root, &CopyOptions::default()).await?;
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

pub mod archive;
mod blob;
mod copy;
mod credentials;
mod docker;
mod error;
mod http;
mod layout;
pub mod limits;
pub mod login;
mod memory;
pub mod objects;
mod registry;
mod regular;
mod settings;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod verify;

pub use blob::{BlobReader, BlobSink, BlobSource, Chances, Pushed, Role, fetch_document};
pub use copy::{CopyOptions, CopyReport, Progress, Transfer, TransferState, copy_blob, copy_graph};
pub use credentials::{AuthFiles, Credential, Credentials, NoCredentials, credential_helpers};
pub use docker::Docker;
pub use error::{Error, ErrorKind, Login, Result};
pub use http::{ClientOptions, Download, DownloadRequest, Fetched, HttpClient, RetryPolicy};
pub use layout::{Layout, LayoutEntry, LayoutSink, Selector, Swept};
pub use limits::{pick_platform, validate, validate_config};
pub use memory::{Either, MemoryBlobs};
pub use registry::{RegistryClient, RegistryOptions, RegistrySink, RegistrySource, Resolved};
pub use settings::SettingsFiles;
pub use verify::{Verifier, verify};
