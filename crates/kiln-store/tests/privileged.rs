//! Snapshots mounted for real: what overlay writes is a layer, and layers are what overlay shows.
#![allow(clippy::disallowed_methods, reason = "the full disk is made in a mount namespace of its own")]
#![allow(clippy::print_stdout, reason = "a skipped test says why")]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};

use kiln_store::{
    ActiveSnapshot, Error, ImageRecord, Lease, Limits, PruneOptions, PruneScope, Snapshot, Snapshotter as _, Store,
};
use kiln_sys::mount::{Depth, MountAttrFlags, Swap, Tmpfs, attach_at_path, set_attributes};

/// Ends a test, aloud, where it cannot run.
macro_rules! require_root {
    () => {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: mounting overlays needs root");
            return;
        }
    };
}

struct Fixture {
    store: Store,
    lease: Lease,
    _dir: tempfile::TempDir,
}

/// A mount that is attached nowhere, and the path by which this process sees it.
struct Mounted {
    _fd: OwnedFd,
    path: PathBuf,
}

impl std::ops::Deref for Mounted {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state")).unwrap();
        let lease = store.lease().unwrap();
        Self { store, lease, _dir: dir }
    }

    fn prepare(&self, parent: &Snapshot) -> ActiveSnapshot {
        self.store.prepare(Some(parent), &self.lease).unwrap()
    }

    fn write(&self, active: &ActiveSnapshot) -> Mounted {
        mounted(self.store.mounts(active).unwrap().mount_detached().unwrap())
    }

    fn view(&self, snapshot: &Snapshot) -> Mounted {
        mounted(self.store.view(snapshot).unwrap().mount_detached().unwrap())
    }

    /// A snapshot in which `change` was done to the mounted parent.
    fn step(&self, parent: &Snapshot, change: impl FnOnce(&Path)) -> Snapshot {
        let active = self.prepare(parent);
        let mount = self.write(&active);
        change(&mount);
        drop(mount);
        self.store.commit(active).unwrap()
    }

    fn top(&self, snapshot: &Snapshot) -> PathBuf {
        self.store.layer_dir(snapshot.layers().last().unwrap())
    }
}

fn mounted(fd: OwnedFd) -> Mounted {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd()).into();
    Mounted { _fd: fd, path }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

