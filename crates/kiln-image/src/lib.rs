//! Images as views: registries, layouts, archives, and copies between them.
#![forbid(unsafe_code)]
