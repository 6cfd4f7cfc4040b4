//! Cache mounts.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kiln_oci::Digest;
use kiln_store::{CacheMount, CacheMountName, CacheMountSpec, Restored, Sharing, Store};

use crate::{Fixture, names};

fn spec(id: &str, sharing: Sharing) -> CacheMountSpec {
    CacheMountSpec { sharing, ..CacheMountSpec::new(id) }
}

fn take(store: &Store, id: &str, sharing: Sharing) -> Option<CacheMount> {
    let lease = store.lease().unwrap();
    store.cache_mounts().acquire(&spec(id, sharing), &lease, Duration::ZERO, &|_| Ok(())).unwrap()
}

#[test]
fn what_is_written_is_there_next_time() {
    let f = Fixture::new();
    let first = take(&f.store, "pip", Sharing::Shared).unwrap();
    std::fs::write(first.dir().join("wheel"), "x").unwrap();
    drop(first);
    let again = take(&f.store, "pip", Sharing::Locked).unwrap();
    assert!(again.dir().join("wheel").exists());
    let other = take(&f.store, "npm", Sharing::Shared).unwrap();
    assert!(!other.dir().join("wheel").exists());
}

#[test]
fn sharing_means_what_docker_says() {
    let f = Fixture::new();
    let other = Store::open(&f.root()).unwrap();
    let dirs = |a: &CacheMount, b: &CacheMount| a.dir() == b.dir();
    let (one, two) = (take(&f.store, "s", Sharing::Shared).unwrap(), take(&other, "s", Sharing::Shared).unwrap());
    assert!(dirs(&one, &two), "shared is shared");
    let private = take(&other, "s", Sharing::Private).unwrap();
    assert!(!dirs(&one, &private), "private gets its own when the first is taken");
    let more = take(&f.store, "s", Sharing::Private).unwrap();
    assert!(!dirs(&more, &private) && !dirs(&more, &one));
    assert!(take(&other, "s", Sharing::Locked).is_none(), "locked waits for the one directory");
    drop((one, two));
    let locked = take(&other, "s", Sharing::Locked).unwrap();
    assert!(take(&f.store, "s", Sharing::Locked).is_none());
    drop((locked, private, more));
    assert!(take(&f.store, "s", Sharing::Private).unwrap().dir().ends_with(format!("{}/fs", first_key(&f))));
}

fn first_key(f: &Fixture) -> String {
    f.store.cache_mounts().list().unwrap().into_iter().map(|mount| mount.key).find(|key| key.ends_with(".0")).unwrap()
}

#[test]
fn a_locked_one_is_waited_for() {
    let f = Fixture::new();
    let held = take(&f.store, "l", Sharing::Locked).unwrap();
    let since = Instant::now();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let lease = f.store.lease().unwrap();
            let spec = spec("l", Sharing::Locked);
            f.store.cache_mounts().acquire(&spec, &lease, Duration::from_secs(20), &|_| Ok(())).unwrap().is_some()
        });
        std::thread::sleep(Duration::from_millis(50));
        drop(held);
        assert!(waiter.join().unwrap());
    });
    assert!(since.elapsed() >= Duration::from_millis(50));
}

#[test]
fn owner_and_mode_are_those_of_its_making() {
    let f = Fixture::new();
    let lease = f.store.lease().unwrap();
    let (uid, gid) = if rustix::process::geteuid().is_root() { (1000, 100_000) } else { own_ids(&f) };
    let wanted = CacheMountSpec { uid, gid, mode: 0o2770, ..CacheMountSpec::new("owned") };
    let mounts = f.store.cache_mounts();
    let made = mounts.acquire(&wanted, &lease, Duration::ZERO, &|_| Ok(())).unwrap().unwrap();
    let look = |mount: &CacheMount| {
        let found = std::fs::metadata(mount.dir()).unwrap();
        (found.uid(), found.gid(), found.mode() & 0o7777)
    };
    assert_eq!(look(&made), (uid, gid, 0o2770));
    drop(made);
    let again = mounts.acquire(&CacheMountSpec::new("owned"), &lease, Duration::ZERO, &|_| Ok(())).unwrap().unwrap();
    assert_eq!(look(&again), (uid, gid, 0o2770), "later wishes do not change it");
}

