//! One test per wrapper that needs root: detached mounts, trusted attributes, owners.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

use std::fs::File;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::PathBuf;

use kiln_sys::metadata::{Device, FileKind, Metadata};
use kiln_sys::mount::{self, Bind, DATA, Depth, MountAttrFlags, Overlay, Swap, Tmpfs, Upper};
use kiln_sys::root::{Root, set_owner};
use kiln_sys::xattr;

/// Leaves a test with a word when we are not root.
macro_rules! require_root {
    () => {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root");
            return;
        }
    };
}

fn host_mounts() -> usize {
    std::fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count()
}

struct Layers {
    dir: tempfile::TempDir,
}

impl Layers {
    fn new() -> Self {
        Layers { dir: tempfile::tempdir().unwrap() }
    }

    fn dir(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    fn upper(&self) -> Upper {
        Upper { upper: self.dir("upper"), work: self.dir("work") }
    }
}

#[test]
fn an_overlay_shows_the_topmost_and_writes_to_the_upper() {
    require_root!();
    let layers = Layers::new();
    let (low, mid) = (layers.dir("low"), layers.dir("mid"));
    std::fs::write(low.join("same"), "low").unwrap();
    std::fs::write(mid.join("same"), "mid").unwrap();
    std::fs::write(low.join("gone"), "").unwrap();
    let before = host_mounts();
    let overlay = Overlay { lowers: vec![mid, low], upper: Some(layers.upper()), userxattr: false };
    let merged = Root::new(overlay.mount_detached().unwrap());
    assert_eq!(merged.read_to_limit("same", 10).unwrap(), b"mid");
    merged.create_file("new", 0o644).unwrap();
    merged.unlink("gone").unwrap();
    assert_eq!(host_mounts(), before, "a mount became visible");
    drop(merged);
    let upper = Root::open_ambient(layers.dir("upper")).unwrap();
    let gone = upper.metadata("gone").unwrap();
    assert_eq!((gone.kind, gone.rdev), (FileKind::CharDevice, Device { major: 0, minor: 0 }));
    assert!(upper.metadata("new").unwrap().is_file());
}

#[test]
fn the_same_upper_mounts_again_after_a_volatile_mount() {
    require_root!();
    let layers = Layers::new();
    let overlay = Overlay { lowers: vec![layers.dir("low")], upper: Some(layers.upper()), userxattr: false };
    for name in ["one", "two", "three"] {
        Root::new(overlay.mount_detached().unwrap()).create_file(name, 0o600).unwrap();
    }
    assert!(layers.dir("upper").join("three").exists());
}

#[test]
fn without_an_upper_nothing_can_be_written() {
    require_root!();
    let layers = Layers::new();
    for lowers in [vec![layers.dir("a")], vec![layers.dir("a"), layers.dir("b")]] {
        let merged = Root::new(Overlay { lowers, upper: None, userxattr: false }.mount_detached().unwrap());
        assert_eq!(merged.create_file("x", 0o600).unwrap_err().errno(), Some(libc::EROFS));
    }
    let alone = Overlay { lowers: vec![], upper: Some(layers.upper()), userxattr: false };
    Root::new(alone.mount_detached().unwrap()).create_file("x", 0o600).unwrap();
    assert!(layers.dir("upper").join("x").exists());
}

#[test]
fn user_xattr_marks_are_used_when_asked_for() {
    require_root!();
    let layers = Layers::new();
    let low = layers.dir("low");
    std::fs::create_dir(low.join("d")).unwrap();
    let overlay = Overlay { lowers: vec![low], upper: Some(layers.upper()), userxattr: true };
    let merged = Root::new(overlay.mount_detached().unwrap());
    merged.rmdir("d").unwrap();
    merged.mkdir("d", 0o755).unwrap();
    drop(merged);
    let made = File::open(layers.dir("upper").join("d")).unwrap();
    assert_eq!(xattr::get(&made, "user.overlay.opaque").unwrap(), Some(b"y".to_vec()));
}

#[test]
fn roots_work_on_detached_mounts() {
    require_root!();
    let tmpfs = Tmpfs { size: Some(1 << 20), mode: 0o750, swap: Swap::Avoided, attributes: DATA };
    let root = Root::new(tmpfs.mount_detached().unwrap());
    assert_eq!(root.metadata("/").unwrap().mode, 0o750);
    root.mkdir_all("etc/deep", 0o755).unwrap();
    root.symlink("/etc", "link").unwrap();
    root.create_file("link/deep/f", 0o600).unwrap();
    assert!(root.metadata("etc/deep/f").unwrap().is_file());
    assert_eq!(root.open_path("../../../proc/self").unwrap_err().errno(), Some(libc::ENOENT));
    let file = root.open_nofollow("etc/deep/f").unwrap();
    set_owner(&file, 70_000, 4_000_000_000).unwrap();
    let metadata = Metadata::of(&file).unwrap();
    assert_eq!((metadata.uid, metadata.gid), (70_000, 4_000_000_000));
    root.mknod("null", FileKind::CharDevice, 0o666, Device { major: 1, minor: 3 }).unwrap();
    assert_eq!(root.metadata("null").unwrap().rdev, Device { major: 1, minor: 3 });
    let open = root.open("null", rustix::fs::OFlags::RDWR).unwrap_err();
    assert_eq!(open.errno(), Some(libc::EACCES), "nodev does not hold");
    let full = (0..).find_map(|n| {
        let mut file = root.create_file(format!("{n}"), 0o600).ok()?;
        std::io::Write::write_all(&mut file, &[0; 300_000]).err()
    });
    assert_eq!(full.unwrap().raw_os_error(), Some(libc::ENOSPC));
}

#[test]
fn binds_are_second_sights_with_their_own_attributes() {
    require_root!();
    let layers = Layers::new();
    let source = layers.dir("source/sub");
    std::fs::write(source.join("f"), "f").unwrap();
    let handle = Root::open_ambient(layers.dir("source")).unwrap();
    let read_only = Bind { depth: Depth::One, attributes: MountAttrFlags::MOUNT_ATTR_RDONLY | DATA };
    let bound = Root::new(mount::bind_detached(handle.open_path("sub").unwrap(), read_only).unwrap());
    assert_eq!(bound.create_file("x", 0o600).unwrap_err().errno(), Some(libc::EROFS));
    let up = bound.metadata("..").unwrap();
    assert!(up.is_same_file(&bound.metadata("/").unwrap()));
    std::fs::write(source.join("later"), "").unwrap();
    assert!(bound.contains("later").unwrap());
    let file = mount::bind_detached(handle.open_path("sub/f").unwrap(), read_only).unwrap();
    assert!(Metadata::of(&file).unwrap().is_file());
    let writable = Bind { depth: Depth::Recursive, attributes: DATA };
    Root::new(mount::bind_path_detached(&source, writable).unwrap()).create_file("x", 0o600).unwrap();
    assert!(source.join("x").exists());
}

#[test]
fn kernel_filesystems_mount_detached() {
    require_root!();
    let sys = Root::new(mount::sysfs_detached(MountAttrFlags::MOUNT_ATTR_RDONLY).unwrap());
    assert!(sys.metadata("kernel").unwrap().is_dir());
    let pts = Root::new(mount::devpts_detached().unwrap());
    assert_eq!(pts.metadata("ptmx").unwrap().mode, 0o666);
    assert_eq!(pts.read_dir("/").unwrap().len(), 1, "terminals of others are seen");
    Root::new(mount::mqueue_detached(DATA).unwrap()).metadata("/").unwrap();
    match mount::cgroup2_detached(MountAttrFlags::MOUNT_ATTR_RDONLY) {
        Ok(groups) => assert!(Root::new(groups).contains("cgroup.procs").unwrap()),
        Err(e) => println!("skipped cgroup2: {e}"),
    }
}

#[test]
fn attributes_of_links_and_trusted_ones_are_kept() {
    require_root!();
    let layers = Layers::new();
    let dir = layers.dir("d");
    symlink("x", dir.join("link")).unwrap();
    let root = Root::open_ambient(&dir).unwrap();
    let link = root.open_nofollow("link").unwrap();
    xattr::set(&link, "trusted.kiln", b"1").unwrap();
    assert_eq!(xattr::list(&link).unwrap(), ["trusted.kiln"]);
    assert_eq!(xattr::get(&link, "trusted.kiln").unwrap(), Some(b"1".to_vec()));
    set_owner(&link, 12, 34).unwrap();
    let metadata = std::fs::symlink_metadata(dir.join("link")).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (12, 34));
}
