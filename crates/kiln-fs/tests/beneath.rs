//! Claims about copies that go beneath an overlay: nobody can tell them from those that went through it.
#![allow(clippy::disallowed_methods, reason = "tests name files of the machine")]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a failing set-up is a failing test")]

mod support;

use std::fs;
use std::path::Path;

use kiln_fs::layer::{PackOptions, Times, pack_with};
use kiln_fs::{CopySpec, CopyStats, MemoryCache, SourceTree, Target, copy, copy_upon, read_copy};
use kiln_sys::mount::{Overlay, Upper};
use kiln_sys::root::Root;
use rustix::fs::{CWD, FileType, Mode};
use support::{Scratch, root};

const FILES: &[&str] = &["f=F", "d/x=X", "d/e/y=Y", "d/e/same=>f", "d/l->x", "d/p|", "empty/"];

/// Layers, base first; a name that ends in `!` is removed.
type Layers = &'static [&'static [&'static str]];

fn overlay(scratch: &Scratch, layers: Layers, name: &str) -> (Root, std::path::PathBuf) {
    let mut lowers = Vec::new();
    for (number, files) in layers.iter().enumerate() {
        let (removed, files): (Vec<&str>, Vec<&str>) = files.iter().partition(|file| file.ends_with('!'));
        let layer = scratch.dir(&format!("{name}-lower-{number}"), &files);
        for name in removed {
            let path = layer.join(name.trim_end_matches('!'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            rustix::fs::mknodat(CWD, path, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
        }
        lowers.insert(0, layer);
    }
    let upper = scratch.dir(&format!("{name}-upper"), &[]);
    let work = scratch.dir(&format!("{name}-work"), &[]);
    let overlay = Overlay { lowers, upper: Some(Upper { upper: upper.clone(), work }), userxattr: false };
    (Root::new(overlay.mount_detached().unwrap()), upper)
}

/// The layer as a tar. Directories on the way have the time at which they were made: times have a test of their own.
fn packed(upper: &Path) -> Vec<u8> {
    let mut tar = Vec::new();
    pack_with(
        &root(upper),
        &mut tar,
        &PackOptions { whiteouts: true, times: Times::NotAfter(0), ..PackOptions::default() },
    )
    .unwrap();
    tar
}

fn both(layers: Layers, dest: &str) -> (CopyStats, Scratch) {
    let scratch = Scratch::new();
    let src = scratch.dir("src", FILES);
    let tree = SourceTree::context(root(&src), None);
    let spec = CopySpec::docker("/", dest);
    let (through, upper_through) = overlay(&scratch, layers, "through");
    copy(&tree, &through, &spec).unwrap();
    drop(through);
    let (beneath, upper_beneath) = overlay(&scratch, layers, "beneath");
    let upper = root(&upper_beneath);
    let stats = copy_upon(&tree, Target { root: &beneath, upper: Some(&upper) }, &spec).unwrap();
    drop(beneath);
    assert!(packed(&upper_through) == packed(&upper_beneath), "{layers:?} {dest}");
    (stats, scratch)
}

#[test]
fn what_goes_beneath_makes_the_same_layer() {
    require_root!();
    let cases: &[(Layers, &str, bool)] = &[
        (&[&["other=1"]], "/data", true),
        (&[&["other=1"]], "/deep/er/data/", true),
        (&[&["app/"]], "/app", true),
        (&[&["app/"], &["etc/x=1"]], "/app", true),
        // Something was there, and a layer removed it.
        (&[&["app/f=1", "app/d/x=2", "app/d/z=3"], &["app/f!", "app/d!"]], "/app", true),
        (&[&["app/d/z=3"], &["app!"]], "/app", true),
        (&[&["real/", "link->real"]], "/link", true),
        // Another way leads there, or something is there.
        (&[&["real/sub/", "link->real"]], "/link/sub", false),
        (&[&["app/f=1"]], "/app", false),
        (&[&["app/d/z=1"]], "/app", false),
        (&[&["other=1"]], "/", false),
    ];
    for (layers, dest, is_beneath) in cases {
        assert_eq!(both(layers, dest).0.is_beneath, *is_beneath, "{layers:?} {dest}");
    }
}

#[test]
fn files_and_directories_have_their_times_beneath_too() {
    require_root!();
    let (stats, scratch) = both(&[&["app/"]], "/app");
    assert!(stats.is_beneath);
    for name in ["", "f", "d", "d/e", "d/e/y", "d/l", "empty"] {
        let time = |dir: &str| fs::symlink_metadata(scratch.path().join(dir).join(name)).unwrap().modified().unwrap();
        assert_eq!(time("src"), time("beneath-upper/app"), "{name}");
    }
}

#[test]
fn what_would_be_a_mark_of_the_overlay_does_not_get_beneath_it() {
    require_root!();
    let scratch = Scratch::new();
    let src = scratch.dir("src", FILES);
    rustix::fs::mknodat(CWD, src.join("d/mark"), FileType::CharacterDevice, Mode::empty(), 0).unwrap();
    let (mounted, upper) = overlay(&scratch, &[&["d/mark=1"]], "one");
    let tree = SourceTree::context(root(&src), None);
    let beneath = root(&upper);
    let target = Target { root: &mounted, upper: Some(&beneath) };
    copy_upon(&tree, target, &CopySpec::docker("/", "/data")).unwrap_err();
    assert!(!upper.join("data/d/mark").exists());
}

#[test]
fn what_was_read_is_what_is_copied() {
    let scratch = Scratch::new();
    let src = scratch.dir("src", FILES);
    let tree = SourceTree::context(root(&src), None);
    let spec = CopySpec::docker("/", "/");
    let reading = read_copy(&tree, &spec, &MemoryCache::default()).unwrap();
    support::write(&src, &["later=1", "d/later=1"]);
    let dest = scratch.dir("dest", &[]);
    let onto = |dest: &Path| {
        let dest = root(dest);
        reading.copy_upon(&tree, Target { root: &dest, upper: None }, &spec)
    };
    onto(&dest).unwrap();
    assert!(dest.join("d/e/y").exists() && !dest.join("later").exists() && !dest.join("d/later").exists());
    assert_eq!(reading.prints().into_keys().collect::<Vec<_>>(), ["d/e/same", "d/e/y", "d/l", "d/p", "d/x", "f"]);
    for change in [&(|| fs::write(src.join("d/x"), "other").unwrap()) as &dyn Fn(), &|| {
        fs::remove_file(src.join("d/x")).unwrap();
    }] {
        change();
        let error = onto(&scratch.dir("again", &[])).unwrap_err();
        assert!(matches!(&error, kiln_fs::Error::ChangedWhileRead { path } if path == "d/x"), "{error}");
        fs::remove_dir_all(scratch.path().join("again")).unwrap();
    }
}
