//! Whether two layers are the same but for the times at which they were made.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use kiln_sys::metadata::{FileKind, Metadata, Timestamp};
use kiln_sys::root::{Root, read_dir_fd};
use kiln_sys::xattr;
use rustix::fs::{AtFlags, OFlags, StatxFlags};

use super::whiteout::{is_opacity, is_whiteout};
use super::{LayerError, Result};
use crate::copy::file::open_itself;
use crate::meta::{Xattr, counts};
use crate::tree::{join, open_beneath};

const CHUNK: usize = 128 << 10;

/// Whether two upper directories are themselves the same: mode, owner, and a time that was set. Archives of layers do not say.
pub fn same_root(one: &Root, other: &Root) -> Result<bool> {
    let handles = open_both([one, other], b"", OFlags::DIRECTORY)?;
    let look = |handle| Metadata::of(handle).map_err(LayerError::io("look at", b"/"));
    let [one, other] = [look(&handles[0])?, look(&handles[1])?];
    Ok(same_look(&one, &other) && same_time(&handles, OsStr::new(""), [&one, &other]))
}

/// Whether two upper directories hold the same: names, kinds, modes, owners, attributes, deletions, contents, and which
/// names are of one file. Times do not count, unless they were set: those are part of what was made. What costs more is looked
/// at when all that costs less is the same: first what `stat` says, then the contents of files whose times differ, for there
/// a change is most likely, then attributes, then the other contents.
pub fn same_but_times(one: &Root, other: &Root) -> Result<bool> {
    let sides = [one, other];
    let mut found = Found::default();
    found.directories.push(Vec::new());
    while let Some(path) = found.directories.pop() {
        if !same_directory(sides, &path, &mut found)? {
            return Ok(false);
        }
    }
    Ok(same_contents(sides, &found.touched)?
        && all(&found.listed, |(path, names)| same_in_directory(sides, path, names))?
        && same_contents(sides, &found.files)?)
}

fn same_contents(sides: [&Root; 2], files: &[Vec<u8>]) -> Result<bool> {
    all(files, |path| same_content(sides, path))
}

