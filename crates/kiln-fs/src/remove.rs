//! Removing a tree without following anything out of it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use kiln_sys::metadata::{FileKind, Metadata};
use kiln_sys::root::read_dir_fd;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

/// Removes `name` in `parent`: a file, a link itself, or a directory with all in it. Nothing there is no error.
///
/// Works on handles only, so a link put in place meanwhile is removed and not followed. Any depth is fine: one handle
/// is open at a time.
pub fn remove_tree(parent: impl AsFd, name: &OsStr) -> io::Result<()> {
    remove_at(parent, name).map_err(io::Error::from)
}

pub(crate) fn remove_at(parent: impl AsFd, name: &OsStr) -> Result<(), Errno> {
    let parent = parent.as_fd();
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // Linux says EISDIR, others and some filesystems EPERM.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(errno),
    }
    let top = match open(parent, name) {
        Err(Errno::NOENT) => return Ok(()),
        opened => opened?,
    };
    empty(top)?;
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
}

/// Removes everything in a directory, going down and up again.
fn empty(top: OwnedFd) -> Result<(), Errno> {
    let mut here = top;
    // The directories above `here`, by inode, with the name of the one that is being emptied and what is left.
    let mut above: Vec<(Metadata, OsString, Vec<OsString>)> = Vec::new();
    let mut directories = unlink_files(&here)?;
    loop {
        if let Some(name) = directories.pop() {
            let deeper = match open(&here, &name) {
                Ok(deeper) => deeper,
                // Replaced meanwhile by something else, or removed.
                Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => continue,
                Err(errno) => return Err(errno),
            };
            let metadata = describe(&here)?;
            let inside = unlink_files(&deeper)?;
            here = deeper;
            above.push((metadata, name, std::mem::replace(&mut directories, inside)));
            continue;
        }
        let Some((metadata, name, left)) = above.pop() else { return Ok(()) };
        here = open(&here, OsStr::new(".."))?;
        // Somebody moved the directory away: what is above it now is not ours.
        if !describe(&here)?.is_same_file(&metadata) {
            return Err(Errno::STALE);
        }
        match rustix::fs::unlinkat(&here, &name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
        directories = left;
    }
}

fn describe(directory: &OwnedFd) -> Result<Metadata, Errno> {
    rustix::fs::fstat(directory).map(|stat| Metadata::from(&stat))
}

/// Removes what is no directory, and returns the names of the directories.
fn unlink_files(directory: &OwnedFd) -> Result<Vec<OsString>, Errno> {
    let entries = read_dir_fd(directory).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
    let mut directories = Vec::new();
    for entry in entries {
        if entry.kind == FileKind::Directory {
            directories.push(entry.name);
            continue;
        }
        match rustix::fs::unlinkat(directory, &entry.name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR) => directories.push(entry.name),
            Err(errno) => return Err(errno),
        }
    }
    Ok(directories)
}

fn open(directory: impl AsFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::empty())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_tree_goes_and_what_its_links_point_to_stays() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("outside/kept")).unwrap();
        fs::create_dir_all(dir.path().join("t/a/b/c")).unwrap();
        fs::create_dir_all(dir.path().join("t/x")).unwrap();
        fs::write(dir.path().join("t/a/b/file"), "x").unwrap();
        std::os::unix::fs::symlink("../../outside", dir.path().join("t/a/link")).unwrap();
        let parent = fs::File::open(dir.path()).unwrap();
        remove_tree(&parent, OsStr::new("t")).unwrap();
        remove_tree(&parent, OsStr::new("never-there")).unwrap();
        assert!(!dir.path().join("t").exists());
        assert!(dir.path().join("outside/kept").exists());
    }

    #[test]
    fn paths_longer_than_the_kernel_takes_go_too() {
        let dir = tempfile::tempdir().unwrap();
        let parent = fs::File::open(dir.path()).unwrap();
        let name = "d".repeat(100);
        let mut here: OwnedFd = parent.try_clone().unwrap().into();
        for _ in 0..200 {
            rustix::fs::mkdirat(&here, &name, Mode::from_raw_mode(0o755)).unwrap();
            here = open(&here, OsStr::new(&name)).unwrap();
        }
        remove_tree(&parent, OsStr::new(&name)).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
