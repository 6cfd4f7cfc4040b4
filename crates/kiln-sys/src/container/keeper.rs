//! A process that keeps a program's descendants together where there is no pid namespace.
//!
//! It starts the program, adopts whatever of it is orphaned (`PR_SET_CHILD_SUBREAPER`, prctl(2)), and kills what is left when
//! the program has ended or we have died. Like the watchdog it shares our memory, so it makes system calls and nothing
//! else. A program of the same user can kill it: there is no namespace that would hide it.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::pipe::PipeFlags;
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions};

use super::child::{self, Prepared};
use super::minding::{keep_open, poll_in, wait_for_one};
use super::stack::Stack;
use crate::raw::syscall;
use crate::{Error, Result};

const STACK: usize = 64 * 1024;

/// The process, and what it leaves when it ends.
#[derive(Debug)]
pub(super) struct Keeper {
    pidfd: OwnedFd,
    /// Used by the other process until it is reaped.
    _stack: Stack,
    state: Box<State>,
}

/// What both sides read and write.
#[derive(Debug)]
struct State {
    ourselves: RawFd,
    /// Written to when the program runs, or will not.
    started: RawFd,
    /// Closed on our side when we have a handle of the program: from then on it may be reaped.
    release: RawFd,
    /// The program's number; what the kernel said if there is none, negative.
    program: AtomicI32,
    /// How it ended, as `wait4` says it.
    status: AtomicI32,
}

/// What a keeper is started with. The program's part is used until it runs.
struct Start<'a> {
    state: &'a State,
    prepared: &'a Prepared<'a>,
    stack: *mut libc::c_void,
}

impl Keeper {
    /// Starts a keeper and the program. Gives a handle of the program.
    pub(super) fn start(prepared: &Prepared<'_>, ourselves: &OwnedFd) -> Result<(Keeper, OwnedFd)> {
        let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|e| Error::call("prepare a process", e));
        let ((ready, started), (release, hold)) = (pipe()?, pipe()?);
        let (stack, theirs) = (Stack::new(STACK)?, Stack::new(child::STACK)?);
        let state = Box::new(State {
            ourselves: ourselves.as_raw_fd(),
            started: started.as_raw_fd(),
            release: release.as_raw_fd(),
            program: AtomicI32::new(0),
            status: AtomicI32::new(0),
        });
        let start = Start { state: &state, prepared, stack: theirs.top() };
        let mut pidfd: RawFd = -1;
        let flags = libc::CLONE_VM | libc::CLONE_PIDFD;
        let argument = std::ptr::from_ref(&start).cast_mut().cast();
        // SAFETY: `start`, and the stack of the program, are used until the keeper has closed `started`, for which this
        // function waits; its own stack and `state` live until it is reaped (`drop`); `keep` makes system calls only and
        // touches no thread-local storage; the kernel writes one descriptor to `pidfd`.
        let pid = unsafe { libc::clone(keep, stack.top(), flags, argument, &raw mut pidfd) };
        if pid < 0 {
            return Err(Error::call("start a process", std::io::Error::last_os_error()));
        }
        // SAFETY: the kernel has just opened it for us, and nobody else knows the number.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        drop(started);
        // Ends with the keeper's last use of what is lent, also when the keeper is killed before.
        let _ = rustix::io::retry_on_intr(|| rustix::io::read(&ready, &mut [0; 1]));
        let keeper = Keeper { pidfd, _stack: stack, state };
        let program = keeper.state.program.load(Ordering::Acquire);
        let Some(pid) = Pid::from_raw(program.max(0)) else {
            let said = if program == 0 { libc::ESRCH } else { -program };
            drop(hold);
            return Err(Error::call("start a process", std::io::Error::from_raw_os_error(said)));
        };
        let handle = rustix::process::pidfd_open(pid, PidfdFlags::empty());
        drop(hold);
        Ok((keeper, handle.map_err(|e| Error::call("start a process", e))?))
    }

    /// Waits until the program and all its descendants are gone; gives what `wait4` says of the program.
    pub(super) fn wait(&self) -> Result<i32> {
        let options = WaitIdOptions::from_bits_retain(WaitIdOptions::EXITED.bits() | libc::__WALL as u32);
        let wait = || rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), options | WaitIdOptions::NOWAIT);
        rustix::io::retry_on_intr(wait).map_err(|e| Error::call("wait for a process", e))?;
        Ok(self.state.status.load(Ordering::Acquire))
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // `ALL` because it was made without an exit signal, so that nobody who waits for just any child finds it.
        let options = WaitIdOptions::from_bits_retain(WaitIdOptions::EXITED.bits() | libc::__WALL as u32);
        let wait = || rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), options);
        let _ = rustix::io::retry_on_intr(wait);
    }
}