fn is_whiteout(path: &Path) -> bool {
    let metadata = fs::symlink_metadata(path).unwrap();
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

#[test]
fn a_layer_holds_what_changed_and_nothing_else() {
    require_root!();
    let f = Fixture::new();
    let base = f.step(&Snapshot::scratch(), |root| {
        fs::create_dir_all(root.join("etc/sub")).unwrap();
        fs::write(root.join("etc/kept"), "kept").unwrap();
        fs::write(root.join("etc/changed"), "old").unwrap();
        fs::write(root.join("etc/removed"), "x").unwrap();
    });
    let child = f.step(&base, |root| {
        assert_eq!(fs::read_to_string(root.join("etc/kept")).unwrap(), "kept");
        fs::write(root.join("etc/changed"), "new").unwrap();
        fs::remove_file(root.join("etc/removed")).unwrap();
        fs::write(root.join("etc/sub/added"), "added").unwrap();
    });
    let top = f.top(&child);
    assert_eq!(names(&top.join("etc")), ["changed", "removed", "sub"]);
    assert!(is_whiteout(&top.join("etc/removed")));
    let view = f.view(&child);
    assert_eq!(names(&view.join("etc")), ["changed", "kept", "sub"]);
    assert_eq!(fs::read_to_string(view.join("etc/changed")).unwrap(), "new");
    let before = f.view(&base);
    assert_eq!(fs::read_to_string(before.join("etc/changed")).unwrap(), "old", "the parent stays as it was");
    assert!(before.join("etc/removed").exists());
}

#[test]
fn a_directory_made_anew_hides_the_one_below() {
    require_root!();
    let f = Fixture::new();
    let base = f.step(&Snapshot::scratch(), |root| {
        fs::create_dir(root.join("dir")).unwrap();
        fs::write(root.join("dir/old"), "x").unwrap();
    });
    let child = f.step(&base, |root| {
        fs::remove_dir_all(root.join("dir")).unwrap();
        fs::create_dir(root.join("dir")).unwrap();
        fs::write(root.join("dir/new"), "x").unwrap();
    });
    let dir = fs::File::open(f.top(&child).join("dir")).unwrap();
    assert_eq!(kiln_sys::xattr::get(&dir, "trusted.overlay.opaque").unwrap().unwrap(), b"y");
    assert_eq!(names(&f.view(&child).join("dir")), ["new"]);
}

#[test]
fn owners_modes_links_and_renames_are_kept() {
    require_root!();
    let f = Fixture::new();
    let base = f.step(&Snapshot::scratch(), |root| {
        fs::create_dir(root.join("dir")).unwrap();
        fs::write(root.join("dir/file"), "x").unwrap();
        fs::write(root.join("su"), "x").unwrap();
    });
    let child = f.step(&base, |root| {
        chown(root.join("dir/file"), Some(70_000), Some(4_000_000_000)).unwrap();
        fs::set_permissions(root.join("su"), fs::Permissions::from_mode(0o4755)).unwrap();
        fs::rename(root.join("dir/file"), root.join("moved")).unwrap();
        symlink("/nowhere", root.join("link")).unwrap();
        fs::hard_link(root.join("su"), root.join("su2")).unwrap();
        // A directory from below is not renamed in place: callers copy it, so that layers need no redirects.
        let refused = fs::rename(root.join("dir"), root.join("dir2")).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::CrossesDevices);
    });
    let view = f.view(&child);
    let moved = fs::metadata(view.join("moved")).unwrap();
    assert_eq!((moved.uid(), moved.gid()), (70_000, 4_000_000_000));
    assert_eq!(names(&view.join("dir")), [""; 0]);
    assert_eq!(fs::metadata(view.join("su")).unwrap().mode() & 0o7777, 0o4755);
    assert_eq!(fs::read_link(view.join("link")).unwrap(), Path::new("/nowhere"));
    let top = f.top(&child);
    assert_eq!(fs::metadata(top.join("su")).unwrap().ino(), fs::metadata(top.join("su2")).unwrap().ino());
}

#[test]
fn the_root_keeps_its_owner_mode_and_attributes() {
    require_root!();
    let f = Fixture::new();
    let base = f.step(&Snapshot::scratch(), |root| {
        chown(root, Some(12), Some(34)).unwrap();
        fs::set_permissions(root, fs::Permissions::from_mode(0o1771)).unwrap();
        let root = fs::File::open(root).unwrap();
        if let Err(error) = kiln_sys::xattr::set(&root, "trusted.mine", b"1") {
            println!("skipped in part: no attributes here: {error}");
        }
    });
    let child = f.step(&f.step(&base, |_| ()), |root| {
        let metadata = fs::metadata(root).unwrap();
        assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o7777), (12, 34, 0o1771));
    });
    let of = |snapshot| kiln_sys::xattr::get(fs::File::open(f.top(snapshot)).unwrap(), "trusted.mine").unwrap();
    assert_eq!(of(&child), of(&base));
}

#[test]
fn a_hundred_and_twenty_eight_layers_are_one_tree() {
    require_root!();
    let f = Fixture::new();
    let mut snapshot = Snapshot::scratch();
    for number in 0..128 {
        let active = f.prepare(&snapshot);
        fs::write(active.upper_dir().join(format!("file{number}")), "x").unwrap();
        fs::write(active.upper_dir().join("last"), number.to_string()).unwrap();
        snapshot = f.store.commit(active).unwrap();
    }
    let view = f.view(&snapshot);
    assert_eq!(names(&view).len(), 129);
    assert_eq!(fs::read_to_string(view.join("last")).unwrap(), "127");
    let child = f.step(&snapshot, |root| fs::remove_file(root.join("file0")).unwrap());
    assert!(!f.view(&child).join("file0").exists());
}

