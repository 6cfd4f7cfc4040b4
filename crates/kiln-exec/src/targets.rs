//! Places to mount on: found inside the container's root, made where they are missing, and taken away again.
//!
//! Making is the exception: the engine puts the usual places into the bottom layer (see `stubs`). What is made here is
//! remembered by the directory and the inode, never by a path, and goes only if it is still the same and still empty.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use kiln_sys::metadata::Metadata;
use kiln_sys::root::{Root, set_times};
use rustix::fs::{AtFlags, Mode, OFlags, openat, statat, unlinkat};

use crate::Error;
use crate::stubs::StubKind;

/// As many links as the kernel follows in one path.
const MAX_LINKS: usize = 40;

/// The targets of one container.
#[derive(Debug)]
pub(crate) struct Targets<'a> {
    root: &'a Root,
    made: Vec<Made>,
}

#[derive(Debug)]
struct Made {
    parent: OwnedFd,
    name: OsString,
    itself: Metadata,
    parent_before: Metadata,
    parent_after: Metadata,
}

impl<'a> Targets<'a> {
    pub(crate) fn new(root: &'a Root) -> Self {
        Targets { root, made: Vec::new() }
    }

    /// Finds one of the kernel's own places. A link there is somebody's trick and is refused, not followed.
    pub(crate) fn kernel_directory(&mut self, path: &'static str) -> Result<OwnedFd, Error> {
        match self.root.open_nofollow(path) {
            Err(e) if e.is_not_found() => self.make(path, StubKind::Dir),
            found => {
                let found = found.map_err(|source| Error::MountTarget { target: path.into(), source })?;
                self.check(path, found, StubKind::Dir)
            }
        }
    }

    /// Finds a place; links are followed inside the root.
    pub(crate) fn find(&mut self, path: &str, kind: StubKind) -> Result<OwnedFd, Error> {
        match self.root.open_path(path) {
            Err(e) if e.is_not_found() => self.make(path, kind),
            found => {
                let found = found.map_err(|source| Error::MountTarget { target: path.into(), source })?;
                self.check(path, found, kind)
            }
        }
    }

    fn check(&self, path: &str, found: OwnedFd, wanted: StubKind) -> Result<OwnedFd, Error> {
        let metadata = Metadata::of(&found).map_err(|source| Error::MountTarget { target: path.into(), source })?;
        let is_right = match wanted {
            StubKind::Dir => metadata.is_dir(),
            StubKind::File => !metadata.is_dir() && !metadata.is_symlink(),
        };
        let wanted = if wanted == StubKind::Dir { "a directory" } else { "a file" };
        if is_right { Ok(found) } else { Err(Error::TargetKind { target: path.into(), wanted }) }
    }

    fn make(&mut self, path: &str, kind: StubKind) -> Result<OwnedFd, Error> {
        let made = match kind {
            StubKind::Dir => self.make_directory(Path::new(path)),
            StubKind::File => self.make_file(path),
        };
        made.map_err(|source| Error::MountTarget { target: path.into(), source })
    }

    fn make_directory(&mut self, path: &Path) -> Result<OwnedFd, kiln_sys::Error> {
        let made = &mut self.made;
        self.root.mkdir_all_observed(path, 0o755, &mut |created| {
            let itself = Metadata::of(created.directory)?;
            made.extend(Made::new(created.parent, created.parent_before, created.name, itself));
            Ok(())
        })
    }

    fn make_file(&mut self, path: &str) -> Result<OwnedFd, kiln_sys::Error> {
        let path = self.follow_dangling(PathBuf::from(path))?;
        let parent = self.make_directory(path.parent().unwrap_or(Path::new("/")))?;
        let (_, name) = self.root.open_parent(&path)?;
        let parent_before = Metadata::of(&parent)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&parent, &name, flags, Mode::from_raw_mode(0o644));
        let file = file.map_err(|e| kiln_sys::Error::Path { action: "create", path, source: e.into() })?;
        self.made.extend(Made::new(parent.as_fd(), parent_before, &name, Metadata::of(&file)?));
        Ok(file)
    }

    /// Follows links until a name that is no link; the name itself need not exist.
    fn follow_dangling(&self, mut path: PathBuf) -> Result<PathBuf, kiln_sys::Error> {
        for _ in 0..MAX_LINKS {
            match self.root.read_link(&path) {
                // Joining keeps an absolute target as it is, which is what the root wants.
                Ok(target) => path = path.parent().unwrap_or(Path::new("/")).join(target),
                Err(_) => break,
            }
        }
        Ok(path)
    }

    /// Tells whether anything was made.
    pub(crate) fn has_made_some(&self) -> bool {
        !self.made.is_empty()
    }

    /// Takes away what was made, inmost first. Mounts must be off.
    pub(crate) fn clean_up(self) {
        self.made.iter().rev().for_each(Made::remove);
    }
}

