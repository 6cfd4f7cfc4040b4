//! Turns: how many steps run at once, and whether the machine has room for one more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

/// How long a step waits before it looks for room again.
const NAP: Duration = Duration::from_millis(100);

/// Says whether the machine has room for one more step beside those that run.
pub trait Room: Send + Sync {
    /// Whether it has. Asked before each step but the only one, and again while it has not; should take microseconds.
    fn is_enough(&self) -> bool;
}

/// The turns of a solver. One step may always run, however little room there is, so that builds come to an end.
pub struct Turns {
    permits: Semaphore,
    room: Option<Arc<dyn Room>>,
    running: AtomicUsize,
}

/// A step's turn, given back when it is dropped.
pub(crate) struct Turn<'a> {
    running: &'a AtomicUsize,
    // Behind `running`: who gets the permit next must not count this one.
    _permit: SemaphorePermit<'a>,
}

impl Turns {
    /// At most `jobs` at once (one, if 0 is asked for).
    pub fn new(jobs: usize) -> Self {
        let permits = Semaphore::new(jobs.clamp(1, Semaphore::MAX_PERMITS));
        Self { permits, room: None, running: AtomicUsize::new(0) }
    }

    /// As these, but no step begins beside another while there is no room for it.
    pub fn within(self, room: Arc<dyn Room>) -> Self {
        Self { room: Some(room), ..self }
    }

    /// Waits for a turn.
    pub(crate) async fn take(&self) -> Turn<'_> {
        let permit = self.permits.acquire().await.expect("nobody closes the semaphore");
        while !self.begin() {
            tokio::time::sleep(NAP).await;
        }
        Turn { running: &self.running, _permit: permit }
    }

    /// Counts one more, unless there is no room for it.
    fn begin(&self) -> bool {
        if self.running.compare_exchange(0, 1, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            return true;
        }
        let has_room = self.room.as_ref().is_none_or(|room| room.is_enough());
        if has_room {
            self.running.fetch_add(1, Ordering::SeqCst);
        }
        has_room
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.running.fetch_sub(1, Ordering::SeqCst);
    }
}
