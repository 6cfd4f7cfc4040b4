//! A second process that kills a container when we die.
//!
//! The kernel kills a container's first process when our thread dies, but that process can shed the rule: a change of
//! user (`su`, `setpriv`) does it, and so can any program. The watchdog is not in the container and cannot be reached
//! from it. It shares our memory, so it costs no copy of it, and keeps our program file busy until the container is
//! dead: nobody in it can overwrite the file through `/proc/1/exe` in between.
//!
//! It starts beside the container's first process, which executes nothing until the watchdog has left our process group.
//! What kills the whole group before that kills all of them: nothing has shed the kernel's rule yet.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Signal, WaitId, WaitIdOptions};

use super::minding::{keep_open, poll_in, wait_for_one};
use super::stack::Stack;
use crate::raw::syscall;
use crate::{Error, Result};

const STACK: usize = 64 * 1024;

/// A process that ends with the container it watches.
#[derive(Debug)]
pub(super) struct Watchdog {
    pidfd: OwnedFd,
    /// Used by the other process until it is reaped.
    _stack: Stack,
    _watched: Box<Watched>,
    _ourselves: OwnedFd,
}

#[derive(Debug)]
struct Watched {
    ourselves: RawFd,
    container: RawFd,
    is_ready: Arc<AtomicU32>,
}

impl Watchdog {
    /// Starts watching `ourselves` on behalf of `container`; both are process handles. Who waits for `is_ready` is woken
    /// when it is 1.
    pub(super) fn start(ourselves: OwnedFd, container: BorrowedFd<'_>, is_ready: Arc<AtomicU32>) -> Result<Watchdog> {
        let stack = Stack::new(STACK)?;
        let (us, it) = (ourselves.as_raw_fd(), container.as_raw_fd());
        let watched = Box::new(Watched { ourselves: us, container: it, is_ready });
        let mut pidfd: RawFd = -1;
        let flags = libc::CLONE_VM | libc::CLONE_PIDFD;
        let argument = std::ptr::from_ref(&*watched).cast_mut().cast();
        // SAFETY: the stack and the argument live until the process is reaped (`drop`); `watch` makes system calls
        // only and touches no thread-local storage; the kernel writes one descriptor to `pidfd`.
        let pid = unsafe { libc::clone(watch, stack.top(), flags, argument, &raw mut pidfd) };
        if pid < 0 {
            return Err(Error::call("start a watchdog", std::io::Error::last_os_error()));
        }
        // SAFETY: the kernel has just opened it for us, and nobody else knows the number.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        Ok(Watchdog { pidfd, _stack: stack, _watched: watched, _ourselves: ourselves })
    }
}

impl Watchdog {
    /// Waits until the container is dead, and kills it should the watchdog die before: nobody would if we died then.
    pub(super) fn outlast(&self, container: BorrowedFd<'_>) {
        let mut both = [container, self.pidfd.as_fd()].map(|process| PollFd::from_borrowed_fd(process, PollFlags::IN));
        let _ = rustix::io::retry_on_intr(|| rustix::event::poll(&mut both, None));
        if both[0].revents().is_empty() {
            let _ = rustix::process::pidfd_send_signal(container, Signal::KILL);
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // The container is dead when this is dropped, so the watchdog is about to end. `ALL` because it was made
        // without an exit signal, so that nobody who waits for just any child finds it.
        let options = WaitIdOptions::from_bits_retain(WaitIdOptions::EXITED.bits() | libc::__WALL as u32);
        let wait = || rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), options);
        let _ = rustix::io::retry_on_intr(wait);
    }
}

/// The watchdog's life. It has our memory and a copy of our descriptors, and lets go of the latter at once.
extern "C" fn watch(argument: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `start` passes a `Watched` that outlives this process.
    let watched = unsafe { &*argument.cast::<Watched>() };
    let (ourselves, container) = (watched.ourselves, watched.container);
    // Out of the session, so that what is meant for the process group of kiln does not kill the one who cleans up.
    call(libc::SYS_setsid, [0; 6]);
    watched.is_ready.store(1, Ordering::Release);
    call(libc::SYS_futex, [watched.is_ready.as_ptr() as usize, libc::FUTEX_WAKE as usize, 1, 0, 0, 0]);
    call(libc::SYS_prctl, [libc::PR_SET_NAME as usize, c"watchdog".as_ptr() as usize, 0, 0, 0, 0]);
    keep_open([watched.ourselves, watched.container]);
    if wait_for_one(&mut [poll_in(ourselves), poll_in(container)]) {
        call(libc::SYS_pidfd_send_signal, [container as usize, libc::SIGKILL as usize, 0, 0, 0, 0]);
        wait_for_one(&mut [poll_in(container)]);
    }
    0
}

fn call(number: libc::c_long, arguments: [usize; 6]) {
    // SAFETY: all callers pass numbers and constants.
    let _ = unsafe { syscall(number, arguments) };
}
