//! One build from request to result.
#![forbid(unsafe_code)]
