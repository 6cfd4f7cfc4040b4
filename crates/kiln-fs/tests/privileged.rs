//! Claims that need root: owners, devices, trusted attributes, and that the kernel's overlay agrees with us.
#![allow(clippy::disallowed_methods, reason = "tests name files of the machine")]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a failing set-up is a failing test")]

mod support;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use kiln_fs::layer::{ApplyOptions, Target, apply, apply_with, pack, pack_tree};
use kiln_fs::{CopySpec, Limits, NoCache, SourceTree, copy, digest_copy, materialize};
use kiln_sys::metadata::Timestamp;
use kiln_sys::mount::Overlay;
use kiln_sys::root::{set_mode, set_owner, set_times};
use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode, OFlags, makedev};
use support::{Scratch, describe, root, show, spec, write, xattrs};

/// What stands under a name.
#[derive(Debug, Clone)]
enum Node {
    File(Vec<u8>),
    Sparse(u64),
    Directory { opaque: bool },
    Symlink(Vec<u8>),
    Hardlink(usize),
    Device(FileType, u32, u32),
    Fifo,
    Whiteout,
}

/// How it looks.
#[derive(Debug, Clone)]
struct Look {
    mode: u32,
    owner: (u32, u32),
    time: Timestamp,
    attribute: Option<Vec<u8>>,
    capability: bool,
}

type Tree = Vec<(Vec<&'static [u8]>, Node, Look)>;

const LONG: &[u8] = &[b'n'; 255];
const NAMES: &[&[u8]] = &[
    b"a",
    b"b",
    b"dir",
    b"\xc3\xbc",
    b"\xff\xfe",
    b"x\ny",
    b" blank ",
    b"-rf",
    b"tab\t",
    b".wh",
    b"PaxHeaders.0",
    LONG,
];

fn node() -> impl Strategy<Value = Node> {
    prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..3000).prop_map(Node::File),
        1 => (1u64..5 << 20).prop_map(Node::Sparse),
        4 => any::<bool>().prop_map(|opaque| Node::Directory { opaque }),
        2 => prop::collection::vec(1u8.., 1..300).prop_map(Node::Symlink),
        2 => any::<prop::sample::Index>().prop_map(|index| Node::Hardlink(index.index(1000))),
        1 => (1u32..200, 0u32..70_000).prop_map(|(major, minor)| Node::Device(FileType::CharacterDevice, major, minor)),
        1 => (0u32..200, 0u32..9).prop_map(|(major, minor)| Node::Device(FileType::BlockDevice, major, minor)),
        1 => Just(Node::Fifo),
        1 => Just(Node::Whiteout),
    ]
}

fn look() -> impl Strategy<Value = Look> {
    let owner = prop_oneof![Just(0u32), Just(1000), Just(65_536), Just(2_097_152), Just(4_000_000_000)];
    let time = (-2_000_000_000i64..10_000_000_000, prop_oneof![Just(0u32), 0u32..1_000_000_000]);
    let attribute = prop::option::weighted(0.2, prop::collection::vec(any::<u8>(), 0..600));
    (0u32..0o10000, owner.clone(), owner, time, attribute, prop::bool::weighted(0.1)).prop_map(
        |(mode, uid, gid, (secs, nanos), attribute, capability)| Look {
            mode,
            owner: (uid, gid),
            time: Timestamp { secs, nanos },
            attribute,
            capability,
        },
    )
}

fn trees() -> impl Strategy<Value = Tree> {
    let path = prop::collection::vec(prop::sample::select(NAMES), 1..6);
    prop::collection::vec((path, node(), look()), 0..40)
}