/// The keeper's life.
extern "C" fn keep(argument: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `Keeper::start` passes a `Start` that outlives the use that is made of it here.
    let start = unsafe { &*argument.cast::<Start<'_>>() };
    let state: *const State = start.state;
    call(libc::SYS_setsid, [0; 6]);
    call(libc::SYS_prctl, [libc::PR_SET_NAME as usize, c"keeper".as_ptr() as usize, 0, 0, 0, 0]);
    call(libc::SYS_prctl, [libc::PR_SET_CHILD_SUBREAPER as usize, 1, 0, 0, 0, 0]);
    let program = child::start_here(start.prepared, start.stack);
    // SAFETY: the state outlives this process (`Keeper::drop`).
    let state = unsafe { &*state };
    state.program.store(program, Ordering::Release);
    let (ourselves, release, started) = (state.ourselves, state.release, state.started);
    call(libc::SYS_write, [started as usize, c"".as_ptr() as usize, 1, 0, 0, 0]);
    if program <= 0 {
        return 0;
    }
    keep_open([ourselves, release]);
    let handle = call(libc::SYS_pidfd_open, [program as usize, 0, 0, 0, 0, 0]);
    if wait_for_one(&mut [poll_in(ourselves), poll_in(handle as RawFd)]) {
        call(libc::SYS_kill, [program as usize, libc::SIGKILL as usize, 0, 0, 0, 0]);
    }
    // Until then the number must stay the program's.
    let mut byte = 0u8;
    call(libc::SYS_read, [release as usize, (&raw mut byte) as usize, 1, 0, 0, 0]);
    let mut status: libc::c_int = 0;
    let wall = libc::__WALL as usize;
    call(libc::SYS_wait4, [program as usize, (&raw mut status) as usize, wall, 0, 0, 0]);
    state.status.store(status, Ordering::Release);
    clear();
    0
}

/// Kills children until there are none: those of the dead become ours.
fn clear() {
    loop {
        let path = c"/proc/thread-self/children".as_ptr() as usize;
        let flags = (libc::O_RDONLY | libc::O_CLOEXEC) as usize;
        let file = call(libc::SYS_openat, [libc::AT_FDCWD as usize, path, flags, 0, 0, 0]);
        if file >= 0 {
            kill_listed(file as usize);
            call(libc::SYS_close, [file as usize, 0, 0, 0, 0, 0]);
        }
        // Without the list (a kernel without `CONFIG_PROC_CHILDREN`) only those are reaped that have ended.
        let options = libc::__WALL | if file < 0 { libc::WNOHANG } else { 0 };
        if call(libc::SYS_wait4, [usize::MAX, 0, options as usize, 0, 0, 0]) <= 0 {
            return;
        }
    }
}

/// Kills those whose numbers stand in a file, a blank between them. They are ours to reap, so no number is another's.
fn kill_listed(file: usize) {
    let mut buffer = [0u8; 1024];
    let mut number = 0usize;
    loop {
        let length = call(libc::SYS_read, [file, buffer.as_mut_ptr() as usize, buffer.len(), 0, 0, 0]);
        if length <= 0 {
            return;
        }
        for byte in buffer.iter().take(length as usize) {
            if byte.is_ascii_digit() {
                number = number.wrapping_mul(10).wrapping_add(usize::from(byte.wrapping_sub(b'0')));
                continue;
            }
            if number > 0 {
                call(libc::SYS_kill, [number, libc::SIGKILL as usize, 0, 0, 0, 0]);
            }
            number = 0;
        }
    }
}

/// Makes a call; a failure is its number, negative.
fn call(number: libc::c_long, arguments: [usize; 6]) -> isize {
    // SAFETY: all callers pass numbers, constants, or places on their own stack that live during the call.
    match unsafe { syscall(number, arguments) } {
        Ok(result) => result as isize,
        Err(errno) => -(errno.0 as isize),
    }
}
