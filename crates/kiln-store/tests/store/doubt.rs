//! What is not whole is forgotten with all that needs it, and nothing else is.

use std::time::Duration;

use kiln_oci::{Digest, Hasher, Reference};
use kiln_store::{Holds, ImageRecord, LayerId, Snapshot, Store, Unpacked};
use kiln_sys::root::Root;

use crate::{Fixture, key};

/// As if the machine had been switched off since all this was written.
fn reboot(f: &Fixture) {
    sql(f, "UPDATE layers SET boot = 'an earlier one' WHERE boot <> ''");
    sql(f, "UPDATE blobs SET boot = 'an earlier one' WHERE boot <> ''");
}

/// Nobody else doubts anything.
#[expect(clippy::print_stdout, reason = "a test that skips says why")]
fn is_skipped() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        println!("skipped: an ordinary user's kiln doubts in his namespace");
    }
    !is_root
}

fn sql(f: &Fixture, text: &str) {
    rusqlite::Connection::open(f.root().join("kiln.db")).unwrap().execute(text, []).unwrap();
}

fn diff_id(f: &Fixture, layer: &LayerId) -> Digest {
    let mut hasher = Hasher::new();
    kiln_fs::layer::pack(&Root::open_ambient(f.store.layer_dir(layer)).unwrap(), &mut hasher).unwrap();
    hasher.finish()
}

#[test]
fn after_a_power_cut_unsynced_layers_go_with_what_needs_them() {
    if is_skipped() {
        return;
    }
    let f = Fixture::new();
    let lease = f.store.lease().unwrap();
    let [kept, lost] = [1, 2].map(|bytes| f.grow(&Snapshot::scratch(), &lease, bytes));
    for (name, snapshot) in [("kept", &kept), ("lost", &lost)] {
        f.store.records().put_result(&key(name), b"", &Holds::snapshots([snapshot])).unwrap();
        let image = f.image(&lease, name, Some(snapshot.clone()));
        f.store.images().put(&image, &[name.parse::<Reference>().unwrap()]).unwrap();
    }
    sql(&f, &format!("UPDATE layers SET boot = '' WHERE id = '{}'", kept.layers()[0]));
    drop(lease);
    reboot(&f);
    let store = Store::open(&f.root()).unwrap();
    let notes = store.take_notes();
    let lost = &lost.layers()[0];
    assert_eq!(
        notes,
        [format!(
            "layer {lost} was written shortly before the machine stopped, and may not be whole; forgotten with it: \
             image `docker.io/library/lost:latest`, the result of 1 step"
        )]
    );
    assert!(!store.layer_dir(lost).exists());
    let has = |name: &str| (store.records().has_result(&key(name)).unwrap(), store.images().find(name).is_ok());
    assert_eq!((has("kept"), has("lost")), ((true, true), (false, false)));
    assert!(Store::open(&f.root()).unwrap().take_notes().is_empty(), "it is done once");
}

#[test]
fn what_its_digest_proves_whole_stays() {
    if is_skipped() {
        return;
    }
    let f = Fixture::new();
    let lease = f.store.lease().unwrap();
    let [whole, torn] = [10, 20].map(|bytes| f.grow(&Snapshot::scratch(), &lease, bytes));
    for layer in [&whole.layers()[0], &torn.layers()[0]] {
        f.store.set_diff_id(layer, &diff_id(&f, layer), 1).unwrap();
    }
    // What a file system shows of a file whose bytes never came to the disk.
    let file = f.store.layer_dir(&torn.layers()[0]).join("file");
    std::fs::write(file, [0; 20]).unwrap();
    reboot(&f);
    let store = Store::open(&f.root()).unwrap();
    assert_eq!(store.take_notes().len(), 1);
    let lease = store.lease().unwrap();
    assert!(lease.hold_snapshot(&whole).unwrap() && !lease.hold_snapshot(&torn).unwrap());
    reboot(&f);
    assert!(Store::open(&f.root()).unwrap().take_notes().is_empty(), "what was read back is on disk");
}

