//! The contract suites, on our own implementations.

use kiln_store::Store;
use kiln_store::testing::{ingest, snapshotter};

mod overlay {
    kiln_store::snapshotter_suite!(|| {
        let dir = tempfile::tempdir().unwrap();
        let store = super::Store::open(&dir.path().join("state")).unwrap();
        super::snapshotter::Fixture { snapshotter: Box::new(store.clone()), store, guard: Box::new(dir) }
    });
}

mod content {
    kiln_store::ingest_suite!(|| {
        let dir = tempfile::tempdir().unwrap();
        let store = super::Store::open(&dir.path().join("state")).unwrap();
        super::ingest::Fixture { store, guard: Box::new(dir) }
    });
}
