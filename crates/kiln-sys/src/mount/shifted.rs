//! A directory of the host as a user namespace sees it: what is 0's on disk is its root's.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::mount::MountAttrFlags;
use rustix::thread::UnshareFlags;

use super::bind::shift;
use super::{Bind, Depth, attach_at_path, bind_detached, bind_path_detached, make_private};
use crate::userns::UserNamespace;
use crate::{Error, Result};

/// A second sight of a directory, idmapped: ids on disk stay as they are, and count as those of a user namespace.
#[derive(Debug)]
pub struct Shifted {
    base: PathBuf,
    users: Arc<UserNamespace>,
    root: OwnedFd,
}

const AS_IT_IS: Bind = Bind { depth: Depth::Recursive, attributes: MountAttrFlags::empty() };

impl Shifted {
    /// Takes a directory, if its filesystem can be shown so.
    pub fn new(base: &Path, users: Arc<UserNamespace>) -> Result<Shifted> {
        let root = bind_shifted(base, AS_IT_IS, &users)?;
        Ok(Shifted { base: base.to_path_buf(), users, root })
    }

    /// The namespace.
    pub fn users(&self) -> &Arc<UserNamespace> {
        &self.users
    }

    /// Clones the mount of a directory or file below.
    pub fn bind(&self, path: &Path, bind: Bind) -> Result<OwnedFd> {
        match bind_detached(self.open(path, OFlags::PATH)?, bind) {
            Err(e) if e.errno() == Some(libc::EINVAL) => self.staged(|| bind_path_detached(path, bind)),
            result => result,
        }
    }

    /// Opens what is below, by its path on the host.
    pub(super) fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd> {
        let fail = |e: rustix::io::Errno| Error::path("open the layer", path, e);
        let below = path.strip_prefix(&self.base).map_err(|_| fail(rustix::io::Errno::XDEV))?;
        let below = if below.as_os_str().is_empty() { Path::new(".") } else { below };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        openat2(&self.root, below, flags | OFlags::CLOEXEC, Mode::empty(), resolve).map_err(fail)
    }

    /// Does something in a mount namespace in which the directory itself is as it is seen here: kernels before 6.15
    /// take parts of a mount only if it is attached.
    pub(super) fn staged<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let work = || {
            // SAFETY: only this thread's namespace and working directory part from the process, and it ends here.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }
                .map_err(|e| Error::call("make a mount namespace", e))?;
            make_private()?;
            attach_at_path(bind_shifted(&self.base, AS_IT_IS, &self.users)?, &self.base)?;
            work()
        };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("kiln-stage".into()).spawn_scoped(scope, work);
            let thread = thread.map_err(|e| Error::call("start a thread", e))?;
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

/// Clones the mount of a host path, whose links are followed, as a user namespace sees it; an error with `EINVAL` if its
/// filesystem (or one of those below, when they come along) cannot be shown so.
pub fn bind_shifted(source: &Path, bind: Bind, users: &UserNamespace) -> Result<OwnedFd> {
    let clone = bind_path_detached(source, bind)?;
    shift(&clone, bind.depth, users.as_fd()).map_err(|e| Error::path("map the ids of", source, e))?;
    Ok(clone)
}