#[test]
fn content_that_is_not_what_its_digest_says_goes_with_what_needs_it() {
    if is_skipped() {
        return;
    }
    let f = Fixture::new();
    let lease = f.store.lease().unwrap();
    let put = |bytes: &[u8]| f.store.content().put(&lease, "text/plain", bytes).unwrap().digest;
    let [whole, torn, gone] = [put(b"whole"), put(b"torn"), put(b"gone")];
    let image = |name: &str, blob: &Digest| {
        let image = ImageRecord { blobs: vec![blob.clone()], ..f.image(&lease, name, None) };
        f.store.images().put(&image, &[name.parse::<Reference>().unwrap()]).unwrap();
    };
    image("kept", &whole);
    image("lost", &torn);
    let file = |digest: &Digest| f.root().join("blobs/sha256").join(digest.hex());
    // What a file system shows of a file whose bytes never came to the disk: its name, and its length.
    std::fs::remove_file(file(&torn)).unwrap();
    std::fs::write(file(&torn), [0; 4]).unwrap();
    std::fs::remove_file(file(&gone)).unwrap();
    reboot(&f);
    let store = Store::open(&f.root()).unwrap();
    let notes = store.take_notes();
    assert_eq!(notes.len(), 2, "{notes:?}");
    let note = format!(
        "content {torn} was written shortly before the machine stopped, and may not be whole; forgotten with it: image \
         `docker.io/library/lost:latest`"
    );
    assert!(notes.contains(&note), "{notes:?}");
    assert!(store.images().find("kept").is_ok() && store.images().find("lost").is_err());
    assert!(store.content().verify(&whole).is_ok() && !file(&torn).exists());
    reboot(&f);
    assert!(Store::open(&f.root()).unwrap().take_notes().is_empty(), "what was read back is on disk");
}

#[test]
fn content_without_a_row_is_not_taken_for_what_arrives() {
    let f = Fixture::new();
    let lease = f.store.lease().unwrap();
    let digest = Digest::sha256("right");
    let file = f.root().join("blobs/sha256").join(digest.hex());
    std::fs::write(&file, "wrong").unwrap();
    f.store.content().put(&lease, "text/plain", b"right").unwrap();
    assert_eq!(std::fs::read(&file).unwrap(), b"right");
}

#[test]
fn a_settled_layer_is_never_doubted() {
    if is_skipped() {
        return;
    }
    let f = Fixture::new();
    let lease = f.store.lease().unwrap();
    let snapshot = f.grow(&Snapshot::scratch(), &lease, 1);
    assert_eq!(f.store.settle(Duration::from_secs(60)).unwrap(), 0, "too young");
    assert_eq!(f.store.settle(Duration::ZERO).unwrap(), 1);
    assert_eq!(f.store.settle(Duration::ZERO).unwrap(), 0);
    reboot(&f);
    assert!(Store::open(&f.root()).unwrap().take_notes().is_empty());
    f.store.unsettle(&snapshot.layers()[0]).unwrap();
    reboot(&f);
    assert_eq!(Store::open(&f.root()).unwrap().take_notes().len(), 1, "it was changed since");
}

#[test]
fn a_layer_whose_directory_is_gone_is_a_miss_wherever_it_is_asked_for() {
    let f = Fixture::new();
    let lease = f.store.lease().unwrap();
    let active = f.store.begin_layer(&lease).unwrap();
    let unpacked = Unpacked { diff_id: &key("tar"), size: 1, blob: None };
    let based = Snapshot::new([f.store.commit_layer(active, &unpacked).unwrap()]);
    let found = f.grow(&Snapshot::scratch(), &lease, 1);
    f.store.records().put_result(&key("step"), b"", &Holds::snapshots([&found])).unwrap();
    drop(lease);
    for snapshot in [&based, &found] {
        std::fs::remove_dir_all(f.store.layer_dir(&snapshot.layers()[0])).unwrap();
    }
    let lease = f.store.lease().unwrap();
    assert_eq!(f.store.records().get_result(&key("step"), &lease).unwrap(), None);
    assert!(!lease.hold_snapshot(&based).unwrap());
    assert_eq!(f.store.find_layer_by_diff_id(&key("tar")).unwrap(), None, "the next to unpack it keeps its own");
    let notes = f.store.take_notes();
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(notes[0].ends_with("is gone from the state directory; forgotten with it: the result of 1 step"));
}

