//! Archives made to do harm: each is refused by kind, or stays inside and becomes what it says.
#![allow(clippy::disallowed_methods, reason = "tests name files of the machine")]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a failing set-up is a failing test")]

#[path = "../support/mod.rs"]
mod support;
mod swaps;

use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use kiln_fs::archive::{extract, is_archive};
use kiln_fs::layer::{ApplyOptions, LayerError, Target, apply_with};
use kiln_fs::{Limits, SourceTree};
use kiln_testkit::archives::{ESCAPES, Outcome, TORTURE, WHITEOUTS};
use kiln_testkit::{Forge, Head};
use support::{Scratch, describe, root, show};

fn kind(error: &LayerError) -> &'static str {
    match error {
        LayerError::Malformed { .. } => "malformed",
        LayerError::Truncated { .. } => "truncated",
        LayerError::InvalidName { .. } => "name",
        LayerError::UnknownType { .. } => "type",
        LayerError::HardlinkTargetMissing { .. } => "hardlink",
        LayerError::OverlayPrivate { .. } => "overlay",
        LayerError::ReservedName { .. } => "reserved",
        LayerError::Limit { .. } => "limit",
        LayerError::Expansion(_) => "expansion",
        LayerError::Io { .. } => "io",
        _ => "other",
    }
}

/// Small limits, so that going over them is cheap.
fn limits() -> Limits {
    Limits { bytes: 1 << 20, entries: 1000, depth: 64, path_bytes: 1024, header_bytes: 1 << 16, ..Limits::default() }
}

/// A directory beside the one that is unpacked into, which no archive may touch.
fn canary(scratch: &Scratch) -> std::path::PathBuf {
    let canary = scratch.dir("canary", &["secret=CANARY", "sub/secret2=CANARY", "dir/"]);
    fs::set_permissions(&canary, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    canary
}

fn check(name: &str, make: &dyn Fn(&str) -> Vec<u8>, outcome: &Outcome, target: Target) {
    let scratch = Scratch::new();
    let canary = canary(&scratch);
    let before = describe(&canary);
    let dest = scratch.dir("dest", &[]);
    let archive = make(canary.to_str().unwrap());
    let options = ApplyOptions { limits: limits(), target, ..ApplyOptions::default() };
    let started = Instant::now();
    let done = apply_with(&archive[..], &root(&dest), &options);
    assert!(started.elapsed() < Duration::from_secs(10), "{name} took {:?}", started.elapsed());
    assert_eq!(describe(&canary), before, "{name} reached the canary");
    let around = fs::read_dir(scratch.path()).unwrap().count();
    assert_eq!(around, 2, "{name} left something beside its root");
    match (outcome, done) {
        (Outcome::Refused(wanted), Err(error)) => assert_eq!(kind(&error), *wanted, "{name}: {error}"),
        (Outcome::Refused(wanted), Ok(_)) => panic!("{name} must be refused as {wanted}: {:?}", show(&dest)),
        (Outcome::Inside(tree), Ok(_)) => {
            let host = canary.to_str().unwrap();
            let lines = show(&dest).into_iter().filter(|line| line.contains("->") || !line.ends_with('/'));
            let files: Vec<String> = lines.map(|l| l.replace(host, "C").replace(&host[1..], "IN")).collect();
            assert_eq!(files, *tree, "{name}");
        }
        (Outcome::Inside(_), Err(error)) => panic!("{name} must unpack: {error}"),
    }
}

#[test]
fn no_path_leads_out() {
    for (name, make, outcome) in ESCAPES {
        check(name, make, outcome, Target::Layer);
    }
}

#[test]
fn no_archive_leads_out_of_where_it_is_unpacked() {
    for (name, make, outcome) in ESCAPES {
        check(name, make, outcome, Target::Archive);
        check(name, make, outcome, Target::Merged);
    }
}

#[test]
fn a_layer_does_not_leave_by_a_link_of_another() {
    for target in [Target::Archive, Target::Merged] {
        let scratch = Scratch::new();
        let canary = canary(&scratch);
        let before = describe(&canary);
        let dest = scratch.dir("dest", &[]);
        let link = Forge::new().link("d", canary.to_str().unwrap()).end();
        let through = Forge::new().file("d/pwn", "x").file("d/secret", "new").end();
        for archive in [&link, &through] {
            let options = ApplyOptions { limits: limits(), target, ..ApplyOptions::default() };
            apply_with(&archive[..], &root(&dest), &options).unwrap();
        }
        assert_eq!(describe(&canary), before);
        let inside = dest.join(canary.strip_prefix("/").unwrap());
        assert_eq!(fs::read_to_string(inside.join("secret")).unwrap(), "new");
    }
}

#[test]
fn deletions_take_away_only_names() {
    require_root!();
    for (name, make, outcome) in WHITEOUTS {
        check(name, make, outcome, Target::Layer);
    }
    let archive = Forge::new().file("a/.wh.x", "").end();
    let scratch = Scratch::new();
    let error = extract(&archive[..], &root(&scratch.dir("d", &[])), &limits(), None).unwrap_err();
    assert_eq!(kind(&error), "reserved");
}

#[test]
fn what_readers_disagree_on_is_refused() {
    for (name, make, outcome) in TORTURE {
        // The file that holds another archive is looked at below.
        if *name != "sizes that disagree" {
            check(name, make, outcome, Target::Layer);
        }
    }
}

#[test]
fn a_smuggled_entry_stays_content() {
    let scratch = Scratch::new();
    let dest = scratch.dir("dest", &[]);
    let (_, make, _) = TORTURE.iter().find(|(name, ..)| *name == "sizes that disagree").unwrap();
    apply_with(&make("")[..], &root(&dest), &ApplyOptions::default()).unwrap();
    let names: Vec<_> = fs::read_dir(&dest).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["outer"]);
}

