//! Claims about digests: what counts, what does not, and that their definition stands still.
#![allow(clippy::disallowed_methods, reason = "tests name files of the machine")]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a failing set-up is a failing test")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use kiln_fs::layer::{pack, pack_tree};
use kiln_fs::pattern::PatternSet;
use kiln_fs::{CopySpec, MemoryCache, NoCache, SourceTree, StatCache, StatKey, digest_copy, digest_tree};
use kiln_oci::Digest;
use support::{Scratch, context, root, spec, tree, write};

const FILES: &[&str] = &["a=A", "d/x=X", "d/e/y=Y", "d/l->x", "empty/"];

/// The digest of `COPY src` out of `dir`, as a context of whoever runs the test.
fn digest(dir: &Path, src: &str) -> Digest {
    digest_copy(&SourceTree::context(root(dir), None), &CopySpec::docker(src, "/"), &NoCache).unwrap()
}

/// Makes modes independent of the umask.
fn settle(dir: &Path) {
    for line in support::show(dir) {
        let name = line.split(['=', '|']).next().unwrap();
        if !line.contains("->") {
            let mode = if line.ends_with('/') { 0o755 } else { 0o644 };
            fs::set_permissions(dir.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
    }
}

fn settled(scratch: &Scratch, name: &str, files: &[&str]) -> std::path::PathBuf {
    let dir = scratch.dir(name, files);
    settle(&dir);
    dir
}

#[test]
fn what_changes_the_result_changes_the_digest_and_nothing_else_does() {
    let scratch = Scratch::new();
    let dir = settled(&scratch, "t", FILES);
    let before = digest(&dir, ".");
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
    for path in ["a", "d/x", "d"] {
        fs::File::open(dir.join(path)).unwrap().set_modified(old).unwrap();
    }
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(digest(&dir, "."), before, "touching, or the mode of the context itself");
    type Change<'a> = (&'a str, &'a dyn Fn(&Path));
    let changes: &[Change<'_>] = &[
        ("content", &|dir| fs::write(dir.join("d/e/y"), "Z").unwrap()),
        ("mode", &|dir| fs::set_permissions(dir.join("a"), fs::Permissions::from_mode(0o755)).unwrap()),
        ("mode of a directory", &|dir| {
            fs::set_permissions(dir.join("d/e"), fs::Permissions::from_mode(0o700)).unwrap();
        }),
        ("a name", &|dir| fs::rename(dir.join("a"), dir.join("b")).unwrap()),
        ("an empty directory", &|dir| fs::remove_dir(dir.join("empty")).unwrap()),
        ("a link's target", &|dir| {
            fs::remove_file(dir.join("d/l")).unwrap();
            std::os::unix::fs::symlink("e", dir.join("d/l")).unwrap();
        }),
        ("a kind", &|dir| {
            fs::remove_file(dir.join("a")).unwrap();
            write(dir, &["a|"]);
        }),
        ("a place", &|dir| fs::rename(dir.join("d/x"), dir.join("x")).unwrap()),
        ("an attribute", &|dir| {
            let file = fs::File::open(dir.join("a")).unwrap();
            kiln_sys::xattr::set(&file, "user.kind", b"new").unwrap();
        }),
    ];
    for (number, (what, change)) in changes.iter().enumerate() {
        let dir = settled(&scratch, &format!("c{number}"), FILES);
        assert_eq!(digest(&dir, "."), before, "the same tree elsewhere");
        change(&dir);
        assert_ne!(digest(&dir, "."), before, "{what}");
    }
}

#[test]
fn only_what_is_copied_counts() {
    let scratch = Scratch::new();
    let dir = settled(&scratch, "t", FILES);
    let of = |spec: &CopySpec| digest_copy(&context(&dir, &["**/*.log", "tmp"]), spec, &NoCache).unwrap();
    let no_e = spec("d", "/", |s| s.exclude = vec!["e".into()]);
    let all = CopySpec::docker(".", "/");
    let before = [of(&CopySpec::docker("d", "/")), of(&no_e), of(&all), of(&CopySpec::docker("[a]", "/"))];
    write(&dir, &["x.log", "tmp/much", "d/y.log"]);
    assert_eq!(of(&all), before[2], "hidden files");
    fs::write(dir.join("d/e/y"), "changed").unwrap();
    assert_eq!(of(&no_e), before[1], "excluded files");
    assert_ne!(of(&CopySpec::docker("d", "/")), before[0]);
    assert_ne!(of(&all), before[2]);
    assert_eq!(of(&CopySpec::docker("[a]", "/")), before[3], "another file");
    write(&dir, &["d/more=1"]);
    assert_ne!(of(&no_e), before[1]);
}

#[test]
fn hard_links_count_as_files() {
    let scratch = Scratch::new();
    let (linked, apart) = (scratch.dir("l", &["a=A", "b=>a"]), scratch.dir("p", &["a=A", "b=A"]));
    [&linked, &apart].into_iter().for_each(|dir| settle(dir));
    assert_eq!(digest(&linked, "."), digest(&apart, "."));
}

#[test]
fn a_subtree_has_its_own_digest() {
    let scratch = Scratch::new();
    let dir = scratch.dir("t", &["d/x=X", "l->d", "other"]);
    let of = |path: &str| digest_tree(&tree(&dir), path, &NoCache).unwrap();
    let before = of("d");
    assert_eq!(of("/l"), before, "links are followed");
    write(&dir, &["other=changed"]);
    assert_eq!(of("d"), before);
    fs::set_permissions(dir.join("d"), fs::Permissions::from_mode(0o711)).unwrap();
    assert_ne!(of("d"), before);
    assert!(digest_tree(&context(&dir, &["d"]), "d", &NoCache).is_err());
}

/// Counts what is asked for.
#[derive(Default)]
struct Counting {
    memory: MemoryCache,
    hits: AtomicUsize,
    puts: AtomicUsize,
}

impl StatCache for Counting {
    fn get(&self, key: &StatKey) -> Option<Digest> {
        self.memory.get(key).inspect(|_| {
            self.hits.fetch_add(1, Ordering::Relaxed);
        })
    }

    fn put(&self, key: &StatKey, digest: Digest) {
        self.puts.fetch_add(1, Ordering::Relaxed);
        self.memory.put(key, digest);
    }
}

#[test]
fn unchanged_files_are_not_read_again_and_changed_ones_are() {
    let scratch = Scratch::new();
    let dir = settled(&scratch, "t", FILES);
    let cache = Counting::default();
    let of = || digest_copy(&tree(&dir), &CopySpec::docker(".", "/"), &cache).unwrap();
    let date = |time: SystemTime| {
        for path in ["a", "d/x", "d/e/y"] {
            fs::File::open(dir.join(path)).unwrap().set_modified(time).unwrap();
        }
    };
    // However slow the machine is, this moment stays now for long.
    date(SystemTime::now() + Duration::from_secs(1000));
    let first = of();
    assert_eq!(cache.puts.load(Ordering::Relaxed), 0, "files changed just now are not remembered");
    date(SystemTime::UNIX_EPOCH);
    std::thread::sleep(Duration::from_millis(60));
    assert_eq!(of(), first);
    assert_eq!(of(), first);
    assert_eq!((cache.hits.load(Ordering::Relaxed), cache.puts.load(Ordering::Relaxed)), (3, 3));
    fs::write(dir.join("a"), "B").unwrap();
    assert_ne!(of(), first);
    fs::write(dir.join("a"), "A").unwrap();
    assert_eq!(of(), first, "the content is what counts");
}

#[test]
fn hidden_files_are_never_opened() {
    let scratch = Scratch::new();
    let dir = settled(&scratch, "t", &["keep=K", "no/secret=S", "id_rsa=R", "sub/id_rsa=R", "sub/ok=O"]);
    let ignore = PatternSet::new(&["no", "**/id_rsa"]).unwrap();
    // Reading moves a file's access time, if it lies before the modification time.
    let (atime, mtime) = (SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH + Duration::from_secs(9));
    let paths = ["keep", "no/secret", "id_rsa", "sub/id_rsa", "sub/ok"];
    for path in paths {
        let times = fs::FileTimes::new().set_accessed(atime).set_modified(mtime);
        fs::File::open(dir.join(path)).unwrap().set_times(times).unwrap();
    }
    let mut tree = SourceTree::context(root(&dir), None);
    tree.ignore = Some(ignore);
    digest_copy(&tree, &CopySpec::docker(".", "/"), &NoCache).unwrap();
    digest_copy(&tree, &CopySpec::docker("*", "/"), &NoCache).unwrap();
    let was_read = paths.map(|path| fs::metadata(dir.join(path)).unwrap().accessed().unwrap() != atime);
    if !was_read[0] {
        eprintln!("skipped the claim: this filesystem keeps no access times");
        return;
    }
    assert_eq!(was_read, [true, false, false, false, true]);
}

/// A tree that is the same wherever and by whomever it is made.
fn golden(scratch: &Scratch) -> std::path::PathBuf {
    let dir =
        settled(scratch, "golden", &["bin/tool=#!/bin/sh\n", "etc/conf=key\n", "lib->usr/lib", "usr/lib/x=", "run/p|"]);
    write(&dir, &["etc/same=>etc/conf"]);
    fs::write(dir.join("usr").join("n".repeat(120)), "long").unwrap();
    fs::set_permissions(dir.join("usr").join("n".repeat(120)), fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(dir.join("bin/tool"), fs::Permissions::from_mode(0o4755)).unwrap();
    dir
}

#[test]
fn tree_digests_keep_their_definition() {
    let scratch = Scratch::new();
    let dir = golden(&scratch);
    let expected = "sha256:104e8d29ae17a3a08f9b117ef1852e6ce87fe8ba6e8333eb44ba332bd88ed099";
    assert_eq!(digest(&dir, ".").as_str(), expected);
}

#[test]
fn layer_digests_keep_their_definition() {
    require_root!();
    let scratch = Scratch::new();
    let dir = golden(&scratch);
    let stamp = |path: &Path| {
        let time = kiln_sys::metadata::Timestamp { secs: 1_700_000_000, nanos: 250_000_000 };
        let handle = root(&dir).open_nofollow(path.strip_prefix(&dir).unwrap()).unwrap();
        kiln_sys::root::set_times(&handle, time).unwrap();
        kiln_sys::root::set_owner(&handle, 70_000, 3_000_000_000).unwrap();
        if handle_is_file(&handle) {
            kiln_sys::root::set_mode(&handle, 0o644).unwrap();
            kiln_sys::xattr::set(&handle, "user.k", b"v=1\n").unwrap();
            kiln_sys::root::set_times(&handle, time).unwrap();
        }
    };
    for line in support::show(&dir) {
        let name = line.split("->").next().unwrap().split('=').next().unwrap().trim_end_matches(['/', '|']);
        stamp(&dir.join(name));
    }
    let mut merged = Vec::new();
    pack_tree(&root(&dir), &mut merged).unwrap();
    assert_eq!(
        Digest::sha256(&merged).as_str(),
        "sha256:75615c99b8708118ac7d6a98da6ce6b879401c60b94f9a9beae02c5f0d8b0ea5"
    );
    let whiteout = rustix::fs::FileType::CharacterDevice;
    rustix::fs::mknodat(rustix::fs::CWD, dir.join("etc/gone"), whiteout, 0.into(), 0).unwrap();
    kiln_sys::xattr::set(fs::File::open(dir.join("bin")).unwrap(), "trusted.overlay.opaque", b"y").unwrap();
    stamp(&dir.join("etc"));
    let mut layer = Vec::new();
    pack(&root(&dir), &mut layer).unwrap();
    assert_eq!(
        Digest::sha256(&layer).as_str(),
        "sha256:cf06916c9e88dac1e1778d482b9154a52d93fc36354209e4d55aabf02b371334"
    );
}

fn handle_is_file(handle: impl std::os::fd::AsFd) -> bool {
    kiln_sys::metadata::Metadata::of(handle).unwrap().is_file()
}