#[test]
fn a_layer_that_others_packed_is_compared_with_its_own_tar() {
    if is_skipped() {
        return;
    }
    let f = Fixture::new();
    let lease = f.store.lease().unwrap();
    let made: Vec<LayerId> = (1..4)
        .map(|bytes| {
            let active = f.store.begin_layer(&lease).unwrap();
            std::fs::write(active.tree().join("file"), vec![7; bytes]).unwrap();
            let mut tar = Vec::new();
            kiln_fs::layer::pack(&Root::open_ambient(active.tree()).unwrap(), &mut tar).unwrap();
            // The same files, in a tar that ends otherwise than ours.
            tar.extend([0; 10_240]);
            let blob = f.store.content().put(&lease, "application/vnd.oci.image.layer.v1.tar", &tar).unwrap();
            let unpacked = Unpacked { diff_id: &Digest::sha256(&tar), size: 1, blob: Some(&blob) };
            f.store.commit_layer(active, &unpacked).unwrap()
        })
        .collect();
    std::fs::write(f.store.layer_dir(&made[1]).join("file"), "xx").unwrap();
    // The tar of the third is torn in the same place as its file: it proves nothing.
    let file = f.store.layer_dir(&made[2]).join("file");
    std::fs::write(&file, [0; 3]).unwrap();
    let blob = f.store.content().path(&f.store.layer(&made[2]).unwrap().blobs[0].digest).unwrap();
    let mut tar = std::fs::read(&blob).unwrap();
    tar.iter_mut().filter(|byte| **byte == 7).for_each(|byte| *byte = 0);
    std::fs::remove_file(&blob).unwrap();
    std::fs::write(&blob, tar).unwrap();
    reboot(&f);
    let store = Store::open(&f.root()).unwrap();
    let lease = store.lease().unwrap();
    let is_kept = |layer: &LayerId| lease.hold_snapshot(&Snapshot::new([layer.clone()])).unwrap();
    assert_eq!([is_kept(&made[0]), is_kept(&made[1]), is_kept(&made[2])], [true, false, false]);
}

#[test]
fn what_cannot_be_looked_at_is_neither_used_nor_lost() {
    if is_skipped() {
        return;
    }
    let f = Fixture::new();
    let lease = f.store.lease().unwrap();
    let snapshot = f.grow(&Snapshot::scratch(), &lease, 1);
    let layer = &snapshot.layers()[0];
    f.store.set_diff_id(layer, &diff_id(&f, layer), 1).unwrap();
    let (tree, aside) = (f.store.layer_dir(layer), f.root().join("aside"));
    std::fs::rename(&tree, &aside).unwrap();
    std::fs::write(&tree, "no directory").unwrap();
    reboot(&f);
    let store = Store::open(&f.root()).unwrap();
    let error = store.lease().unwrap().hold_snapshot(&snapshot).unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot tell whether layer {layer} is whole")), "{error}");
    assert!(error.ends_with("Not a directory (os error 20)"), "{error}");
    std::fs::remove_file(&tree).unwrap();
    std::fs::rename(&aside, &tree).unwrap();
    let store = Store::open(&f.root()).unwrap();
    assert!(store.lease().unwrap().hold_snapshot(&snapshot).unwrap() && store.take_notes().is_empty());
}
