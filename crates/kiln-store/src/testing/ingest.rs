//! The contract of receiving content.

use std::any::Any;
use std::fs;
use std::io::{Read as _, Write as _};

use kiln_oci::{Descriptor, Digest};

use crate::{ContentStore, Error, Ingest, Lease, PruneOptions, Store};

/// A store whose content is to be tested.
pub struct Fixture {
    /// The store, empty.
    pub store: Store,
    /// What must outlive the test, such as a temporary directory.
    pub guard: Box<dyn Any>,
}

const TYPE: &str = "application/octet-stream";

impl Fixture {
    fn start(&self, bytes: &[u8]) -> (ContentStore, Lease, Ingest) {
        start(&self.store, bytes)
    }
}

fn start(store: &Store, bytes: &[u8]) -> (ContentStore, Lease, Ingest) {
    let lease = store.lease().expect("a lease");
    let mut ingest = store.content().ingest(&lease).expect("starts");
    ingest.write_all(bytes).expect("writes");
    (store.content(), lease, ingest)
}

/// See the name.
pub fn content_is_found_by_its_digest(f: &Fixture) {
    for bytes in [&b""[..], b"some", &vec![7; 300 << 10]] {
        let (content, _lease, ingest) = f.start(bytes);
        assert_eq!(ingest.size(), bytes.len() as u64);
        let made = ingest.commit(None, TYPE).expect("commits");
        assert_eq!(made, Descriptor::of(TYPE, bytes));
        let mut read = Vec::new();
        content.open(&made.digest).expect("opens").read_to_end(&mut read).expect("reads");
        assert_eq!(read, bytes);
        assert_eq!(content.len(&made.digest).expect("answers"), Some(bytes.len() as u64));
        content.verify(&made.digest).expect("is whole");
    }
}

/// See the name.
pub fn content_is_not_seen_before_its_commit(f: &Fixture) {
    let (content, _lease, ingest) = f.start(b"bytes");
    let digest = Digest::sha256("bytes");
    assert!(!content.has(&digest).expect("answers"));
    assert!(matches!(content.open(&digest), Err(Error::UnknownBlob { .. })));
    ingest.commit(Some(&digest), TYPE).expect("commits");
    assert!(content.has(&digest).expect("answers"));
}

/// See the name.
pub fn a_wrong_digest_is_refused_and_leaves_nothing(f: &Fixture) {
    let (content, lease, ingest) = f.start(b"lie");
    let promised = Digest::sha256("truth");
    let outcome = ingest.commit(Some(&promised), TYPE);
    let found = Digest::sha256("lie");
    match outcome {
        Err(Error::DigestMismatch { expected, found: got }) => {
            assert_eq!((expected, got), (promised.clone(), found.clone()))
        }
        other => panic!("{other:?}"),
    }
    assert!(!content.has(&promised).expect("answers") && !content.has(&found).expect("answers"));
    drop(lease);
    assert_eq!(f.store.prune(&PruneOptions::default()).expect("prunes").items, []);
}

/// See the name.
pub fn a_wrong_size_is_refused(f: &Fixture) {
    let (_, _lease, ingest) = f.start(b"four");
    let lie = Descriptor { size: 5, ..Descriptor::of(TYPE, b"four") };
    assert!(matches!(ingest.commit_as(&lie), Err(Error::SizeMismatch { expected: 5, found: 4, .. })));
    let (_, _lease, ingest) = f.start(b"four");
    assert_eq!(ingest.commit_as(&Descriptor::of(TYPE, b"four")).expect("commits").size, 4);
}

/// See the name.
pub fn what_cannot_be_verified_is_refused(f: &Fixture) {
    let (_, _lease, ingest) = f.start(b"bytes");
    let other: Digest = format!("sha512:{}", "0".repeat(128)).parse().expect("a digest");
    assert!(matches!(ingest.commit(Some(&other), TYPE), Err(Error::UnsupportedDigest { .. })));
}

/// See the name.
pub fn dropping_throws_away(f: &Fixture) {
    let (_, lease, ingest) = f.start(b"bytes");
    let left = || fs::read_dir(f.store.root().join("ingest")).expect("lists").count();
    assert_eq!(left(), 1);
    drop(ingest);
    assert_eq!(left(), 0);
    drop(lease);
}