/// A gzip stream of one file of zeros.
fn bomb(mebibytes: u64, members: u64) -> Vec<u8> {
    let head = Forge::new().head(b'0', b"zeros", |h| h.octal(124, 12, mebibytes << 20)).cut();
    let mut bytes = Vec::new();
    for member in 0..members {
        let mut gzip = flate2::write::GzEncoder::new(&mut bytes, flate2::Compression::best());
        let start = if member == 0 { &head[..] } else { &[] };
        std::io::copy(&mut start.chain(std::io::repeat(0).take((mebibytes << 20) / members)), &mut gzip).unwrap();
        gzip.finish().unwrap();
    }
    bytes
}

#[test]
fn bombs_are_refused_in_time() {
    for members in [1, 8] {
        let archive = bomb(64, members);
        let scratch = Scratch::new();
        let dest = scratch.dir("dest", &[]);
        let limits = Limits { blank_floor: 8 << 20, expansion_ratio: 100, ..Limits::default() };
        let error = extract(&archive[..], &root(&dest), &limits, None).unwrap_err();
        assert_eq!(kind(&error), "expansion", "{error}");
        let written = fs::metadata(dest.join("zeros")).map_or(0, |metadata| metadata.len());
        assert!(written <= 9 << 20, "{written}");
        // The same size is honest under the usual limits.
        extract(&archive[..], &root(&dest), &Limits::default(), None).unwrap();
    }
}

#[test]
fn an_archive_that_asks_for_too_much_is_one_all_the_same() {
    let limits = Limits { bytes: 1 << 20, ..Limits::default() };
    let large = Forge::new().head(b'0', b"large", |h| h.octal(124, 12, 2 << 20)).cut();
    assert!(is_archive(&large[..], &limits) && is_archive(&bomb(2, 1)[..], &limits));
    assert!(!is_archive(&[7; 1024][..], &limits) && !is_archive(&b"\x1f\x8bnot gzip"[..], &limits));
}

