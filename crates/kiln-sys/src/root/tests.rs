//! The claims of [`Root`]: nothing leads out, and legitimate links inside work.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;
use crate::metadata::Timestamp;

fn tree() -> (tempfile::TempDir, Root) {
    let dir = tempfile::tempdir().unwrap();
    let inside = dir.path().join("root");
    std::fs::create_dir_all(inside.join("usr/lib")).unwrap();
    std::fs::create_dir_all(inside.join("a/b")).unwrap();
    std::fs::write(inside.join("usr/lib/x"), "inside").unwrap();
    std::fs::write(dir.path().join("secret"), "outside").unwrap();
    symlink("/usr/lib", inside.join("lib")).unwrap();
    symlink("../../secret", inside.join("a/up")).unwrap();
    symlink(dir.path().join("secret"), inside.join("abs")).unwrap();
    symlink("/nowhere/deep", inside.join("dangling")).unwrap();
    symlink("loop", inside.join("loop")).unwrap();
    let root = Root::open_ambient(&inside).unwrap();
    (dir, root)
}

#[test]
fn absolute_links_mean_the_root() {
    let (_dir, root) = tree();
    assert_eq!(root.read_to_limit("/lib/x", 100).unwrap(), b"inside");
    assert_eq!(root.read_to_limit("lib/../lib/x", 100).unwrap(), b"inside");
}

#[test]
fn no_path_leads_out() {
    let (_dir, root) = tree();
    for path in ["../secret", "/../secret", "a/up", "abs", "a/b/../../../secret", "/../../../../../../etc/passwd"] {
        let error = root.read_to_limit(path, 100).unwrap_err();
        assert!(error.is_not_found(), "{path}: {error:?}");
    }
    let top = root.metadata("/").unwrap();
    assert!(root.metadata("../..").unwrap().is_same_file(&top));
}

#[test]
fn magic_links_are_refused() {
    let proc = Root::open_ambient("/proc").unwrap();
    for path in ["self/root", "self/cwd", "self/exe", "self/fd/0"] {
        let error = proc.open_path(path).unwrap_err();
        assert_eq!(error.errno(), Some(libc::ELOOP), "{path}: {error:?}");
    }
}

#[test]
fn devices_and_pipes_are_not_opened_by_mistake() {
    let (dir, root) = tree();
    rustix::fs::mkfifoat(CWD, dir.path().join("root/pipe"), Mode::RWXU).unwrap();
    let error = root.read_to_limit("pipe", 100).unwrap_err();
    assert!(matches!(error, Error::NotRegular { .. }), "{error:?}");
    assert!(matches!(root.read_to_limit("usr", 100).unwrap_err(), Error::NotRegular { .. }));
}

#[test]
fn reading_stops_at_the_limit() {
    let (_dir, root) = tree();
    assert_eq!(root.read_to_limit("usr/lib/x", 6).unwrap(), b"inside");
    let error = root.read_to_limit("usr/lib/x", 5).unwrap_err();
    assert_eq!(error.to_string(), "`usr/lib/x` is larger than 5 bytes");
}

#[test]
fn the_last_name_is_split_off_without_being_looked_at() {
    let (_dir, root) = tree();
    for (path, name) in [("x", "x"), ("/x", "x"), ("a/b/", "b"), ("lib/new", "new"), ("a//c//", "c"), ("abs", "abs")] {
        assert_eq!(root.open_parent(path).unwrap().1, name, "{path}");
    }
    for path in ["", "/", ".", "..", "a/..", "a/.", "///"] {
        assert!(matches!(root.open_parent(path).unwrap_err(), Error::NoName { .. }), "{path}");
    }
    let (parent, _) = root.open_parent("lib/new").unwrap();
    assert!(Metadata::of(parent).unwrap().is_same_file(&root.metadata("usr/lib").unwrap()));
}

#[test]
fn making_directories_follows_links_inside_and_makes_dangling_targets() {
    let (dir, root) = tree();
    root.mkdir_all("lib/new/deep", 0o751).unwrap();
    assert!(dir.path().join("root/usr/lib/new/deep").is_dir());
    root.mkdir_all("dangling/more", 0o700).unwrap();
    assert!(dir.path().join("root/nowhere/deep/more").is_dir());
    root.mkdir_all("a/../c/./d", 0o755).unwrap();
    assert!(dir.path().join("root/c/d").is_dir());
    root.mkdir_all("../../../e", 0o755).unwrap();
    assert!(dir.path().join("root/e").is_dir());
    assert!(!dir.path().join("e").exists());
    assert_eq!(root.metadata("lib/new").unwrap().mode, 0o751);
}