/// See the name.
pub fn what_broke_off_is_continued(f: &Fixture) {
    let (content, lease) = (f.store.content(), f.store.lease().expect("a lease"));
    let wanted = Descriptor::of(TYPE, b"begin and end");
    let mut first = content.resume(&lease, &wanted).expect("starts");
    first.write_all(b"begin").expect("writes");
    // Whoever comes while it is written to begins anew.
    assert_eq!(content.resume(&lease, &wanted).expect("starts").size(), 0);
    f.store.prune(&PruneOptions::default()).expect("prunes");
    drop(first);
    f.store.sweep_if_due(std::time::Duration::ZERO).expect("sweeps");
    let mut second = content.resume(&lease, &wanted).expect("goes on");
    assert_eq!((second.size(), second.hasher().finish()), (5, Digest::sha256("begin")));
    second.write_all(b" and end").expect("writes");
    assert_eq!(second.commit_as(&wanted).expect("commits"), wanted);
    content.verify(&wanted.digest).expect("is whole");
    assert_eq!(fs::read_dir(f.store.root().join("ingest")).expect("lists").count(), 0);
}

/// See the name.
pub fn what_broke_off_and_is_of_no_use_goes(f: &Fixture) {
    let (content, lease) = (f.store.content(), f.store.lease().expect("a lease"));
    let wanted = Descriptor::of(TYPE, b"bytes");
    let left = || fs::read_dir(f.store.root().join("ingest")).expect("lists").count();
    let start = |bytes: &[u8]| {
        let mut ingest = content.resume(&lease, &wanted).expect("starts");
        assert_eq!(ingest.size(), 0);
        ingest.write_all(bytes).expect("writes");
        ingest
    };
    assert!(matches!(start(b"wrong").commit_as(&wanted), Err(Error::DigestMismatch { .. })));
    assert!(matches!(start(b"less").commit_as(&wanted), Err(Error::SizeMismatch { .. })));
    start(b"byt").discard();
    assert_eq!(left(), 0);
    drop(start(b"too many"));
    drop(start(b"byt"));
    assert_eq!(left(), 1);
    f.store.prune(&PruneOptions::default()).expect("prunes");
    assert_eq!(left(), 0);
}

/// See the name.
pub fn the_same_content_twice_is_kept_once(f: &Fixture) {
    let (content, _one, first) = f.start(b"same");
    let (_, _two, second) = f.start(b"same");
    let made = first.commit(None, TYPE).expect("commits");
    let path = content.path(&made.digest).expect("is there");
    let before = fs::metadata(&path).expect("stats").modified().expect("has a time");
    assert_eq!(second.commit(None, TYPE).expect("commits"), made);
    assert_eq!(fs::metadata(&path).expect("stats").modified().expect("has a time"), before, "it was not written again");
    assert_eq!(fs::read_dir(f.store.root().join("ingest")).expect("lists").count(), 0);
}

/// See the name.
pub fn twins_racing_both_win(f: &Fixture) {
    let store = &f.store;
    let race = |round: u32| {
        let (content, _lease, ingest) = start(store, &round.to_le_bytes());
        let made = ingest.commit(None, TYPE).expect("commits");
        content.verify(&made.digest).expect("is whole");
    };
    std::thread::scope(|scope| {
        let runners: Vec<_> = (0..4).map(|_| scope.spawn(move || (0..20).for_each(race))).collect();
        runners.into_iter().for_each(|runner| runner.join().expect("does not panic"));
    });
}

/// See the name.
pub fn rotten_content_is_noticed_and_can_be_had_anew(f: &Fixture) {
    let (content, lease, ingest) = f.start(b"sound");
    let made = ingest.commit(None, TYPE).expect("commits");
    let path = content.path(&made.digest).expect("is there");
    rot(&path, b"s0und");
    assert!(matches!(content.verify(&made.digest), Err(Error::DigestMismatch { .. })));
    assert!(!content.has(&made.digest).expect("answers"), "rotten content is as good as none");
    content.put(&lease, TYPE, b"sound").expect("is had anew");
    content.verify(&made.digest).expect("is whole");
    rot(&path, b"short");
    assert!(content.read(&made.digest, 100).is_err());
    rot(&path, b"too long");
    assert!(!content.has(&made.digest).expect("answers"), "the size is always checked");
}

/// See the name.
pub fn documents_are_verified_and_limited(f: &Fixture) {
    let lease = f.store.lease().expect("a lease");
    let content = f.store.content();
    let made = content.put(&lease, TYPE, b"{}").expect("keeps");
    assert_eq!(content.read(&made.digest, 2).expect("reads"), b"{}");
    assert!(matches!(content.read(&made.digest, 1), Err(Error::TooLarge { limit: 1, .. })));
    assert_eq!(content.put(&lease, TYPE, b"{}").expect("keeps"), made, "again");
}

fn rot(path: &std::path::Path, bytes: &[u8]) {
    let _ = fs::remove_file(path);
    fs::write(path, bytes).expect("writes");
}
