//! Fsck names what is broken, takes it out when asked to, and never what is right.

use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use kiln_oci::Reference;
use kiln_store::{Error, FsckOptions, FsckReport, Holds, ProblemKind, Snapshot, Store, fsck};

use crate::{Fixture, key, names};

const LOOK: FsckOptions = FsckOptions { repair: false, deep: false };
const REPAIR: FsckOptions = FsckOptions { repair: true, deep: false };

/// Two images, `right` and `wrong`, each with a layer, a config and a result.
struct Filled {
    f: Fixture,
    wrong: Snapshot,
    config: kiln_oci::Digest,
}

fn filled() -> Filled {
    let f = Fixture::new();
    let lease = f.store.lease().unwrap();
    let [right, wrong] = [1, 2].map(|bytes| f.grow(&Snapshot::scratch(), &lease, bytes));
    let mut config = None;
    for (name, snapshot) in [("right", &right), ("wrong", &wrong)] {
        f.store.records().put_result(&key(name), name.as_bytes(), &Holds::snapshots([snapshot])).unwrap();
        let image = f.image(&lease, name, Some(snapshot.clone()));
        f.store.images().put(&image, &[name.parse::<Reference>().unwrap()]).unwrap();
        config = Some(image.id);
    }
    drop(lease);
    Filled { f, wrong, config: config.unwrap() }
}

impl Filled {
    fn fsck(&self, options: FsckOptions) -> FsckReport {
        fsck(&self.f.root(), options).unwrap()
    }

    fn blob(&self) -> PathBuf {
        self.f.store.content().path(&self.config).unwrap()
    }

    /// What of the two images is still there, seen with fresh eyes.
    fn images(&self) -> Vec<String> {
        let store = Store::open(&self.f.root()).unwrap();
        let lease = store.lease().unwrap();
        let mut found: Vec<String> = store.images().list().unwrap().into_iter().flat_map(|image| image.names).collect();
        found.sort_unstable();
        let [right, wrong] = ["right", "wrong"]
            .map(|name| store.records().get_result(&key(name), &lease).unwrap() == Some(name.as_bytes().to_vec()));
        assert!(right, "what is right stays");
        assert_eq!(wrong, found.len() == 2);
        found
    }
}

fn told(report: &FsckReport) -> Vec<String> {
    report.problems.iter().map(|p| format!("{} {}: {}", p.kind.name(), p.id, p.what)).collect()
}

fn flip(path: &std::path::Path, at: u64) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

#[test]
fn what_is_right_is_clean() {
    let filled = filled();
    let report = filled.fsck(FsckOptions { repair: true, deep: true });
    assert_eq!((told(&report).len(), report.leftovers.len()), (0, 0), "{report:?}");
    assert_eq!((report.blobs, report.layers, report.images, report.results), (2, 2, 2, 2));
    assert_eq!(filled.images().len(), 2);
    assert!(fsck(&filled.f.root().join("no such"), LOOK).unwrap().is_clean());
}

#[test]
fn a_layer_without_its_directory_goes_with_what_needs_it() {
    let filled = filled();
    let layer = &filled.wrong.layers()[0];
    std::fs::remove_dir_all(filled.f.store.layer_dir(layer)).unwrap();
    let report = filled.fsck(LOOK);
    assert_eq!(told(&report), [format!("layer {layer}: its directory is gone")]);
    assert_eq!(report.problems[0].lost, ["image `docker.io/library/wrong:latest`", "the result of 1 step"]);
    assert!(!report.is_clean());
    assert_eq!(told(&filled.fsck(LOOK)), told(&report), "looking changes nothing");
    assert!(filled.fsck(REPAIR).is_clean());
    assert_eq!(told(&filled.fsck(LOOK)), [""; 0]);
    assert_eq!(filled.images(), ["docker.io/library/right:latest"]);
}

#[test]
fn rotten_and_missing_content_is_named() {
    for (damage, what) in [
        (Box::new(|path: &PathBuf| flip(path, 1)) as Box<dyn Fn(&PathBuf)>, "its bytes are not what its digest says"),
        (Box::new(|path: &PathBuf| std::fs::write(path, "").unwrap()), "its bytes are not what its digest says"),
        (Box::new(|path: &PathBuf| std::fs::remove_file(path).unwrap()), "its file is gone"),
    ] {
        let filled = filled();
        damage(&filled.blob());
        let report = filled.fsck(LOOK);
        assert_eq!(told(&report), [format!("blob {}: {what}", filled.config)]);
        assert_eq!(report.problems[0].lost, ["image `docker.io/library/wrong:latest`"]);
        assert!(filled.fsck(REPAIR).is_clean() && filled.fsck(LOOK).problems.is_empty());
        assert_eq!(Store::open(&filled.f.root()).unwrap().images().list().unwrap().len(), 1);
    }
}