#[test]
fn half_an_archive_is_no_archive() {
    let whole = bomb(1, 1);
    let scratch = Scratch::new();
    let error =
        extract(&whole[..whole.len() - 9], &root(&scratch.dir("d", &[])), &Limits::default(), None).unwrap_err();
    assert_eq!(kind(&error), "truncated", "{error}");
    let error = extract(&b"\x1f\x8bnot gzip at all"[..], &root(&scratch.dir("e", &[])), &Limits::default(), None);
    assert!(error.is_err());
}

#[test]
fn links_inside_the_root_keep_working() {
    let archive =
        Forge::new().file("lib/x", "x").file("bin/y", "y").hardlink("lib/z", "lib/x").file("gone/w", "w").end();
    let scratch = Scratch::new();
    let dest = scratch.dir(
        "dest",
        &["usr/lib/", "usr/bin/", "lib->/usr/lib", "bin->usr/bin", "etc/mtab->/proc/mounts", "gone->/nowhere"],
    );
    extract(&archive[..], &root(&dest), &Limits::default(), None).unwrap();
    let expected = [
        "bin->usr/bin",
        "etc/",
        "etc/mtab->/proc/mounts",
        "gone->/nowhere",
        "lib->/usr/lib",
        "nowhere/",
        "nowhere/w=w",
        "usr/",
        "usr/bin/",
        "usr/bin/y=y",
        "usr/lib/",
        "usr/lib/x=x",
        "usr/lib/z=x",
    ];
    assert_eq!(show(&dest), expected);
    assert_eq!(std::os::unix::fs::MetadataExt::nlink(&fs::metadata(dest.join("usr/lib/z")).unwrap()), 2);
}

#[test]
fn honest_formats_are_read() {
    let long = format!("{}/{}", "d".repeat(120), "n".repeat(120));
    let oldgnu = |h: &mut Head| {
        for (piece, offset) in [0u64, 1000, 2000, 3000].into_iter().enumerate() {
            h.octal(386 + piece * 24, 12, offset);
            h.octal(398 + piece * 24, 12, 1);
        }
        h.put(482, &[1]);
        h.octal(483, 12, 5000);
        h.octal(124, 12, 5);
    };
    let mut more = [0; 512];
    more[..24].copy_from_slice(b"00000007640\x0000000000001\0");
    let archive = Forge::new()
        .extended(b'L', format!("{long}\0").as_bytes())
        .file("short", "gnu")
        .pax(&[("path", format!("{long}x").as_bytes()), ("mtime", b"5.25")])
        .file("short", "pax")
        .extended(b'K', format!("{}\0", "t".repeat(200)).as_bytes())
        .link("l", "short")
        .head(b'S', b"s.gnu", oldgnu)
        .raw(&more)
        .body(b"abcde")
        .pax(&[("GNU.sparse.map", b"0,1,4000,1"), ("GNU.sparse.size", b"5000"), ("GNU.sparse.name", b"s.0.1")])
        .file("GNUSparseFile.1/s", "ae")
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"s.1.0"),
            ("GNU.sparse.realsize", b"5000"),
        ])
        .file("GNUSparseFile.2/s", format!("2\n0\n1\n4000\n1\n{}ae", "\0".repeat(512 - 13)))
        .head(0, b"old/", |_| ())
        .head(b'0', b"binary", |h| h.put(124, &[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]))
        .body(b"b")
        .end();
    let scratch = Scratch::new();
    let dest = scratch.dir("dest", &[]);
    apply_with(&archive[..], &root(&dest), &ApplyOptions::default()).unwrap();
    assert_eq!(fs::read(dest.join(&long)).unwrap(), b"gnu");
    let metadata = fs::metadata(dest.join(format!("{long}x"))).unwrap();
    assert_eq!(metadata.modified().unwrap(), std::time::UNIX_EPOCH + Duration::from_millis(5250));
    assert_eq!(fs::read_link(dest.join("l")).unwrap().as_os_str().len(), 200);
    for (name, places) in [
        ("s.gnu", &[(0, b'a'), (1000, b'b'), (2000, b'c'), (3000, b'd'), (4000, b'e')][..]),
        ("s.0.1", &[(0, b'a'), (4000, b'e')]),
        ("s.1.0", &[(0, b'a'), (4000, b'e')]),
    ] {
        let mut expected = vec![0; 5000];
        places.iter().for_each(|&(at, byte)| expected[at] = byte);
        assert!(fs::read(dest.join(name)).unwrap() == expected, "{name}");
    }
    assert!(dest.join("old").is_dir());
    assert_eq!(fs::read(dest.join("binary")).unwrap(), b"b");
}

