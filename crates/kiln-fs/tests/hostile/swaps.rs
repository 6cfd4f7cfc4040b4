//! Owners of trees who swap files and directories for links while somebody works on them. Whatever comes of the work, what the
//! links lead to is neither read nor changed.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kiln_fs::layer::{ApplyOptions, Rewind, Target, apply_with, pack_live, pack_tree};
use kiln_fs::{CopySpec, NoCache, Patterns, SourceTree, copy, digest_copy, materialize, remove_others, search_layer};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::support::{Scratch, describe, root, write};

/// How long each kind of work is done under attack, and how often at least.
const ATTACK: Duration = Duration::from_secs(4);
const ROUNDS: usize = 20;

/// A name, a link that takes its place and gives it back, and where that leads.
struct Pair {
    name: PathBuf,
    link: PathBuf,
    target: PathBuf,
}

impl Pair {
    fn new(name: PathBuf, link: PathBuf, target: PathBuf) -> Self {
        symlink(&target, &link).unwrap();
        Self { name, link, target }
    }

    fn swap(&self) {
        // The work itself may have taken one away, or put something in the link's place.
        let _ = renameat_with(CWD, &self.name, CWD, &self.link, RenameFlags::EXCHANGE);
        let is_link = |path: &Path| fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
        if !is_link(&self.name) && !is_link(&self.link) {
            let fresh = self.link.with_extension("fresh");
            let _ = symlink(&self.target, &fresh);
            let _ = renameat_with(CWD, &fresh, CWD, &self.link, RenameFlags::EXCHANGE)
                .or_else(|_| renameat_with(CWD, &fresh, CWD, &self.link, RenameFlags::empty()));
            let _ = fs::remove_file(&fresh).or_else(|_| fs::remove_dir_all(&fresh));
        }
    }
}

/// Swaps names until it is told to stop.
fn swap(pairs: &[Pair], is_over: &AtomicBool) {
    while !is_over.load(Ordering::Relaxed) {
        pairs.iter().for_each(Pair::swap);
    }
}

/// Says that it is over however its scope is left.
struct EndOf<'a>(&'a AtomicBool);

impl Drop for EndOf<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Does work again and again on a tree in which the file `f` and the directory `d` turn into links to the canary's and back.
fn under_attack(work: &mut dyn FnMut(&Scratch, &Path)) {
    let scratch = Scratch::new();
    let canary = scratch.dir("canary", &["f=CANARY", "sub/g=CANARY"]);
    let before = describe(&canary);
    let tree = scratch.dir("tree", &["f=own", "d/f=own", "d/sub/g=own", "e/f=own"]);
    let links = scratch.dir("links", &[]);
    let pairs = [
        Pair::new(tree.join("f"), links.join("f"), canary.join("f")),
        Pair::new(tree.join("d"), links.join("d"), canary.clone()),
    ];
    let is_over = AtomicBool::new(false);
    let mut rounds = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| swap(&pairs, &is_over));
        // A failure ends the thread, too, else nobody would hear of it.
        let _end = EndOf(&is_over);
        let end = Instant::now() + ATTACK;
        while Instant::now() < end || rounds < ROUNDS {
            work(&scratch, &tree);
            rounds += 1;
        }
    });
    assert_eq!(describe(&canary), before, "the canary was changed");
}

/// No file below a directory holds what the canary does.
fn is_clean(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => is_clean(&entry.path()),
            kind if kind.is_file() => {
                let text = fs::read(entry.path()).unwrap();
                assert!(!text.windows(6).any(|window| window == b"CANARY"), "{} was read", entry.path().display());
            }
            _ => {}
        }
    }
}

