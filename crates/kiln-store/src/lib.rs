//! What kiln keeps: content, snapshots, images, cache records, leases.
#![forbid(unsafe_code)]
