//! Claims about copies into a directory of the host, where others may look on, write, or lie in wait.
#![allow(clippy::disallowed_methods, reason = "tests name files of the machine")]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a failing set-up is a failing test")]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};

use kiln_fs::{CopySpec, Result, copy, remove_others};
use support::{Scratch, mode, root, show, tree, write};

fn spec(owner: Option<(u32, u32)>) -> CopySpec {
    CopySpec {
        src: "/".into(),
        dest: "/".into(),
        dir_copy_contents: true,
        always_replace: true,
        on_host: true,
        owner,
        ..CopySpec::default()
    }
}

fn onto(src: &Path, dest: &Path) -> Result<()> {
    copy(&tree(src), &root(dest), &spec(None)).map(drop)
}

/// Runs `work` again and again until `other` is over.
fn beside<T>(work: impl Fn() + Sync, other: impl FnOnce() -> T) -> T {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                work();
            }
        });
        let result = other();
        is_over.store(true, Ordering::Relaxed);
        result
    })
}

#[test]
fn copies_at_once_into_one_directory_all_succeed() {
    let dir = Scratch::new();
    let names: Vec<String> = (0..100)
        .flat_map(|n| [format!("d{}/e{n}/f{n}=X", n % 7), format!("l{n}->t"), format!("d{}/g{n}|", n % 7)])
        .collect();
    let sources: Vec<_> = ["A", "B"]
        .iter()
        .map(|text| {
            let names: Vec<String> = names.iter().map(|name| name.replace("=X", &format!("={text}"))).collect();
            let source = dir.dir(text, &names.iter().map(String::as_str).collect::<Vec<_>>());
            fs::hard_link(source.join("d0/e0/f0"), source.join("hard")).unwrap();
            source
        })
        .collect();
    let dest = dir.dir("dst", &[]);
    for round in 0..4 {
        let start = Barrier::new(4);
        std::thread::scope(|scope| {
            let copies: Vec<_> = (0..4)
                .map(|n| {
                    let (source, dest, start) = (&sources[n % 2], &dest, &start);
                    scope.spawn(move || {
                        start.wait();
                        onto(source, dest)
                    })
                })
                .collect();
            copies.into_iter().for_each(|copy| copy.join().unwrap().unwrap());
        });
        let text = |line: String| line.replace("=B", "=A");
        let shown: Vec<String> = show(&dest).into_iter().map(text).collect();
        assert_eq!(shown, show(&sources[0]), "round {round}");
        if round % 2 == 0 {
            fs::remove_dir_all(&dest).unwrap();
            fs::create_dir(&dest).unwrap();
        }
    }
}

#[test]
fn a_file_has_its_name_only_when_it_is_whole() {
    let dir = Scratch::new();
    let source = dir.dir("src", &[]);
    for name in ["large", "small"] {
        let file = fs::File::create(source.join(name)).unwrap();
        std::io::Write::write_all(&mut &file, &vec![7; if name == "large" { 4 << 20 } else { 5000 }]).unwrap();
        file.set_permissions(fs::Permissions::from_mode(0o600)).unwrap();
    }
    let dest = dir.dir("dst", &[]);
    let look = || {
        for (name, size) in [("large", 4 << 20), ("small", 5000)] {
            if let Ok(found) = fs::metadata(dest.join(name)) {
                assert_eq!((found.len(), found.mode() & 0o777), (size, 0o600), "{name}");
            }
        }
    };
    beside(look, || {
        for _ in 0..5 {
            onto(&source, &dest).unwrap();
        }
    });
    assert_eq!(fs::read_dir(&dest).unwrap().count(), 2, "nothing is left beside them");
}

#[test]
fn what_has_a_name_gives_way_to_what_is_to_have_it() {
    let dir = Scratch::new();
    let source = dir.dir("src", &["file=new", "link->there", "pipe|", "dir/in=new", "same/in=new"]);
    let outside = dir.dir("outside", &["kept"]);
    for before in [
        &["file/in/it", "link/in", "pipe/in", "dir=file", "same/other"][..],
        &["file->../outside/kept", "link->../outside", "pipe->../outside/kept", "dir->../outside", "same->../outside"],
        &["file|", "link|", "pipe=file", "dir|", "same|"],
        &["file~", "link~", "pipe~", "dir~", "same~"],
        &["first", "file=>first", "link=>first", "pipe=>first", "dir=>first", "same=>first"],
    ] {
        let dest = dir.dir("dst", before);
        onto(&source, &dest).unwrap();
        let _ = fs::remove_file(dest.join("same/other"));
        let _ = fs::remove_file(dest.join("first"));
        assert_eq!(show(&dest), show(&source), "{before:?}");
        fs::remove_dir_all(dest).unwrap();
    }
    assert_eq!(show(&outside), ["kept=kept"]);
}

#[test]
fn nothing_is_written_outside_while_somebody_swaps_directories_for_links() {
    let dir = Scratch::new();
    let names: Vec<String> = (0..100).map(|n| format!("d{}/e/f{n}", n % 3)).collect();
    let source = dir.dir("src", &names.iter().map(String::as_str).collect::<Vec<_>>());
    let (outside, dest) = (dir.dir("outside", &["e/", "kept"]), dir.dir("dst", &[]));
    let swap = || {
        for name in ["d0", "d1/e", "d2", "d2/e"] {
            let name = dest.join(name);
            let _ = fs::rename(&name, dest.join("aside"));
            let _ = symlink(&outside, &name);
            let _ = fs::remove_file(&name);
            let _ = fs::rename(dest.join("aside"), &name);
        }
    };
    let ends: Vec<bool> = beside(swap, || (0..15).map(|_| onto(&source, &dest).is_ok()).collect());
    assert_eq!(show(&outside), ["e/", "kept=kept"]);
    // With a link in place for good, the links go.
    fs::remove_dir_all(&dest).unwrap();
    write(&dir.dir("dst", &[]), &["d0->../outside", "d1/e->../../outside", "d2/e/f2->../../../outside/kept"]);
    onto(&source, &dest).unwrap();
    remove_others(&root(&dest), &[&root(&source)]).unwrap();
    assert_eq!(
        show(&dest),
        show(&source),
        "after {} of {} copies",
        ends.iter().filter(|end| **end).count(),
        ends.len()
    );
    assert_eq!(show(&outside), ["e/", "kept=kept"]);
}

#[test]
fn a_file_that_changes_hands_leaves_its_owner_s_rights_behind() {
    require_root!();
    let dir = Scratch::new();
    let source = dir.dir("src", &["his", "ours", "group", "dir/"]);
    for (name, uid, gid, mode) in
        [("his", 1000, 0, 0o4755), ("group", 0, 50, 0o2755), ("ours", 0, 0, 0o6755), ("dir", 1000, 50, 0o3775)]
    {
        std::os::unix::fs::chown(source.join(name), Some(uid), Some(gid)).unwrap();
        fs::set_permissions(source.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let name = std::ffi::OsStr::new("security.capability");
    kiln_sys::xattr::set(fs::File::open(source.join("ours")).unwrap(), name, &capability).unwrap();
    let dest = dir.dir("dst", &[]);
    copy(&tree(&source), &root(&dest), &spec(Some((0, 0)))).unwrap();
    let modes = ["his", "group", "ours", "dir"].map(|name| mode(&dest.join(name)));
    assert_eq!(modes, [0o755, 0o755, 0o6755, 0o3775]);
    assert_eq!(support::xattrs(&dest.join("ours")), []);
    let owners = ["his", "group"].map(|name| fs::metadata(dest.join(name)).unwrap().uid());
    assert_eq!(owners, [0, 0]);
}