#[test]
fn making_directories_says_which_it_made() {
    let (_dir, root) = tree();
    let mut modes = Vec::new();
    root.mkdir_all_with("a/b/c/d", 0o710, &mut |fd| {
        modes.push(Metadata::of(fd)?.mode);
        Ok(())
    })
    .unwrap();
    assert_eq!(modes, [0o710, 0o710]);
    let mut again = 0;
    root.mkdir_all_with("a/b/c/d", 0o700, &mut |_| {
        again += 1;
        Ok(())
    })
    .unwrap();
    assert_eq!(again, 0);
}

#[test]
fn directories_are_not_made_through_files_or_loops() {
    let (_dir, root) = tree();
    assert_eq!(root.mkdir_all("usr/lib/x/y", 0o755).unwrap_err().errno(), Some(libc::ENOTDIR));
    assert_eq!(root.mkdir_all("loop/y", 0o755).unwrap_err().errno(), Some(libc::ELOOP));
    assert_eq!(root.mkdir_all("usr/lib/x", 0o755).unwrap_err().errno(), Some(libc::ENOTDIR));
}

#[test]
fn modes_are_exact_whatever_the_umask() {
    let (dir, root) = tree();
    root.create_file("f", 0o6777).unwrap();
    root.mkdir("d", 0o1777).unwrap();
    let mode =
        |name: &str| std::fs::metadata(dir.path().join("root").join(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("f"), mode("d")), (0o6777, 0o1777));
    assert_eq!(root.create_file("f", 0o600).unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
    assert_eq!(root.create_file("abs", 0o600).unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
}

#[test]
fn names_are_made_renamed_and_removed_inside() {
    let (dir, root) = tree();
    root.symlink("/any/where", "lib/link").unwrap();
    assert_eq!(root.read_link("usr/lib/link").unwrap(), "/any/where");
    root.hardlink("usr/lib/x", "y").unwrap();
    assert_eq!(std::fs::metadata(dir.path().join("root/y")).unwrap().nlink(), 2);
    root.rename("y", "a/z").unwrap();
    root.unlink("a/z").unwrap();
    root.unlink("abs").unwrap();
    assert!(dir.path().join("secret").exists());
    root.rmdir("a/b").unwrap();
    root.mknod("pipe", FileKind::Fifo, 0o622, Default::default()).unwrap();
    assert_eq!(root.metadata("pipe").unwrap().kind, FileKind::Fifo);
    assert_eq!(root.metadata("pipe").unwrap().mode, 0o622);
}

#[test]
fn attributes_are_set_on_handles() {
    let (_dir, root) = tree();
    let file = root.open_nofollow("usr/lib/x").unwrap();
    set_mode(&file, 0o4711).unwrap();
    let time = Timestamp { secs: -5, nanos: 123_456_789 };
    set_times(&file, time).unwrap();
    let metadata = Metadata::of(&file).unwrap();
    assert_eq!((metadata.mode, metadata.mtime), (0o4711, time));
    let link = root.open_nofollow("abs").unwrap();
    set_times(&link, time).unwrap();
    assert_eq!(root.metadata("abs").unwrap().mtime, time);
    assert!(set_owner(&file, u32::MAX, 0).is_err());
}

#[test]
fn listing_gives_names_and_kinds() {
    let (_dir, root) = tree();
    let mut entries = root.read_dir("/").unwrap();
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    let names: Vec<_> = entries.iter().map(|e| (e.name.to_str().unwrap(), e.kind)).collect();
    let (dir, link) = (FileKind::Directory, FileKind::Symlink);
    let expected = [("a", dir), ("abs", link), ("dangling", link), ("lib", link), ("loop", link), ("usr", dir)];
    assert_eq!(names, expected);
}

#[test]
fn user_attributes_go_through_path_handles() {
    let (_dir, root) = tree();
    let file = root.open_nofollow("usr/lib/x").unwrap();
    crate::xattr::set(&file, "user.b", &[0, 255]).unwrap();
    crate::xattr::set(&file, "user.a", b"").unwrap();
    let large = vec![9; 3000];
    crate::xattr::set(&file, "user.large", &large).unwrap();
    assert_eq!(crate::xattr::list(&file).unwrap(), ["user.a", "user.b", "user.large"]);
    assert_eq!(crate::xattr::get(&file, "user.large").unwrap(), Some(large));
    assert_eq!(crate::xattr::get(&file, "user.b").unwrap(), Some(vec![0, 255]));
    crate::xattr::remove(&file, "user.b").unwrap();
    crate::xattr::remove(&file, "user.b").unwrap();
    assert_eq!(crate::xattr::get(&file, "user.b").unwrap(), None);
    let open = root.open_file("usr/lib/x").unwrap();
    assert_eq!(crate::xattr::list(&open).unwrap(), ["user.a", "user.large"]);
}
