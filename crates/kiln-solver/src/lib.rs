//! Decides what must run, runs it once, and says why.
//!
//! A [`Plan`] joins the vertices of a build graph to [`Step`]s. [`Solver::solve`] asks every vertex for its
//! [`CacheKey`], looks the wanted ones up in a [`ResultStore`], and runs only what is not there.
//! This crate must never know containers, files, or what an operation means.
//!
//! ```
//! use std::sync::Arc;
//! use async_trait::async_trait;
//! use kiln_graph::{Edge, VertexId};
//! use kiln_oci::Digest;
//! use kiln_report::Silent;
//! use kiln_solver::{CacheMap, KeyParts, MemoryKeys, MemoryResults, Plan, PlanVertex, Solver, Step, Turns};
//!
//! struct Hello;
//!
//! #[async_trait]
//! impl Step<String, std::io::Error> for Hello {
//!     async fn cache_map(&self) -> Result<CacheMap, std::io::Error> {
//!         Ok(CacheMap { digest: Digest::sha256("hello"), parts: KeyParts::default(), pinned: true, inputs: vec![] })
//!     }
//!     async fn content_digest(&self, _input: usize, result: &String) -> Result<Digest, std::io::Error> {
//!         Ok(Digest::sha256(result))
//!     }
//!     async fn run(&self, _inputs: Vec<String>) -> Result<Vec<String>, std::io::Error> {
//!         Ok(vec!["hello".to_owned()])
//!     }
//! }
//!
//! # tokio::runtime::Runtime::new().expect("a runtime").block_on(async {
//! let id = VertexId(Digest::sha256("vertex"));
//! let mut plan = Plan::new();
//! plan.add(id.clone(), PlanVertex { inputs: vec![], step: Arc::new(Hello), name: "[1/1] hello".into(), ignore_cache: false });
//! let solver = Solver::new(Arc::new(MemoryKeys::default()), Arc::new(MemoryResults::default()), Arc::new(Silent), Turns::new(2));
//! let results = solver.solve(&plan, &[Edge { vertex: id, output: 0 }]).await.expect("it runs");
//! assert_eq!(results, ["hello"]);
//! # });
//! ```
#![forbid(unsafe_code)]

mod account;
mod error;
mod explain;
mod forecast;
mod graph;
mod job;
mod key;
mod memory;
mod parts;
mod past;
mod plan;
mod progress;
mod solver;
mod store;
mod turns;

pub use account::{Account, Fate};
pub use error::{Cause, SolveError};
pub use explain::{Became, Change, FileChange, MissReason, explain, nearest, place_of_files, short_name};
pub use forecast::{Forecast, Verdict};
pub use key::{CacheKey, CacheMap, InputKey, Part};
pub use memory::{MemoryKeys, MemoryResults};
pub use parts::{Base, Files, InputPart, KeyParts, Setting};
pub use plan::{Plan, PlanVertex, Step};
pub use progress::CANCELED;
pub use solver::Solver;
pub use store::{Claim, ContentFact, KeyStore, ResultStore};
pub use turns::{Room, Turns};
