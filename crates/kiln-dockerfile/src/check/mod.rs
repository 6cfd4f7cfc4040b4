//! Checks: what is allowed but probably not meant.

mod config;

pub use config::{CheckConfig, CheckConfigError, Choice};
use kiln_report::Diagnostic;

use crate::parse::Dockerfile;

/// x
pub fn check(_file: &Dockerfile, _config: &CheckConfig) -> Vec<Diagnostic> {
    Vec::new()
}
