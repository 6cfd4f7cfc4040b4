//! The sweeper comes at the worst moment: when a thing was seen and is not yet held.
#![allow(clippy::disallowed_methods, reason = "tests name files of the machine")]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use kiln_oci::Digest;
use kiln_store::testing::at_every_point;
use kiln_store::{Holds, PruneOptions, PruneScope, Snapshot, Snapshotter as _, Store};

static STORE: Mutex<Option<Store>> = Mutex::new(None);
static SWEEPERS: Mutex<Vec<JoinHandle<()>>> = Mutex::new(Vec::new());
static SEEN: AtomicUsize = AtomicUsize::new(0);

/// Starts a prune and gives it time: it must wait for whoever is between seeing and holding.
fn prune_meanwhile(point: &'static str) {
    if !matches!(point, "result: found" | "lease: seen") {
        return;
    }
    let Some(store) = STORE.lock().unwrap().clone() else { return };
    SEEN.fetch_add(1, Ordering::Relaxed);
    let everything = PruneOptions { scope: PruneScope::Everything, ..PruneOptions::default() };
    let sweeper = std::thread::spawn(move || drop(store.prune(&everything).unwrap()));
    std::thread::sleep(Duration::from_millis(100));
    SWEEPERS.lock().unwrap().push(sweeper);
}

#[test]
fn nothing_is_swept_between_being_seen_and_being_held() {
    at_every_point(prune_meanwhile);
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let maker = store.lease().unwrap();
    let grow = |name: &str| {
        let active = store.prepare(None, &maker).unwrap();
        std::fs::write(active.upper_dir().join("file"), name).unwrap();
        store.commit(active).unwrap()
    };
    let (kept, found): (Snapshot, Snapshot) = (grow("kept"), grow("found"));
    let key = Digest::sha256("k");
    store.records().put_result(&key, b"", &Holds::snapshots([&found])).unwrap();
    let first = store.lease().unwrap();
    let second = store.lease().unwrap();
    drop(maker);
    *STORE.lock().unwrap() = Some(store.clone());
    assert!(store.records().get_result(&key, &first).unwrap().is_some());
    for sweeper in SWEEPERS.lock().unwrap().drain(..) {
        sweeper.join().unwrap();
    }
    assert!(store.layer_dir(&found.layers()[0]).join("file").exists());
    assert!(!store.layer_dir(&kept.layers()[0]).exists(), "the sweeper did run");
    drop(first);
    assert!(second.hold_snapshot(&found).unwrap());
    for sweeper in SWEEPERS.lock().unwrap().drain(..) {
        sweeper.join().unwrap();
    }
    assert!(store.layer_dir(&found.layers()[0]).join("file").exists());
    assert_eq!(SEEN.load(Ordering::Relaxed), 2);
}
