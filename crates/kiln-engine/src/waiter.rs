//! Tells work on other threads, which nothing else can stop, that nobody waits for it any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Held by who waits. Dropped, it tells all who watch.
#[derive(Debug, Default)]
pub(crate) struct Waiter(Watch);

/// Sees whether somebody still waits.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watch(Arc<AtomicBool>);

impl Waiter {
    /// What watches it.
    pub(crate) fn watch(&self) -> Watch {
        self.0.clone()
    }
}

impl Watch {
    /// Whether nobody waits any more.
    pub(crate) fn is_left(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_watches_sees_the_waiter_leave() {
        let waiter = Waiter::default();
        let watch = waiter.watch();
        assert!(!watch.is_left());
        drop(waiter);
        assert!(watch.is_left());
    }
}
