//! What is kept, thing by thing; limits; garbage collection.

use std::time::Duration;

use kiln_oci::{Digest, MediaType};
use kiln_store::{
    CacheMountSpec, Condition, Entry, EntryKind, Field, Foreign, Holder, Holds, Limits, Maker, Need, PruneOptions,
    PruneScope, PrunedKind, RecordType, Snapshot, Test,
};

use crate::prune::{counts, furnished, scope};
use crate::{Fixture, key, names};

fn entry(f: &Fixture, id: &str) -> Entry {
    f.store.inventory(&[]).unwrap().into_iter().find(|entry| entry.id == id).unwrap()
}

fn at_most(bytes: u64) -> Limits {
    Limits { max_used: Some(bytes), ..Limits::default() }
}

/// Bytes of all that is kept, with the database.
fn total(f: &Fixture) -> u64 {
    let weigh = || f.store.prune(&PruneOptions { limits: at_most(u64::MAX), ..scope(PruneScope::Cache) }).unwrap();
    weigh(); // also folds the database's log
    let report = weigh();
    assert_eq!(report.items, []);
    report.left
}

fn make(f: &Fixture, name: &str, snapshot: &Snapshot) {
    let maker = Maker { step: format!("[{name}]"), origin: "Dockerfile of /src".into() };
    f.store.records().put_result_of(&maker, &key(name), b"", &Holds::snapshots([snapshot])).unwrap();
}

/// Lets results, and the layers they made, have been used so long ago.
fn age(f: &Fixture, ages: &[(&str, i64)]) {
    let db = rusqlite::Connection::open(f.root().join("kiln.db")).unwrap();
    db.execute("UPDATE layers SET created = created - 100000", []).unwrap();
    db.execute("UPDATE images SET stored = stored - 100000", []).unwrap();
    db.execute("UPDATE blobs SET created = created - 100000", []).unwrap();
    for (name, age) in ages {
        db.execute("UPDATE results SET used = used - ?1 WHERE key = ?2", (age, key(name).as_str())).unwrap();
    }
}

#[test]
fn each_thing_says_what_it_takes_who_made_it_and_who_needs_it() {
    let (f, [base, app, stage]) = furnished();
    let lease = f.store.lease().unwrap();
    for (name, snapshot) in [("base", &base), ("app", &app), ("stage", &stage)] {
        make(&f, name, snapshot);
    }
    let layer = |snapshot: &Snapshot| entry(&f, snapshot.layers().last().unwrap().as_str());
    let (base, app, top) = (layer(&base), layer(&app), layer(&stage));
    assert_eq!(
        [&base, &app, &top].map(|entry| (entry.description.as_str(), entry.need, entry.results)),
        [("[base]", Need::Named, 3), ("[app]", Need::Named, 1), ("[stage]", Need::None, 1)],
        "the step that made a layer, not those that stand upon it"
    );
    assert!((40_000..60_000).contains(&top.bytes) && top.is_reclaimable() && !base.is_reclaimable());
    let all = f.store.inventory(&[]).unwrap();
    assert!(all.is_sorted_by(|a, b| a.bytes >= b.bytes));
    let of = |kind| all.iter().filter(|entry| entry.kind == kind).collect::<Vec<_>>();
    let (blobs, mounts) = (of(EntryKind::Blob), of(EntryKind::CacheMount));
    assert_eq!((blobs.len(), blobs[0].record_type, blobs[0].need), (1, RecordType::Internal, Need::Named));
    assert_eq!((mounts.len(), mounts[0].description.as_str()), (1, "cache mount pip"));
    let reclaimable: u64 = all.iter().filter(|entry| entry.is_reclaimable()).map(|entry| entry.bytes).sum();
    assert!(lease.hold_snapshot(&stage).unwrap());
    assert!(!layer(&stage).is_reclaimable());
    drop(lease);
    assert_eq!(
        f.store.prune(&scope(PruneScope::Cache)).unwrap().bytes(),
        reclaimable,
        "what was said is what is freed"
    );
}

#[test]
fn a_cache_mount_is_measured_when_it_was_used_and_not_each_time() {
    let f = Fixture::new();
    let lease = f.store.lease().unwrap();
    let acquire = || {
        let spec = CacheMountSpec::new("pip");
        f.store.cache_mounts().acquire(&spec, &lease, Duration::ZERO, &|_| Ok(())).unwrap().unwrap()
    };
    let bytes = || f.store.inventory(&[]).unwrap()[0].bytes;
    let mount = acquire();
    let empty = bytes();
    std::fs::write(mount.dir().join("wheel"), vec![1; 50_000]).unwrap();
    assert!(bytes() > empty + 50_000, "what is in use changes");
    let dir = mount.dir().to_owned();
    drop(mount);
    let full = bytes();
    std::fs::write(dir.join("by a stranger"), vec![1; 50_000]).unwrap();
    assert_eq!(bytes(), full);
    drop(acquire());
    assert!(bytes() > full + 50_000);
}

