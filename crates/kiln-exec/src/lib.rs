//! Runs one process in a container.
#![forbid(unsafe_code)]