/// Puts a tree on disk as far as it makes sense: later nodes give way to earlier ones.
fn build(dir: &Path, tree: &Tree) {
    let mut files: Vec<PathBuf> = Vec::new();
    let mut made: Vec<(PathBuf, &Look, bool)> = Vec::new();
    for (names, node, look) in tree {
        let path = names.iter().fold(dir.to_owned(), |path, name| path.join(OsStr::from_bytes(name)));
        let _ = fs::create_dir_all(path.parent().unwrap());
        let (mode, zero) = (Mode::from_raw_mode(0o600), makedev(0, 0));
        let is_made = match node {
            // Not through a link that leads nowhere yet: that would make another node than this one.
            Node::File(content) => fs::symlink_metadata(&path).is_err() && fs::write(&path, content).is_ok(),
            Node::Sparse(size) => {
                let file = fs::File::options().write(true).create_new(true).open(&path);
                file.and_then(|file| file.set_len(*size)).is_ok()
            }
            Node::Directory { .. } => fs::create_dir(&path).is_ok(),
            Node::Symlink(target) => symlink(OsStr::from_bytes(target), &path).is_ok(),
            Node::Hardlink(index) => {
                !files.is_empty() && fs::hard_link(&files[index % files.len()], &path).is_ok() && continue
            }
            Node::Device(kind, major, minor) => {
                rustix::fs::mknodat(CWD, &path, *kind, mode, makedev(*major, *minor)).is_ok()
            }
            Node::Fifo => rustix::fs::mknodat(CWD, &path, FileType::Fifo, mode, zero).is_ok(),
            Node::Whiteout => {
                let _ = rustix::fs::mknodat(CWD, &path, FileType::CharacterDevice, Mode::empty(), zero);
                continue;
            }
        };
        if !is_made {
            continue;
        }
        if matches!(node, Node::File(_) | Node::Sparse(_)) {
            files.push(path.clone());
        }
        made.push((path, look, matches!(node, Node::Directory { opaque: true })));
    }
    for (path, look, is_opaque) in made.iter().rev() {
        dress(path, look, *is_opaque);
    }
}

fn dress(path: &Path, look: &Look, is_opaque: bool) {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let handle = rustix::fs::openat(CWD, path, flags, Mode::empty()).unwrap();
    let kind = fs::symlink_metadata(path).unwrap().file_type();
    set_owner(&handle, look.owner.0, look.owner.1).unwrap();
    if !kind.is_symlink() {
        set_mode(&handle, look.mode).unwrap();
    }
    if let Some(value) = look.attribute.as_ref().filter(|_| kind.is_file() || kind.is_dir()) {
        kiln_sys::xattr::set(&handle, "user.any", value).unwrap();
    }
    if look.capability && kind.is_file() {
        let value = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        kiln_sys::xattr::set(&handle, "security.capability", &value).unwrap();
    }
    if is_opaque {
        kiln_sys::xattr::set(&handle, "trusted.overlay.opaque", b"y").unwrap();
    }
    set_times(&handle, look.time).unwrap();
}