#[test]
fn the_longest_unused_goes_first_until_it_fits_and_what_things_stand_on_stays_with_them() {
    let f = Fixture::new();
    let lease = f.store.lease().unwrap();
    let base = f.grow(&Snapshot::scratch(), &lease, 100_000);
    let [old, young, older] = [(); 3].map(|()| f.grow(&base, &lease, 100_000));
    for (name, snapshot) in [("base", &base), ("old", &old), ("young", &young), ("older", &older)] {
        make(&f, name, snapshot);
    }
    drop(lease);
    // A build that finds all asks for the topmost result only.
    age(&f, &[("base", 900), ("older", 600), ("old", 300)]);
    let has = |name: &str| f.store.records().has_result(&key(name)).unwrap();
    let total = total(&f);
    let told = PruneOptions { limits: at_most(total - 50_000), dry_run: true, ..scope(PruneScope::Cache) };
    assert_eq!(counts(&f.store.prune(&told).unwrap()), [0, 1, 1, 0, 0, 0]);
    let report = f.store.prune(&PruneOptions { dry_run: false, ..told }).unwrap();
    assert_eq!(counts(&report), [0, 1, 1, 0, 0, 0], "{report:?}");
    assert_eq!(["base", "old", "young", "older"].map(has), [true, true, true, false]);
    let options = PruneOptions { limits: at_most(total - 300_000), ..scope(PruneScope::Cache) };
    f.store.prune(&options).unwrap();
    assert_eq!(
        ["base", "old", "young", "older"].map(has),
        [true, false, false, false],
        "tops before what they stand on"
    );
    assert!(f.store.prune(&PruneOptions { limits: at_most(1), ..scope(PruneScope::Cache) }).unwrap().left < total);
    assert!(!has("base"));
}

#[test]
fn an_age_keeps_what_younger_things_stand_on_and_nothing_else() {
    let f = Fixture::new();
    let lease = f.store.lease().unwrap();
    let base = f.grow(&Snapshot::scratch(), &lease, 1000);
    let [old, young] = [(); 2].map(|()| f.grow(&base, &lease, 1000));
    for (name, snapshot) in [("base", &base), ("old", &old), ("young", &young)] {
        make(&f, name, snapshot);
    }
    drop(lease);
    age(&f, &[("base", 9000), ("old", 9000)]);
    let options = PruneOptions { unused_for: Some(Duration::from_secs(3600)), ..PruneOptions::default() };
    assert_eq!(counts(&f.store.prune(&options).unwrap()), [0, 1, 1, 0, 0, 0]);
    let has = |name: &str| f.store.records().has_result(&key(name)).unwrap();
    assert_eq!(["base", "old", "young"].map(has), [true, false, true]);
}

#[test]
fn filters_choose_and_the_rest_stays() {
    let filtered = |filter: Vec<Condition>, all: bool| {
        let (f, [base, app, stage]) = furnished();
        for (name, snapshot) in [("base", &base), ("app", &app), ("stage", &stage)] {
            make(&f, name, snapshot);
        }
        let which = if all { PruneScope::Cache } else { PruneScope::Dangling };
        counts(&f.store.prune(&PruneOptions { filter, ..scope(which) }).unwrap())
    };
    let text = |field, test| vec![Condition::Text(field, test)];
    let mounts = || text(Field::Type, Test::Is("exec.cachemount".into()));
    assert_eq!(filtered(mounts(), false), [0, 0, 0, 0, 1, 0]);
    assert_eq!(filtered(text(Field::Type, Test::IsNot("exec.cachemount".into())), true), [0, 1, 1, 0, 0, 0]);
    assert_eq!(filtered(text(Field::Description, Test::Like("^.stage".parse().unwrap())), false), [0, 1, 1, 0, 0, 0]);
    assert_eq!(filtered(text(Field::Description, Test::Is("[app]".into())), true), [0; 6], "an image has it");
    assert_eq!(filtered(vec![Condition::InUse], true), [0; 6]);
    assert_eq!(filtered(vec![Condition::Mutable], false), [0, 0, 0, 0, 1, 0]);
    assert_eq!(filtered(vec![Condition::Immutable, Condition::Private], false), [0, 1, 1, 0, 0, 0]);
    assert_eq!(filtered(vec![Condition::Shared], true), [0; 6]);
}

