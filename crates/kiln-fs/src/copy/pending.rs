//! What is made beside its name until it is whole: nobody sees half of it, and whoever is killed leaves none.

use std::collections::hash_map::RandomState;
use std::ffi::{OsStr, OsString};
use std::hash::{BuildHasher as _, Hasher as _};
use std::os::fd::BorrowedFd;

use rustix::fs::AtFlags;
use rustix::io::Errno;

use crate::remove::remove_at;

/// How often what others put in the way is taken away again.
pub(crate) const ATTEMPTS: usize = 100;

/// Something that is there, and may not have its name yet. Dropped without it, it is removed.
pub(crate) struct Pending<'a> {
    to: BorrowedFd<'a>,
    name: &'a OsStr,
    beside: Option<OsString>,
}

impl<'a> Pending<'a> {
    /// What has its name from the beginning.
    pub(crate) fn named(to: BorrowedFd<'a>, name: &'a OsStr) -> Self {
        Self { to, name, beside: None }
    }

    /// Makes something under a name that nobody can foresee.
    pub(crate) fn beside<T>(
        to: BorrowedFd<'a>,
        name: &'a OsStr,
        mut make: impl FnMut(&OsStr) -> Result<T, Errno>,
    ) -> Result<(T, Self), Errno> {
        loop {
            let beside: OsString = format!(".kiln-{:016x}", RandomState::new().build_hasher().finish()).into();
            match make(&beside) {
                Err(Errno::EXIST) => {}
                made => return Ok((made?, Self { to, name, beside: Some(beside) })),
            }
        }
    }

    /// What it is called as yet.
    pub(crate) fn current(&self) -> &OsStr {
        self.beside.as_deref().unwrap_or(self.name)
    }

    /// Gives it its name, in place of whatever has that.
    pub(crate) fn finish(self) -> Result<(), Errno> {
        let Some(beside) = &self.beside else { return Ok(()) };
        for _ in 0..ATTEMPTS {
            match rustix::fs::renameat(self.to, beside, self.to, self.name) {
                // Only a directory is in the way.
                Err(Errno::ISDIR) => {}
                // Where both names are links to one file both stay: the one beside goes when this is dropped.
                renamed => return renamed,
            }
            match remove_at(self.to, self.name) {
                // Somebody puts things into it.
                Ok(()) | Err(Errno::NOTEMPTY | Errno::STALE | Errno::NOTDIR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Err(Errno::BUSY)
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if let Some(beside) = &self.beside {
            let _ = rustix::fs::unlinkat(self.to, beside, AtFlags::empty());
        }
    }
}
