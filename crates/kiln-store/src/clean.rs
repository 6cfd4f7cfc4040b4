//! Removing trees, and measuring them, without following anything out of them.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use kiln_sys::metadata::FileKind;
use kiln_sys::root::read_dir_fd;
use rustix::fs::{AtFlags, Mode, OFlags, openat, statat};

use crate::error::{IoContext as _, Result};

/// Removes a file or a directory with all in it. One that is not there is fine.
#[expect(clippy::disallowed_methods, reason = "the state directory is ours alone")]
pub(crate) fn remove_dir(path: &Path) -> Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput)).context("remove", path);
    };
    let parent = match File::open(parent) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened.context("open", parent)?,
    };
    kiln_fs::remove_tree(parent, name).context("remove", path)
}

/// Deeper than this nobody measures: each level is an open descriptor.
const MAX_DEPTH: usize = 200;

/// Bytes of disk a file or tree takes, hard links counted once. An estimate: what cannot be read counts as nothing.
#[expect(clippy::disallowed_methods, reason = "the state directory is ours alone")]
pub(crate) fn disk_usage(path: &Path) -> u64 {
    let mut seen = HashSet::new();
    let Some((parent, name)) = path.parent().zip(path.file_name()) else { return 0 };
    File::open(parent).map_or(0, |parent| usage_at(parent.as_fd(), name, MAX_DEPTH, &mut seen))
}

fn usage_at(parent: BorrowedFd<'_>, name: &OsStr, depth: usize, seen: &mut HashSet<u64>) -> u64 {
    let Ok(stat) = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) else { return 0 };
    let own = u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
    if FileKind::from_raw_mode(stat.st_mode) != FileKind::Directory {
        let is_repeated = stat.st_nlink > 1 && !seen.insert(stat.st_ino);
        return if is_repeated { 0 } else { own };
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(dir) = openat(parent, name, flags, Mode::empty()) else { return own };
    let entries = if depth == 0 { Vec::new() } else { read_dir_fd(&dir).unwrap_or_default() };
    own + entries.iter().map(|entry| usage_at(dir.as_fd(), &entry.name, depth - 1, seen)).sum::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hard_links_count_once_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        std::fs::write(dir.path().join("outside"), vec![1; 1 << 20]).unwrap();
        std::os::unix::fs::symlink(dir.path(), tree.join("up")).unwrap();
        std::fs::write(tree.join("file"), vec![1; 64 << 10]).unwrap();
        let once = disk_usage(&tree);
        std::fs::hard_link(tree.join("file"), tree.join("again")).unwrap();
        assert_eq!(disk_usage(&tree), once);
        assert!((64 << 10..256 << 10).contains(&once), "{once}");
        assert_eq!(disk_usage(&dir.path().join("nothing")), 0);
    }

    #[test]
    fn removing_what_is_not_there_is_fine_and_links_keep_their_targets() {
        let dir = tempfile::tempdir().unwrap();
        let kept = dir.path().join("kept");
        std::fs::create_dir_all(dir.path().join("tree/deep")).unwrap();
        std::fs::write(&kept, "x").unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("tree/deep/up")).unwrap();
        remove_dir(&dir.path().join("tree")).unwrap();
        remove_dir(&dir.path().join("tree")).unwrap();
        remove_dir(&dir.path().join("no/such/parent")).unwrap();
        assert!(kept.exists() && !dir.path().join("tree").exists());
    }
}
