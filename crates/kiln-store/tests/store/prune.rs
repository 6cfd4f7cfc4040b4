//! Prune and usage.

use std::time::Duration;

use kiln_oci::{Descriptor, MediaType, Reference};
use kiln_store::{
    CacheMountSpec, Holds, PruneOptions, PruneReport, PruneScope, PrunedKind, Snapshot, Snapshotter as _, Store,
    Unpacked,
};
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::{Fixture, key, names};

pub(crate) fn scope(scope: PruneScope) -> PruneOptions {
    PruneOptions { scope, ..PruneOptions::default() }
}

pub(crate) fn counts(report: &PruneReport) -> [usize; 6] {
    use PrunedKind::{Blob, CacheMount, Image, Layer, Leftover, Result};
    [Image, Result, Layer, Blob, CacheMount, Leftover].map(|kind| report.count(kind))
}

/// A named image of two layers, results for both and for a third layer that is in no image, a cache mount.
pub(crate) fn furnished() -> (Fixture, [Snapshot; 3]) {
    let f = Fixture::new();
    let lease = f.store.lease().unwrap();
    let base = f.grow(&Snapshot::scratch(), &lease, 20_000);
    let app = f.grow(&base, &lease, 20_000);
    let stage = f.grow(&base, &lease, 40_000);
    let image = f.image(&lease, "{}", Some(app.clone()));
    f.store.images().put(&image, &["app".parse::<Reference>().unwrap()]).unwrap();
    for (name, snapshot) in [("base", &base), ("app", &app), ("stage", &stage)] {
        f.store.records().put_result(&key(name), b"", &Holds::snapshots([snapshot])).unwrap();
    }
    f.store.records().put_fact("content", "k", b"1");
    let spec = CacheMountSpec::new("pip");
    f.store.cache_mounts().acquire(&spec, &lease, Duration::ZERO, &|_| Ok(())).unwrap().unwrap();
    (f, [base, app, stage])
}

#[test]
fn what_leads_to_a_kept_image_still_hits() {
    let (f, [.., stage]) = furnished();
    let report = f.store.prune(&PruneOptions::default()).unwrap();
    assert_eq!(counts(&report), [0, 1, 1, 0, 0, 0], "{report:?}");
    assert!((40_000..60_000).contains(&report.bytes()), "{}", report.bytes());
    let has = |name: &str| f.store.records().has_result(&key(name)).unwrap();
    assert!(has("base") && has("app") && !has("stage"));
    assert!(!f.store.layer_dir(&stage.layers()[1]).exists());
    assert_eq!(f.store.records().get_fact("content", "k").unwrap(), Some(b"1".to_vec()));
    assert_eq!(f.store.prune(&PruneOptions::default()).unwrap().items, [], "a second time there is nothing");
}

#[test]
fn pruning_the_cache_leaves_the_images() {
    let (f, [_, app, _]) = furnished();
    let report = f.store.prune(&scope(PruneScope::Cache)).unwrap();
    assert_eq!(counts(&report), [0, 3, 1, 0, 1, 0], "{report:?}");
    assert_eq!(f.store.records().get_fact("content", "k").unwrap(), None);
    assert!(app.layers().iter().all(|layer| f.store.layer_dir(layer).exists()));
    let image = f.store.images().find("app").unwrap();
    assert!(f.store.content().has(&image.record.id).unwrap());
}

