//! A tree without an overlay must show and leave what one shows and leaves.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "shell scripts say best what a step does")]

use std::collections::BTreeSet;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;

use kiln_fs::flat::{Names, TreeState, lay, take_changes, underlay};
use kiln_fs::layer::{PackOptions, Times, pack_with};
use kiln_sys::mount::{Overlay, Upper};
use kiln_sys::root::Root;
use tempfile::TempDir;

const BASE: &str = "mkdir -p etc opt/app/deep gone/dir keep tmp; chmod 1777 tmp; echo root >etc/passwd; echo x >opt/app/x; \
    echo y >opt/app/deep/y; echo z >gone/dir/z; echo k >keep/k; ln -s passwd etc/link; mkfifo keep/pipe; \
    echo one >keep/one; ln keep/one opt/two; chown 7:8 keep/one; truncate -s 1M keep/holes; touch -d @1000000000 keep opt/app/x";

const UPON: &str = "echo more >>etc/passwd; rm -r gone/dir; mkdir gone/dir; echo n >gone/dir/n; rm keep/k; mkdir -p new/deep; \
    echo f >new/deep/f; chmod 700 opt/app/deep; rm etc/link; mkdir etc/link; echo l >etc/link/l";

/// A state directory of two layers.
struct Ground(TempDir);

impl Ground {
    fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            kiln_testkit::skip("only root mounts");
            return None;
        }
        let ground = Self(tempfile::tempdir().unwrap());
        sh(&ground.dir("low"), BASE);
        let mount = ground.mount("mid", &["low"]);
        sh(&through(&mount), UPON);
        Some(ground)
    }

    fn dir(&self, name: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    fn root(&self, name: &str) -> Root {
        Root::open_ambient(self.dir(name)).unwrap()
    }

    fn mount(&self, upper: &str, lowers: &[&str]) -> OwnedFd {
        let upper = Upper { upper: self.dir(upper), work: self.dir(&format!("{upper}-work")) };
        let lowers = lowers.iter().map(|name| self.dir(name)).collect();
        Overlay { lowers, upper: Some(upper), userxattr: false }.mount_detached().unwrap()
    }

    fn lay(&self, layers: &[&str], into: &str, names: Names) -> PathBuf {
        let layers: Vec<_> = layers.iter().map(|name| self.root(name)).collect();
        lay(&layers, &self.root(into), names).unwrap();
        self.dir(into)
    }
}

fn through(mount: &OwnedFd) -> PathBuf {
    format!("/proc/{}/fd/{}", std::process::id(), mount.as_raw_fd()).into()
}

#[track_caller]
fn sh(dir: &Path, script: &str) {
    let script = format!("cd {}/ && set -e && {script}", dir.display());
    let status = Command::new("sh").args(["-c", &script]).status().unwrap();
    assert!(status.success(), "{script}");
}

fn packed(root: &Root, options: &PackOptions) -> Vec<u8> {
    let mut tar = Vec::new();
    pack_with(root, &mut tar, options).unwrap();
    tar
}

/// Names and kinds in an archive, to see in what two differ.
fn names(tar: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(tar);
    let entries = archive.entries().unwrap().map(Result::unwrap);
    entries
        .map(|entry| {
            let header = entry.header();
            let link = entry.link_name().unwrap().unwrap_or_default().into_owned();
            let (owner, mode) = (header.uid().unwrap(), header.mode().unwrap());
            format!("{} {:?} {owner} {mode:o} {}", entry.path().unwrap().display(), header.entry_type(), link.display())
        })
        .collect()
}

#[track_caller]
fn same(one: &[u8], other: &[u8]) {
    assert_eq!(names(one), names(other));
    assert!(one == other, "the contents differ");
}

#[test]
fn a_flat_tree_is_what_an_overlay_shows() {
    let Some(ground) = Ground::new() else { return };
    let flat = ground.lay(&["mid", "low"], "flat", Names::Kept);
    let view = Root::new(ground.mount("upper", &["mid", "low"]));
    let all = PackOptions::default();
    same(&packed(&Root::open_ambient(flat).unwrap(), &all), &packed(&view, &all));
}

