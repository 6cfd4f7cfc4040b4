//! Digests of images that must not change: the same Dockerfile and files make the same bytes in every version.
//!
//! They are in `golden.txt`. Whoever changes one breaks the promise that an image can be built again, and says so in
//! `CHANGELOG.md`.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use rustix::fs::XattrFlags;

use crate::project::{Project, run};
use crate::reproducible::{busybox, digest};

/// A stage that lends a shell to the steps of an image that has none; its version is in no layer.
const SHELL: &str = "FROM scratch AS tools\nCOPY busybox /bin/busybox\nFROM scratch\n";
/// Begins a step with that shell.
const RUN: &str = "RUN --mount=type=bind,from=tools,source=/bin,target=/t [\"/t/busybox\", \"sh\", \"-c\", ";

/// A name, a Dockerfile, and what the output asks for.
const CASES: [(&str, &str, &str); 20] = [
    ("one file", "FROM scratch\nCOPY a /\n", ""),
    (
        "all of the context",
        "FROM scratch\nCOPY --exclude=busybox --exclude=*.gz --exclude=Dockerfile --exclude=large . /src/\n",
        "",
    ),
    ("modes and owners", "FROM scratch\nCOPY --chmod=4750 --chown=7:8 a /a\nCOPY --chown=70000:70001 d /d\n", ""),
    ("modes in letters", "FROM scratch\nCOPY --chmod=go-rwx,u+x d /d\n", ""),
    ("links", "FROM scratch\nCOPY --exclude=deep d /l/\n", ""),
    ("attributes", "FROM scratch\nCOPY attributed /\n", ""),
    ("an archive", "FROM scratch\nADD archive.tar.gz /x/\n", ""),
    ("a directory to work in", "FROM scratch\nUSER 5:6\nWORKDIR /w/x\nWORKDIR y\nCOPY a .\n", ""),
    (
        "stages",
        "FROM scratch AS one\nCOPY d /d\nFROM one AS two\nCOPY a /b\nFROM scratch\nCOPY --from=two /d/c /b /\n",
        "",
    ),
    ("linked copies", "FROM scratch\nCOPY a /\nCOPY --link d /d\nCOPY --link --chown=1:2 a /e/f/\n", ""),
    ("text in the file", "FROM scratch\nCOPY <<one <<\"two\" /t/\n1\none\n$2\ntwo\n", ""),
    ("parents and what is left out", "FROM scratch\nCOPY --parents --exclude=*/link d/c d/deep /p/\n", ""),
    (
        "config",
        "FROM scratch\nARG V=1\nENV A=1 B=\"$A$V\"\nLABEL a.b=\"c d\" e=f\nEXPOSE 80 53/udp\nVOLUME /v\nUSER u:g\n\
         STOPSIGNAL SIGINT\nSHELL [\"/x\", \"-c\"]\nHEALTHCHECK --interval=5s --retries=2 CMD true\nENTRYPOINT [\"/e\"]\n\
         CMD one two\nONBUILD COPY a /\nMAINTAINER me\n",
        "",
    ),
    ("deletions", "COPY d /d\nCOPY a /\n$RUN \"/t/busybox rm -r /d/deep /a\"]\n", ""),
    (
        "a directory made anew",
        "COPY d /d\n$RUN \"/t/busybox rm -r /d && /t/busybox mkdir /d && echo x >/d/new\"]\n",
        "",
    ),
    (
        "hard links, pipes and times",
        "$RUN \"echo x >/h && /t/busybox ln /h /i && /t/busybox mkfifo /p && /t/busybox touch -d @5 /h\"]\n",
        "",
    ),
    ("without compression", "FROM scratch\nCOPY large d /\n", "compression=uncompressed"),
    ("gzip", "FROM scratch\nCOPY large d /\n", "compression=gzip"),
    ("zstd", "FROM scratch\nCOPY large d /\n", "compression=zstd"),
    (
        "docker's media types, at another time",
        "FROM scratch\nCOPY a /\nLABEL a=b\n",
        "oci-mediatypes=false,source-date-epoch=1700000000",
    ),
];

/// The files that the cases copy.
fn files(context: &Path) {
    let write = |name: &str, content: &[u8]| {
        let path = context.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    };
    write("a", b"a\n");
    write("d/c", b"c\n");
    write("d/deep/er/f", b"");
    write(&format!("d/{}/ü \u{1f980}", "long".repeat(40)), b"x");
    let script = write("run.sh", b"#!/bin/sh\n");
    fs::set_permissions(script, fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir_all(context.join("d/empty")).unwrap();
    symlink("c", context.join("d/link")).unwrap();
    symlink("/no/where", context.join("d/dangling")).unwrap();
    let attributed = write("attributed", b"x\n");
    fs::set_permissions(&attributed, fs::Permissions::from_mode(0o644)).unwrap();
    rustix::fs::setxattr(attributed, "user.kiln", b"\x00\xff", XattrFlags::empty()).unwrap();
    // More than one block of a compressor; some of it shrinks and some does not.
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let large: Vec<u8> = (0..3_000_000_u32).map(|at| if at % 4096 < 2048 { next() } else { b'x' }).collect();
    write("large", &large);
    write("packed/one", b"1\n");
    write("packed/two/three", b"3\n");
    let flags =
        ["--sort=name", "--mtime=@1", "--owner=5", "--group=6", "--numeric-owner", "--mode=u=rwX,go=rX", "-czf"];
    run(Command::new("tar").args(flags).args(["archive.tar.gz", "-C", "packed", "."]).current_dir(context)).ok();
}

/// Builds one case; gives what is in the manifest, a digest a line.
fn digests(project: &Project, (name, dockerfile, output): &(&str, &str, &str)) -> String {
    let shell = if dockerfile.starts_with("FROM") { "" } else { SHELL };
    let layout = project.path().join("layout");
    fs::write(project.context().join("Dockerfile"), format!("{shell}{}", dockerfile.replace("$RUN ", RUN))).unwrap();
    let _ = fs::remove_dir_all(&layout);
    let to = format!("type=oci,tar=false,dest={},{output}", layout.display());
    // What is reproducible has none of the context's attributes.
    let times = if *name == "attributes" { "--timestamp=0" } else { "--reproducible" };
    project.kiln(&["build", "--progress=plain", times, "-o", to.trim_end_matches(','), "context"]).ok();
    let manifest = digest(&layout);
    let text = fs::read(layout.join("blobs").join(manifest.replace(':', "/"))).unwrap();
    let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let digest = |of: &serde_json::Value| of["digest"].as_str().unwrap().to_owned();
    let layers = value["layers"].as_array().unwrap().iter().map(digest);
    let mut told = format!("{name}\n  manifest {manifest}\n  config {}\n", digest(&value["config"]));
    layers.for_each(|layer| writeln!(told, "  layer {layer}").unwrap());
    told
}

#[test]
fn images_have_the_digests_they_always_had() {
    if !cfg!(target_arch = "x86_64") {
        return kiln_testkit::skip("the digests are those of images for amd64");
    }
    let project = Project::bare();
    files(&project.context());
    busybox(&project.context().join("busybox"));
    let told: String = CASES.iter().map(|case| digests(&project, case)).collect();
    let golden = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/golden.txt")).unwrap();
    assert!(
        told == golden,
        "digests have changed: images that were built before cannot be built again. Undo that; or, when it must be, put \
         this into crates/kiln/tests/e2e/golden.txt and say so in CHANGELOG.md:\n{told}"
    );
}
