//! From tree to graph.

mod options;

use kiln_report::{Diagnostic, Span};
pub use options::*;

use crate::parse::Dockerfile;

/// x
pub fn lower(_file: &Dockerfile, _options: &LowerOptions, _facts: &ImageFacts) -> Result<Lowering, Vec<Diagnostic>> {
    Err(vec![Diagnostic::error(Span::default(), "lowering comes next")])
}