#[test]
fn changed_files_of_a_layer_are_found_by_looking_deeper() {
    let filled = filled();
    let layer = &filled.wrong.layers()[0];
    let mut hasher = kiln_oci::Hasher::new();
    let tree = kiln_sys::root::Root::open_ambient(filled.f.store.layer_dir(layer)).unwrap();
    kiln_fs::layer::pack(&tree, &mut hasher).unwrap();
    filled.f.store.set_diff_id(layer, &hasher.finish(), 2).unwrap();
    let deep = FsckOptions { deep: true, ..LOOK };
    assert!(filled.fsck(deep).is_clean());
    flip(&filled.f.store.layer_dir(layer).join("file"), 0);
    assert!(filled.fsck(LOOK).is_clean());
    assert_eq!(told(&filled.fsck(deep)), [format!("layer {layer}: its files are not what its digest says")]);
}

#[test]
fn what_a_running_build_holds_is_reported_and_left_to_it() {
    let filled = filled();
    let lease = filled.f.store.lease().unwrap();
    assert!(lease.hold_blob(&filled.config).unwrap());
    flip(&filled.blob(), 0);
    let report = filled.fsck(REPAIR);
    assert!(!report.is_clean() && report.problems[0].what.ends_with("; a running build uses it"), "{report:?}");
    drop(lease);
    assert!(filled.fsck(REPAIR).is_clean());
}

#[test]
fn leftovers_are_no_problem_and_go_with_a_repair() {
    let filled = filled();
    let root = filled.f.root();
    std::fs::create_dir_all(root.join("work/00aa.1/fs")).unwrap();
    std::fs::create_dir_all(root.join("layers/00aa.2/fs")).unwrap();
    let report = filled.fsck(LOOK);
    assert!(report.is_clean());
    let ids: Vec<&str> = report.leftovers.iter().map(|left| left.id.as_str()).collect();
    assert_eq!(ids, ["00aa.1", "00aa.2"]);
    assert_eq!(filled.fsck(REPAIR).leftovers.len(), 2);
    assert_eq!((names(&root.join("work")).len(), names(&root.join("layers")).len()), (0, 2));
    assert_eq!(filled.images().len(), 2);
}

#[test]
fn a_lost_database_is_never_taken_for_an_empty_one() {
    let filled = filled();
    let db = filled.f.root().join("kiln.db");
    for suffix in ["", "-wal", "-shm"] {
        let mut path = db.clone().into_os_string();
        path.push(suffix);
        let _ = std::fs::remove_file(path);
    }
    for _ in 0..2 {
        assert!(matches!(Store::open(&filled.f.root()).err(), Some(Error::LostDatabase { path }) if path == db));
    }
    assert_eq!(filled.fsck(LOOK).problems[0].kind, ProblemKind::Index);
    let report = filled.fsck(REPAIR);
    assert!(report.is_clean());
    assert_eq!(
        report.problems[0].lost,
        ["what cannot be read of it; what can be is 0 images, 0 layers, 2 blobs, 0 results"]
    );
    assert_eq!(report.leftovers.len(), 2, "layers nobody knows: {report:?}");
    assert!(Store::open(&filled.f.root()).is_ok());
}

#[test]
fn a_damaged_database_is_told_and_made_anew_from_what_can_be_read() {
    let (mut told_on_use, mut kept) = (0, 0);
    let pages = {
        let filled = filled();
        filled.f.store.flush().unwrap();
        checkpoint(&filled);
        std::fs::metadata(filled.f.root().join("kiln.db")).unwrap().len() / 4096
    };
    for page in 0..pages {
        let filled = filled();
        checkpoint(&filled);
        let db = std::fs::File::options().write(true).open(filled.f.root().join("kiln.db")).unwrap();
        db.write_all_at(&[0x5a; 512], page * 4096).unwrap();
        drop(db);
        // Nothing panics, and whoever is told is told the way out.
        let open = Store::open(&filled.f.root()).and_then(|store| store.images().list());
        told_on_use += usize::from(open.as_ref().is_err_and(Error::is_damaged_index));
        assert!(open.as_ref().err().is_none_or(Error::is_damaged_index), "page {page}: {open:?}");
        let report = filled.fsck(LOOK);
        let is_free = report.is_clean();
        assert!(filled.fsck(REPAIR).is_clean(), "page {page}");
        let after = filled.fsck(LOOK);
        assert!(after.problems.is_empty(), "page {page}: {:?}", told(&after));
        let images = Store::open(&filled.f.root()).unwrap().images().list().unwrap().len();
        assert!(!is_free || images == 2, "page {page}");
        kept += usize::from(images == 2);
    }
    assert!(told_on_use > 0 && kept > pages as usize / 2, "{told_on_use} told, {kept} of {pages} kept both images");
}

fn checkpoint(filled: &Filled) {
    let db = rusqlite::Connection::open(filled.f.root().join("kiln.db")).unwrap();
    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
}

#[test]
fn a_database_is_not_replaced_under_a_running_build() {
    let filled = filled();
    let _lease = filled.f.store.lease().unwrap();
    let db = rusqlite::Connection::open(filled.f.root().join("kiln.db")).unwrap();
    db.execute_batch("PRAGMA foreign_keys = OFF; INSERT INTO names VALUES ('x', 'no image', 0)").unwrap();
    assert!(matches!(fsck(&filled.f.root(), REPAIR), Err(Error::InUse { builds: 1, .. })));
}
