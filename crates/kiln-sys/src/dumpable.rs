//! Keeps core dumps of this process as they were: the kernel switches them off with every change of ids in our memory.

use std::sync::OnceLock;

use rustix::process::{DumpableBehavior, dumpable_behavior, set_dumpable_behavior};

/// Whether core dumps of this process are allowed; asked before the first change.
static BEFORE: OnceLock<Option<DumpableBehavior>> = OnceLock::new();

/// Does what changes ids, and allows core dumps again if they were.
pub(crate) fn kept<T>(change: impl FnOnce() -> T) -> T {
    let before = *BEFORE.get_or_init(|| dumpable_behavior().ok());
    let done = change();
    if before == Some(DumpableBehavior::Dumpable) {
        let _ = set_dumpable_behavior(DumpableBehavior::Dumpable);
    }
    done
}
