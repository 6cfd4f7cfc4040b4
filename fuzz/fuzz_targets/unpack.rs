//! Any archive is unpacked inside its root or refused, whatever its names, links, deletions and numbers say.
#![no_main]

use std::fs;
use std::path::Path;

use kiln_fs::Limits;
use kiln_fs::layer::{ApplyOptions, Target, apply_with};
use kiln_sys::root::Root;
use kiln_testkit::Forge;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

/// What names are made of.
const PARTS: &[&str] = &[
    "a",
    "b",
    "c",
    ".",
    "..",
    "",
    "/",
    "canary",
    "secret",
    ".wh.a",
    ".wh.secret",
    ".wh..wh..opq",
    ".wh..",
    ".wh...",
    ".wh.",
    "../canary",
    "../../canary/secret",
];

#[derive(Arbitrary, Debug)]
struct Entry {
    kind: u8,
    name: Vec<u8>,
    target: Vec<u8>,
    content: u8,
    mode: u16,
    /// A byte of the header that is another one, with the sum made right.
    odd: Option<(u16, u8)>,
}

#[derive(Arbitrary, Debug)]
struct Archive {
    entries: Vec<Entry>,
    target: u8,
    cut: Option<u16>,
    raw: Vec<u8>,
}

fn name(parts: &[u8], canary: &str) -> String {
    let parts = parts.iter().take(5).map(|part| match usize::from(*part) % (PARTS.len() + 1) {
        at if at == PARTS.len() => canary,
        at => PARTS[at],
    });
    let mut name = parts.collect::<Vec<_>>().join("/");
    name.truncate(100);
    name
}

fn forge(archive: &Archive, canary: &str) -> Vec<u8> {
    let mut forge = Forge::new();
    for entry in archive.entries.iter().take(12) {
        let (path, target) = (name(&entry.name, canary), name(&entry.target, canary));
        let content = vec![b'x'; usize::from(entry.content)];
        let kind = b"0000512234567xgLKS"[usize::from(entry.kind) % 18];
        forge = forge.head(kind, path.as_bytes(), |head| {
            head.octal(100, 8, u64::from(entry.mode));
            head.put(157, target.as_bytes());
            if b"0xgLKS".contains(&kind) {
                head.octal(124, 12, content.len() as u64);
            }
            if let Some((at, byte)) = entry.odd {
                head.put(usize::from(at) % 500, &[byte]);
            }
        });
        if b"0xgLKS".contains(&kind) {
            forge = forge.body(&content);
        }
    }
    let mut bytes = forge.raw(&archive.raw).end();
    if let Some(cut) = archive.cut {
        bytes.truncate(usize::from(cut));
    }
    bytes
}

fn list(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fuzz_target!(|archive: Archive| {
    let dir = tempfile::tempdir().unwrap();
    let (canary, root) = (dir.path().join("canary"), dir.path().join("root"));
    fs::create_dir(&canary).unwrap();
    fs::create_dir(&root).unwrap();
    fs::write(canary.join("secret"), "canary").unwrap();
    let target = [Target::Layer, Target::Archive, Target::Merged][usize::from(archive.target) % 3];
    let limits =
        Limits { bytes: 1 << 20, entries: 100, depth: 32, path_bytes: 512, header_bytes: 4096, ..Limits::default() };
    let options = ApplyOptions { limits, target, refuse_devices: false, owner: None };
    let bytes = forge(&archive, canary.to_str().unwrap());
    let _ = apply_with(&bytes[..], &Root::open_ambient(&root).unwrap(), &options);
    assert_eq!(list(dir.path()), ["canary", "root"]);
    assert_eq!(list(&canary), ["secret"]);
    assert_eq!(fs::read(canary.join("secret")).unwrap(), b"canary");
});