#[test]
fn pruning_everything_leaves_an_empty_state() {
    let (f, _) = furnished();
    let report = f.store.prune(&scope(PruneScope::Everything)).unwrap();
    assert_eq!(counts(&report), [1, 3, 3, 1, 1, 0], "{report:?}");
    for dir in ["blobs/sha256", "layers", "work", "ingest", "tmp", "cache-mounts", "leases"] {
        assert_eq!(names(&f.root().join(dir)), [""; 0], "{dir}");
    }
    let bytes: u64 = walk(&f.root()).iter().map(|path| std::fs::symlink_metadata(path).unwrap().len()).sum();
    assert!(bytes <= 1 << 20, "{bytes}");
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn a_dry_run_says_the_same_and_does_nothing() {
    for which in [PruneScope::Dangling, PruneScope::Cache, PruneScope::Everything] {
        let (f, _) = furnished();
        let told = f.store.prune(&PruneOptions { dry_run: true, ..scope(which) }).unwrap();
        let done = f.store.prune(&scope(which)).unwrap();
        assert!(!told.items.is_empty());
        assert_eq!(told, done);
    }
}

#[test]
fn nameless_images_go_and_named_ones_stay() {
    let f = Fixture::new();
    let lease = f.store.lease().unwrap();
    let (old, new) = (f.image(&lease, "{1}", None), f.image(&lease, "{2}", None));
    let name: Reference = "app".parse().unwrap();
    f.store.images().put(&old, std::slice::from_ref(&name)).unwrap();
    f.store.images().put(&new, &[name]).unwrap();
    drop(lease);
    let young = PruneOptions { unused_for: Some(Duration::from_secs(60)), ..PruneOptions::default() };
    assert_eq!(f.store.prune(&young).unwrap().items, []);
    let report = f.store.prune(&PruneOptions::default()).unwrap();
    assert_eq!(counts(&report), [1, 0, 0, 1, 0, 0], "{report:?}");
    assert!(!f.store.content().has(&old.id).unwrap() && f.store.content().has(&new.id).unwrap());
}

#[test]
fn a_removed_image_gives_its_layers_back() {
    let (f, _) = furnished();
    f.store.images().remove_name(&"app".parse().unwrap()).unwrap();
    assert_eq!(counts(&f.store.prune(&PruneOptions::default()).unwrap()), [0, 3, 3, 1, 0, 0]);
}

#[test]
fn a_packed_layer_is_kept_as_long_as_the_layer() {
    let f = Fixture::new();
    let lease = f.store.lease().unwrap();
    let tree = f.grow(&Snapshot::scratch(), &lease, 1);
    let packed = f.store.content().put(&lease, MediaType::OCI_LAYER_GZIP, b"packed").unwrap();
    let elsewhere = Descriptor::of(MediaType::OCI_LAYER_ZSTD, b"elsewhere");
    let layer = &tree.layers()[0];
    f.store.add_blob(layer, &packed).unwrap();
    f.store.add_blob(layer, &elsewhere).unwrap();
    f.store.set_diff_id(layer, &key("tar"), 12).unwrap();
    let info = f.store.layer(layer).unwrap();
    assert_eq!((info.diff_id, info.size, info.blobs.len()), (Some(key("tar")), Some(12), 2));
    assert_eq!(f.store.find_layer_by_diff_id(&key("tar")).unwrap().as_ref(), Some(layer));
    let image = f.image(&lease, "{}", Some(tree.clone()));
    f.store.images().put(&image, &["a".parse().unwrap()]).unwrap();
    drop(lease);
    assert_eq!(f.store.prune(&scope(PruneScope::Cache)).unwrap().items, []);
    assert!(f.store.content().has(&packed.digest).unwrap());
    f.store.images().remove(&image.id).unwrap();
    assert_eq!(counts(&f.store.prune(&PruneOptions::default()).unwrap()), [0, 0, 1, 2, 0, 0]);
}

#[test]
fn only_what_was_long_unused_goes_when_asked_so() {
    let (f, _) = furnished();
    let options = PruneOptions { unused_for: Some(Duration::from_secs(3600)), ..scope(PruneScope::Everything) };
    assert_eq!(f.store.prune(&options).unwrap().items, []);
    let db = rusqlite::Connection::open(f.root().join("kiln.db")).unwrap();
    db.execute("UPDATE results SET used = used - 4000 WHERE key = ?1", [key("stage").as_str()]).unwrap();
    db.execute("UPDATE layers SET created = created - 4000", []).unwrap();
    assert_eq!(counts(&f.store.prune(&options).unwrap()), [0, 1, 1, 0, 0, 0]);
}

#[test]
fn what_a_dead_process_left_is_swept_and_what_a_live_one_makes_is_not() {
    let f = Fixture::new();
    let lease = f.store.lease().unwrap();
    let active = f.store.prepare(None, &lease).unwrap();
    let ingest = f.store.content().ingest(&lease).unwrap();
    let root = f.root();
    for path in ["work/deadbeef0000.1/fs/a", "tmp/deadbeef0000.2", "layers/deadbeef0000.3/fs"] {
        std::fs::create_dir_all(root.join(path)).unwrap();
    }
    std::fs::write(root.join("ingest/deadbeef0000.4"), "half").unwrap();
    std::fs::write(root.join("leases/deadbeef0000"), "layer deadbeef0000.3\n").unwrap();
    std::fs::write(root.join("blobs/sha256").join(key("whole").hex()), "whole").unwrap();
    let report = f.store.prune(&PruneOptions::default()).unwrap();
    assert_eq!(counts(&report), [0, 0, 0, 0, 0, 5], "{report:?}");
    assert!(!root.join("leases/deadbeef0000").exists() && !root.join("layers/deadbeef0000.3").exists());
    assert!(active.upper_dir().exists());
    ingest.commit(None, "text/plain").unwrap();
    f.store.commit(active).unwrap();
}

#[test]
fn what_is_no_lease_is_not_waited_for() {
    let f = Fixture::new();
    let fifo = f.root().join("leases/fifo");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RWXU, 0).unwrap();
    f.store.prune(&PruneOptions::default()).unwrap();
    assert!(fifo.exists());
}

