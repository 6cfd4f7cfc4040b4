//! Everything said to a person: source spans, diagnostics, events, failures, and their renderers.
//!
//! Renderers write to a given `Write`. This crate must never know terminals, the environment or gRPC.
#![forbid(unsafe_code)]

mod checked;
mod credentials;
mod diagnostic;
mod event;
mod failure;
pub mod render;
mod source;

pub use checked::{Checked, RuleNote};
pub use credentials::{logins, without_credentials};
pub use diagnostic::{Diagnostic, Edit, Fix, Level, Safety};
pub use event::{Event, LogStream, Reporter, Silent, VertexState};
pub use failure::{Failure, FailureKind};
pub use source::{Excerpt, SourceFile, SourcePart, Span};
