//! The Dockerfile language: parse, expand, check, lower to a build graph.
//!
//! [`parse`] never fails: it gives a tree and what is wrong with it. [`check()`] warns. [`lower`] turns the tree into a
//! graph; what it has to know about images it asks for, and never waits. This crate must never know the network, the
//! disk or the solver.
//!
//! ```
//! use std::sync::Arc;
//! use kiln_dockerfile::{ImageFacts, LowerOptions, Lowering, lower, parse};
//! use kiln_report::SourceFile;
//!
//! let source = Arc::new(SourceFile::new("Dockerfile", "FROM scratch\nCOPY hello /\n"));
//! let (file, diagnostics) = parse(source.text());
//! assert!(diagnostics.is_empty());
//! match lower(&file, &LowerOptions::new(source), &ImageFacts::new()) {
//!     Ok(Lowering::Done(lowered)) => assert!(lowered.root.is_some()),
//!     other => unreachable!("{other:?}"),
//! }
//! ```
#![forbid(unsafe_code)]

pub mod check;
pub mod expand;
pub mod format;
mod ignore;
pub mod instruction;
mod lower;
mod parse;
mod path;
mod quote;
mod suggest;
mod targets;

pub use check::{CheckConfig, check};
pub use ignore::{IgnorePattern, parse_ignore};
pub use lower::{
    ARGS, ArchivedImage, BadContext, Breadth, ContextRead, CredentialUse, DOWNLOADED, Fetch, ImageFacts, ImageRequest,
    LowerOptions, Lowered, LoweredStage, Lowering, NamedContext, NoCache, Outline, OutlineArg, PlatformInNames, Reach,
    Reader, ResolvedImage, all_errors, context_reads, fetches, is_remote_context, lower, outline, remote_context,
    survey,
};
pub use parse::{
    Arguments, BlankLine, Directive, Dockerfile, Flag, Frontend, Heredoc, Instruction, Item, ItemKind, Line, Pair,
    PairForm, Word, detect_syntax, frontend, parse, parse_shape, parse_source,
};
pub use suggest::nearest;
pub use targets::{Target, targets};
