//! The thread between a running container and whoever waits for it, and how the one is stopped by the other.

use std::os::fd::OwnedFd;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Signal, pidfd_send_signal};

/// How long a dropped run waits for its container to be gone. Killing takes milliseconds; longer than this only a
/// process takes that hangs in the kernel.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the two sides share.
#[derive(Debug, Default)]
pub(crate) struct Control {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    process: Option<OwnedFd>,
    is_cancelled: bool,
    has_ended: bool,
}

impl Control {
    /// Tells that the container runs. If nobody waits any more it is killed at once.
    pub(crate) fn started(&self, process: OwnedFd) {
        let mut state = self.lock();
        if state.is_cancelled {
            kill(&process);
        }
        state.process = Some(process);
    }

    /// Tells whether nobody waits any more.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.lock().is_cancelled
    }

    /// Tells that the container is gone, with all that was made for it.
    pub(crate) fn ended(&self) {
        let mut state = self.lock();
        state.process = None;
        state.has_ended = true;
        drop(state);
        self.ended.notify_all();
    }

    /// Kills the container, now or as soon as it runs, and waits until it is gone.
    pub(crate) fn cancel(&self) {
        let mut state = self.lock();
        state.is_cancelled = true;
        if let Some(process) = &state.process {
            kill(process);
        }
        let gone = self.ended.wait_timeout_while(state, PATIENCE, |state| !state.has_ended);
        drop(gone.unwrap_or_else(PoisonError::into_inner));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Every change of the state is one assignment, so a panic elsewhere leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn kill(process: &OwnedFd) {
    // It may be gone already, which is what is wanted.
    let _ = pidfd_send_signal(process, Signal::KILL);
}