/// Asks about one after the other, until one is not so.
fn all<T>(things: &[T], is_so: impl Fn(&T) -> Result<bool>) -> Result<bool> {
    for thing in things {
        if !is_so(thing)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Names in a directory, and what they are.
type Names = Vec<(OsString, FileKind)>;

/// What is left to compare, and what is known of files with several names.
#[derive(Default)]
struct Found {
    directories: Vec<Vec<u8>>,
    /// What each directory holds besides directories.
    listed: Vec<(Vec<u8>, Names)>,
    /// Files that are not empty and have the same time, and those that have another.
    files: Vec<Vec<u8>>,
    touched: Vec<Vec<u8>>,
    /// By inode of each side, that of the other.
    twins: [HashMap<u64, u64>; 2],
}

impl Found {
    /// Whether two files with several names were met together before, or neither was.
    fn are_twins(&mut self, one: u64, other: u64) -> bool {
        let [of_one, of_other] = &mut self.twins;
        *of_one.entry(one).or_insert(other) == other && *of_other.entry(other).or_insert(one) == one
    }
}

/// Compares what stands in a directory, by what `stat` says.
fn same_directory(sides: [&Root; 2], path: &[u8], found: &mut Found) -> Result<bool> {
    let handles = open_both(sides, path, OFlags::DIRECTORY)?;
    let [names, others] = [sorted_names(&handles[0], path)?, sorted_names(&handles[1], path)?];
    if names != others {
        return Ok(false);
    }
    let mut listed = Vec::with_capacity(names.len());
    for name in names {
        let path = join(path, name.as_bytes());
        let [one, other] = [metadata(&handles[0], &name, &path)?, metadata(&handles[1], &name, &path)?];
        if !same_look(&one, &other) || !same_time(&handles, &name, [&one, &other]) {
            return Ok(false);
        }
        if one.is_dir() {
            found.directories.push(path);
            continue;
        }
        if one.nlink > 1 && !is_whiteout(&one) && !found.are_twins(one.ino, other.ino) {
            return Ok(false);
        }
        if one.is_file() && one.size > 0 {
            if one.mtime == other.mtime { &mut found.files } else { &mut found.touched }.push(path);
        }
        listed.push((name, one.kind));
    }
    found.listed.push((path.to_vec(), listed));
    Ok(true)
}

/// Compares the attributes of a directory and of what stands in it, without reading files.
fn same_in_directory(sides: [&Root; 2], path: &[u8], names: &Names) -> Result<bool> {
    let handles = open_both(sides, path, OFlags::DIRECTORY)?;
    if !same_attributes(&handles, path)? {
        return Ok(false);
    }
    for (name, kind) in names {
        if !same_itself(&handles, name, (*kind, &join(path, name.as_bytes())))? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn same_look(one: &Metadata, other: &Metadata) -> bool {
    let look = |of: &Metadata| (of.kind, of.mode, of.uid, of.gid, of.rdev.major, of.rdev.minor);
    // The size of a directory says how it came to be, not what is in it. Overlay may give whiteouts any number of names.
    look(one) == look(other) && (one.is_dir() || is_whiteout(one) || (one.size, one.nlink) == (other.size, other.nlink))
}

/// Whether times are equal, or both came by themselves.
fn same_time(handles: &[OwnedFd; 2], name: &OsStr, [one, other]: [&Metadata; 2]) -> bool {
    one.mtime == other.mtime
        || is_whiteout(one)
        || (is_natural(&handles[0], name, one) && is_natural(&handles[1], name, other))
}

/// Whether a file changed last while it was here: a time that was set is before its birth or behind its last change.
fn is_natural(directory: &OwnedFd, name: &OsStr, of: &Metadata) -> bool {
    const FLAGS: AtFlags = AtFlags::SYMLINK_NOFOLLOW.union(AtFlags::EMPTY_PATH);
    let Ok(found) = rustix::fs::statx(directory, name, FLAGS, StatxFlags::BTIME) else {
        return false;
    };
    let born = Timestamp { secs: found.stx_btime.tv_sec, nanos: found.stx_btime.tv_nsec };
    // A filesystem that keeps no births cannot tell.
    found.stx_mask & StatxFlags::BTIME.bits() != 0 && born <= of.mtime && of.mtime <= of.ctime
}

/// Compares attributes and, of links, where they lead.
fn same_itself(handles: &[OwnedFd; 2], name: &OsStr, (kind, path): (FileKind, &[u8])) -> Result<bool> {
    let open = |directory: &OwnedFd| open_itself(directory.as_fd(), name).map_err(LayerError::io("open", path));
    let [one, other] = [open(&handles[0])?, open(&handles[1])?];
    if kind == FileKind::Symlink {
        let target = |link: &OwnedFd| {
            rustix::fs::readlinkat(link, "", Vec::new()).map_err(LayerError::io("read the link", path))
        };
        if target(&one)? != target(&other)? {
            return Ok(false);
        }
    }
    same_attributes(&[one, other], path)
}

fn same_attributes(handles: &[OwnedFd; 2], path: &[u8]) -> Result<bool> {
    Ok(attributes(&handles[0], path)? == attributes(&handles[1], path)?)
}

/// The attributes that count, and overlay's mark that hides what is below a directory.
pub(super) fn attributes(handle: &OwnedFd, path: &[u8]) -> Result<Vec<Xattr>> {
    let read = || {
        let mut found = Vec::new();
        for name in xattr::list(handle)? {
            if (counts(&name) || is_opacity(&name))
                && let Some(value) = xattr::get(handle, &name)?
            {
                found.push((name, value));
            }
        }
        found.sort();
        Ok::<_, std::io::Error>(found)
    };
    read().map_err(LayerError::io("read the attributes of", path))
}

pub(super) fn same_content(sides: [&Root; 2], path: &[u8]) -> Result<bool> {
    let [mut one, mut other] = open_both(sides, path, OFlags::empty())?.map(File::from);
    let mut buffers = [vec![0; CHUNK], vec![0; CHUNK]];
    loop {
        let [first, second] = &mut buffers;
        let length = fill(&mut one, first).map_err(LayerError::io("read", path))?;
        let length_of_other = fill(&mut other, second).map_err(LayerError::io("read", path))?;
        if length != length_of_other || first[..length] != second[..length] {
            return Ok(false);
        }
        if length < CHUNK {
            return Ok(true);
        }
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

pub(super) fn open_both(sides: [&Root; 2], path: &[u8], flags: OFlags) -> Result<[OwnedFd; 2]> {
    Ok([open(sides[0], path, flags)?, open(sides[1], path, flags)?])
}

pub(super) fn open(side: &Root, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
    let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    open_beneath(side, path, flags).map_err(LayerError::io("open", path))
}

pub(super) fn sorted_names(directory: &OwnedFd, path: &[u8]) -> Result<Vec<OsString>> {
    let entries = read_dir_fd(directory).map_err(LayerError::io("list", path))?;
    let mut names: Vec<OsString> = entries.into_iter().map(|entry| entry.name).collect();
    names.sort_unstable();
    Ok(names)
}

pub(super) fn metadata(directory: &OwnedFd, name: &OsStr, path: &[u8]) -> Result<Metadata> {
    let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW);
    Ok(Metadata::from(&stat.map_err(LayerError::io("look at", path))?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;
    use std::time::{Duration, SystemTime};

    use super::*;

    fn tree(change: impl FnOnce(&Path)) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        std::fs::create_dir_all(at("a/b")).unwrap();
        std::fs::write(at("a/file"), "content").unwrap();
        std::fs::write(at("a/b/large"), vec![7; CHUNK + 1]).unwrap();
        symlink("file", at("a/link")).unwrap();
        change(dir.path());
        dir
    }

    fn same(change: impl FnOnce(&Path)) -> bool {
        let [one, other] = [tree(|_| ()), tree(change)];
        let root = |dir: &tempfile::TempDir| Root::open_ambient(dir.path()).unwrap();
        same_but_times(&root(&one), &root(&other)).unwrap()
    }

    fn date(path: &Path, time: SystemTime) {
        std::fs::File::open(path).unwrap().set_modified(time).unwrap();
    }

    #[test]
    fn times_of_making_do_not_count() {
        assert!(same(|dir| {
            std::thread::sleep(Duration::from_millis(20));
            std::fs::write(dir.join("a/file"), "content").unwrap();
            // A directory that was once larger.
            (0..500).for_each(|n| std::fs::write(dir.join(format!("a/b/{n}")), "").unwrap());
            (0..500).for_each(|n| std::fs::remove_file(dir.join(format!("a/b/{n}"))).unwrap());
        }));
    }

    #[test]
    fn times_that_were_set_count() {
        let (long_ago, some_day) = (SystemTime::UNIX_EPOCH, SystemTime::now() + Duration::from_secs(1000));
        for path in ["a/file", "a/b"] {
            assert!(!same(|dir| date(&dir.join(path), long_ago)), "{path}");
            assert!(!same(|dir| date(&dir.join(path), some_day)), "{path}");
            let [one, other, third] =
                [0, 0, 1].map(|secs| tree(|dir| date(&dir.join(path), long_ago + Duration::from_secs(secs))));
            let root = |dir: &tempfile::TempDir| Root::open_ambient(dir.path()).unwrap();
            assert!(same_but_times(&root(&one), &root(&other)).unwrap(), "{path}");
            assert!(!same_but_times(&root(&one), &root(&third)).unwrap(), "{path}");
        }
    }

    #[test]
    fn the_directory_itself_is_compared_where_it_counts() {
        let root = |dir: &tempfile::TempDir| Root::open_ambient(dir.path()).unwrap();
        let same = |change: &dyn Fn(&Path)| same_root(&root(&tree(|_| ())), &root(&tree(change))).unwrap();
        assert!(same(&|dir| std::fs::write(dir.join("more"), "").unwrap()));
        assert!(!same(&|dir| std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o711)).unwrap()));
        assert!(!same(&|dir| date(dir, SystemTime::UNIX_EPOCH)));
    }

    #[test]
    fn names_of_one_file_count() {
        let linked = |pairs: [(&'static str, &'static str); 2]| {
            tree(|dir| {
                for (first, second) in pairs {
                    std::fs::write(dir.join(first), "x").unwrap();
                    std::fs::hard_link(dir.join(first), dir.join(second)).unwrap();
                }
            })
        };
        let [one, equal, other] =
            [[("k", "l"), ("m", "n")], [("l", "k"), ("m", "n")], [("k", "m"), ("l", "n")]].map(linked);
        let root = |dir: &tempfile::TempDir| Root::open_ambient(dir.path()).unwrap();
        assert!(same_but_times(&root(&one), &root(&equal)).unwrap());
        assert!(!same_but_times(&root(&one), &root(&other)).unwrap());
    }

    #[test]
    fn everything_else_does() {
        let mode = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        assert!(!same(|dir| std::fs::write(dir.join("a/file"), "CONTENT").unwrap()), "content");
        assert!(!same(|dir| std::fs::write(dir.join("a/file"), "longer content").unwrap()), "size");
        assert!(!same(|dir| {
            let mut content = vec![7; CHUNK + 1];
            content[CHUNK] = 8;
            std::fs::write(dir.join("a/b/large"), content).unwrap();
        }));
        assert!(!same(|dir| mode(&dir.join("a/file"), 0o600)), "mode");
        assert!(!same(|dir| mode(&dir.join("a/b"), 0o700)), "mode of a directory");
        assert!(!same(|dir| std::fs::write(dir.join("a/b/more"), "").unwrap()), "one more");
        assert!(!same(|dir| std::fs::remove_file(dir.join("a/b/large")).unwrap()), "one less");
        assert!(!same(|dir| {
            std::fs::remove_file(dir.join("a/link")).unwrap();
            symlink("b/la", dir.join("a/link")).unwrap();
        }));
        assert!(!same(|dir| {
            std::fs::remove_file(dir.join("a/link")).unwrap();
            std::fs::create_dir(dir.join("a/link")).unwrap();
        }));
        assert!(!same(|dir| std::fs::hard_link(dir.join("a/file"), dir.join("a/b/name")).unwrap()), "names");
    }
}
