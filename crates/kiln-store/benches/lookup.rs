//! How long the store takes to find what it keeps: results by key, facts, and digests of files.
#![allow(clippy::unwrap_used, reason = "a store that cannot be filled measures nothing")]

use std::hint::black_box;
use std::time::{SystemTime, UNIX_EPOCH};

use divan::Bencher;
use divan::counter::ItemsCount;
use kiln_fs::{StatCache as _, StatKey};
use kiln_oci::Digest;
use kiln_store::{Holds, Store};
use tempfile::TempDir;

/// Results, and as many facts, among which one is looked for.
const RECORDS: usize = 100_000;
/// Files whose digests are kept.
const FILES: u64 = 20_000;

fn main() {
    divan::main();
}

#[divan::bench]
fn a_result(bencher: Bencher<'_, '_>) {
    let (_dir, store) = new();
    let lease = store.lease().unwrap();
    let blob = store.content().put(&lease, "text/plain", b"held by all").unwrap().digest;
    let holds = Holds { blobs: vec![blob], ..Holds::default() };
    for at in 0..RECORDS {
        store.records().put_result(&key(at), b"0123456789ab.1", &holds).unwrap();
    }
    let mut keys = keys();
    bencher.bench_local(|| store.records().get_result(&keys.next().unwrap(), &lease).unwrap().unwrap());
}

#[divan::bench]
fn no_result(bencher: Bencher<'_, '_>) {
    let (_dir, store) = new();
    let lease = store.lease().unwrap();
    for at in 0..RECORDS {
        store.records().put_result(&key(at), b"0123456789ab.1", &Holds::default()).unwrap();
    }
    let strange = key(RECORDS);
    bencher.bench_local(|| assert!(store.records().get_result(black_box(&strange), &lease).unwrap().is_none()));
}

#[divan::bench]
fn a_fact(bencher: Bencher<'_, '_>) {
    let (_dir, store) = new();
    for at in 0..RECORDS {
        store.records().put_fact("content", key(at).as_str(), b"sha256:0123456789abcdef");
    }
    store.flush().unwrap();
    let mut keys = keys();
    bencher.bench_local(|| store.records().get_fact("content", keys.next().unwrap().as_str()).unwrap().unwrap());
}

/// By a process that has just opened the store, as at the start of a build.
#[divan::bench(sample_count = 20)]
fn digests_of_a_context(bencher: Bencher<'_, '_>) {
    let (dir, store) = new();
    let minute_ago = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() - 60_000_000_000;
    let then = i64::try_from(minute_ago).unwrap();
    let file = |ino| StatKey { dev: 7, ino, size: 2_048, mtime_ns: then, ctime_ns: then };
    let files: Vec<StatKey> = (0..FILES).map(file).collect();
    for (at, file) in files.iter().enumerate() {
        store.stat_cache().put(file, key(at));
    }
    store.flush().unwrap();
    let open = || Store::open(&dir.path().join("state")).unwrap();
    bencher.counter(ItemsCount::new(files.len())).with_inputs(open).bench_refs(|store| {
        let cache = store.stat_cache();
        cache.expect(&mut files.iter().copied());
        assert!(files.iter().all(|file| cache.get(file).is_some()));
    });
}

/// A store of its own.
fn new() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("state")).unwrap();
    (dir, store)
}

fn key(at: usize) -> Digest {
    Digest::sha256(format!("record {at}"))
}

/// Keys of all records, over and over, in no order of the table.
fn keys() -> impl Iterator<Item = Digest> {
    let all: Vec<Digest> = (0..RECORDS).map(key).collect();
    (0..).map(move |turn: usize| all[turn * 7919 % RECORDS].clone())
}
