//! A process that works on a store is killed between each write and the next; what it leaves is consistent.
#![allow(clippy::disallowed_methods, reason = "the test starts itself as the process that is killed")]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kiln_oci::{Digest, Platform, Reference};
use kiln_store::testing::{POINTS, at_every_point};
use kiln_store::{
    CacheMountSpec, FsckOptions, Holds, ImageRecord, Lease, PruneOptions, PruneScope, Result, Snapshot,
    Snapshotter as _, Store, Unpacked, fsck,
};

/// What the child is to do: the state directory, and `point/count` at which to die, or nothing to work on and on.
const STATE: &str = "KILN_TEST_STATE";
const DEATH: &str = "KILN_TEST_DEATH";

const REPAIR: FsckOptions = FsckOptions { repair: true, deep: false };

/// How often a killer strikes at random.
const STRIKES: u64 = 40;

#[test]
fn killed_at_every_point_the_store_stays_consistent() {
    if let Some(state) = std::env::var_os(STATE) {
        die_at(&std::env::var(DEATH).unwrap());
        work(Path::new(&state), 1).unwrap();
        return damage_and_repair(Path::new(&state));
    }
    for point in POINTS {
        for count in 0..8 {
            let dir = tempfile::tempdir().unwrap();
            let state = dir.path().join("state");
            let status = child("killed_at_every_point_the_store_stays_consistent", &state, &format!("{point}/{count}"));
            let is_dead = is_killed(status);
            assert!(is_dead || status.success(), "{point}/{count}: {status}");
            if point.starts_with("salvage") {
                fsck(&state, REPAIR).unwrap();
            }
            check(&state).unwrap_or_else(|problem| panic!("after {point}/{count}: {problem}"));
            if !is_dead {
                assert!(count > 0, "`{point}` was never reached");
                break;
            }
        }
    }
}

