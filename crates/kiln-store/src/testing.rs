//! Contract suites for implementations of the store's traits, and the points at which a crash test may stop a process.

use std::sync::OnceLock;

static STOP: OnceLock<fn(&'static str)> = OnceLock::new();

/// Every point between a write and the next step that would make it visible, in no order.
pub const POINTS: &[&str] = &[
    "content: written",
    "content: synced",
    "content: renamed",
    "content: in place",
    "content: recorded",
    "layer: begun",
    "layer: finished",
    "layer: renamed",
    "layer: recorded",
    "snapshot: prepared",
    "cache mount: made",
    "cache mount: in place",
    "prune: recorded",
    "prune: moved",
];

/// Calls `stop` whenever this process passes one of [`POINTS`]; the first caller decides. For crash tests.
pub fn at_every_point(stop: fn(&'static str)) {
    let _ = STOP.set(stop);
}

pub(crate) fn reached(point: &'static str) {
    if let Some(stop) = STOP.get() {
        stop(point);
    }
}
