//! Packing a tree while others write to it: what was read of a file that changed meanwhile is taken back.

use std::ffi::OsStr;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::time::Duration;

use kiln_sys::metadata::Metadata;
use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::pack::Pack;
use super::{LayerError, Result};

/// Where an archive goes that can take back what was written last.
pub trait Rewind: Write {
    /// Remembers this place.
    fn mark(&mut self);

    /// Forgets what was written since the last mark.
    fn rewind(&mut self);
}

/// Where an archive goes, and whether the tree may change meanwhile.
pub(super) enum Out<'a> {
    /// A change is an error.
    Strict(&'a mut dyn Write),
    /// A change is dealt with.
    Live(&'a mut dyn Rewind),
}

impl Out<'_> {
    pub(super) fn reborrow(&mut self) -> Out<'_> {
        match self {
            Self::Strict(out) => Out::Strict(*out),
            Self::Live(out) => Out::Live(*out),
        }
    }

    pub(super) fn writer(&mut self) -> &mut dyn Write {
        match self {
            Self::Strict(out) => *out,
            Self::Live(out) => *out,
        }
    }

    pub(super) fn is_live(&self) -> bool {
        matches!(self, Self::Live(_))
    }

    fn mark(&mut self) {
        if let Self::Live(out) = self {
            out.mark();
        }
    }

    fn rewind(&mut self) {
        if let Self::Live(out) = self {
            out.rewind();
        }
    }
}

/// How often a file that changes is read.
const ATTEMPTS: u32 = 5;
/// How long it is left in peace before it is read again, times the number of the attempt.
const PAUSE: Duration = Duration::from_millis(5);

impl Pack<'_> {
    /// Packs a file that may change meanwhile: as it was at one moment, or not at all.
    pub(super) fn restless(&mut self, from: &OwnedFd, name: &OsStr, metadata: &Metadata, path: &[u8]) -> Result<()> {
        let mut now = *metadata;
        for attempt in 1..=ATTEMPTS {
            let before = self.stats;
            self.out.mark();
            match self.content(from, name, &now, path) {
                Err(LayerError::ChangedWhileRead { .. }) => {}
                Err(error) if is_gone(&error) => {}
                done => return done,
            }
            self.out.rewind();
            self.stats = before;
            // Another name of it may hold something else by now.
            self.links.remove(&(metadata.dev, metadata.ino));
            std::thread::sleep(PAUSE * attempt);
            let Ok(stat) = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW) else { break };
            now = Metadata::from(&stat);
            if !now.is_file() {
                break;
            }
        }
        self.stats.left_out += 1;
        Ok(())
    }
}

/// Whether somebody took away what was to be read, or put something of another kind in its place.
pub(super) fn is_gone(error: &LayerError) -> bool {
    let LayerError::Io { source, .. } = error else { return false };
    // A directory that is none, a file that is a directory, a link that is none (`EINVAL`), a file that is a link.
    matches!(
        Errno::from_io_error(source),
        Some(Errno::NOENT | Errno::NOTDIR | Errno::ISDIR | Errno::INVAL | Errno::LOOP)
    )
}

#[cfg(test)]
mod tests {
    use std::fs;

    use kiln_sys::root::Root;

    use super::*;
    use crate::layer::{ApplyOptions, PackStats, Target, apply_with, pack_live};

