//! The contract of a snapshotter, without mounting: what overlay would be told, and what is in the directories.

use std::any::Any;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use kiln_sys::mount::Overlay;

use crate::{ActiveSnapshot, Error, Lease, PruneOptions, PruneScope, Snapshot, Snapshotter, Store};

/// A snapshotter to be tested, over an empty store.
pub struct Fixture {
    /// The store it keeps its layers in.
    pub store: Store,
    /// The snapshotter.
    pub snapshotter: Box<dyn Snapshotter>,
    /// What must outlive the test, such as a temporary directory.
    pub guard: Box<dyn Any>,
}

impl Fixture {
    fn lease(&self) -> Lease {
        self.store.lease().expect("a lease")
    }

    fn prepare(&self, parent: &Snapshot, lease: &Lease) -> ActiveSnapshot {
        self.snapshotter.prepare(Some(parent), lease).expect("prepares")
    }

    fn commit(&self, active: ActiveSnapshot) -> Snapshot {
        self.snapshotter.commit(active).expect("commits")
    }

    fn view(&self, snapshot: &Snapshot) -> Overlay {
        self.snapshotter.view(snapshot).expect("views")
    }

    /// A snapshot with one more layer, which holds one file.
    fn grow(&self, parent: &Snapshot, lease: &Lease, file: &str) -> Snapshot {
        let active = self.prepare(parent, lease);
        fs::write(active.upper_dir().join(file), file).expect("writes");
        self.commit(active)
    }

    fn prune_everything(&self) -> crate::PruneReport {
        let options = PruneOptions { scope: PruneScope::Everything, ..PruneOptions::default() };
        self.store.prune(&options).expect("prunes")
    }
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).expect("lists").next().is_none()
}

/// See the name.
pub fn scratch_starts_empty(f: &Fixture) {
    let lease = f.lease();
    let active = f.snapshotter.prepare(None, &lease).expect("prepares");
    let mounts = f.snapshotter.mounts(&active).expect("mounts");
    let upper = mounts.upper.expect("what is being written has an upper");
    assert!(is_empty(&upper.upper) && is_empty(&upper.work) && mounts.lowers.iter().all(|lower| is_empty(lower)));
    assert_eq!(fs::metadata(&upper.upper).expect("stats").mode() & 0o7777, 0o755);
}

/// See the name.
pub fn a_commit_adds_one_layer(f: &Fixture) {
    let lease = f.lease();
    let one = f.grow(&Snapshot::scratch(), &lease, "one");
    let two = f.grow(&one, &lease, "two");
    assert_eq!((one.layers().len(), two.layers().len()), (1, 2));
    assert_eq!(two.layers()[..1], *one.layers());
    assert_ne!(two.layers()[0], two.layers()[1]);
}

/// See the name.
pub fn what_was_written_is_there(f: &Fixture) {
    let lease = f.lease();
    let snapshot = f.grow(&Snapshot::scratch(), &lease, "file");
    let top = &f.view(&snapshot).lowers[0];
    assert_eq!(fs::read_to_string(top.join("file")).expect("reads"), "file");
    assert_eq!(*top, f.store.layer_dir(&snapshot.layers()[0]));
}

/// See the name.
pub fn children_do_not_see_each_other(f: &Fixture) {
    let lease = f.lease();
    let base = f.grow(&Snapshot::scratch(), &lease, "base");
    let (left, right) = (f.grow(&base, &lease, "left"), f.grow(&base, &lease, "right"));
    let has = |snapshot: &Snapshot, file: &str| f.view(snapshot).lowers.iter().any(|dir| dir.join(file).exists());
    assert!(has(&left, "base") && has(&left, "left") && !has(&left, "right"));
    assert!(has(&right, "base") && has(&right, "right") && !has(&base, "right"));
}

/// See the name.
pub fn layers_are_mounted_topmost_first(f: &Fixture) {
    let lease = f.lease();
    let low = f.grow(&Snapshot::scratch(), &lease, "low");
    let high = f.grow(&low, &lease, "high");
    let view = f.view(&high);
    assert!(view.lowers[0].join("high").exists() && view.lowers[1].join("low").exists());
    let active = f.prepare(&high, &lease);
    let mounts = f.snapshotter.mounts(&active).expect("mounts");
    assert!(mounts.lowers[0].join("high").exists() && mounts.lowers[1].join("low").exists());
}

/// See the name.
pub fn a_layer_that_stands_twice_is_mounted_once(f: &Fixture) {
    let lease = f.lease();
    let a = f.grow(&Snapshot::scratch(), &lease, "a");
    let b = f.grow(&Snapshot::scratch(), &lease, "b");
    let lowers = f.view(&a.stacked(&b).stacked(&a)).lowers;
    assert_eq!(lowers.len(), 2, "{lowers:?}");
    assert!(lowers[0].join("a").exists() && lowers[1].join("b").exists());
}

/// See the name.
pub fn a_view_cannot_be_written(f: &Fixture) {
    let lease = f.lease();
    let snapshot = f.grow(&Snapshot::scratch(), &lease, "file");
    for snapshot in [Snapshot::scratch(), snapshot] {
        let view = f.view(&snapshot);
        assert!(view.upper.is_none());
        assert!(view.lowers.len() > snapshot.layers().len().min(1), "a layer alone would show its whiteouts");
    }
}

/// See the name.
pub fn an_unknown_parent_is_refused(f: &Fixture) {
    let lease = f.lease();
    let stranger = "0123456789ab.1".parse().expect("a layer id");
    let outcome = f.snapshotter.prepare(Some(&Snapshot::new([stranger])), &lease);
    assert!(matches!(outcome, Err(Error::UnknownLayer { .. })), "{outcome:?}");
}

/// See the name.
pub fn what_was_discarded_is_gone(f: &Fixture) {
    let lease = f.lease();
    let active = f.snapshotter.prepare(None, &lease).expect("prepares");
    let upper = active.upper_dir();
    fs::create_dir_all(upper.join("a/b")).expect("makes");
    f.snapshotter.discard(active).expect("discards");
    drop(lease);
    assert!(!upper.exists());
    assert_eq!(f.prune_everything().items, []);
}

/// See the name.
pub fn a_lease_protects_until_it_ends(f: &Fixture) {
    let lease = f.lease();
    let base = f.grow(&Snapshot::scratch(), &lease, "base");
    let active = f.prepare(&base, &lease);
    fs::write(active.upper_dir().join("file"), "file").expect("writes");
    assert_eq!(f.prune_everything().items, [], "while the lease lives");
    let snapshot = f.commit(active);
    drop(lease);
    let other = f.lease();
    assert!(other.hold_snapshot(&snapshot).expect("holds"), "nobody pruned yet");
    assert_eq!(f.prune_everything().items, [], "another lease holds it");
    drop(other);
    assert_eq!(f.prune_everything().items.len(), 2);
    let late = f.lease();
    assert!(!late.hold_snapshot(&snapshot).expect("answers"), "gone is not held");
    assert!(!f.store.layer_dir(&snapshot.layers()[0]).exists());
}

/// See the name.
pub fn the_top_directory_looks_like_the_one_it_covers(f: &Fixture) {
    let lease = f.lease();
    let active = f.snapshotter.prepare(None, &lease).expect("prepares");
    fs::set_permissions(active.upper_dir(), fs::Permissions::from_mode(0o1777)).expect("changes the mode");
    let base = f.commit(active);
    let active = f.prepare(&base, &lease);
    assert_eq!(fs::metadata(active.upper_dir()).expect("stats").mode() & 0o7777, 0o1777);
}
