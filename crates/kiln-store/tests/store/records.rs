//! Results and facts.

use kiln_store::{Error, Holds, PruneOptions, PruneScope, Snapshot, Store};

use crate::{Fixture, key};

#[test]
fn a_result_is_found_again_by_another_process_s_handle() {
    let f = Fixture::new();
    let lease = f.store.lease().unwrap();
    let tree = f.grow(&Snapshot::scratch(), &lease, 1);
    f.store.records().put_result(&key("k"), b"value", &Holds::snapshots([&tree])).unwrap();
    let other = Store::open(&f.root()).unwrap();
    let lease = other.lease().unwrap();
    assert_eq!(other.records().get_result(&key("k"), &lease).unwrap(), Some(b"value".to_vec()));
    assert!(other.records().has_result(&key("k")).unwrap());
    assert_eq!(other.records().get_result(&key("other"), &lease).unwrap(), None);
}

#[test]
fn a_result_is_replaced_and_removed() {
    let f = Fixture::new();
    let lease = f.store.lease().unwrap();
    let (one, two) = (f.grow(&Snapshot::scratch(), &lease, 1), f.grow(&Snapshot::scratch(), &lease, 1));
    let records = f.store.records();
    records.put_result(&key("k"), b"1", &Holds::snapshots([&one])).unwrap();
    records.put_result(&key("k"), b"2", &Holds::snapshots([&two])).unwrap();
    assert_eq!(records.get_result(&key("k"), &lease).unwrap(), Some(b"2".to_vec()));
    drop(lease);
    let options = PruneOptions { unused_for: Some(std::time::Duration::from_secs(60)), ..PruneOptions::default() };
    f.store.prune(&options).unwrap();
    assert!(!f.store.layer_dir(&one.layers()[0]).exists(), "only the newer result holds");
    assert!(f.store.layer_dir(&two.layers()[0]).exists());
    f.store.records().remove_result(&key("k")).unwrap();
    assert!(!f.store.records().has_result(&key("k")).unwrap());
}

#[test]
fn a_result_that_was_loaded_keeps_its_layers_while_the_lease_lives() {
    let f = Fixture::new();
    let maker = f.store.lease().unwrap();
    let tree = f.grow(&Snapshot::scratch(), &maker, 1);
    f.store.records().put_result(&key("k"), b"", &Holds::snapshots([&tree])).unwrap();
    drop(maker);
    let user = f.store.lease().unwrap();
    f.store.records().get_result(&key("k"), &user).unwrap().unwrap();
    let everything = PruneOptions { scope: PruneScope::Everything, ..PruneOptions::default() };
    assert_eq!(f.store.prune(&everything).unwrap().items, []);
    drop(user);
    assert_eq!(f.store.prune(&everything).unwrap().items.len(), 2);
}

#[test]
fn a_result_cannot_hold_what_is_not_there() {
    let f = Fixture::new();
    let stranger = Snapshot::new(["0123456789ab.1".parse().unwrap()]);
    let outcome = f.store.records().put_result(&key("k"), b"", &Holds::snapshots([&stranger]));
    assert!(matches!(outcome, Err(Error::UnknownLayer { .. })), "{outcome:?}");
    let holds = Holds { blobs: vec![key("b")], ..Holds::default() };
    assert!(matches!(f.store.records().put_result(&key("k"), b"", &holds), Err(Error::UnknownBlob { .. })));
    assert!(!f.store.records().has_result(&key("k")).unwrap());
}

#[test]
fn a_result_goes_with_what_it_holds() {
    let f = Fixture::new();
    let lease = f.store.lease().unwrap();
    let tree = f.grow(&Snapshot::scratch(), &lease, 1);
    let blob = f.store.content().put(&lease, "text/plain", b"x").unwrap();
    let records = f.store.records();
    records.put_result(&key("tree"), b"", &Holds::snapshots([&tree])).unwrap();
    records.put_result(&key("blob"), b"", &Holds { blobs: vec![blob.digest.clone()], ..Holds::default() }).unwrap();
    // By hand, as nothing in the store ever does it: the law is the schema's.
    let db = rusqlite::Connection::open(f.root().join("kiln.db")).unwrap();
    db.execute_batch("PRAGMA foreign_keys = ON").unwrap();
    db.execute("DELETE FROM layers WHERE id = ?1", [tree.layers()[0].as_str()]).unwrap();
    db.execute("DELETE FROM blobs WHERE digest = ?1", [blob.digest.as_str()]).unwrap();
    assert!(!records.has_result(&key("tree")).unwrap() && !records.has_result(&key("blob")).unwrap());
}

#[test]
fn facts_are_seen_at_once_and_by_others_after_a_flush() {
    let f = Fixture::new();
    let other = Store::open(&f.root()).unwrap();
    f.store.records().put_fact("content", "k", b"1");
    f.store.records().put_fact("parts", "k", b"2");
    assert_eq!(f.store.records().get_fact("content", "k").unwrap(), Some(b"1".to_vec()));
    assert_eq!(other.records().get_fact("content", "k").unwrap(), None);
    f.store.flush().unwrap();
    assert_eq!(other.records().get_fact("content", "k").unwrap(), Some(b"1".to_vec()));
    assert_eq!(other.records().get_fact("parts", "k").unwrap(), Some(b"2".to_vec()));
    f.store.records().put_fact("content", "k", b"3");
    f.store.records().put_result(&key("k"), b"", &Holds::default()).unwrap();
    assert_eq!(other.records().get_fact("content", "k").unwrap(), Some(b"3".to_vec()), "a result takes facts along");
    let lease = f.store.lease().unwrap();
    f.store.records().put_fact("content", "k", b"4");
    drop(lease);
    assert_eq!(other.records().get_fact("content", "k").unwrap(), Some(b"4".to_vec()), "so does the end of a lease");
}

#[test]
fn a_build_that_finds_everything_writes_nothing() {
    let f = Fixture::new();
    let lease = f.store.lease().unwrap();
    let tree = f.grow(&Snapshot::scratch(), &lease, 1);
    f.store.records().put_fact("content", "k", b"1");
    f.store.records().put_result(&key("k"), b"", &Holds::snapshots([&tree])).unwrap();
    drop((lease, f.store));
    let log = || std::fs::read(f.dir.path().join("state/kiln.db-wal")).unwrap();
    let before = log();
    let store = Store::open(&f.dir.path().join("state")).unwrap();
    let lease = store.lease().unwrap();
    assert!(store.records().get_result(&key("k"), &lease).unwrap().is_some());
    assert!(store.records().get_fact("content", "k").unwrap().is_some());
    assert!(store.find_layer_by_diff_id(&key("none")).unwrap().is_none());
    drop((lease, store));
    assert!(log() == before);
}

#[test]
fn a_use_after_an_hour_is_noted() {
    let f = Fixture::new();
    f.store.records().put_result(&key("k"), b"", &Holds::default()).unwrap();
    let db = rusqlite::Connection::open(f.root().join("kiln.db")).unwrap();
    db.execute("UPDATE results SET used = used - 4000", []).unwrap();
    let used = || db.query_row("SELECT used - created FROM results", [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(used(), -4000);
    let lease = f.store.lease().unwrap();
    f.store.records().get_result(&key("k"), &lease).unwrap();
    drop(lease);
    assert!(used() >= 0);
}