#[test]
fn what_changes_in_a_flat_tree_is_what_an_overlay_keeps() {
    let scripts = [
        "true",
        "echo a >>opt/app/x",
        "chmod 644 opt/app/x && touch etc/passwd && chown 5 opt/app",
        "rm -r opt/app && mkdir opt/app && echo b >opt/app/b",
        "rm -r opt && echo file >opt",
        "rm etc/passwd && mkdir etc/passwd",
        "mkdir -p a/b/c && echo c >a/b/c/d && ln a/b/c/d a/second && ln -s b a/link && mkfifo a/pipe",
        "touch made && rm made && rm keep/pipe",
        "chown 9 keep/one opt/two",
        "rm opt/two",
        "ln opt/app/x opt/app/name",
        "mv opt/app/x keep/moved && mv keep/holes keep/renamed",
        "cp -a opt/app tmp/",
        "echo more >>keep/one",
        "chown -R 5 keep",
        "rm -r gone/dir && rmdir gone && rm -r etc/link",
        "setfattr -n user.note -v 1 keep/one 2>/dev/null || chmod 600 keep/one; chmod 600 opt/two",
    ];
    let Some(ground) = Ground::new() else { return };
    for (index, script) in scripts.iter().enumerate() {
        let [upper, plain, flat] = ["o", "n", "f"].map(|name| format!("{name}{index}"));
        let mount = ground.mount(&upper, &["mid", "low"]);
        let tree = ground.lay(&[&plain, "mid", "low"], &flat, Names::Parted);
        let before = TreeState::of(&ground.root(&flat)).unwrap();
        sh(&through(&mount), script);
        sh(&tree, script);
        drop(mount);
        take_changes(&ground.root(&flat), &before, &ground.root(&plain), &BTreeSet::new()).unwrap();
        let options = PackOptions { whiteouts: true, times: Times::Exactly(0), ..PackOptions::default() };
        println!("{script}");
        same(&packed(&ground.root(&plain), &options), &packed(&ground.root(&upper), &options));
    }
}

#[test]
fn what_is_apart_does_not_count() {
    let Some(ground) = Ground::new() else { return };
    let tree = ground.lay(&["upper", "mid", "low"], "flat", Names::Parted);
    let before = TreeState::of(&ground.root("flat")).unwrap();
    sh(&tree, "echo s >>keep/one && rm -r new && echo other >>etc/passwd");
    let apart = ["keep/one", "new", "opt/two"].map(|path| path.as_bytes().to_vec()).into();
    take_changes(&ground.root("flat"), &before, &ground.root("upper"), &apart).unwrap();
    let options = PackOptions { whiteouts: true, ..PackOptions::default() };
    let names = names(&packed(&ground.root("upper"), &options));
    assert!(names.iter().any(|name| name.starts_with("etc/passwd ")), "{names:?}");
    assert!(!names.iter().any(|name| name.contains("keep") || name.contains("new")), "{names:?}");
}

#[test]
fn a_directory_with_the_inode_of_the_one_before_is_another() {
    let Some(ground) = Ground::new() else { return };
    let tree = ground.lay(&["upper", "mid", "low"], "flat", Names::Parted);
    let before = TreeState::of(&ground.root("flat")).unwrap();
    // Filesystems give the number of what was removed last to what is made next.
    sh(&tree, "rm -r keep && mkdir keep && touch keep/new");
    take_changes(&ground.root("flat"), &before, &ground.root("upper"), &BTreeSet::new()).unwrap();
    let options = PackOptions { whiteouts: true, ..PackOptions::default() };
    let names = names(&packed(&ground.root("upper"), &options));
    let names: Vec<_> = names.iter().map(|name| name.split(' ').next().unwrap()).collect();
    assert_eq!(names, ["keep/", "keep/.wh..wh..opq", "keep/new"]);
}

#[test]
fn what_lies_below_all_is_seen_and_leaves_no_trace() {
    let Some(ground) = Ground::new() else { return };
    sh(
        &ground.dir("stubs"),
        "mkdir -p etc run/secrets proc; touch etc/hosts etc/passwd run/secrets/key; chmod 600 etc/hosts",
    );
    let tree = ground.lay(&["mid", "low"], "flat", Names::Kept);
    let all = PackOptions::default();
    let before = packed(&ground.root("flat"), &all);
    let under = underlay(&ground.root("stubs"), &ground.root("flat")).unwrap();
    sh(
        &tree,
        "[ -d proc ] && [ -f run/secrets/key ] && [ \"$(stat -c %a etc/hosts)\" = 600 ] && grep -q root etc/passwd",
    );
    under.take_out(&ground.root("flat")).unwrap();
    same(&packed(&ground.root("flat"), &all), &before);
    let under = underlay(&ground.root("stubs"), &ground.root("flat")).unwrap();
    sh(&tree, "echo mine >run/secrets/more");
    under.take_out(&ground.root("flat")).unwrap();
    sh(&tree, "[ ! -e run/secrets/key ] && [ -f run/secrets/more ] && [ ! -e proc ]");
}

#[test]
fn a_tree_without_its_changes_is_whole_again_with_them() {
    let Some(ground) = Ground::new() else { return };
    let tree = ground.lay(&["upper", "mid", "low"], "flat", Names::Parted);
    let before = TreeState::of(&ground.root("flat")).unwrap();
    sh(
        &tree,
        "echo a >>opt/app/x; rm -r gone/dir new; mkdir gone/dir; chmod 700 keep; ln -s x opt/link; rm etc/passwd",
    );
    let all = PackOptions::default();
    let changed = packed(&ground.root("flat"), &all);
    take_changes(&ground.root("flat"), &before, &ground.root("upper"), &BTreeSet::new()).unwrap();
    lay(&[ground.root("upper")], &ground.root("flat"), Names::Parted).unwrap();
    same(&packed(&ground.root("flat"), &all), &changed);
}
