//! For tests only: a real registry, servers that say what a test wants, archives and images made to do harm, and the tidy test.
//!
//! ```no_run
//! let Some(registry) = kiln_testkit::Registry::start() else { return };
//! println!("push to {}/app:1", registry.host());
//! ```
#![forbid(unsafe_code)]

mod actions;
pub mod archives;
mod certificate;
mod files;
mod forge;
mod git;
mod http;
mod image;
mod probe;
mod proxy;
mod registry;
mod stores;
mod tool;

pub use actions::ActionsServer;
pub use certificate::certificate;
pub use files::FileServer;
pub use forge::{Forge, Head};
pub use git::{GitServer, Repository};
pub use http::{Body, HttpServer, Reply, Request};
pub use image::ForgedImage;
pub use probe::{CONFINED, compile_probe};
pub use proxy::FlakyProxy;
pub use registry::Registry;
pub use stores::{AzureServer, S3Server};
pub use tool::{Tool, skip};
