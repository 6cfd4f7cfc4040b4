//! The Dockerfile language: parse, expand, check, lower to a build graph.
#![forbid(unsafe_code)]