/// Directories that were only made to hold something carry the clock's time; what is kept of them is checked.
fn kept(dir: &Path) -> Vec<String> {
    describe(dir).into_iter().map(|line| line.replace("blocks<=true", "").replace("blocks<=false", "")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_packed_comes_back_as_it_was(tree in trees()) {
        if !support::is_root() {
            eprintln!("skipped what_is_packed_comes_back_as_it_was: it needs root");
            return Ok(());
        }
        let scratch = Scratch::new();
        let (upper, again) = (scratch.dir("upper", &[]), scratch.dir("again", &[]));
        build(&upper, &tree);
        let mut layer = Vec::new();
        pack(&root(&upper), &mut layer).unwrap();
        prop_assert_eq!(layer.len() % 512, 0);
        let stats = apply(&layer[..], &root(&again), &Limits::default()).unwrap();
        prop_assert_eq!(stats.implied.len(), 0);
        prop_assert_eq!(kept(&again), kept(&upper));
        let mut repeated = Vec::new();
        pack(&root(&again), &mut repeated).unwrap();
        prop_assert!(layer == repeated, "packing the copy gives other bytes");
    }

    #[test]
    fn a_copied_tree_packs_to_the_same_bytes(tree in trees()) {
        if !support::is_root() {
            eprintln!("skipped a_copied_tree_packs_to_the_same_bytes: it needs root");
            return Ok(());
        }
        let scratch = Scratch::new();
        let (from, to) = (scratch.dir("from", &[]), scratch.dir("to", &[]));
        build(&from, &tree);
        let source = SourceTree::snapshot(root(&from));
        copy(&source, &root(&to), &CopySpec::docker("/", "/")).unwrap();
        let packed = |dir: &Path| {
            let mut bytes = Vec::new();
            pack_tree(&root(dir), &mut bytes).unwrap();
            bytes
        };
        prop_assert!(packed(&from) == packed(&to));
        let digest = |dir: &Path| {
            digest_copy(&SourceTree::snapshot(root(dir)), &CopySpec::docker("/", "/"), &NoCache).unwrap()
        };
        prop_assert_eq!(digest(&from), digest(&to));
    }
}

/// One change of a layer: a path and what becomes of it.
#[derive(Debug, Clone)]
enum Change {
    File(u8),
    Directory,
    Link,
    Gone,
    Emptied,
}

fn layers() -> impl Strategy<Value = Vec<BTreeMap<String, Change>>> {
    let path =
        prop::collection::vec(prop::sample::select(&["a", "b", "c"][..]), 1..4).prop_map(|names| names.join("/"));
    let change = prop_oneof![
        3 => any::<u8>().prop_map(Change::File),
        3 => Just(Change::Directory),
        1 => Just(Change::Link),
        3 => Just(Change::Gone),
        1 => Just(Change::Emptied),
    ];
    prop::collection::vec(prop::collection::btree_map(path, change, 1..8), 1..4)
}

/// Writes a layer as a strict tool would: every directory on the way is an entry, no name is two things.
fn write_layer(changes: &BTreeMap<String, Change>) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |name: &str, kind: tar::EntryType, content: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_size(content.len() as u64);
        if kind == tar::EntryType::Symlink {
            header.set_link_name("a").unwrap();
        }
        tar.append_data(&mut header, name, content).unwrap();
    };
    let mut directories = std::collections::BTreeSet::new();
    for (path, change) in changes {
        let names: Vec<&str> = path.split('/').collect();
        let parents: Vec<String> = (1..names.len()).map(|n| names[..n].join("/")).collect();
        let is_blocked =
            parents.iter().any(|parent| matches!(changes.get(parent), Some(Change::File(_) | Change::Link)));
        if is_blocked {
            continue;
        }
        for parent in &parents {
            if directories.insert(parent.clone()) {
                add(parent, tar::EntryType::Directory, b"");
            }
        }
        let (parent, name) =
            path.rsplit_once('/').map_or((String::new(), path.as_str()), |(p, n)| (format!("{p}/"), n));
        match change {
            Change::File(byte) => add(path, tar::EntryType::Regular, &[*byte]),
            Change::Link => add(path, tar::EntryType::Symlink, b""),
            Change::Directory if directories.insert(path.clone()) => add(path, tar::EntryType::Directory, b""),
            Change::Directory => {}
            Change::Gone => add(&format!("{parent}.wh.{name}"), tar::EntryType::Regular, b""),
            Change::Emptied => {
                if directories.insert(path.clone()) {
                    add(path, tar::EntryType::Directory, b"");
                }
                add(&format!("{path}/.wh..wh..opq"), tar::EntryType::Regular, b"");
            }
        }
    }
    tar.into_inner().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    /// The kernel is the judge: layers unpacked apart and stacked show what unpacking one onto the other gives.
    #[test]
    fn stacked_layers_show_what_merging_them_gives(changes in layers()) {
        if !support::is_root() {
            eprintln!("skipped stacked_layers_show_what_merging_them_gives: it needs root");
            return Ok(());
        }
        let scratch = Scratch::new();
        let merged = scratch.dir("merged", &[]);
        let mut lowers = vec![scratch.dir("bottom", &[])];
        for (number, changes) in changes.iter().enumerate() {
            let layer = write_layer(changes);
            let own = scratch.dir(&format!("layer{number}"), &[]);
            apply(&layer[..], &root(&own), &Limits::default()).unwrap();
            lowers.insert(0, own);
            let options = ApplyOptions { target: Target::Merged, ..ApplyOptions::default() };
            apply_with(&layer[..], &root(&merged), &options).unwrap();
        }
        let mounted = Overlay { lowers, upper: None, userxattr: false }.mount_detached().unwrap();
        let stacked = show(Path::new(&format!("/proc/self/fd/{}/", mounted.as_fd().as_raw_fd())));
        prop_assert_eq!(stacked, show(&merged));
    }
}

#[test]
fn a_deletion_and_what_comes_after_it_hide_what_was_before() {
    require_root!();
    let cases: &[(&[&str], &[&str])] = &[
        // Gone, then a directory again: opaque.
        (&[".wh.d", "d/", "d/new"], &["d/", "d/new"]),
        (&["d/", "d/new", ".wh.d"], &["d/", "d/new"]),
        // The same without an entry for the directory.
        (&[".wh.d", "d/new"], &["d/", "d/new"]),
        (&["d/new", "d/.wh..wh..opq"], &["d/", "d/new"]),
        (&["d/.wh..wh..opq", "d/new"], &["d/", "d/new"]),
        (&[".wh.d", "d"], &["d"]),
        (&["d", ".wh.d"], &["d"]),
        (&["d/", "d/.wh.old"], &["d/", "d/sub/", "d/sub/older=d/sub/older"]),
        (&["d/", "d/.wh.old", "d/.wh.sub", "d/.wh..wh..opq"], &["d/"]),
        (&["new/", "new/.wh.gone", ".wh.d"], &["new/"]),
        (&[".wh.d"], &[]),
    ];
    for (entries, expected) in cases {
        let mut tar = tar::Builder::new(Vec::new());
        for name in *entries {
            let mut header = tar::Header::new_ustar();
            let is_dir = name.ends_with('/');
            header.set_entry_type(if is_dir { tar::EntryType::Directory } else { tar::EntryType::Regular });
            header.set_mode(0o755);
            header.set_size(0);
            tar.append_data(&mut header, name, &b""[..]).unwrap();
        }
        let layer = tar.into_inner().unwrap();
        let scratch = Scratch::new();
        let (lower, own) = (scratch.dir("lower", &["d/old", "d/sub/older"]), scratch.dir("own", &[]));
        apply(&layer[..], &root(&own), &Limits::default()).unwrap();
        let lowers = vec![own, lower];
        let mounted = Overlay { lowers, upper: None, userxattr: false }.mount_detached().unwrap();
        let shown = show(Path::new(&format!("/proc/self/fd/{}/", mounted.as_raw_fd())));
        let shown: Vec<_> = shown.iter().map(|line| line.trim_end_matches('=')).collect();
        assert_eq!(shown, *expected, "{entries:?}");
    }
}