#[test]
fn a_view_is_read_only_and_hides_whiteouts() {
    require_root!();
    let f = Fixture::new();
    let base = f.step(&Snapshot::scratch(), |root| fs::write(root.join("file"), "x").unwrap());
    let child = f.step(&base, |root| fs::remove_file(root.join("file")).unwrap());
    let alone = Snapshot::new([child.layers()[1].clone()]);
    for snapshot in [&Snapshot::scratch(), &alone, &child] {
        let view = f.view(snapshot);
        assert_eq!(names(&view), [""; 0]);
        let refused = fs::write(view.join("new"), "x").unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    }
    // Merged over another tree, the whiteout means what it says.
    let other = f.step(&Snapshot::scratch(), |root| fs::write(root.join("file"), "y").unwrap());
    assert!(!f.view(&other.stacked(&alone)).join("file").exists());
    assert!(f.view(&alone.stacked(&other)).join("file").exists());
}

#[test]
fn no_mount_is_seen_by_the_host() {
    require_root!();
    let f = Fixture::new();
    let table =
        || fs::read_to_string("/proc/self/mountinfo").unwrap().lines().filter(|l| l.contains("overlay")).count();
    let before = table();
    let active = f.prepare(&Snapshot::scratch());
    let base = f.step(&Snapshot::scratch(), |_| ());
    let (written, viewed) = (f.write(&active), f.view(&base));
    assert_eq!(table(), before);
    drop((written, viewed));
}

#[test]
fn a_discarded_tree_of_hostile_names_and_depth_is_removed() {
    require_root!();
    let f = Fixture::new();
    let active = f.prepare(&Snapshot::scratch());
    let mount = f.write(&active);
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("canary"), "x").unwrap();
    symlink(outside.path(), mount.join("link")).unwrap();
    let mut dir = fs::File::open(&*mount).unwrap();
    for _ in 0..600 {
        let name = "d".repeat(200);
        rustix::fs::mkdirat(&dir, &name, rustix::fs::Mode::RWXU).unwrap();
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
        dir = rustix::fs::openat(&dir, &name, flags, rustix::fs::Mode::empty()).unwrap().into();
    }
    drop((dir, mount));
    let upper = active.upper_dir();
    f.store.discard(active).unwrap();
    assert!(!upper.exists() && outside.path().join("canary").exists());
}

const STATE: &str = "KILN_TEST_STATE";

/// A disk of a few MiB for a state directory, in a mount namespace that ends with the process: starts the test anew
/// there, and gives the place and the mount to that one only.
fn small_disk(test: &str) -> Option<(PathBuf, OwnedFd)> {
    if let Some(place) = std::env::var_os(STATE) {
        let disk = Tmpfs { size: Some(6 << 20), mode: 0o700, swap: Swap::Allowed, attributes: MountAttrFlags::empty() };
        let disk = disk.mount_detached().unwrap();
        attach_at_path(&disk, Path::new(&place)).unwrap();
        return Some((place.into(), disk));
    }
    let dir = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]).arg(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(STATE, dir.path());
    match command.status() {
        Ok(status) => assert!(status.success()),
        Err(_) => println!("skipped: there is no `unshare` here"),
    }
    None
}

#[test]
fn a_read_only_state_is_said_so() {
    require_root!();
    let Some((place, disk)) = small_disk("a_read_only_state_is_said_so") else { return };
    drop(Store::open(&place).unwrap());
    set_attributes(&disk, MountAttrFlags::MOUNT_ATTR_RDONLY, Depth::One).unwrap();
    for state in [place.clone(), place.join("new")] {
        let error = Store::open(&state).err().unwrap();
        assert!(matches!(error, Error::NotWritable { .. }), "{error:?}");
        assert!(error.to_string().contains(state.to_str().unwrap()), "{error}");
    }
}