fn own_ids(f: &Fixture) -> (u32, u32) {
    let found = std::fs::metadata(f.root()).unwrap();
    (found.uid(), found.gid())
}

#[test]
fn ids_are_never_paths() {
    let f = Fixture::new();
    let long = "x".repeat(5000);
    for id in ["../../../etc", "/etc", "a;b", "nul\0", "", ".", &long] {
        let mount = take(&f.store, id, Sharing::Shared).unwrap();
        assert!(mount.dir().starts_with(f.root().join("cache-mounts")));
        let key = mount.dir().parent().unwrap().file_name().unwrap().to_str().unwrap();
        assert!(key.len() == 34 && key.ends_with(".0"), "{key}");
    }
    let mut ids: Vec<_> = f.store.cache_mounts().list().unwrap().into_iter().map(|mount| mount.id).collect();
    ids.sort_unstable();
    assert_eq!(ids.len(), 7);
    assert!(ids.contains(&"../../../etc".to_owned()));
}

#[test]
fn filling_happens_once_and_out_of_sight() {
    let f = Fixture::new();
    let filled = AtomicUsize::new(0);
    let fill = |dir: &Path| {
        filled.fetch_add(1, Ordering::Relaxed);
        assert!(dir.starts_with(f.root().join("tmp")));
        std::thread::sleep(Duration::from_millis(5));
        std::fs::write(dir.join("seed"), "x")
    };
    let found: Vec<_> = std::thread::scope(|scope| {
        let users = (0..4).map(|_| {
            scope.spawn(|| {
                let lease = f.store.lease().unwrap();
                let mounts = f.store.cache_mounts();
                mounts.acquire(&CacheMountSpec::new("filled"), &lease, Duration::ZERO, &fill).unwrap().unwrap()
            })
        });
        users.collect::<Vec<_>>().into_iter().map(|user| user.join().unwrap()).collect()
    });
    assert!(found.iter().all(|mount| mount.dir() == found[0].dir() && mount.dir().join("seed").exists()));
    let before = filled.load(Ordering::Relaxed);
    let lease = f.store.lease().unwrap();
    f.store.cache_mounts().acquire(&CacheMountSpec::new("filled"), &lease, Duration::ZERO, &fill).unwrap().unwrap();
    assert_eq!(filled.load(Ordering::Relaxed), before);
}

#[test]
fn one_process_fills_at_a_time() {
    let f = Fixture::new();
    let filling = AtomicUsize::new(0);
    let fill = |_: &Path| {
        assert_eq!(filling.fetch_add(1, Ordering::SeqCst), 0, "two fill at once");
        std::thread::sleep(Duration::from_millis(20));
        Ok(())
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let other = Store::open(&f.root()).unwrap();
                let lease = other.lease().unwrap();
                let spec = CacheMountSpec::new("once");
                other.cache_mounts().acquire(&spec, &lease, Duration::ZERO, &fill).unwrap().unwrap();
            });
        }
    });
    assert_eq!(filling.load(Ordering::SeqCst), 1, "the others find it filled");
}

#[test]
fn those_of_one_id_that_begin_with_different_things_are_different() {
    let f = Fixture::new();
    let lease = f.store.lease().unwrap();
    let take = |origin: Option<&str>| {
        let spec = CacheMountSpec { origin: origin.map(Digest::sha256), ..CacheMountSpec::new("x") };
        f.store.cache_mounts().acquire(&spec, &lease, Duration::ZERO, &|_| Ok(())).unwrap().unwrap()
    };
    let (plain, one, two) = (take(None), take(Some("1")), take(Some("2")));
    assert!(plain.dir() != one.dir() && one.dir() != two.dir());
    assert_eq!(take(Some("1")).dir(), one.dir());
    assert!(f.store.cache_mounts().list().unwrap().iter().all(|mount| mount.id == "x"));
}

