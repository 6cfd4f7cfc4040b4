//! What the processes that watch others have in common. They share our memory, so they make system calls and nothing else.

use std::os::fd::RawFd;

use crate::raw::syscall;

/// Closes all descriptors but two.
pub(super) fn keep_open([one, other]: [RawFd; 2]) {
    let (low, high) = if one < other { (one as usize, other as usize) } else { (other as usize, one as usize) };
    if low > 0 {
        call(libc::SYS_close_range, [0, low - 1, 0, 0, 0, 0]);
    }
    if low + 1 < high {
        call(libc::SYS_close_range, [low + 1, high - 1, 0, 0, 0, 0]);
    }
    call(libc::SYS_close_range, [high + 1, u32::MAX as usize, 0, 0, 0, 0]);
}

pub(super) fn poll_in(fd: RawFd) -> libc::pollfd {
    libc::pollfd { fd, events: libc::POLLIN, revents: 0 }
}

/// Waits until one of the processes has ended; tells whether it is the first.
pub(super) fn wait_for_one(processes: &mut [libc::pollfd]) -> bool {
    let arguments = [processes.as_mut_ptr() as usize, processes.len(), 0, 0, 0, 0];
    // No signal reaches us (all are blocked), so a failure can only be final.
    call(libc::SYS_ppoll, arguments);
    processes.first().is_some_and(|process| process.revents != 0)
}

fn call(number: libc::c_long, arguments: [usize; 6]) {
    // SAFETY: all callers pass numbers, or a slice of pollfds that is theirs.
    let _ = unsafe { syscall(number, arguments) };
}