#[test]
fn a_full_disk_is_said_so_and_can_be_pruned() {
    require_root!();
    let Some((place, _disk)) = small_disk("a_full_disk_is_said_so_and_can_be_pruned") else { return };
    let place = place.as_path();
    let store = Store::open(place).unwrap();
    let lease = store.lease().unwrap();
    fill_and_fail(&store, &lease);
    let stays = store.content().put(&lease, "text/plain", b"").err().is_none_or(|error| error.is_no_space());
    assert!(stays);
    drop(lease);
    let everything = PruneOptions { scope: PruneScope::Everything, ..PruneOptions::default() };
    let report = store.prune(&everything).unwrap();
    assert!(report.bytes() > 1 << 20, "{}", report.bytes());
    let lease = store.lease().unwrap();
    let made = store.content().put(&lease, "text/plain", &vec![1; 1 << 20]).unwrap();
    store.content().verify(&made.digest).unwrap();
}

#[test]
fn a_disk_without_a_free_byte_can_be_opened_and_emptied() {
    require_root!();
    let Some((place, _disk)) = small_disk("a_disk_without_a_free_byte_can_be_opened_and_emptied") else { return };
    let place = place.as_path();
    let store = Store::open(place).unwrap();
    let lease = store.lease().unwrap();
    // Layers that nobody has measured yet: one of an image, one of nothing.
    let grow = || {
        let active = store.prepare(None, &lease).unwrap();
        fs::write(active.upper_dir().join("file"), vec![7; 500_000]).unwrap();
        store.commit(active).unwrap()
    };
    let (needed, lost) = (grow(), grow());
    let config = store.content().put(&lease, "application/json", b"{}").unwrap();
    let image = ImageRecord {
        id: config.digest.clone(),
        manifest: None,
        snapshot: Some(needed.clone()),
        blobs: vec![config.digest],
        repo_digests: Vec::new(),
        platform: kiln_oci::Platform::linux("amd64"),
        created: None,
        size: 0,
        members: Vec::new(),
    };
    let name: kiln_oci::Reference = "app".parse().unwrap();
    store.images().put(&image, std::slice::from_ref(&name)).unwrap();
    let (kept, lost) = (store.layer_dir(&needed.layers()[0]), store.layer_dir(&lost.layers()[0]));
    drop((lease, store));
    fill(place);
    let store = Store::open(place).unwrap();
    let limits = Limits { max_used: Some(0), ..Limits::default() };
    let limited = PruneOptions { scope: PruneScope::Cache, limits, ..PruneOptions::default() };
    store.prune(&limited).unwrap();
    assert!(kept.exists() && !lost.exists());
    assert!(place.join("reserve").exists(), "the next time it will be needed again");
    drop(store);
    fill(place);
    let store = Store::open(place).unwrap();
    store.images().remove_name(&name).unwrap();
    store.prune(&limited).unwrap();
    assert!(!kept.exists());
}

/// Takes what is free.
fn fill(place: &Path) {
    let mut file = fs::File::options().create(true).append(true).open(place.join("filler")).unwrap();
    while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
    assert_eq!(rustix::fs::statvfs(place).unwrap().f_bavail, 0);
}

/// Ends when a disk error came, which must be the right one, and no byte is left.
fn fill_and_fail(store: &Store, lease: &Lease) {
    let mut number = 0_u32;
    let error = loop {
        number += 1;
        let bytes = [&number.to_le_bytes()[..], &vec![9; 100_000]].concat();
        if let Err(error) = store.content().put(lease, "text/plain", &bytes) {
            break error;
        }
    };
    assert!(error.is_no_space(), "{error:?}");
    fill(&store.root());
}
