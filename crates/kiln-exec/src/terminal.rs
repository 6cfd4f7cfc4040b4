//! A terminal of a container: a pair of its own `/dev/pts`, so that programs find the one they stand on.

use std::os::fd::OwnedFd;

use kiln_sys::root::Root;
use rustix::fs::{OFlags, Uid, fchown};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::sync::oneshot;

use crate::Error;

/// A terminal that a container is to have.
#[derive(Debug)]
pub struct Terminal {
    /// Rows and columns at first.
    pub size: (u16, u16),
    /// Where its other end is sent: what is read there was written in the container, and the other way round. Reading
    /// fails when the container has ended.
    pub other_end: oneshot::Sender<OwnedFd>,
}

impl Terminal {
    /// Makes the pair in a container's `/dev`, for this user of the host, and gives the end that is the container's.
    pub(crate) fn open(self, dev: &Root, uid: u32) -> Result<OwnedFd, Error> {
        let fail = |source| Error::Mount { what: "/dev/pts".into(), source };
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let ours = dev.open("pts/ptmx", flags).map_err(fail)?;
        let theirs = self.connect(&ours, uid).map_err(|source| Error::Resources { source: source.into() })?;
        // Without anybody who waits for it the terminal is a dead one, and the container soon, too.
        let _ = self.other_end.send(ours);
        Ok(theirs)
    }

    fn connect(&self, ours: &OwnedFd, uid: u32) -> rustix::io::Result<OwnedFd> {
        unlockpt(ours)?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let theirs = ioctl_tiocgptpeer(ours, flags)?;
        let (ws_row, ws_col) = self.size;
        tcsetwinsize(ours, Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 })?;
        fchown(&theirs, Some(Uid::from_raw(uid)), None)?;
        Ok(theirs)
    }
}