#[test]
fn collecting_is_for_those_who_are_over_and_spares_images_with_names_and_live_builds() {
    let (f, [_, app, stage]) = furnished();
    assert!(f.store.has_grown());
    let patience = Duration::from_secs(9);
    assert_eq!(f.store.collect(Limits::default(), Vec::new(), patience).unwrap(), None);
    assert_eq!(f.store.collect(at_most(1 << 30), Vec::new(), patience).unwrap(), None);
    let lease = f.store.lease().unwrap();
    let nameless = f.grow(&Snapshot::scratch(), &lease, 10_000);
    f.store.images().put(&f.image(&lease, "{0}", Some(nameless.clone())), &[]).unwrap();
    drop(lease);
    let lease = f.store.lease().unwrap();
    assert!(lease.hold_snapshot(&stage).unwrap());
    let report = f.store.collect(at_most(1), Vec::new(), patience).unwrap().unwrap();
    assert_eq!(counts(&report), [1, 0, 1, 1, 1, 0], "{report:?}");
    assert!(report.left >= report.named && report.named > 40_000, "{report:?}");
    let is_there = |snapshot: &Snapshot| snapshot.layers().iter().all(|layer| f.store.layer_dir(layer).exists());
    assert!(is_there(&stage) && is_there(&app) && !is_there(&nameless));
    drop(lease);
    let again = kiln_store::Store::open(&f.root()).unwrap();
    assert!(!again.has_grown());
    assert!(again.collect(at_most(1), Vec::new(), Duration::ZERO).unwrap().is_some());
    assert!(!f.root().join("layers").join(stage.layers()[1].as_str()).exists());
    assert_ne!(names(&f.root().join("tmp")), [""; 0], "there was no time to remove files");
    again.prune(&PruneOptions::default()).unwrap();
    assert_eq!(names(&f.root().join("tmp")), [""; 0]);
}

#[test]
fn what_others_keep_is_weighed_with_the_rest() {
    let f = Fixture::new();
    let lease = f.store.lease().unwrap();
    let layer = f.grow(&Snapshot::scratch(), &lease, 10_000);
    make(&f, "layer", &layer);
    drop(lease);
    let foreign = |id: &str, used: i64, is_held: bool| Foreign {
        id: id.into(),
        description: String::new(),
        bytes: 1 << 20,
        created: used,
        used,
        is_held,
    };
    let foreign = vec![foreign("old", 1, false), foreign("used", 1, true), foreign("young", i64::MAX - 1, false)];
    let report = f.store.collect(at_most(3 << 20), foreign, Duration::from_secs(9)).unwrap().unwrap();
    assert_eq!(
        (report.items.len(), report.items[0].kind, report.items[0].id.as_str()),
        (1, PrunedKind::Foreign, "old")
    );
}

#[test]
fn facts_do_not_outgrow_the_limit() {
    let f = Fixture::new();
    for number in 0..4000 {
        f.store.records().put_fact("content", &Digest::sha256(number.to_string()).to_string(), &[7; 300]);
    }
    f.store.flush().unwrap();
    let db = rusqlite::Connection::open(f.root().join("kiln.db")).unwrap();
    db.execute("UPDATE facts SET used = used - 10 WHERE key < 'sha256:8'", []).unwrap();
    let limit = at_most(1 << 20);
    f.store.collect(limit, Vec::new(), Duration::from_secs(9)).unwrap().unwrap();
    let left: u64 = db.query_row("SELECT count(*) FROM facts", [], |row| row.get(0)).unwrap();
    assert!((1990..2010).contains(&left), "{left}");
    let old: u64 = db.query_row("SELECT count(*) FROM facts WHERE key < 'sha256:8'", [], |row| row.get(0)).unwrap();
    assert!(old < 200, "those that were not asked for longest go: {old}");
}

#[test]
fn why_names_images_steps_and_processes() {
    let (f, [base, _, stage]) = furnished();
    make(&f, "stage", &stage);
    let why = |id: &str| f.store.why(id, &[]).unwrap();
    let shared = why(base.layers()[0].as_str());
    let Holder::Image { names, .. } = &shared.holders[0] else { panic!("{shared:?}") };
    assert_eq!((names.as_slice(), shared.holders.len()), (&["docker.io/library/app:latest".to_owned()][..], 4));
    let id = stage.layers()[1].as_str();
    let [Holder::Step { step, origin, .. }] = &why(id).holders[..] else { panic!("{:?}", why(id)) };
    assert_eq!((step.as_str(), origin.as_str()), ("[stage]", "Dockerfile of /src"));
    let lease = f.store.lease().unwrap();
    assert!(lease.hold_snapshot(&stage).unwrap());
    assert_eq!(why(id).holders.last(), Some(&Holder::Process(Some(std::process::id()))));
    let packed = f.store.content().put(&lease, MediaType::OCI_LAYER_GZIP, b"packed").unwrap();
    f.store.add_blob(&stage.layers()[1], &packed).unwrap();
    assert!(why(&packed.digest.hex()[..12]).holders.contains(&Holder::Layer(id.to_owned())));
    let mount = CacheMountSpec::new("pip");
    let mount = f.store.cache_mounts().acquire(&mount, &lease, Duration::ZERO, &|_| Ok(())).unwrap().unwrap();
    let slot = mount.dir().parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
    assert_eq!(why(&slot).holders, [Holder::Process(Some(std::process::id()))]);
    assert!(f.store.why("nonsense", &[]).unwrap_err().to_string().contains("`nonsense`"));
    assert!(f.store.why("", &[]).unwrap_err().to_string().contains("things"));
}
