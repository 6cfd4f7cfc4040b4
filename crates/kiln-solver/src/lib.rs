//! Decides what must run, runs it once, and says why.
#![forbid(unsafe_code)]