#[test]
fn directories_without_an_entry_are_reported() {
    require_root!();
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(0);
    header.set_mode(0o600);
    tar.append_data(&mut header, "tmp/sub/f", &b""[..]).unwrap();
    header.set_entry_type(tar::EntryType::Directory);
    tar.append_data(&mut header, "tmp/", &b""[..]).unwrap();
    let layer = tar.into_inner().unwrap();
    let scratch = Scratch::new();
    let stats = apply(&layer[..], &root(&scratch.dir("d", &[])), &Limits::default()).unwrap();
    assert_eq!(stats.implied, [b"tmp/sub".to_vec()]);
}

#[test]
fn implied_directories_look_as_they_do_below() {
    require_root!();
    let scratch = Scratch::new();
    let layer = scratch.dir("layer", &["tmp/f", "lib/x", "new/y", "etc/deep/z"]);
    let middle = scratch.dir("middle", &["other"]);
    let bottom = scratch.dir("bottom", &["tmp/", "lib->usr/lib", "etc/deep/"]);
    kiln_sys::xattr::set(fs::File::open(bottom.join("tmp")).unwrap(), "user.k", b"v").unwrap();
    fs::set_permissions(bottom.join("tmp"), std::os::unix::fs::PermissionsExt::from_mode(0o1777)).unwrap();
    std::os::unix::fs::lchown(bottom.join("etc/deep"), Some(7), Some(8)).unwrap();
    let implied = ["tmp", "lib", "new", "etc", "etc/deep"].map(|path| path.as_bytes().to_vec());
    let below = [root(&middle), root(&bottom)];
    let conflicts = kiln_fs::layer::inherit_implied(&root(&layer), &implied, &below).unwrap();
    assert_eq!(conflicts, [b"lib".to_vec()]);
    assert_eq!(support::mode(&layer.join("tmp")), 0o1777);
    assert_eq!(xattrs(&layer.join("tmp")), [("user.k".to_owned(), b"v".to_vec())]);
    assert_eq!(fs::metadata(layer.join("etc/deep")).unwrap().uid(), 7);
    // What a layer in between has taken away is not inherited.
    let whiteout = FileType::CharacterDevice;
    rustix::fs::mknodat(CWD, middle.join("tmp"), whiteout, Mode::empty(), makedev(0, 0)).unwrap();
    fs::set_permissions(layer.join("tmp"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    kiln_fs::layer::inherit_implied(&root(&layer), &implied, &below).unwrap();
    assert_eq!(support::mode(&layer.join("tmp")), 0o755);
}

#[test]
fn the_root_entry_sets_the_look_of_the_root() {
    require_root!();
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(0o711);
    header.set_uid(7);
    header.set_gid(8);
    header.set_mtime(1000);
    header.set_size(0);
    tar.append_data(&mut header, "./", &b""[..]).unwrap();
    let layer = tar.into_inner().unwrap();
    let scratch = Scratch::new();
    let dest = scratch.dir("d", &[]);
    apply(&layer[..], &root(&dest), &Limits::default()).unwrap();
    let metadata = fs::metadata(&dest).unwrap();
    assert_eq!((metadata.mode() & 0o7777, metadata.uid(), metadata.gid(), metadata.mtime()), (0o711, 7, 8, 1000));
}

#[test]
fn the_hosts_own_attributes_do_not_travel() {
    require_root!();
    let scratch = Scratch::new();
    let (upper, again) = (scratch.dir("upper", &["f=x"]), scratch.dir("again", &[]));
    let file = fs::File::open(upper.join("f")).unwrap();
    for name in ["user.ok", "trusted.kept", "trusted.overlay.origin"] {
        kiln_sys::xattr::set(&file, name, b"v").unwrap();
    }
    let mut layer = Vec::new();
    pack(&root(&upper), &mut layer).unwrap();
    apply(&layer[..], &root(&again), &Limits::default()).unwrap();
    let names: Vec<String> = xattrs(&again.join("f")).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["trusted.kept", "user.ok"]);
    for name in ["trusted.overlay.metacopy", "trusted.overlay.redirect"] {
        kiln_sys::xattr::set(&file, name, b"").unwrap();
        assert!(pack(&root(&upper), &mut Vec::new()).is_err(), "{name}: the content is elsewhere");
        kiln_sys::xattr::remove(&file, name).unwrap();
    }
}

#[test]
fn names_that_mean_deletions_cannot_be_packed() {
    require_root!();
    let scratch = Scratch::new();
    let upper = scratch.dir("upper", &["d/.wh.trap"]);
    let error = pack(&root(&upper), &mut Vec::new()).unwrap_err().to_string();
    assert!(error.contains("d/.wh.trap"), "{error}");
    pack_tree(&root(&upper), &mut Vec::new()).unwrap();
}

#[test]
fn a_context_belongs_to_root_and_a_copy_to_whom_it_is_given() {
    require_root!();
    let scratch = Scratch::new();
    let src = scratch.dir("src", &["d/f", "d/l->f"]);
    for path in ["d", "d/f", "d/l"] {
        std::os::unix::fs::lchown(src.join(path), Some(1234), Some(5678)).unwrap();
    }
    let owner = |path: PathBuf| {
        let metadata = fs::symlink_metadata(path).unwrap();
        (metadata.uid(), metadata.gid())
    };
    let dst = scratch.dir("dst", &[]);
    let context = SourceTree::context(root(&src), None);
    copy(&context, &root(&dst), &CopySpec::docker("d", "/reset/")).unwrap();
    copy(&SourceTree::snapshot(root(&src)), &root(&dst), &CopySpec::docker(".", "/keep/")).unwrap();
    copy(&context, &root(&dst), &spec("d", "/given/deep", |s| s.owner = Some((70_000, 4_000_000_000)))).unwrap();
    let view = scratch.dir("view", &[]);
    materialize(&context, &root(&view)).unwrap();
    for path in ["f", "l"] {
        assert_eq!(owner(dst.join("reset").join(path)), (0, 0));
        assert_eq!(owner(dst.join("keep/d").join(path)), (1234, 5678));
        assert_eq!(owner(dst.join("given/deep").join(path)), (70_000, 4_000_000_000));
        assert_eq!(owner(view.join("d").join(path)), (0, 0));
    }
    assert_eq!(owner(dst.join("given")), (70_000, 4_000_000_000), "directories on the way too");
    let digest = |tree: &SourceTree| digest_copy(tree, &CopySpec::docker("d", "/"), &NoCache).unwrap();
    let before = digest(&context);
    std::os::unix::fs::lchown(src.join("d/f"), Some(1), Some(1)).unwrap();
    assert_eq!(digest(&context), before, "owners of a context do not count");
}

#[test]
fn copies_into_an_overlay_become_its_upper_layer() {
    require_root!();
    let scratch = Scratch::new();
    let lower = scratch.dir("lower", &["usr/lib/old", "lib->usr/lib", "etc/"]);
    let (upper, work) = (scratch.dir("upper", &[]), scratch.dir("work", &[]));
    let src = scratch.dir("src", &["lib/x", "f"]);
    let overlay = Overlay {
        lowers: vec![lower],
        upper: Some(kiln_sys::mount::Upper { upper: upper.clone(), work }),
        userxattr: false,
    };
    let mounted = kiln_sys::root::Root::new(overlay.mount_detached().unwrap());
    let tree = SourceTree::context(root(&src), None);
    copy(&tree, &mounted, &CopySpec::docker("lib", "/lib/")).unwrap();
    copy(&tree, &mounted, &CopySpec::docker("f", "/etc/f")).unwrap();
    drop(mounted);
    assert_eq!(show(&upper), ["etc/", "etc/f=f", "usr/", "usr/lib/", "usr/lib/x=lib/x"]);
    write(&upper, &["etc/g"]);
    let mut layer = Vec::new();
    pack(&root(&upper), &mut layer).unwrap();
    let mut names = Vec::new();
    for entry in tar::Archive::new(&layer[..]).entries().unwrap() {
        names.push(entry.unwrap().path().unwrap().to_string_lossy().into_owned());
    }
    assert_eq!(names, ["etc/", "etc/f", "etc/g", "usr/", "usr/lib/", "usr/lib/x"]);
}
