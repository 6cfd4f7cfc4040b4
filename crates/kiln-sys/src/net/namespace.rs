//! A network namespace, held by a descriptor.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::{Error, Result};

/// A network namespace. It ends when nobody is in it and nobody holds it.
#[derive(Debug)]
pub struct Namespace(OwnedFd);

impl Namespace {
    /// Moves the calling thread into a new one. There is no way back: call it in a thread that ends soon.
    pub fn enter_new() -> Result<Namespace> {
        // SAFETY: a namespace of networks concerns neither descriptors nor memory, and is the thread's own affair.
        let entered = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) };
        entered.map_err(|e| Error::call("make a network namespace", e))?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let handle = openat(CWD, "/proc/thread-self/ns/net", flags, Mode::empty());
        handle.map(Namespace).map_err(|e| Error::call("hold a network namespace", e))
    }

    /// Moves the calling thread into it.
    pub fn enter(&self) -> Result<()> {
        let entered = move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network));
        entered.map_err(|e| Error::call("enter a network namespace", e))
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
