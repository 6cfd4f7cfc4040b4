//! The stat cache.

use std::time::{SystemTime, UNIX_EPOCH};

use kiln_fs::{StatCache as _, StatKey};
use kiln_store::Store;

use crate::{Fixture, key};

fn now_ns() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}

/// A file that changed a minute ago.
fn file(ino: u64) -> StatKey {
    let then = now_ns() - 60_000_000_000;
    StatKey { dev: u64::MAX - 1, ino, size: 10, mtime_ns: then, ctime_ns: then }
}

#[test]
fn digests_are_found_by_a_later_process() {
    let f = Fixture::new();
    let files: Vec<_> = (0..1000).map(|number| file(number * 7)).collect();
    let cache = f.store.stat_cache();
    for file in &files {
        assert_eq!(cache.get(file), None);
        cache.put(file, key(&file.ino.to_string()));
    }
    assert_eq!(cache.get(&files[3]), Some(key("21")));
    f.store.flush().unwrap();
    for expected in [0, 500, 1000] {
        let cache = Store::open(&f.root()).unwrap().stat_cache();
        cache.expect(&mut files.iter().take(expected).copied());
        for file in &files {
            assert_eq!(cache.get(file), Some(key(&file.ino.to_string())));
        }
    }
}

#[test]
fn any_change_that_stat_shows_is_a_miss() {
    let f = Fixture::new();
    let cache = f.store.stat_cache();
    let kept = file(5);
    cache.put(&kept, key("x"));
    for changed in [
        StatKey { dev: 1, ..kept },
        StatKey { ino: 6, ..kept },
        StatKey { ino: 5 + (1 << 40), ..kept },
        StatKey { size: 11, ..kept },
        StatKey { mtime_ns: kept.mtime_ns + 1, ..kept },
        StatKey { ctime_ns: kept.ctime_ns + 1, ..kept },
    ] {
        assert_eq!(cache.get(&changed), None, "{changed:?}");
    }
    assert_eq!(cache.get(&kept), Some(key("x")));
}

#[test]
fn a_file_that_changed_a_moment_ago_is_not_trusted() {
    let f = Fixture::new();
    let cache = f.store.stat_cache();
    let now = now_ns();
    let racy = [
        StatKey { mtime_ns: now, ..file(1) },
        StatKey { ctime_ns: now - 10_000_000, ..file(2) },
        // Whole seconds are the clock of a file system that knows no others.
        StatKey { ctime_ns: (now / 1_000_000_000 - 1) * 1_000_000_000, ..file(5) },
        StatKey { mtime_ns: now + 3_600_000_000_000, ..file(3) },
        StatKey { ctime_ns: 0, ..file(4) },
    ];
    for file in &racy {
        cache.put(file, key("x"));
        assert_eq!(cache.get(file), None, "{file:?}");
    }
    let settled = StatKey { ctime_ns: (now / 1_000_000_000 - 1) * 1_000_000_000 + 1, ..file(6) };
    cache.put(&settled, key("x"));
    assert_eq!(cache.get(&settled), Some(key("x")));
}

#[test]
fn processes_add_to_the_same_page() {
    let f = Fixture::new();
    let other = Store::open(&f.root()).unwrap();
    let (one, two) = (file(1), file(2));
    f.store.stat_cache().put(&one, key("one"));
    other.stat_cache().put(&two, key("two"));
    f.store.flush().unwrap();
    other.flush().unwrap();
    let cache = Store::open(&f.root()).unwrap().stat_cache();
    assert_eq!((cache.get(&one), cache.get(&two)), (Some(key("one")), Some(key("two"))));
}
