//! One build from request to result: joins the language, the solver, the store, the executor and the registry.
//!
//! This crate must never know gRPC, HTTP servers, argv or terminals.
#![forbid(unsafe_code)]

mod answer;
mod request;
mod session;

pub use answer::{BuildResult, ImageDetails, ImageSummary, Loaded, PruneAnswer, PullResult, Removed};
pub use request::{
    BuildRequest, CompressionKind, Context, Dest, DockerfileSource, EngineConfig, LayerOptions, NamedContext,
    NetworkMode, Output, PruneRequest, RunRequest, Ulimit, Volume,
};
pub use session::{NoSession, Session};