#[test]
fn sweeping_now_and_then_is_enough() {
    let f = Fixture::new();
    let make = || std::fs::create_dir(f.root().join("work/deadbeef0000.1")).unwrap();
    make();
    f.store.sweep_if_due(Duration::from_secs(3600)).unwrap();
    assert_eq!(names(&f.root().join("work")), [""; 0]);
    make();
    f.store.sweep_if_due(Duration::from_secs(3600)).unwrap();
    assert_eq!(names(&f.root().join("work")), ["deadbeef0000.1"], "not due yet");
    f.store.sweep_if_due(Duration::ZERO).unwrap();
    assert_eq!(names(&f.root().join("work")), [""; 0]);
}

#[test]
fn one_layer_for_one_diff_id_however_many_unpack_it() {
    let f = Fixture::new();
    let unpack = || {
        let store = Store::open(&f.root()).unwrap();
        let lease = store.lease().unwrap();
        let active = store.begin_layer(&lease).unwrap();
        std::fs::write(active.tree().join("file"), "x").unwrap();
        std::thread::sleep(Duration::from_millis(5));
        let layer = store.commit_layer(active, &Unpacked { diff_id: &key("tar"), size: 1, blob: None }).unwrap();
        assert!(store.layer_dir(&layer).join("file").exists());
        (layer, lease)
    };
    let made: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(unpack)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(made.iter().all(|(layer, _)| *layer == made[0].0));
    assert_eq!(names(&f.root().join("layers")), [made[0].0.as_str()]);
    assert_eq!(names(&f.root().join("work")), [""; 0]);
    assert_eq!(f.store.prune(&scope(PruneScope::Everything)).unwrap().items, []);
}

#[test]
fn a_cache_mount_s_lock_goes_even_when_its_directory_was_never_made() {
    let f = Fixture::new();
    std::fs::write(f.root().join("cache-mounts/0123456789abcdef0123456789abcdef.0.lock"), "").unwrap();
    f.store.prune(&scope(PruneScope::Cache)).unwrap();
    assert_eq!(names(&f.root().join("cache-mounts")), [""; 0]);
}

#[test]
fn pruning_gives_the_database_s_own_space_back() {
    let f = Fixture::new();
    let lease = f.store.lease().unwrap();
    let layer = f.grow(&Snapshot::scratch(), &lease, 10);
    (0..300).for_each(|n| {
        let holds = Holds::snapshots([&layer]);
        f.store.records().put_result(&key(&format!("step {n}")), &[7; 8000], &holds).unwrap();
    });
    drop(lease);
    let size = || std::fs::metadata(f.root().join("kiln.db")).unwrap().len();
    f.store.prune(&PruneOptions::default()).unwrap();
    assert!(size() < 1 << 20, "{}", size());
}

#[test]
fn one_layer_goes_at_once_when_nothing_needs_it_and_nobody_holds_it() {
    let (f, [base, app, stage]) = furnished();
    let lease = f.store.lease().unwrap();
    let lone = f.grow(&base, &lease, 20_000);
    let top = |snapshot: &Snapshot| snapshot.layers().last().unwrap().clone();
    assert!(!f.store.remove_layer(&top(&lone)).unwrap(), "it is held");
    drop(lease);
    for needed in [&base, &app, &stage] {
        assert!(!f.store.remove_layer(&top(needed)).unwrap());
        assert!(f.store.layer_dir(&top(needed)).exists());
    }
    assert!(f.store.remove_layer(&top(&lone)).unwrap());
    assert!(!f.store.layer_dir(&top(&lone)).exists() && f.store.layer(&top(&lone)).is_err());
    assert!(!f.store.remove_layer(&top(&lone)).unwrap(), "it is gone");
    assert!(
        f.store
            .prune(&PruneOptions { dry_run: true, ..scope(PruneScope::Dangling) })
            .unwrap()
            .count(PrunedKind::Leftover)
            == 0
    );
}
