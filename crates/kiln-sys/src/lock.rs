//! File locks that end with their holder, however it ends.
//!
//! `flock` locks belong to the open file description, so two opens in one process exclude each other as two processes
//! do. The guard unlocks explicitly: a child process that is just being started may still share the description.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::{Error, Result};

/// How many may hold a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// Any number of holders, as long as nobody holds it exclusively.
    Shared,
    /// One holder.
    Exclusive,
}

/// A held lock; dropping it lets go.
#[derive(Debug)]
pub struct FileLock {
    file: File,
}

impl FileLock {
    /// Waits until the lock is free, and takes it.
    pub fn acquire(file: File, mode: LockMode) -> Result<FileLock> {
        let operation = match mode {
            LockMode::Shared => FlockOperation::LockShared,
            LockMode::Exclusive => FlockOperation::LockExclusive,
        };
        rustix::io::retry_on_intr(|| flock(&file, operation)).map_err(|e| Error::call("lock a file", e))?;
        Ok(FileLock { file })
    }

    /// Takes the lock if it is free; else gives the file back.
    pub fn try_acquire(file: File, mode: LockMode) -> Result<Result<FileLock, File>> {
        let operation = match mode {
            LockMode::Shared => FlockOperation::NonBlockingLockShared,
            LockMode::Exclusive => FlockOperation::NonBlockingLockExclusive,
        };
        match rustix::io::retry_on_intr(|| flock(&file, operation)) {
            Ok(()) => Ok(Ok(FileLock { file })),
            Err(Errno::WOULDBLOCK) => Ok(Err(file)),
            Err(e) => Err(Error::call("lock a file", e)),
        }
    }

    /// Shows the locked file.
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl AsFd for FileLock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Closing would do, but a child between clone and exec holds a second handle for a moment. An error can only
        // mean that there is no lock to let go of.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &std::path::Path) -> File {
        File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap()
    }

    #[test]
    fn exclusive_excludes_and_dropping_frees() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = FileLock::acquire(open(&path), LockMode::Exclusive).unwrap();
        assert!(FileLock::try_acquire(open(&path), LockMode::Exclusive).unwrap().is_err());
        assert!(FileLock::try_acquire(open(&path), LockMode::Shared).unwrap().is_err());
        drop(held);
        assert!(FileLock::try_acquire(open(&path), LockMode::Exclusive).unwrap().is_ok());
    }

    #[test]
    fn shared_locks_share() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let one = FileLock::acquire(open(&path), LockMode::Shared).unwrap();
        let two = FileLock::try_acquire(open(&path), LockMode::Shared).unwrap();
        assert!(two.is_ok());
        assert!(FileLock::try_acquire(open(&path), LockMode::Exclusive).unwrap().is_err());
        drop((one, two));
        assert!(FileLock::try_acquire(open(&path), LockMode::Exclusive).unwrap().is_ok());
    }

    #[test]
    fn a_waiter_gets_the_lock_when_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = FileLock::acquire(open(&path), LockMode::Exclusive).unwrap();
        let waiter = std::thread::spawn({
            let path = path.clone();
            move || FileLock::acquire(open(&path), LockMode::Exclusive).is_ok()
        });
        std::thread::sleep(std::time::Duration::from_millis(30));
        assert!(!waiter.is_finished());
        drop(held);
        assert!(waiter.join().unwrap());
    }

    #[test]
    fn dropping_frees_even_while_another_handle_of_the_description_lives() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let file = open(&path);
        let twin = file.try_clone().unwrap();
        drop(FileLock::acquire(file, LockMode::Exclusive).unwrap());
        assert!(FileLock::try_acquire(open(&path), LockMode::Exclusive).unwrap().is_ok());
        drop(twin);
    }
}