impl Made {
    fn new(parent: BorrowedFd<'_>, parent_before: Metadata, name: &OsStr, itself: Metadata) -> Option<Made> {
        let parent = parent.try_clone_to_owned().ok()?;
        let parent_after = Metadata::of(&parent).ok()?;
        Some(Made { parent, name: name.to_os_string(), itself, parent_before, parent_after })
    }

    /// Removes it if it is still what we made; else it has become the container's own.
    fn remove(&self) {
        let Ok(now) = statat(&self.parent, &self.name, AtFlags::SYMLINK_NOFOLLOW) else { return };
        let now = Metadata::from(&now);
        let untouched = now.is_same_file(&self.itself) && (now.is_dir() || now.size == 0);
        if !untouched {
            return;
        }
        let parent_now = Metadata::of(&self.parent);
        let flags = if now.is_dir() { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        // A directory in which the container has left something stays.
        if unlinkat(&self.parent, &self.name, flags).is_ok()
            && parent_now.is_ok_and(|parent| parent.mtime == self.parent_after.mtime)
        {
            let _ = set_times(&self.parent, self.parent_before.mtime);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    fn image() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("root/etc")).unwrap();
        let root = Root::open_ambient(dir.path().join("root")).unwrap();
        (dir, root)
    }

    fn names(root: &Root) -> Vec<OsString> {
        let mut names: Vec<_> = root.read_dir("/").unwrap().into_iter().map(|entry| entry.name).collect();
        names.sort();
        names
    }

    #[test]
    fn what_was_made_goes_and_leaves_no_trace() {
        let (dir, root) = image();
        let before = dir.path().join("root").metadata().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        let mut targets = Targets::new(&root);
        targets.find("/a/b/c", StubKind::Dir).unwrap();
        targets.find("/run/secrets/key", StubKind::File).unwrap();
        assert_eq!(names(&root), ["a", "etc", "run"]);
        targets.clean_up();
        assert_eq!(names(&root), ["etc"]);
        let after = dir.path().join("root").metadata().unwrap();
        assert_eq!((after.mtime(), after.mtime_nsec()), (before.mtime(), before.mtime_nsec()));
    }

    #[test]
    fn what_is_there_is_used_and_stays() {
        let (_dir, root) = image();
        let mut targets = Targets::new(&root);
        targets.find("/etc", StubKind::Dir).unwrap();
        assert!(!targets.has_made_some());
        let error = targets.find("/etc", StubKind::File).unwrap_err();
        assert_eq!(error.to_string(), "cannot mount at `/etc`: it is not a file");
        targets.clean_up();
        assert_eq!(names(&root), ["etc"]);
    }

    #[test]
    fn what_the_container_changed_stays_and_nothing_else_is_touched() {
        let (dir, root) = image();
        let outside = dir.path().join("outside");
        std::fs::create_dir_all(outside.join("b")).unwrap();
        let mut targets = Targets::new(&root);
        targets.find("/a/b/c", StubKind::Dir).unwrap();
        targets.find("/kept/d", StubKind::Dir).unwrap();
        targets.find("/file", StubKind::File).unwrap();
        let inside = dir.path().join("root");
        std::fs::rename(inside.join("a"), inside.join("z")).unwrap();
        symlink(&outside, inside.join("a")).unwrap();
        std::fs::write(inside.join("kept/mine"), "").unwrap();
        std::fs::write(inside.join("file"), "mine").unwrap();
        targets.clean_up();
        assert!(outside.join("b").exists());
        assert!(inside.join("a").is_symlink());
        assert!(inside.join("kept/mine").exists() && !inside.join("kept/d").exists());
        assert!(inside.join("file").exists());
        assert_eq!(std::fs::read_dir(inside.join("z")).unwrap().count(), 0);
    }

    #[test]
    fn dangling_links_lead_to_a_target_inside() {
        let (dir, root) = image();
        symlink("/run/resolve/stub.conf", dir.path().join("root/etc/resolv.conf")).unwrap();
        symlink("../../../../gone", dir.path().join("root/etc/hosts")).unwrap();
        let mut targets = Targets::new(&root);
        targets.find("/etc/resolv.conf", StubKind::File).unwrap();
        targets.find("/etc/hosts", StubKind::File).unwrap();
        assert!(dir.path().join("root/run/resolve/stub.conf").is_file());
        assert!(dir.path().join("root/gone").is_file());
        assert!(!dir.path().join("gone").exists());
        targets.clean_up();
        assert_eq!(names(&root), ["etc"]);
    }

    #[test]
    fn links_in_the_kernels_places_are_refused() {
        let (dir, root) = image();
        symlink("/etc", dir.path().join("root/proc")).unwrap();
        std::fs::write(dir.path().join("root/sys"), "").unwrap();
        let mut targets = Targets::new(&root);
        let error = targets.kernel_directory("/proc").unwrap_err();
        assert_eq!(error.to_string(), "cannot mount at `/proc`: it is not a directory");
        assert!(targets.kernel_directory("/sys").is_err());
        targets.kernel_directory("/dev").unwrap();
        assert_eq!(names(&root), ["dev", "etc", "proc", "sys"]);
    }
}
