//! The record of builds.

use kiln_store::{Build, Store};

use crate::Fixture;

fn build(id: &str, target: &str, state: Option<&str>) -> Build {
    Build { id: id.into(), target: target.into(), state: state.map(Into::into), value: id.into() }
}

fn ids(store: &Store) -> Vec<String> {
    store.builds().list().unwrap().into_iter().map(|build| build.id).collect()
}

#[test]
fn builds_are_listed_newest_first_and_outlive_the_process() {
    let f = Fixture::new();
    let builds = [build("a", "app", None), build("b", "app", Some("x")), build("c", "other", None)];
    builds.iter().for_each(|build| f.store.builds().put(build).unwrap());
    let again = Store::open(&f.root()).unwrap();
    let [a, b, c] = builds;
    assert_eq!(again.builds().list().unwrap(), [c, b, a]);
    assert!(f.store.builds().put(&build("a", "app", None)).is_err(), "no two have the same name");
}

#[test]
fn of_builds_that_found_the_same_one_after_the_other_the_last_is_kept() {
    let f = Fixture::new();
    for (id, target, state) in [
        ("ran", "app", None),
        ("1", "app", Some("x")),
        ("other", "other", Some("x")),
        ("2", "app", Some("x")),
        ("3", "app", Some("y")),
        ("4", "app", Some("x")),
        ("again", "app", None),
        ("5", "app", Some("x")),
    ] {
        f.store.builds().put(&build(id, target, state)).unwrap();
    }
    assert_eq!(ids(&f.store), ["5", "again", "4", "3", "2", "other", "ran"]);
}

#[test]
fn only_so_many_builds_are_kept_and_only_so_long() {
    let f = Fixture::new();
    (0..205).for_each(|n| f.store.builds().put(&build(&n.to_string(), "app", None)).unwrap());
    let kept = ids(&f.store);
    assert_eq!((kept.len(), kept[0].as_str(), kept[199].as_str()), (200, "204", "5"));
    let db = rusqlite::Connection::open(f.root().join("kiln.db")).unwrap();
    db.execute_batch("UPDATE builds SET ended = 0 WHERE number < 100").unwrap();
    f.store.builds().put(&build("new", "app", None)).unwrap();
    let kept = ids(&f.store);
    assert_eq!((kept[0].as_str(), kept.len()), ("new", 107));
}

#[test]
fn what_is_forgotten_is_never_written() {
    let f = Fixture::new();
    f.store.records().put_fact("content", "key", b"1");
    f.store.forget_pending();
    f.store.flush().unwrap();
    assert_eq!(f.store.records().get_fact("content", "key").unwrap(), None);
}
