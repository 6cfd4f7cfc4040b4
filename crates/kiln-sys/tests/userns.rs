//! What a user namespace and its sight of files are, and what they leave on disk. Needs root.
#![allow(clippy::disallowed_methods, reason = "tests name files of the machine")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]
#![allow(clippy::print_stdout, reason = "a test that skips says why")]

use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use kiln_sys::metadata::Metadata;
use kiln_sys::mount::{Bind, Depth, MountAttrFlags, Overlay, Shifted, Upper};
use kiln_sys::root::{Root, set_owner};
use kiln_sys::userns::UserNamespace;

const HOST_ROOT: u32 = 0x7fff_ffff;

/// A state directory with two layers and one to be written, as a user namespace sees it.
struct State {
    dir: tempfile::TempDir,
    view: Shifted,
}

impl State {
    /// Nothing, with a word, where this machine cannot show files so.
    fn new() -> Option<State> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        for name in ["low", "mid", "upper", "work"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let users = Arc::new(UserNamespace::new().unwrap());
        match Shifted::new(dir.path(), users) {
            Ok(view) => Some(State { dir, view }),
            Err(e) => {
                println!("skipped: {e}: {:?}", e.errno());
                None
            }
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn overlay(&self) -> Overlay {
        let upper = Upper { upper: self.path("upper"), work: self.path("work") };
        Overlay { lowers: vec![self.path("mid"), self.path("low")], upper: Some(upper), userxattr: false }
    }

    fn owner(&self, name: &str) -> (u32, u32) {
        let metadata = self.path(name).symlink_metadata().unwrap();
        (metadata.uid(), metadata.gid())
    }
}

#[test]
fn a_nested_namespace_has_our_ids_as_they_are() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root");
        return;
    }
    let users = UserNamespace::nested().unwrap();
    assert_eq!(users.on_host(0).unwrap(), 0);
    assert_eq!(users.on_host(4_000_000_000).unwrap(), 4_000_000_000);
    let error = users.on_host(u32::MAX).unwrap_err().to_string();
    assert_eq!(error, "there is no user 4294967295 in this user namespace, whose ids end at 4294967294");
    // Who makes files there is who makes them here.
    let dir = tempfile::tempdir().unwrap();
    let acting = users.act_as_root().unwrap();
    std::fs::write(dir.path().join("f"), "").unwrap();
    drop(acting);
    assert_eq!(dir.path().join("f").metadata().unwrap().uid(), 0);
}

#[test]
fn ids_on_disk_are_those_of_the_namespace_and_stay_so() {
    let Some(state) = State::new() else { return };
    std::fs::write(state.path("low/f"), "f").unwrap();
    std::fs::write(state.path("low/gone"), "").unwrap();
    std::os::unix::fs::chown(state.path("low/f"), Some(5), Some(6)).unwrap();
    let merged = Root::new(state.overlay().mount_shifted(&state.view).unwrap());
    let seen = merged.metadata("f").unwrap();
    assert_eq!((seen.uid, seen.gid), (HOST_ROOT + 5, HOST_ROOT + 6));
    let acting = state.view.users().act_as_root().unwrap();
    merged.create_file("new", 0o600).unwrap();
    merged.mkdir("dir", 0o755).unwrap();
    let users = state.view.users();
    set_owner(merged.open_path("f").unwrap(), users.on_host(7).unwrap(), users.on_host(i32::MAX as u32).unwrap())
        .unwrap();
    merged.unlink("gone").unwrap();
    drop(acting);
    assert_eq!(merged.create_file("ours", 0o600).unwrap_err().errno(), Some(libc::EOVERFLOW));
    drop(merged);
    assert_eq!((state.owner("upper/new"), state.owner("upper/dir")), ((0, 0), (0, 0)));
    assert_eq!((state.owner("upper/f"), state.owner("low/f")), ((7, i32::MAX as u32), (5, 6)));
    assert_eq!(state.owner("upper/gone"), (0, 0));
    assert!(users.on_host(1 << 31).is_err());
}

#[test]
fn parts_are_bound_and_old_kernels_have_a_stage() {
    let Some(state) = State::new() else { return };
    std::fs::write(state.path("low/f"), "f").unwrap();
    let read_only = Bind { depth: Depth::One, attributes: MountAttrFlags::MOUNT_ATTR_RDONLY };
    let bound = Root::new(state.view.bind(&state.path("low"), read_only).unwrap());
    assert_eq!(bound.metadata("f").unwrap().uid, HOST_ROOT);
    assert_eq!(bound.create_file("x", 0o600).unwrap_err().errno(), Some(libc::EROFS));
    assert!(state.view.bind("/etc".as_ref(), read_only).is_err());
    let alone = Overlay { lowers: vec![state.path("low")], upper: None, userxattr: false };
    let alone = Root::new(alone.mount_shifted(&state.view).unwrap());
    assert_eq!(alone.metadata("f").unwrap().uid, HOST_ROOT);
    let staged = Root::new(state.overlay().mount_staged(&state.view).unwrap());
    assert_eq!(staged.metadata("f").unwrap().uid, HOST_ROOT);
    let _acting = state.view.users().act_as_root().unwrap();
    staged.create_file("new", 0o600).unwrap();
    assert_eq!(state.owner("upper/new"), (0, 0));
}

#[test]
fn a_thread_that_has_acted_is_as_before_and_dumps_core() {
    let Some(state) = State::new() else { return };
    let sets = || rustix::thread::capabilities(None).unwrap();
    let (before, dumpable) = (sets(), rustix::process::dumpable_behavior().unwrap());
    let acting = state.view.users().act_as_root().unwrap();
    assert_eq!(sets(), before);
    std::fs::write(state.path("theirs"), "").unwrap();
    drop(acting);
    std::fs::write(state.path("ours"), "").unwrap();
    assert_eq!((state.owner("theirs"), state.owner("ours")), ((HOST_ROOT, HOST_ROOT), (0, 0)));
    assert_eq!((sets(), rustix::process::dumpable_behavior().unwrap()), (before, dumpable));
    let namespace = Metadata::of(state.view.users().as_fd()).unwrap();
    assert_ne!(namespace.ino, std::fs::metadata("/proc/self/ns/user").unwrap().ino());
}