#[test]
fn copies_of_a_context_never_hold_what_is_outside() {
    let mut round = 0;
    under_attack(&mut |scratch, tree| {
        let dest = scratch.dir(&format!("dest{round}"), &[]);
        for path in ["f", "d", "d/f", "d/sub/g", "*", "."] {
            for follow_symlink in [true, false] {
                let spec = CopySpec { follow_symlink, ..CopySpec::docker(path, "/to/") };
                // Errors are fine; what was copied must be the tree's own.
                let _ = copy(&SourceTree::context(root(tree), None), &root(&dest), &spec);
                let _ = digest_copy(&SourceTree::context(root(tree), None), &spec, &NoCache);
            }
        }
        let whole = scratch.dir(&format!("whole{round}"), &[]);
        let _ = materialize(&SourceTree::context(root(tree), None), &root(&whole));
        [&dest, &whole].into_iter().for_each(|made| is_clean(made));
        fs::remove_dir_all(dest).unwrap();
        fs::remove_dir_all(whole).unwrap();
        round += 1;
    });
}

#[test]
fn nothing_is_written_through_a_destination_that_moves() {
    under_attack(&mut |scratch, tree| {
        let source = scratch.path().join("source");
        if !source.exists() {
            write(&source, &["f=mine", "sub/g=mine", "sub/new=mine", "d/f=mine", "d/sub/g=mine", "d/sub/new=mine"]);
        }
        for dest in ["/d/", "/d/sub/", "/f", "/"] {
            let spec = CopySpec { always_replace: true, ..CopySpec::docker(".", dest) };
            let _ = copy(&SourceTree::context(root(&source), None), &root(tree), &spec);
        }
        let mut tar = Vec::new();
        pack_tree(&root(&source), &mut tar).unwrap();
        for target in [Target::Merged, Target::Archive] {
            let options = ApplyOptions { target, ..ApplyOptions::default() };
            let _ = apply_with(&tar[..], &root(tree), &options);
        }
    });
}

/// An archive of a tree that changes.
#[derive(Default)]
struct Live {
    all: Vec<u8>,
    mark: usize,
}

impl std::io::Write for Live {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.all.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Rewind for Live {
    fn mark(&mut self) {
        self.mark = self.all.len();
    }

    fn rewind(&mut self) {
        self.all.truncate(self.mark);
    }
}

#[test]
fn archives_and_searches_see_the_tree_alone() {
    let patterns = Patterns::new(&[b"CANARY".to_vec()]).unwrap();
    under_attack(&mut |_, tree| {
        let mut tar = Vec::new();
        let _ = pack_tree(&root(tree), &mut tar);
        let mut live = Live::default();
        let _ = pack_live(&root(tree), &mut live);
        for bytes in [&tar, &live.all] {
            assert!(!bytes.windows(6).any(|window| window == b"CANARY"), "the canary was packed");
        }
        let found = search_layer(&root(tree), &patterns).unwrap_or_default();
        assert_eq!(found, [], "the canary was read");
    });
}

#[test]
fn what_is_removed_is_in_the_tree() {
    let mut round = 0;
    under_attack(&mut |scratch, tree| {
        // Trees with a link that may be the directory at the next moment.
        let (kept, name) = (scratch.dir("kept", &["f", "e/f"]), format!("gone{round}"));
        let gone = tree.join(&name);
        let pair = |n| {
            write(&gone.join(format!("a{n}")), &["f", "b/g"]);
            Pair::new(gone.join(format!("a{n}")), gone.join(format!("l{n}")), scratch.path().join("canary"))
        };
        let pairs: Vec<Pair> = (0..8).map(pair).collect();
        let (is_over, begun) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                begun.store(true, Ordering::Relaxed);
                swap(&pairs, &is_over);
            });
            let _end = EndOf(&is_over);
            while !begun.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            let _ = kiln_fs::remove_tree(fs::File::open(tree).unwrap(), OsStr::new(&name));
        });
        let _ = fs::remove_dir_all(&gone);
        if round % 10 == 0 {
            let _ = remove_others(&root(tree), &[&root(&kept)]);
            // Made elsewhere: in the tree it may be the canary by the time that something is put into it.
            let fresh = scratch.dir("fresh", &["f=own", "sub/g=own"]);
            let _ = fs::rename(&fresh, tree.join("d"));
            let _ = fs::remove_dir_all(fresh);
        }
        round += 1;
    });
}
