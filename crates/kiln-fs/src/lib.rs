//! Trees on disk: walk, match, digest, copy, tar, apply, diff, compress.
#![forbid(unsafe_code)]