    /// Keeps what it is given, and does something when it sees a file's content begin.
    #[derive(Default)]
    struct Kept<'a> {
        bytes: Vec<u8>,
        mark: usize,
        marks: u32,
        meanwhile: Option<Box<dyn FnMut(u32) + 'a>>,
    }

    impl Write for Kept<'_> {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.bytes.extend_from_slice(bytes);
            if let Some(meanwhile) = &mut self.meanwhile {
                meanwhile(self.marks);
            }
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Rewind for Kept<'_> {
        fn mark(&mut self) {
            self.marks += 1;
            self.mark = self.bytes.len();
        }

        fn rewind(&mut self) {
            self.bytes.truncate(self.mark);
        }
    }

    fn pack(dir: &std::path::Path, meanwhile: impl FnMut(u32)) -> (PackStats, tempfile::TempDir) {
        let mut kept = Kept { meanwhile: Some(Box::new(meanwhile)), ..Kept::default() };
        let stats = pack_live(&Root::open_ambient(dir).unwrap(), &mut kept).unwrap();
        assert_eq!(stats.bytes, kept.bytes.len() as u64);
        let out = tempfile::tempdir().unwrap();
        let options = ApplyOptions { target: Target::Archive, refuse_devices: true, ..ApplyOptions::default() };
        apply_with(&kept.bytes[..], &Root::open_ambient(out.path()).unwrap(), &options).unwrap();
        (stats, out)
    }

    #[test]
    fn a_file_that_changes_while_it_is_read_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), vec![b'x'; 3 << 20]).unwrap();
        fs::write(dir.path().join("b"), "b").unwrap();
        let (stats, out) = pack(dir.path(), |marks| {
            if marks == 1 {
                fs::write(dir.path().join("a"), "rewritten").unwrap();
            }
        });
        assert_eq!((fs::read_to_string(out.path().join("a")).unwrap().as_str(), stats.left_out), ("rewritten", 0));
        assert_eq!(fs::read_to_string(out.path().join("b")).unwrap(), "b");
    }

    #[test]
    fn a_file_that_never_rests_is_left_out_and_the_others_are_whole() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), "a").unwrap();
        fs::write(dir.path().join("busy"), "0").unwrap();
        fs::write(dir.path().join("z"), "z").unwrap();
        let (stats, out) = pack(dir.path(), |marks| {
            if (2..=6).contains(&marks) {
                fs::write(dir.path().join("busy"), "x".repeat(10 + marks as usize)).unwrap();
            }
        });
        assert_eq!(stats.left_out, 1);
        assert!(!out.path().join("busy").exists());
        assert_eq!(fs::read_to_string(out.path().join("z")).unwrap(), "z");
    }

    #[test]
    fn what_vanishes_meanwhile_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), "a").unwrap();
        fs::create_dir_all(dir.path().join("deep/er")).unwrap();
        fs::write(dir.path().join("deep/er/f"), "f").unwrap();
        fs::write(dir.path().join("z"), "z").unwrap();
        let mut is_gone = false;
        let (stats, out) = pack(dir.path(), |_| {
            if !std::mem::replace(&mut is_gone, true) {
                fs::remove_dir_all(dir.path().join("deep")).unwrap();
                fs::remove_file(dir.path().join("z")).unwrap();
            }
        });
        assert_eq!(stats.left_out, 2);
        assert!(out.path().join("a").exists() && !out.path().join("deep").exists());
    }

    #[test]
    fn what_becomes_something_else_meanwhile_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("a"), "a").unwrap();
        fs::create_dir(at("directory")).unwrap();
        fs::write(at("file"), "f").unwrap();
        std::os::unix::fs::symlink("a", at("link")).unwrap();
        fs::write(at("target"), "t").unwrap();
        fs::write(at("z"), "z").unwrap();
        let mut is_other = false;
        let (stats, out) = pack(dir.path(), |_| {
            if !std::mem::replace(&mut is_other, true) {
                fs::remove_dir(at("directory")).unwrap();
                ["file", "link", "target"].iter().for_each(|name| fs::remove_file(at(name)).unwrap());
                ["directory", "link"].iter().for_each(|name| fs::write(at(name), "another").unwrap());
                fs::create_dir(at("file")).unwrap();
                std::os::unix::fs::symlink("a", at("target")).unwrap();
            }
        });
        let left: Vec<_> =
            ["a", "directory", "file", "link", "target", "z"].map(|name| out.path().join(name).exists()).into();
        assert_eq!((stats.left_out, left), (4, vec![true, false, false, false, false, true]));
    }

    #[test]
    fn names_that_mean_deletions_elsewhere_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(".wh.a"), "a").unwrap();
        fs::write(dir.path().join("a"), "a").unwrap();
        let (stats, out) = pack(dir.path(), |_| {});
        assert_eq!((stats.left_out, out.path().join("a").exists()), (1, true));
    }
}
