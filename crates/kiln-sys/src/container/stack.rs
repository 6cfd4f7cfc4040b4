//! A stack for a process that shares our memory, with a page below it that ends the process instead of our heap.

use std::ptr::NonNull;

use crate::{Error, Result};

const GUARD: usize = 64 * 1024;

/// Mapped memory; dropping it unmaps, so it must outlive the process that runs on it.
#[derive(Debug)]
pub(crate) struct Stack {
    base: NonNull<libc::c_void>,
    length: usize,
}

impl Stack {
    /// Maps a stack of this many bytes, a multiple of the page size.
    pub(crate) fn new(size: usize) -> Result<Stack> {
        let length = size + GUARD;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE;
        // SAFETY: a new anonymous mapping at a place the kernel chooses.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), length, libc::PROT_NONE, flags, -1, 0) };
        let base = NonNull::new(base).filter(|base| base.as_ptr() != libc::MAP_FAILED);
        let base = base.ok_or_else(|| Error::call("map a stack", std::io::Error::last_os_error()))?;
        let stack = Stack { base, length };
        let usable = stack.base.as_ptr().wrapping_byte_add(GUARD);
        // SAFETY: the range is the upper part of the mapping made above, which nobody uses yet.
        let rc = unsafe { libc::mprotect(usable, size, libc::PROT_READ | libc::PROT_WRITE) };
        if rc == 0 { Ok(stack) } else { Err(Error::call("map a stack", std::io::Error::last_os_error())) }
    }

    /// The address from which it grows down.
    pub(crate) fn top(&self) -> *mut libc::c_void {
        self.base.as_ptr().wrapping_byte_add(self.length)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and the process that ran on it is gone (see the type).
        let _ = unsafe { libc::munmap(self.base.as_ptr(), self.length) };
    }
}

// SAFETY: the mapping belongs to the value; nothing in it is tied to a thread.
unsafe impl Send for Stack {}
