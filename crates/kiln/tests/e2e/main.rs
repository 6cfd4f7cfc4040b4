//! Builds, for real: the kiln binary, real containers, a real store. Needs root, overlayfs and a static busybox.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "tests start the kiln binary and foreign tools")]

mod bad_input;
mod cache;
mod cache_mounts;
mod certificates;
mod contained;
mod context;
mod crash;
mod downloads;
mod elsewhere;
mod entitlements;
mod explain;
mod exporters;
mod failed;
mod files;
mod git;
mod golden;
mod hostile;
mod image;
mod imagetools;
mod layers;
mod leftovers;
mod limits;
mod load;
mod lock;
mod native;
mod network;
mod object_cache;
mod offline;
mod one_digest;
mod outputs;
mod platforms;
mod project;
mod registry;
mod remote_cache;
mod reproducible;
mod rootless;
mod run_steps;
mod secrets;
mod shell;
mod space;
mod ssh;
mod stages;
mod together;
mod transfer;
