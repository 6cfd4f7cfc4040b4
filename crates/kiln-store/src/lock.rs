//! Lock files by path, which may be removed while others wait for them.

use std::fs::File;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use kiln_sys::lock::{FileLock, LockMode};
use rustix::fs::OFlags;

use crate::error::{Error, IoContext as _, Result};

/// A held lock; dropping it lets go.
pub(crate) type Guard = FileLock;

/// Waits for the lock.
pub(crate) fn wait(path: &Path, mode: LockMode) -> Result<Guard> {
    loop {
        let guard = FileLock::acquire(open(path)?, mode).map_err(|error| cannot(path, error))?;
        if is_in_place(guard.file(), path)? {
            return Ok(guard);
        }
    }
}

/// Takes the lock if nobody is in the way.
pub(crate) fn attempt(path: &Path, mode: LockMode) -> Result<Option<Guard>> {
    loop {
        match FileLock::try_acquire(open(path)?, mode).map_err(|error| cannot(path, error))? {
            Err(_taken) => return Ok(None),
            Ok(guard) if is_in_place(guard.file(), path)? => return Ok(Some(guard)),
            Ok(_of_a_removed_file) => {}
        }
    }
}

/// Locks a file that was opened by the caller.
pub(crate) fn hold(file: File, path: &Path) -> Result<Guard> {
    FileLock::acquire(file, LockMode::Exclusive).map_err(|error| cannot(path, error))
}

/// Whether somebody holds the lock; a file that is gone is held by nobody.
#[expect(clippy::disallowed_methods, reason = "the state directory is ours alone")]
pub(crate) fn is_held(path: &Path) -> Result<bool> {
    // Whatever lies there is not waited for: opening a named pipe would.
    let opened = File::options().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(source) => return Err(Error::Lock { path: path.to_owned(), source }),
    };
    let outcome = FileLock::try_acquire(file, LockMode::Exclusive).map_err(|error| cannot(path, error))?;
    Ok(outcome.is_err())
}

#[expect(clippy::disallowed_methods, reason = "the state directory is ours alone")]
fn open(path: &Path) -> Result<File> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(path).map_err(|source| Error::Lock { path: path.to_owned(), source })
}

/// A lock on a file that was unlinked meanwhile keeps nobody out: the next one makes a new file.
fn is_in_place(file: &File, path: &Path) -> Result<bool> {
    Ok(file.metadata().context("inspect", path)?.nlink() > 0)
}

fn cannot(path: &Path, error: kiln_sys::Error) -> Error {
    Error::Lock { path: path.to_owned(), source: error.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiter_for_a_removed_lock_file_takes_the_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = wait(&path, LockMode::Exclusive).unwrap();
        let waiter = std::thread::spawn({
            let path = path.clone();
            move || wait(&path, LockMode::Exclusive).map(|guard| is_in_place(guard.file(), &path).unwrap()).unwrap()
        });
        std::thread::sleep(std::time::Duration::from_millis(30));
        std::fs::remove_file(&path).unwrap();
        drop(first);
        assert!(waiter.join().unwrap());
    }

    #[test]
    fn nobody_holds_a_lock_file_that_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        assert!(!is_held(&path).unwrap());
        let guard = attempt(&path, LockMode::Shared).unwrap().unwrap();
        assert!(is_held(&path).unwrap());
        assert!(attempt(&path, LockMode::Exclusive).unwrap().is_none());
        drop(guard);
        assert!(!is_held(&path).unwrap());
    }
}
