//! Owners of trees who swap files and directories for links while somebody works on them. Whatever comes of the work, what the
//! links lead to is neither read nor changed.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kiln_fs::layer::{ApplyOptions, Rewind, Target, apply_with, pack_live, pack_tree};
use kiln_fs::{CopySpec, NoCache, Patterns, SourceTree, copy, digest_copy, materialize, remove_others, search_layer};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::support::{Scratch, describe, root, write};

/// How long each kind of work is done under attack.
const ATTACK: Duration = Duration::from_millis(1200);

/// Swaps two names for each other until it is told to stop.
fn swap(pairs: &[[&Path; 2]], is_over: &AtomicBool) {
    while !is_over.load(Ordering::Relaxed) {
        for [one, other] in pairs {
            // The work itself may have taken one away.
            let _ = renameat_with(CWD, *one, CWD, *other, RenameFlags::EXCHANGE);
        }
    }
}

/// Does work again and again on a tree in which the file `f` and the directory `d` turn into links to the canary's and back.
fn under_attack(work: &mut dyn FnMut(&Scratch, &Path)) {
    let scratch = Scratch::new();
    let canary = scratch.dir("canary", &["f=CANARY", "sub/g=CANARY"]);
    let before = describe(&canary);
    let tree = scratch.dir("tree", &["f=own", "d/f=own", "d/sub/g=own", "e/f=own"]);
    let links = scratch.dir("links", &[]);
    symlink(canary.join("f"), links.join("f")).unwrap();
    symlink(&canary, links.join("d")).unwrap();
    let is_over = AtomicBool::new(false);
    let mut rounds = 0;
    std::thread::scope(|scope| {
        let pairs = [[tree.join("f"), links.join("f")], [tree.join("d"), links.join("d")]];
        let over = &is_over;
        scope.spawn(move || {
            let pairs: Vec<[&Path; 2]> = pairs.iter().map(|[one, other]| [one.as_path(), other]).collect();
            swap(&pairs, over);
        });
        let end = Instant::now() + ATTACK;
        while Instant::now() < end {
            work(&scratch, &tree);
            rounds += 1;
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert_eq!(describe(&canary), before, "the canary was changed");
    assert!(rounds > 20, "{rounds} rounds show nothing");
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
            write(&source, &["f=mine", "sub/g=mine", "sub/new=mine"]);
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
        write(&gone, &["a/f", "a/b/g"]);
        symlink(scratch.path().join("canary"), gone.join("l")).unwrap();
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let pair = [gone.join("a"), gone.join("l")];
            let over = &is_over;
            scope.spawn(move || swap(&[[&pair[0], &pair[1]]], over));
            let _ = kiln_fs::remove_tree(fs::File::open(tree).unwrap(), OsStr::new(&name));
            is_over.store(true, Ordering::Relaxed);
        });
        let _ = fs::remove_dir_all(&gone);
        if round % 10 == 0 {
            let _ = remove_others(&root(tree), &[&root(&kept)]);
            let _ = fs::create_dir(tree.join("d")).and_then(|()| fs::write(tree.join("d/f"), "own"));
        }
        round += 1;
    });
}