#[test]
fn killed_at_random_the_store_stays_consistent() {
    if let Some(state) = std::env::var_os(STATE) {
        for round in 0.. {
            work(Path::new(&state), round).unwrap();
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    for strike in 0..STRIKES {
        let mut child = command("killed_at_random_the_store_stays_consistent", &state).spawn().unwrap();
        // Spread over the time a few rounds take; the sequence is fixed, the scheduler is not.
        std::thread::sleep(Duration::from_millis(20 + strike * 7919 % 97));
        child.kill().unwrap();
        assert!(is_killed(child.wait().unwrap()), "it must not end by itself");
        check_kept(&state).unwrap_or_else(|problem| panic!("after strike {strike}: {problem}"));
    }
    check(&state).unwrap_or_else(|problem| panic!("at the end: {problem}"));
}

fn command(test: &str, state: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(STATE, state);
    command.stdout(std::process::Stdio::null());
    command
}

fn child(test: &str, state: &Path, death: &str) -> ExitStatus {
    command(test, state).env(DEATH, death).status().unwrap()
}

fn is_killed(status: ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt as _;
    status.signal() == Some(9)
}

fn die_at(death: &str) {
    static DEATH: OnceLock<(String, usize)> = OnceLock::new();
    static PASSED: AtomicUsize = AtomicUsize::new(0);
    let (point, count) = death.split_once('/').unwrap();
    DEATH.set((point.to_owned(), count.parse().unwrap())).unwrap();
    at_every_point(|point| {
        let (wanted, count) = DEATH.get().unwrap();
        if point == wanted && PASSED.fetch_add(1, Ordering::Relaxed) == *count {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
        }
    });
}

fn bytes_of(name: &str) -> Vec<u8> {
    name.repeat(2000).into_bytes()
}

/// All that a build does to a store, and a prune.
fn work(state: &Path, round: u64) -> Result<()> {
    let store = Store::open(state)?;
    let lease = store.lease()?;
    let base = unpack(&store, &lease, &format!("base{round}"))?;
    let active = store.prepare(Some(&base), &lease)?;
    std::fs::write(active.upper_dir().join("file"), bytes_of("app")).unwrap();
    let app = store.commit(active)?;
    let given_up = store.prepare(Some(&app), &lease)?;
    store.discard(given_up)?;
    store.records().put_fact("content", "k", b"v");
    let key = Digest::sha256(format!("app{round}"));
    store.records().put_result(&key, b"app", &Holds::snapshots([&app]))?;
    store.records().get_result(&key, &lease)?.unwrap();
    let config = store.content().put(&lease, "application/json", &bytes_of(&format!("config{round}")))?;
    store.content().put(&lease, "application/json", &bytes_of("same"))?;
    let image = ImageRecord {
        id: config.digest.clone(),
        manifest: None,
        snapshot: Some(app),
        blobs: vec![config.digest],
        repo_digests: Vec::new(),
        platform: Platform::linux("amd64"),
        created: None,
        size: 0,
        members: Vec::new(),
    };
    let name: Reference = "app".parse().unwrap();
    store.images().put(&image, &[name])?;
    let spec = CacheMountSpec::new(format!("cache{round}"));
    let fill = |dir: &Path| std::fs::write(dir.join("seed"), "seed");
    store.cache_mounts().acquire(&spec, &lease, Duration::ZERO, &fill)?.unwrap();
    reboot(&store, state, &lease)?;
    drop(lease);
    store.prune(&PruneOptions::default())?;
    Ok(())
}

/// A database that breaks its own laws is made anew, and loses nothing else.
fn damage_and_repair(state: &Path) {
    let count = || Store::open(state).unwrap().images().list().unwrap().len();
    let before = count();
    let db = rusqlite::Connection::open(state.join("kiln.db")).unwrap();
    db.execute_batch("PRAGMA foreign_keys = OFF; INSERT INTO names VALUES ('x', 'no image', 0)").unwrap();
    drop(db);
    assert!(fsck(state, REPAIR).unwrap().is_clean());
    assert_eq!(count(), before);
}

/// A layer of another boot, which is doubted; the others are synced.
fn reboot(store: &Store, state: &Path, lease: &Lease) -> Result<()> {
    let active = store.begin_layer(lease)?;
    std::fs::write(active.tree().join("file"), bytes_of("base")).unwrap();
    let lost = store.commit_layer(active, &Unpacked { diff_id: &Digest::sha256("lost"), size: 1, blob: None })?;
    store.settle(Duration::ZERO)?;
    let db = rusqlite::Connection::open(state.join("kiln.db")).unwrap();
    db.busy_timeout(Duration::from_secs(10)).unwrap();
    db.execute("UPDATE layers SET boot = 'before' WHERE id = ?1", [lost.as_str()]).unwrap();
    drop(db);
    // An ordinary user's kiln doubts in his namespace.
    assert!(!Store::open(state)?.take_notes().is_empty() || !rustix::process::geteuid().is_root());
    Ok(())
}

fn unpack(store: &Store, lease: &Lease, name: &str) -> Result<Snapshot> {
    let active = store.begin_layer(lease)?;
    std::fs::write(active.tree().join("file"), bytes_of("base")).unwrap();
    let unpacked = Unpacked { diff_id: &Digest::sha256(name), size: 1, blob: None };
    Ok(Snapshot::new([store.commit_layer(active, &unpacked)?]))
}

/// Everything with a row is whole.
fn check_kept(state: &Path) -> Result<(), String> {
    let store = Store::open(state).map_err(|error| error.to_string())?;
    let lease = store.lease().map_err(|error| error.to_string())?;
    let db = rusqlite::Connection::open(state.join("kiln.db")).unwrap();
    let column = |sql: &str| -> Vec<String> {
        let mut select = db.prepare(sql).unwrap();
        select.query_map([], |row| row.get(0)).unwrap().collect::<rusqlite::Result<_>>().unwrap()
    };
    let broken = column("SELECT quick_check FROM pragma_quick_check").join(", ");
    if broken != "ok" || !column("SELECT \"table\" FROM pragma_foreign_key_check").is_empty() {
        return Err(format!("the database is damaged: {broken}"));
    }
    for digest in column("SELECT digest FROM blobs") {
        let digest = digest.parse().unwrap();
        // Another process may have pruned it between the two looks; here there is none.
        store.content().verify(&digest).map_err(|error| format!("{digest}: {error}"))?;
    }
    for id in column("SELECT id FROM layers") {
        let file = store.layer_dir(&id.parse().unwrap()).join("file");
        let bytes = std::fs::read(&file).map_err(|error| format!("layer {id}: {error}"))?;
        if bytes != bytes_of("base") && bytes != bytes_of("app") {
            return Err(format!("layer {id} has {} bytes", bytes.len()));
        }
    }
    for image in store.images().list().map_err(|error| error.to_string())? {
        let snapshot = image.record.snapshot.unwrap();
        if !lease.hold_snapshot(&snapshot).unwrap() || !lease.hold_blob(&image.record.id).unwrap() {
            return Err(format!("image {} lost what it holds", image.record.id));
        }
    }
    for key in column("SELECT key FROM results") {
        let held = column(&format!("SELECT layer FROM result_layers WHERE result = '{key}'"));
        if held.len() != 2 {
            return Err(format!("result {key} holds {held:?}"));
        }
    }
    for mount in store.cache_mounts().list().unwrap() {
        let seed = state.join("cache-mounts").join(mount.key).join("fs/seed");
        if !seed.exists() {
            return Err(format!("{} was not filled", seed.display()));
        }
    }
    Ok(())
}

/// Everything with a row is whole, the work can be done again, and nothing is left of the dead in the end.
fn check(state: &Path) -> Result<(), String> {
    check_kept(state)?;
    work(state, 1).map_err(|error| format!("the work cannot be done again: {error}"))?;
    check_kept(state)?;
    let everything = PruneOptions { scope: PruneScope::Everything, ..PruneOptions::default() };
    let store = Store::open(state).map_err(|error| error.to_string())?;
    store.prune(&everything).map_err(|error| error.to_string())?;
    let dirs = ["blobs/sha256", "ingest", "layers", "work", "tmp", "leases", "cache-mounts"];
    let left: Vec<PathBuf> = dirs
        .iter()
        .flat_map(|dir| std::fs::read_dir(state.join(dir)).unwrap())
        .map(|entry| entry.unwrap().path())
        .collect();
    if left.is_empty() { Ok(()) } else { Err(format!("left behind: {left:?}")) }
}