#[test]
fn random_bytes_never_panic() {
    let mut seed = 9u64;
    let mut next = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let scratch = Scratch::new();
    let good = Forge::new()
        .dir("d")
        .file("d/f", "content")
        .pax(&[("path", b"d/long"), ("mtime", b"1.5")])
        .file("x", "y")
        .hardlink("d/h", "d/f")
        .link("l", "d")
        .head(b'S', b"s", |h| {
            h.octal(398, 12, 1);
            h.octal(483, 12, 10);
            h.octal(124, 12, 1);
        })
        .body(b"z")
        .end();
    for round in 0..400 {
        let mut bytes = good.clone();
        for _ in 0..1 + round % 6 {
            let at = (next() % bytes.len() as u64) as usize;
            bytes[at] = next() as u8;
            let block = at / 512 * 512;
            // Half the time the sum is made right again, so that what it guards is reached.
            if next() % 2 == 0 {
                bytes[block + 148..block + 156].fill(b' ');
                let sum: u32 = bytes[block..block + 512].iter().map(|byte| u32::from(*byte)).sum();
                bytes[block + 148..block + 156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
        }
        let dest = scratch.dir(&format!("r{round}"), &[]);
        let _ = apply_with(&bytes[..], &root(&dest), &ApplyOptions { limits: limits(), ..ApplyOptions::default() });
    }
    let beside: Vec<_> = fs::read_dir(scratch.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(beside.iter().all(|name| name.to_string_lossy().starts_with('r')), "{beside:?}");
}

#[test]
fn a_context_of_pipes_and_sockets_does_not_hang() {
    let scratch = Scratch::new();
    let src = scratch.dir("src", &["pipe|", "socket~", "d/pipe|"]);
    let dst = scratch.dir("dst", &[]);
    let tree = SourceTree::snapshot(root(&src));
    let started = Instant::now();
    for path in [".", "pipe", "*"] {
        let spec = kiln_fs::CopySpec::docker(path, "/to/");
        kiln_fs::copy(&tree, &root(&dst), &spec).unwrap();
        kiln_fs::digest_copy(&tree, &spec, &kiln_fs::NoCache).unwrap();
    }
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(Path::new(&dst).join("to/d/pipe").exists());
}

#[test]
fn a_socket_is_refused_by_name_and_passed_over_in_a_directory() {
    let scratch = Scratch::new();
    let src = scratch.dir("src", &["socket~", "l->socket", "d/socket~", "d/f"]);
    let dst = scratch.dir("dst", &[]);
    let tree = SourceTree::snapshot(root(&src));
    for path in ["socket", "l", "d/socket"] {
        let spec = kiln_fs::CopySpec::docker(path, "/to/");
        let error = kiln_fs::copy(&tree, &root(&dst), &spec).unwrap_err();
        assert!(matches!(error, kiln_fs::Error::Socket { .. }), "{path}: {error:?}");
        assert!(matches!(kiln_fs::digest_copy(&tree, &spec, &kiln_fs::NoCache), Err(kiln_fs::Error::Socket { .. })));
        assert_eq!(kiln_fs::probe(&tree, &spec).unwrap(), kiln_fs::Presence::Socket);
    }
    let spec = kiln_fs::CopySpec::docker("d", "/to/");
    kiln_fs::copy(&tree, &root(&dst), &spec).unwrap();
    assert!(Path::new(&dst).join("to/f").exists() && !Path::new(&dst).join("to/socket").exists());
}
