//! Many processes on one state directory, which is new when they start.
#![allow(clippy::disallowed_methods, reason = "the test starts itself as the other processes")]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use kiln_oci::Digest;
use kiln_store::{Holds, Limits, PruneOptions, PruneScope, Snapshot, Snapshotter as _, Store, Unpacked};

const STATE: &str = "KILN_TEST_STATE";
const NUMBER: &str = "KILN_TEST_NUMBER";
const PROCESSES: u32 = 8;

/// Runs a test of this file in several processes, all at once; each gets a number.
fn crowd(test: &str, state: &Path) {
    let start = |number: u32| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
        command.env(STATE, state).env(NUMBER, number.to_string()).stdout(std::process::Stdio::null());
        command.spawn().unwrap()
    };
    let children: Vec<_> = (0..PROCESSES).map(start).collect();
    for (number, mut child) in children.into_iter().enumerate() {
        assert!(child.wait().unwrap().success(), "process {number} failed");
    }
}

/// The state directory and the number, in one of the crowd.
fn place() -> Option<(Store, u32)> {
    let state = std::env::var_os(STATE)?;
    let number = std::env::var(NUMBER).unwrap().parse().unwrap();
    Some((Store::open(Path::new(&state)).unwrap(), number))
}

#[test]
fn many_transactions_at_once_are_all_kept() {
    const EACH: u32 = 250;
    if let Some((store, number)) = place() {
        let lease = store.lease().unwrap();
        let mut worst = Duration::ZERO;
        for round in 0..EACH {
            store.records().put_fact("mine", &format!("{number}/{round}"), b"x");
            let since = Instant::now();
            let key = Digest::sha256(format!("{number}/{round}"));
            store.records().put_result(&key, &[7; 300], &Holds::default()).unwrap();
            worst = worst.max(since.elapsed());
            assert!(store.records().get_result(&key, &lease).unwrap().is_some());
        }
        assert!(worst < Duration::from_secs(10), "{worst:?}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let since = Instant::now();
    crowd("many_transactions_at_once_are_all_kept", &state);
    println!("{PROCESSES} processes, {EACH} transactions each: {:?}", since.elapsed());
    let store = Store::open(&state).unwrap();
    let results =
        (0..PROCESSES).flat_map(|number| (0..EACH).map(move |round| Digest::sha256(format!("{number}/{round}"))));
    assert!(results.into_iter().all(|key| store.records().has_result(&key).unwrap()));
    let facts = (0..PROCESSES).flat_map(|number| (0..EACH).map(move |round| format!("{number}/{round}")));
    assert!(facts.into_iter().all(|key| store.records().get_fact("mine", &key).unwrap().is_some()));
}

#[test]
fn all_unpack_one_layer_and_receive_one_blob() {
    if let Some((store, _)) = place() {
        let lease = store.lease().unwrap();
        for round in 0..20 {
            let active = store.begin_layer(&lease).unwrap();
            std::fs::write(active.tree().join("file"), "x").unwrap();
            let layer = store
                .commit_layer(
                    active,
                    &Unpacked { diff_id: &Digest::sha256(format!("tar{round}")), size: 1, blob: None },
                )
                .unwrap();
            assert!(store.layer_dir(&layer).join("file").exists());
            store
                .records()
                .put_result(&Digest::sha256("r"), b"", &Holds::snapshots([&Snapshot::new([layer])]))
                .unwrap();
            store.content().put(&lease, "text/plain", format!("blob{round}").as_bytes()).unwrap();
        }
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    crowd("all_unpack_one_layer_and_receive_one_blob", &state);
    let count = |dir: &str| std::fs::read_dir(state.join(dir)).unwrap().count();
    assert_eq!((count("layers"), count("blobs/sha256"), count("work"), count("leases")), (20, 20, 0, 0));
}

#[test]
fn building_while_others_prune_everything_never_fails() {
    if let Some((store, number)) = place() {
        let everything = PruneOptions { scope: PruneScope::Everything, ..PruneOptions::default() };
        let tiny = Limits { max_used: Some(1), ..Limits::default() };
        let until = Instant::now() + Duration::from_millis(1500);
        let mut round = 0;
        while Instant::now() < until {
            round += 1;
            match number % 4 {
                0 => drop(store.prune(&everything).unwrap()),
                2 => drop(store.collect(tiny, Vec::new(), Duration::from_secs(9)).unwrap()),
                _ => build(&store, number, round),
            }
        }
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    crowd("building_while_others_prune_everything_never_fails", &state);
    let store = Store::open(&state).unwrap();
    let everything = PruneOptions { scope: PruneScope::Everything, ..PruneOptions::default() };
    store.prune(&everything).unwrap();
    let left = std::fs::read_dir(state.join("layers")).unwrap().count();
    assert_eq!(left, 0);
}

/// A result that another process replaces while it is read is the old one or the new one, not half of each.
#[test]
fn what_is_held_is_what_the_result_that_was_read_needs() {
    let dir = tempfile::tempdir().unwrap();
    let [reading, writing] = [(); 2].map(|()| Store::open(dir.path()).unwrap());
    let made = writing.lease().unwrap();
    let key = Digest::sha256("step");
    let snapshots = [(); 2].map(|()| writing.commit(writing.prepare(None, &made).unwrap()).unwrap());
    let put = |snapshot: &Snapshot| {
        let value = serde_json::to_vec(snapshot).unwrap();
        writing.records().put_result(&key, &value, &Holds::snapshots([snapshot])).unwrap();
    };
    put(&snapshots[0]);
    let leases = || -> Vec<_> {
        std::fs::read_dir(dir.path().join("leases")).unwrap().map(|entry| entry.unwrap().path()).collect()
    };
    let read = || {
        let before = leases();
        let lease = reading.lease().unwrap();
        let value = reading.records().get_result(&key, &lease).unwrap().unwrap();
        let ours = leases().into_iter().find(|path| !before.contains(path)).unwrap();
        let needed: Vec<String> = serde_json::from_slice(&value).unwrap();
        assert_eq!(std::fs::read_to_string(ours).unwrap().trim(), format!("layer {}", needed[0]));
    };
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| (0..3000).for_each(|_| read()));
        while !reader.is_finished() {
            snapshots.iter().for_each(put);
        }
    });
}

/// What a build holds is there until it ends, and what it finds is whole.
fn build(store: &Store, number: u32, round: u32) {
    let lease = store.lease().unwrap();
    let key = Digest::sha256(format!("step{}", round % 3));
    let snapshot = match store.records().get_result(&key, &lease).unwrap() {
        Some(value) => serde_json::from_slice::<Snapshot>(&value).unwrap(),
        None => {
            let active = store.prepare(None, &lease).unwrap();
            std::fs::write(active.upper_dir().join("file"), "x").unwrap();
            let snapshot = store.commit(active).unwrap();
            let value = serde_json::to_vec(&snapshot).unwrap();
            store.records().put_result(&key, &value, &Holds::snapshots([&snapshot])).unwrap();
            snapshot
        }
    };
    let blob = store.content().put(&lease, "text/plain", format!("{}", round % 5).as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(u64::from(number)));
    let active = store.prepare(Some(&snapshot), &lease).unwrap();
    assert!(store.mounts(&active).unwrap().lowers.iter().all(|dir| dir.join("file").exists()));
    assert_eq!(store.content().read(&blob.digest, 10).unwrap(), format!("{}", round % 5).as_bytes());
    store.discard(active).unwrap();
}