fn name(id: &str) -> CacheMountName {
    CacheMountSpec::new(id).name()
}

#[test]
fn what_is_borrowed_may_be_shared_meanwhile_and_not_had_alone() {
    let f = Fixture::new();
    let mounts = f.store.cache_mounts();
    assert!(mounts.borrow(&name("b"), Duration::ZERO).unwrap().is_none(), "there is none");
    let alone = take(&f.store, "b", Sharing::Locked).unwrap();
    assert!(mounts.borrow(&name("b"), Duration::from_millis(20)).unwrap().is_none(), "a step has it alone");
    drop(alone);
    let borrowed = mounts.borrow(&name("b"), Duration::ZERO).unwrap().unwrap();
    assert_eq!(take(&f.store, "b", Sharing::Shared).unwrap().dir(), borrowed.dir());
    assert!(take(&f.store, "b", Sharing::Locked).is_none());
}

#[test]
fn what_comes_from_elsewhere_is_used_by_the_next_step_and_never_replaces_what_is_here() {
    let f = Fixture::new();
    let lease = f.store.lease().unwrap();
    let mounts = f.store.cache_mounts();
    let restore = |text: &'static str| {
        let fill = move |dir: &Path| std::fs::write(dir.join("seed"), text);
        mounts.restore(&name("r"), "r", &lease, &fill).unwrap()
    };
    assert_eq!(restore("first"), Restored::Made);
    assert_eq!(restore("second"), Restored::Kept);
    let taken = take(&f.store, "r", Sharing::Locked).unwrap();
    assert_eq!(std::fs::read_to_string(taken.dir().join("seed")).unwrap(), "first");
    assert_eq!(restore("third"), Restored::InUse);
    let listed = mounts.list().unwrap();
    assert_eq!((listed.len(), listed[0].id.as_str(), listed[0].name()), (1, "r", Some(name("r"))));
    assert_eq!(mounts.users(&listed[0].key).iter().map(|user| user.id).collect::<Vec<_>>(), [std::process::id()]);
}

#[test]
fn a_failed_filling_leaves_no_mount() {
    let f = Fixture::new();
    let lease = f.store.lease().unwrap();
    let spec = CacheMountSpec::new("broken");
    let fail = |_: &Path| Err(std::io::Error::other("no"));
    assert!(f.store.cache_mounts().acquire(&spec, &lease, Duration::ZERO, &fail).is_err());
    assert!(names(&f.root().join("cache-mounts")).iter().all(|name| name.ends_with(".lock")));
    assert!(f.store.cache_mounts().acquire(&spec, &lease, Duration::ZERO, &|_| Ok(())).unwrap().is_some());
}

#[test]
fn listing_is_not_taken_for_use() {
    let f = Fixture::new();
    drop(take(&f.store, "m", Sharing::Shared));
    std::thread::scope(|scope| {
        let lister = scope.spawn(|| (0..300).for_each(|_| drop(f.store.cache_mounts().list().unwrap())));
        while !lister.is_finished() {
            let taken = take(&f.store, "m", Sharing::Private).unwrap();
            assert!(taken.dir().parent().unwrap().to_str().unwrap().ends_with(".0"), "{}", taken.dir().display());
        }
        lister.join().unwrap();
    });
}

#[test]
fn one_in_use_is_not_removed() {
    let f = Fixture::new();
    let used = take(&f.store, "m", Sharing::Shared).unwrap();
    assert!(f.store.cache_mounts().list().unwrap()[0].is_used);
    assert_eq!(f.store.cache_mounts().remove("m").unwrap(), 0);
    drop(used);
    assert_eq!(f.store.cache_mounts().remove("m").unwrap(), 1);
    assert_eq!(f.store.cache_mounts().list().unwrap(), []);
    assert_eq!(names(&f.root().join("cache-mounts")), [""; 0]);
    assert!(take(&f.store, "m", Sharing::Locked).is_some());
}
