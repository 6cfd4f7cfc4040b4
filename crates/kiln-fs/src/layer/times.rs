//! Modification times that are to be: as they are, none after a moment, or all the same.

use std::os::unix::ffi::OsStrExt;

use kiln_sys::metadata::{Metadata, Timestamp};
use kiln_sys::root::Root;
use rustix::fs::OFlags;

use super::Result;
use super::same::{metadata, open, sorted_names};
use super::whiteout::is_whiteout;
use crate::tree::join;

/// What becomes of modification times. Moments are in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Times {
    /// They stay.
    #[default]
    Keep,
    /// What is newer becomes as old as this.
    NotAfter(i64),
    /// All become this.
    Exactly(i64),
}

impl Times {
    /// What becomes of one.
    pub fn of(self, time: Timestamp) -> Timestamp {
        let moment = |secs| Timestamp { secs, nanos: 0 };
        match self {
            Self::Keep => time,
            Self::NotAfter(secs) => time.min(moment(secs)),
            Self::Exactly(secs) => moment(secs),
        }
    }
}

/// Whether all files of a tree have the times already that they are to have.
pub fn has_times(tree: &Root, times: Times) -> Result<bool> {
    let mut has_all = true;
    visit(tree, |file| {
        has_all = is_whiteout(file) || times.of(file.mtime) == file.mtime;
        has_all
    })?;
    Ok(has_all)
}

/// When the newest file of a tree changed last, in seconds since 1970. Directories do not count: they change with what is put
/// into them.
pub fn newest(tree: &Root) -> Result<Option<i64>> {
    let mut newest = None;
    visit(tree, |file| {
        newest = newest.max((!file.is_dir()).then_some(file.mtime.secs));
        true
    })?;
    Ok(newest)
}

/// Shows all that is in a tree, as long as `wants_more` says so.
fn visit(tree: &Root, mut wants_more: impl FnMut(&Metadata) -> bool) -> Result<()> {
    let mut directories = vec![Vec::new()];
    while let Some(path) = directories.pop() {
        let directory = open(tree, &path, OFlags::DIRECTORY)?;
        for name in sorted_names(&directory, &path)? {
            let path = join(&path, name.as_bytes());
            let file = metadata(&directory, &name, &path)?;
            if !wants_more(&file) {
                return Ok(());
            }
            if file.is_dir() {
                directories.push(path);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_whole_seconds() {
        let time = |secs, nanos| Timestamp { secs, nanos };
        assert_eq!(Times::Keep.of(time(7, 1)), time(7, 1));
        assert_eq!(Times::NotAfter(7).of(time(7, 1)), time(7, 0));
        assert_eq!(Times::NotAfter(8).of(time(7, 1)), time(7, 1));
        assert_eq!(Times::Exactly(8).of(time(7, 1)), time(8, 0));
    }
}
