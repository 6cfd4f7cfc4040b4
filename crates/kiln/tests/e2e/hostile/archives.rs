//! Archives made to do harm, as layers, under `ADD`, and as contexts.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use kiln_testkit::archives::{ESCAPES, Make, Outcome, TORTURE, WHITEOUTS};
use kiln_testkit::{Forge, ForgedImage};

use super::attack::Attack;
use crate::space::disk;

fn all() -> impl Iterator<Item = &'static (&'static str, Make, Outcome)> {
    ESCAPES.iter().chain(WHITEOUTS).chain(TORTURE)
}

fn holds(dir: &Path, name: &str) -> bool {
    fs::read_dir(dir).into_iter().flatten().flatten().any(|entry| {
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        entry.file_name() == name || (is_dir && holds(&entry.path(), name))
    })
}

#[test]
fn no_layer_leads_out_and_none_is_read_as_something_else() {
    for attack in Attack::by_everybody() {
        let out = attack.project.path().join("out");
        let to = format!("type=local,dest={}", out.display());
        for (name, make, outcome) in all() {
            attack.image(ForgedImage::new().layer(Forge::new().file("base", "").end()).layer(make(&attack.canary())));
            let run = attack.build_with("FROM evil\nCOPY Dockerfile /x\n", &["-o", &to]);
            match outcome {
                // What is over a small limit may be below the usual one.
                Outcome::Refused("limit") => (),
                Outcome::Refused(_) => assert_eq!(run.code, 1, "{name}: {}", run.stderr),
                Outcome::Inside(_) => assert_eq!(run.code, 0, "{name}: {}", run.stderr),
            }
            if run.code == 0 {
                assert!(out.join("x").exists() && !holds(&out, "smuggled"), "{name}");
                fs::remove_dir_all(&out).unwrap();
            } else {
                assert!(run.stderr.contains("cannot unpack layer"), "{name}: {}", run.stderr);
                assert!(!out.exists(), "{name}");
            }
        }
        assert_eq!(attack.kiln(&["images", "-q"]).stdout, "");
    }
}

#[test]
fn no_archive_that_is_added_or_is_the_context_leads_out() {
    let attack = Attack::new();
    let dockerfile = Forge::new().file("Dockerfile", "FROM scratch\nCOPY . /\n").cut();
    for (name, make, _) in all() {
        let tar = make(&attack.canary());
        attack.project.file("evil.tar", &tar);
        let added = attack.build("FROM scratch\nADD evil.tar /\n");
        let context = [&dockerfile[..], &tar].concat();
        fs::write(attack.project.path().join("stdin"), context).unwrap();
        let stdin = fs::File::open(attack.project.path().join("stdin")).unwrap();
        let sent = attack.run(attack.project.command().args(["build", "-"]).stdin(stdin));
        for run in [added, sent] {
            assert!(run.code <= 1, "{name}: {}", run.stderr);
        }
    }
}

#[test]
fn what_expands_too_far_is_left_early_and_takes_no_room() {
    let attack = Attack::new();
    let size = 64 << 20;
    let head = Forge::new().head(b'0', b"noise", |head| head.octal(124, 12, size)).cut();
    // Text that packs well, and is no stretch of zeros.
    let body: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
    let tar = [&head[..], &body, &[0; 1024]].concat();
    attack.project.file("evil.tar.gz", gzip(&tar));
    attack.image(ForgedImage::busybox());
    attack.build("FROM evil\nCOPY Dockerfile /\n").ok();
    attack.image(ForgedImage::busybox().gzip_layer(&tar));
    let before = disk(&attack.project.state());
    for dockerfile in ["FROM evil\nCOPY Dockerfile /x\n", "FROM scratch\nADD evil.tar.gz /\n"] {
        let run = attack.build_with(dockerfile, &["--max-layer-size", "4MiB"]).fails(1);
        run.says("limit").says("--max-layer-size");
        let left = disk(&attack.project.state()).saturating_sub(before);
        assert!(left <= 1 << 20, "{} KiB are left of it", left >> 10);
    }
    attack.build("FROM evil\nCOPY Dockerfile /x\n").ok();
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

#[test]
fn links_of_an_image_that_lead_nowhere_bad_keep_working() {
    let attack = Attack::new();
    let links = Forge::new().dir("usr/lib").dir("usr/bin").link("lib", "/usr/lib").link("bin", "usr/bin");
    let links = links.link("etc/mtab", "/proc/mounts").link("a", "/nowhere");
    attack.image(ForgedImage::new().layer(links.end()));
    let tar = Forge::new().file("lib/x", "x").file("bin/y", "y").hardlink("lib/z", "lib/x").end();
    attack.project.file("t.tar", tar).file("f", "f");
    let out = attack.project.path().join("out");
    let to = format!("type=local,dest={}", out.display());
    attack.build_with("FROM evil\nADD t.tar /\nCOPY f /lib/\nCOPY f /a/\n", &["-o", &to]).ok();
    for (path, content) in
        [("usr/lib/x", "x"), ("usr/bin/y", "y"), ("usr/lib/z", "x"), ("usr/lib/f", "f"), ("nowhere/f", "f")]
    {
        assert_eq!(fs::read_to_string(out.join(path)).unwrap(), content, "{path}");
    }
    assert_eq!(std::os::unix::fs::MetadataExt::nlink(&fs::metadata(out.join("usr/lib/z")).unwrap()), 2);
    for (link, target) in [("lib", "/usr/lib"), ("bin", "usr/bin"), ("etc/mtab", "/proc/mounts"), ("a", "/nowhere")] {
        assert_eq!(fs::read_link(out.join(link)).unwrap(), Path::new(target));
    }
}
