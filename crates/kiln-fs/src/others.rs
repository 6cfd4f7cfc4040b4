//! Several trees in one directory: what they share, and removing what none of them has.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use kiln_sys::metadata::FileKind;
use kiln_sys::root::{Root, read_dir_fd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::remove::remove_tree;

/// Removes everything in `dest` that none of `trees` has a name for. Works on handles only and follows no link, so it
/// never leaves `dest`.
pub fn remove_others(dest: &Root, trees: &[&Root]) -> io::Result<()> {
    let open = |root: &Root| root.open(".", OFlags::RDONLY | OFlags::DIRECTORY).map_err(io::Error::other);
    let trees = trees.iter().map(|tree| open(tree)).collect::<io::Result<Vec<_>>>()?;
    sweep(&open(dest)?, &trees)
}

/// Removes everything in `dest` that is not called one of these.
pub fn remove_unnamed(dest: &Root, names: &HashSet<OsString>) -> io::Result<()> {
    let handle = dest.open(".", OFlags::RDONLY | OFlags::DIRECTORY).map_err(io::Error::other)?;
    for entry in read_dir_fd(&handle)? {
        if !names.contains(&entry.name) {
            remove_tree(&handle, &entry.name)?;
        }
    }
    Ok(())
}

/// Finds a path that two of these trees have, and not both as a directory.
pub fn shared_file(trees: &[&Root]) -> io::Result<Option<PathBuf>> {
    let open = |root: &Root| root.open(".", OFlags::RDONLY | OFlags::DIRECTORY).map_err(io::Error::other);
    let trees = trees.iter().map(|tree| open(tree)).collect::<io::Result<Vec<_>>>()?;
    clash(&trees, Path::new(""))
}

fn clash(trees: &[OwnedFd], here: &Path) -> io::Result<Option<PathBuf>> {
    if trees.len() < 2 {
        return Ok(None);
    }
    let mut seen: BTreeMap<OsString, (usize, bool)> = BTreeMap::new();
    for tree in trees {
        for entry in read_dir_fd(tree)? {
            let (count, are_directories) = seen.entry(entry.name).or_insert((0, true));
            *count += 1;
            *are_directories &= entry.kind == FileKind::Directory;
        }
    }
    for (name, (_, are_directories)) in seen.into_iter().filter(|(_, (count, _))| *count > 1) {
        let path = here.join(&name);
        if !are_directories {
            return Ok(Some(path));
        }
        let within = trees.iter().filter_map(|tree| directory(tree, &name).transpose());
        if let Some(found) = clash(&within.collect::<io::Result<Vec<_>>>()?, &path)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn sweep(dest: &OwnedFd, trees: &[OwnedFd]) -> io::Result<()> {
    let mut names = HashSet::new();
    for tree in trees {
        names.extend(read_dir_fd(tree)?.into_iter().map(|entry| entry.name));
    }
    for entry in read_dir_fd(dest)? {
        if !names.contains(&entry.name) {
            remove_tree(dest, &entry.name)?;
            continue;
        }
        if entry.kind != FileKind::Directory {
            continue;
        }
        let Some(deeper) = directory(dest, &entry.name)? else { continue };
        let within = trees.iter().filter_map(|tree| directory(tree, &entry.name).transpose());
        sweep(&deeper, &within.collect::<io::Result<Vec<_>>>()?)?;
    }
    Ok(())
}

/// Opens a directory; what is something else, or gone, is none.
fn directory(parent: &OwnedFd, name: &OsString) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        Ok(handle) => Ok(Some(handle)),
        Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn trees_may_share_directories_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        for there in ["one/a/b", "two/a/c", "three/a/c"] {
            fs::create_dir_all(dir.path().join(there)).unwrap();
        }
        fs::write(dir.path().join("one/a/f"), "").unwrap();
        fs::write(dir.path().join("three/a/b"), "").unwrap();
        let [one, two, three] = ["one", "two", "three"].map(|name| Root::open_ambient(dir.path().join(name)).unwrap());
        assert_eq!(shared_file(&[&one, &two]).unwrap(), None);
        assert_eq!(shared_file(&[&two, &three]).unwrap(), None);
        assert_eq!(shared_file(&[&one, &two, &three]).unwrap(), Some("a/b".into()));
    }

    #[test]
    fn what_no_tree_has_goes_and_links_out_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = |text: &str| dir.path().join(text);
        for there in ["one/a/b", "two/a/c", "dest/a/b/old", "dest/a/c", "dest/a/old/deep", "dest/old", "outside/kept"] {
            fs::create_dir_all(path(there)).unwrap();
        }
        fs::write(path("one/f"), "").unwrap();
        fs::write(path("dest/f"), "").unwrap();
        fs::write(path("dest/g"), "").unwrap();
        fs::create_dir(path("one/link")).unwrap();
        std::os::unix::fs::symlink("../outside", path("dest/link")).unwrap();
        std::os::unix::fs::symlink("../../outside", path("dest/a/away")).unwrap();
        let [one, two, dest] = ["one", "two", "dest"].map(|name| Root::open_ambient(path(name)).unwrap());
        remove_others(&dest, &[&one, &two]).unwrap();
        let names = |at: &str| {
            let mut names: Vec<_> =
                fs::read_dir(path(at)).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        assert_eq!(names("dest"), ["a", "f", "link"]);
        assert_eq!(names("dest/a"), ["b", "c"]);
        assert_eq!(names("dest/a/b"), Vec::<String>::new());
        assert!(path("outside/kept").exists());
        remove_unnamed(&dest, &HashSet::from(["f".into()])).unwrap();
        assert_eq!(names("dest"), ["f"]);
        assert!(path("outside/kept").exists());
    }
}
