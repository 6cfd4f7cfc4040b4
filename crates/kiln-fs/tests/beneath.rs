//! Claims about copies that go beneath an overlay: nobody can tell them from those that went through it.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a failing set-up is a failing test")]

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use kiln_fs::layer::{LayerError, PackOptions, Times, pack_from, pack_with};
use kiln_fs::{CopySpec, CopyStats, MemoryCache, Origins, SourceTree, Target, copy, copy_upon, read_copy};
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
    let stats = copy_upon(&tree, Target { root: &beneath, upper: Some(&upper), origins: None }, &spec).unwrap();
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
    let target = Target { root: &mounted, upper: Some(&beneath), origins: None };
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
        reading.copy_upon(&tree, Target { root: &dest, upper: None, origins: None }, &spec)
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

/// Touches a file as soon as a large one is being packed.
struct Meddler<'p>(Vec<u8>, Option<&'p Path>);

impl Write for Meddler<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if let Some(path) = self.1.take_if(|_| bytes.len() > 4096) {
            File::options().append(true).open(path)?.write_all(b"more")?;
        }
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_large_file_is_packed_from_where_it_came_as_long_as_it_is_the_same() {
    require_root!();
    let scratch = Scratch::new();
    let src = scratch.dir("src", &["small=s"]);
    let big = src.join("big");
    let content: Vec<u8> = (0..(64 << 20) + 5_u32).map(|n| (n / 3) as u8).collect();
    fs::write(&big, &content).unwrap();
    // As long as it takes until a change would show.
    std::thread::sleep(Duration::from_millis(2200));
    let copied = |name: &str| {
        let (mounted, upper) = overlay(&scratch, &[&["other=1"]], name);
        let (upper, origins) = (root(&upper), Origins::default());
        let target = Target { root: &mounted, upper: Some(&upper), origins: Some(&origins) };
        let tree = SourceTree::context(root(&src), None);
        copy_upon(&tree, target, &CopySpec::docker("/", "/data")).unwrap();
        (upper, origins)
    };
    let bytes_of = |tar: &[u8]| {
        let start = tar.windows(9).position(|window| window == &content[..9]).unwrap();
        tar[start..start + content.len()] == content
    };
    let (upper, origins) = copied("same");
    let copy = scratch.path().join("same-upper/data/big");
    let before = fs::metadata(&copy).unwrap().modified().unwrap();
    let file = File::options().write(true).open(&copy).unwrap();
    (&file).write_all(b"XXX").unwrap();
    file.set_modified(before).unwrap();
    let mut tar = Vec::new();
    pack_from(&upper, &origins, &mut tar).unwrap();
    assert!(bytes_of(&tar), "it was read where it is");
    let (upper, origins) = copied("meddled");
    let failed = pack_from(&upper, &origins, &mut Meddler(Vec::new(), Some(&big))).unwrap_err();
    assert!(matches!(failed, LayerError::ChangedWhileRead { .. }), "{failed}");
    tar.clear();
    pack_from(&upper, &origins, &mut tar).unwrap();
    assert!(bytes_of(&tar), "the copy is as it was");
}
