//! What is found, and where.

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;
use crate::compress::{Compression, Compressor};

const SECRET: &str = "TOKEN-5511 aaaa\nbbbb";

fn found_in(write: impl FnOnce(&Path)) -> Vec<(String, FoundIn)> {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path());
    let patterns = Patterns::new(&[b"other-value".to_vec(), SECRET.into()]).unwrap();
    let found = search_layer(&Root::open_ambient(dir.path()).unwrap(), &patterns).unwrap();
    assert!(found.iter().all(|found| found.pattern == 1), "{found:?}");
    found.into_iter().map(|found| (String::from_utf8(found.path).unwrap(), found.place)).collect()
}

fn only(write: impl FnOnce(&Path)) -> FoundIn {
    let mut found = found_in(write);
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0).1
}

#[test]
fn contents_are_told_by_line_and_binary_ones_by_offset() {
    let text = format!("one\n two {SECRET}\n");
    let found = found_in(|dir| {
        fs::create_dir_all(dir.join("a/b")).unwrap();
        fs::write(dir.join("a/b/text"), &text).unwrap();
        fs::write(dir.join("clean"), text.replace('5', "6")).unwrap();
        fs::write(dir.join("z"), [b"\0\x01 ", SECRET.as_bytes()].concat()).unwrap();
    });
    let wanted = [
        ("a/b/text".to_owned(), FoundIn::Content { offset: 9, line: Some(2) }),
        ("z".to_owned(), FoundIn::Content { offset: 3, line: None }),
    ];
    assert!(found.len() == 2 && wanted.iter().all(|wanted| found.contains(wanted)), "{found:?}");
}

#[test]
fn what_lies_across_the_pieces_that_are_read_is_found() {
    for before in [0, 1, 262_130, 262_144, 262_150, 700_001] {
        let content = [vec![b'x'; before], SECRET.into(), vec![b'y'; 300_000]].concat();
        let place = only(|dir| fs::write(dir.join("f"), &content).unwrap());
        assert_eq!(place, FoundIn::Content { offset: before as u64, line: Some(1) });
    }
}

#[test]
fn what_has_many_names_is_told_once_and_what_lies_deep_is_reached() {
    let (mut root, name) = (None, "d".repeat(200));
    let found = found_in(|dir| {
        fs::write(dir.join("a"), SECRET).unwrap();
        fs::hard_link(dir.join("a"), dir.join("b")).unwrap();
        let mut place = Root::open_ambient(dir).unwrap();
        for _ in 0..25 {
            place.mkdir(&name, 0o755).unwrap();
            place = place.subroot(&name).unwrap();
        }
        place.create_file("f", 0o644).unwrap().write_all(SECRET.as_bytes()).unwrap();
        place.symlink(SECRET, "l").unwrap();
        root = Some(place);
    });
    let deep = |end: &str| found.iter().any(|(path, _)| path.len() > 5000 && path.ends_with(end));
    assert!(found.len() == 3 && deep("/f") && deep("/l"), "{found:?}");
}

#[test]
fn line_breaks_and_indents_do_not_hide() {
    let broken: String = SECRET.chars().map(|c| format!("  {c}\r\n")).collect();
    assert_eq!(only(|dir| fs::write(dir.join("f"), &broken).unwrap()), FoundIn::Content { offset: 2, line: Some(1) });
}

#[test]
fn names_links_and_attributes_are_searched() {
    assert_eq!(only(|dir| fs::write(dir.join(SECRET), "").unwrap()), FoundIn::Name);
    assert_eq!(only(|dir| fs::create_dir(dir.join(format!("x{SECRET}y"))).unwrap()), FoundIn::Name);
    assert_eq!(only(|dir| symlink(format!("/tmp/{SECRET}"), dir.join("l")).unwrap()), FoundIn::Target);
    let attribute = |dir: &Path| {
        fs::write(dir.join("f"), "").unwrap();
        let file = fs::File::open(dir.join("f")).unwrap();
        kiln_sys::xattr::set(&file, OsStr::new("user.note"), SECRET.as_bytes()).unwrap();
    };
    assert_eq!(only(attribute), FoundIn::Attribute("user.note".into()));
}

#[test]
fn packed_files_are_searched() {
    // Numbers, so that no byte is packed as it is.
    let numbers: String = (0..100_000).map(|number: u32| number.to_string()).collect();
    let text = format!("{numbers}{SECRET}").into_bytes();
    for compression in [Compression::default(), Compression::Zstd { level: 3 }] {
        let mut packed = Compressor::new(Vec::new(), compression, std::num::NonZero::<usize>::MIN).unwrap();
        packed.write_all(&text).unwrap();
        let packed = packed.finish().unwrap();
        assert_eq!(only(|dir| fs::write(dir.join("f"), &packed).unwrap()), FoundIn::Packed(None));
        // What breaks off was searched as far as it goes.
        assert_eq!(found_in(|dir| fs::write(dir.join("f"), &packed[..packed.len() / 2]).unwrap()), []);
    }
}

/// A zip archive of one file.
fn zip(name: &str, text: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(text).unwrap();
    let packed = packed.finish().unwrap();
    let (size, length) = (packed.len() as u32, name.len() as u16);
    let numbers = |halves: &[u16]| halves.iter().flat_map(|half| half.to_le_bytes()).collect::<Vec<_>>();
    let sizes = [[0; 4], size.to_le_bytes(), (text.len() as u32).to_le_bytes()].concat();
    let mut all = b"PK\x03\x04".to_vec();
    all.extend(numbers(&[20, 0, 8, 0, 0]));
    all.extend(&sizes);
    all.extend(numbers(&[length, 0]));
    all.extend(name.as_bytes());
    all.extend(packed);
    let start = all.len() as u32;
    all.extend(b"PK\x01\x02");
    all.extend(numbers(&[20, 20, 0, 8, 0, 0]));
    all.extend(&sizes);
    all.extend(numbers(&[length, 0, 0, 0, 0]));
    all.extend([0; 8]);
    all.extend(name.as_bytes());
    let listed = all.len() as u32 - start;
    all.extend(b"PK\x05\x06");
    all.extend(numbers(&[0, 0, 1, 1]));
    all.extend(listed.to_le_bytes());
    all.extend(start.to_le_bytes());
    all.extend(b"\x07\0comment");
    all
}

#[test]
fn archives_are_searched_file_by_file_and_broken_ones_break_nothing() {
    let whole = zip("a/config", &[vec![b'x'; 1000], SECRET.into()].concat());
    assert_eq!(only(|dir| fs::write(dir.join("f"), &whole).unwrap()), FoundIn::Packed(Some("a/config".into())));
    assert_eq!(found_in(|dir| fs::write(dir.join("f"), zip("a", b"clean")).unwrap()), []);
    for end in 0..whole.len() {
        found_in(|dir| fs::write(dir.join("f"), &whole[..end]).unwrap());
    }
    for at in 4..whole.len() {
        let mut broken = whole.clone();
        broken[at] ^= 0xff;
        found_in(|dir| fs::write(dir.join("f"), &broken).unwrap());
    }
}

#[test]
fn nothing_is_looked_for_without_patterns() {
    assert!(Patterns::new(&[]).is_none());
    assert!(Patterns::new(&[b"a".to_vec(), b" \n".to_vec()]).is_none());
}
