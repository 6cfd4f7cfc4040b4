//! For tests only: registries, servers, project builders, the tidy test.
#![forbid(unsafe_code)]
