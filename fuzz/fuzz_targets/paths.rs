//! Whatever is done by whatever path stays inside of its root.
#![no_main]

use std::fs;

use kiln_sys::root::Root;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

const PARTS: &[&str] = &["a", "b", "..", ".", "", "c", "../..", "canary", "proc", "self", "root"];

#[derive(Arbitrary, Debug)]
struct Deed {
    kind: u8,
    path: Vec<u8>,
    other: Vec<u8>,
}

fn path(parts: &[u8], canary: &str) -> String {
    let parts = parts.iter().take(6).map(|part| match usize::from(*part) % (PARTS.len() + 1) {
        at if at == PARTS.len() => canary,
        at => PARTS[at],
    });
    parts.collect::<Vec<_>>().join("/")
}

fn act(root: &Root, deed: &Deed, canary: &str) {
    let (path, other) = (path(&deed.path, canary), path(&deed.other, canary));
    match deed.kind % 11 {
        0 => drop(root.mkdir_all(&path, 0o755)),
        1 => drop(root.mkdir(&path, 0o700)),
        2 => drop(root.create_file(&path, 0o644).map(|mut file| std::io::Write::write_all(&mut file, b"pwned"))),
        3 | 4 => drop(root.symlink(&other, &path)),
        5 => drop(root.hardlink(&other, &path)),
        6 => drop(root.unlink(&path)),
        7 => drop(root.rmdir(&path)),
        8 => drop(root.rename(&other, &path)),
        9 => drop(root.subroot(&path).map(|below| below.mkdir_all(&other, 0o755).is_ok())),
        _ => {
            let read = root.read_to_limit(&path, 100).unwrap_or_default();
            assert_ne!(read, b"canary", "{path}");
        }
    }
}

fuzz_target!(|deeds: Vec<Deed>| {
    let dir = tempfile::tempdir().unwrap();
    let (canary, place) = (dir.path().join("canary"), dir.path().join("root"));
    fs::create_dir(&canary).unwrap();
    fs::create_dir(&place).unwrap();
    fs::write(canary.join("secret"), "canary").unwrap();
    let root = Root::open_ambient(&place).unwrap();
    let text = canary.to_str().unwrap();
    deeds.iter().take(24).for_each(|deed| act(&root, deed, text));
    let names = |dir| fs::read_dir(dir).unwrap().count();
    assert_eq!((names(dir.path()), names(&canary)), (2, 1));
    assert_eq!(fs::read(canary.join("secret")).unwrap(), b"canary");
});
