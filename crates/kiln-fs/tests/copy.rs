//! Claims about copying: what COPY and ADD put where. The expected trees are those of BuildKit's copy.
#![allow(clippy::disallowed_methods, reason = "tests name files of the machine")]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a failing set-up is a failing test")]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use kiln_fs::{CopySpec, Error, NoCache, copy, digest_copy, digest_tree, materialize};
use support::{Scratch, context, mode, root, show, spec, tree, write};

/// Copies and shows the destination.
fn copied(dir: &Scratch, spec: &CopySpec) -> Vec<String> {
    copy(&tree(&dir.path().join("src")), &root(&dir.path().join("dst")), spec).unwrap();
    show(&dir.path().join("dst"))
}

#[test]
fn sources_land_where_docker_puts_them() {
    let src = &["a=A", "b.txt=B", "d/x=X", "d/e/y=Y", "empty/"];
    let cases: &[(&str, &str, &[&str], &[&str])] = &[
        // A file to a name, into a directory by slash, into one that exists.
        ("a", "/f", &[], &["f=A"]),
        ("a", "/new/", &[], &["new/", "new/a=A"]),
        ("a", "/new/.", &[], &["new/", "new/a=A"]),
        ("a", "/there", &["there/old"], &["there/", "there/a=A", "there/old=there/old"]),
        ("a", "deep/er/f", &[], &["deep/", "deep/er/", "deep/er/f=A"]),
        ("/a", "/", &[], &["a=A"]),
        ("../../a", "../../f", &[], &["f=A"]),
        // A file over a file, and over a link, which it replaces or goes through.
        ("a", "/f", &["f=old"], &["f=A"]),
        ("a", "/l", &["l->t", "t=old"], &["l->t", "t=A"]),
        ("a", "/l", &["l->/gone/t"], &["gone/", "gone/t=A", "l->/gone/t"]),
        ("a", "/d/", &["d/a->../t", "t=old"], &["d/", "d/a=A", "t=old"]),
        // A directory's contents into a new or an existing one, also through a link.
        ("d", "/n", &[], &["n/", "n/e/", "n/e/y=Y", "n/x=X"]),
        ("d/", "/n/", &["n/z=Z"], &["n/", "n/e/", "n/e/y=Y", "n/x=X", "n/z=Z"]),
        (
            "d",
            "/l",
            &["l->real", "real/z"],
            &["l->real", "real/", "real/e/", "real/e/y=Y", "real/x=X", "real/z=real/z"],
        ),
        (
            "d",
            "/l/sub",
            &["l->/real"],
            &["l->/real", "real/", "real/sub/", "real/sub/e/", "real/sub/e/y=Y", "real/sub/x=X"],
        ),
        (".", "/", &["a=old"], &["a=A", "b.txt=B", "d/", "d/e/", "d/e/y=Y", "d/x=X", "empty/"]),
        ("empty", "/n", &[], &["n/"]),
        // Wildcards: files into the directory, directories by their contents.
        ("*.txt", "/n/", &[], &["n/", "n/b.txt=B"]),
        ("[ab]*", "/n/", &[], &["n/", "n/a=A", "n/b.txt=B"]),
        ("*", "/n/", &[], &["n/", "n/a=A", "n/b.txt=B", "n/e/", "n/e/y=Y", "n/x=X"]),
        ("d/*/y", "/n/", &[], &["n/", "n/y=Y"]),
        ("none*", "/n/", &[], &[]),
    ];
    for (from, to, existing, expected) in cases {
        let dir = Scratch::new();
        dir.dir("src", src);
        dir.dir("dst", existing);
        assert_eq!(copied(&dir, &CopySpec::docker(*from, *to)), *expected, "COPY {from} {to} onto {existing:?}");
    }
}

#[test]
fn whole_directories_keep_their_name_if_asked() {
    let keep = |spec: &mut CopySpec| spec.dir_copy_contents = false;
    let dir = Scratch::new();
    dir.dir("src", &["d/x=X"]);
    dir.dir("dst", &["there/"]);
    assert_eq!(copied(&dir, &spec("d", "/there", keep)), ["there/", "there/d/", "there/d/x=X"]);
    assert_eq!(copied(&dir, &spec("d", "/new", keep))[..2], ["new/", "new/x=X"]);
}

#[test]
fn links_are_copied_as_links_but_followed_at_the_source() {
    let dir = Scratch::new();
    dir.dir("src", &["real/f=F", "real/l->f", "to-dir->real", "to-file->/real/f", "out->../../../etc/passwd"]);
    dir.dir("dst", &[]);
    assert_eq!(copied(&dir, &CopySpec::docker("to-dir", "/n"))[1..], ["n/f=F", "n/l->f"]);
    assert_eq!(copied(&dir, &CopySpec::docker("to-dir/f", "/n/g"))[2], "n/g=F");
    let dir = Scratch::new();
    dir.dir("src", &["real/f=F", "to-file->/real/f", "out->../../../etc/passwd", "loop->loop"]);
    dir.dir("dst", &[]);
    assert_eq!(copied(&dir, &CopySpec::docker("to-file", "/n/")), ["n/", "n/to-file=F"]);
    let nofollow = spec("to-file", "/n/", |spec| spec.follow_symlink = false);
    assert_eq!(copied(&dir, &nofollow), ["n/", "n/to-file->/real/f"]);
    let all = copied(&dir, &CopySpec::docker(".", "/all"));
    assert!(all.contains(&"all/out->../../../etc/passwd".to_owned()), "{all:?}");
    // The host's file is not in the tree, whatever the link says.
    let error = copy(&tree(&dir.path().join("src")), &root(&dir.path().join("dst")), &CopySpec::docker("out", "/p"));
    assert!(matches!(error, Err(Error::NotFound { .. })), "{error:?}");
    let error = copy(&tree(&dir.path().join("src")), &root(&dir.path().join("dst")), &CopySpec::docker("loop", "/p"));
    assert!(matches!(error, Err(Error::TooManyLinks { .. })), "{error:?}");
}

#[test]
fn what_cannot_be_replaced_is_an_error_and_can_be_forced() {
    let dir = Scratch::new();
    dir.dir("src", &["f=F", "d/sub/x=X"]);
    dir.dir("dst", &["t/f/in", "sub=file", "l->t"]);
    let run = |spec: &CopySpec| copy(&tree(&dir.path().join("src")), &root(&dir.path().join("dst")), spec);
    assert!(matches!(run(&CopySpec::docker("f", "/t/")), Err(Error::IsADirectory { .. })));
    assert!(matches!(run(&CopySpec::docker("d", "/")), Err(Error::NotADirectory { .. })));
    assert!(matches!(run(&CopySpec::docker("f", "/sub/")), Err(Error::Io { .. })));
    let force = |spec: &mut CopySpec| spec.always_replace = true;
    run(&spec("f", "/t/", force)).unwrap();
    run(&spec("d", "/", force)).unwrap();
    assert_eq!(show(&dir.path().join("dst")), ["l->t", "sub/", "sub/x=X", "t/", "t/f=F"]);
}

#[test]
fn a_missing_parent_is_made_only_if_allowed() {
    let dir = Scratch::new();
    dir.dir("src", &["f"]);
    dir.dir("dst", &[]);
    let strict = spec("f", "/no/where", |spec| spec.create_dest_path = false);
    assert!(copy(&tree(&dir.path().join("src")), &root(&dir.path().join("dst")), &strict).is_err());
    assert!(show(&dir.path().join("dst")).is_empty());
}

#[test]
fn patterns_choose_and_make_the_directories_that_lead_there() {
    let files = &["a/b/c.txt=1", "a/b/d.md=2", "a/e/f.md=3", "g/h.txt=4", "top.txt=5"];
    type Change = fn(&mut CopySpec);
    let cases: &[(&str, Change, &[&str])] = &[
        (
            ".",
            |s| s.exclude = vec!["**/*.md".into()],
            &["a/", "a/b/", "a/b/c.txt=1", "a/e/", "g/", "g/h.txt=4", "top.txt=5"],
        ),
        (".", |s| s.exclude = vec!["a".into()], &["g/", "g/h.txt=4", "top.txt=5"]),
        (
            ".",
            |s| s.exclude = vec!["a".into(), "!a/e".into()],
            &["a/", "a/e/", "a/e/f.md=3", "g/", "g/h.txt=4", "top.txt=5"],
        ),
        // `--parents a/b/c.txt`, and with a pivot and wildcards.
        (".", |s| s.include = vec!["a/b/c.txt".into()], &["a/", "a/b/", "a/b/c.txt=1"]),
        (".", |s| s.include = vec!["**/*.txt".into()], &["a/", "a/b/", "a/b/c.txt=1", "g/", "g/h.txt=4", "top.txt=5"]),
        ("a", |s| s.include = vec!["*/d.md".into()], &["b/", "b/d.md=2"]),
        (".", |s| (s.include, s.exclude) = (vec!["a".into()], vec!["a/b".into()]), &["a/", "a/e/", "a/e/f.md=3"]),
        // Of files that a wildcard matches the pattern sees the name.
        ("*.txt", |s| s.exclude = vec!["top*".into()], &[]),
    ];
    for (from, change, expected) in cases {
        let dir = Scratch::new();
        dir.dir("src", files);
        dir.dir("dst", &[]);
        let spec = spec(from, "/", change);
        assert_eq!(copied(&dir, &spec), *expected, "{spec:?}");
    }
}

#[test]
fn required_paths_must_be_among_what_is_copied() {
    let dir = Scratch::new();
    dir.dir("src", &["x/y/a=A"]);
    dir.dir("dst", &[]);
    let parents = |include: &str, required: &str| {
        let (include, required) = (vec![include.to_owned()], vec![required.to_owned()]);
        spec("/x", "/p/", |s| (s.include, s.required_paths) = (include, required))
    };
    assert_eq!(copied(&dir, &parents("y/a", "/x/y/a")), ["p/", "p/y/", "p/y/a=A"]);
    let error = copy(&tree(&dir.path().join("src")), &root(&dir.path().join("dst")), &parents("y/b", "/x/y/b"));
    let Err(Error::NotFound { path, similar, .. }) = error else { panic!("{error:?}") };
    assert_eq!((path.as_str(), similar), ("/x/y/b", vec!["x/y/a".to_owned()]));
}

#[test]
fn hidden_files_are_not_there() {
    let files = &["keep.env=K", "prod.env=P", "secret/x=S", "src/main.rs=M", "src/id_rsa=R", "docs/a/b=B", "docs/c=C"];
    let ignore = &["*.env", "!keep.env", "**/id_rsa", "secret/", "docs", "!docs/a/b"];
    let dir = Scratch::new();
    let src = dir.dir("src", files);
    let dst = dir.dir("dst", &[]);
    let tree = context(&src, ignore);
    copy(&tree, &root(&dst), &CopySpec::docker(".", "/")).unwrap();
    let visible = ["docs/", "docs/a/", "docs/a/b=B", "keep.env=K", "src/", "src/main.rs=M"];
    assert_eq!(show(&dst), visible);
    let view = dir.dir("view", &[]);
    materialize(&tree, &root(&view)).unwrap();
    assert_eq!(show(&view), visible);
    for (path, pattern) in [("secret/x", "secret/"), ("secret", "secret/"), ("prod.env", "*.env"), ("docs/c", "docs")] {
        let error = copy(&tree, &root(&dst), &CopySpec::docker(path, "/n")).unwrap_err();
        let Error::NotFound { ignored_by: Some((index, text)), .. } = error else { panic!("{path}: {error:?}") };
        assert_eq!((text.as_str(), ignore[index]), (pattern, pattern), "{path}");
    }
    let wild = dir.dir("wild", &[]);
    copy(&tree, &root(&wild), &CopySpec::docker("*", "/")).unwrap();
    assert_eq!(show(&wild), ["a/", "a/b=B", "keep.env=K", "main.rs=M"]);
}

#[test]
fn a_link_to_where_it_begins_is_what_it_leads_to() {
    let dir = Scratch::new();
    dir.dir("src", &["top->/", "d/here->.", "d/x=X"]);
    let src = tree(&dir.path().join("src"));
    let digest = |from: &str| digest_copy(&src, &CopySpec::docker(from, "/n/"), &NoCache).unwrap();
    for (link, target) in [("top/d", "d"), ("d/here", "d"), ("top", ".")] {
        dir.dir("dst", &[]);
        let copied = copied(&dir, &CopySpec::docker(link, "/n/"));
        fs::remove_dir_all(dir.path().join("dst")).unwrap();
        dir.dir("dst", &[]);
        copy(&src, &root(&dir.path().join("dst")), &CopySpec::docker(target, "/n/")).unwrap();
        assert_eq!(copied, show(&dir.path().join("dst")), "{link}");
        fs::remove_dir_all(dir.path().join("dst")).unwrap();
        digest(link);
        assert!(digest_tree(&src, link, &NoCache).is_ok(), "{link}");
    }
}

#[test]
fn a_link_to_a_hidden_file_leads_nowhere() {
    let dir = Scratch::new();
    let src = dir.dir("src", &["secret=S", "l->secret", "d->hidden", "hidden/f"]);
    let dst = dir.dir("dst", &[]);
    let tree = context(&src, &["secret", "hidden"]);
    for path in ["l", "d", "d/f"] {
        let error = copy(&tree, &root(&dst), &CopySpec::docker(path, "/n")).unwrap_err();
        assert!(matches!(error, Error::NotFound { ignored_by: Some(_), .. }), "{path}: {error:?}");
    }
    assert!(show(&dst).is_empty());
}

#[test]
fn a_missing_source_names_its_neighbours() {
    let dir = Scratch::new();
    let src = dir.dir("src", &["package.json", "packages.json", "src/main.go", "web/app/index.html", "mian.go"]);
    let dst = dir.dir("dst", &[]);
    let similar = |path: &str| match copy(&context(&src, &["mian.go"]), &root(&dst), &CopySpec::docker(path, "/")) {
        Err(Error::NotFound { ignored_by: None, similar, .. }) => similar,
        other => panic!("{other:?}"),
    };
    assert_eq!(similar("pakage.json"), ["package.json", "packages.json"]);
    assert_eq!(similar("main.go"), ["src/main.go"], "hidden names are not offered");
    assert_eq!(similar("src/Main.go"), ["src/main.go"]);
    assert_eq!(similar("index.html"), ["web/app/index.html"]);
    assert_eq!(similar("nothing-like-it"), Vec::<String>::new());
    let error = copy(&tree(&src), &root(&dst), &spec("*.zip", "/", |s| s.allow_empty_wildcard = false));
    assert!(matches!(error, Err(Error::NotFound { .. })));
}

#[test]
fn modes_times_and_kinds_are_kept_or_changed() {
    let dir = Scratch::new();
    let src = dir.dir("src", &["d/run.sh", "d/plain", "d/pipe|", "d/socket~", "d/l->plain"]);
    let dst = dir.dir("dst", &[]);
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    let set = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        fs::File::open(path).unwrap().set_modified(time).unwrap();
    };
    set(&src.join("d/run.sh"), 0o4750);
    set(&src.join("d/plain"), 0o640);
    set(&src.join("d"), 0o2751);
    copy(&tree(&src), &root(&dst), &spec("d", "/kept", |s| s.dir_copy_contents = false)).unwrap();
    assert_eq!(show(&dst), ["kept/", "kept/l->plain", "kept/pipe|", "kept/plain=d/plain", "kept/run.sh=d/run.sh"]);
    assert_eq!(["kept", "kept/run.sh", "kept/plain"].map(|p| mode(&dst.join(p))), [0o2751, 0o4750, 0o640]);
    for path in ["kept", "kept/run.sh"] {
        assert_eq!(fs::metadata(dst.join(path)).unwrap().modified().unwrap(), time, "{path}");
    }
    copy(&tree(&src), &root(&dst), &spec("d", "/sym", |s| s.mode = Some("u=rwX,go=rX".parse().unwrap()))).unwrap();
    assert_eq!(["sym", "sym/run.sh", "sym/plain"].map(|p| mode(&dst.join(p))), [0o755, 0o755, 0o644]);
    let change = |s: &mut CopySpec| {
        s.mode = Some("0700".parse().unwrap());
        s.parents_mode = Some(0o700);
        s.timestamp = Some(86_400_000_000_000);
    };
    copy(&tree(&src), &root(&dst), &spec("d/plain", "/new/dir/f", change)).unwrap();
    for path in ["new", "new/dir", "new/dir/f"] {
        let metadata = fs::metadata(dst.join(path)).unwrap();
        assert_eq!((mode(&dst.join(path)), metadata.mtime()), (0o700, 86_400), "{path}");
    }
    copy(&tree(&src), &root(&dst), &spec("d/plain", "/way/f", |s| s.mode = Some("0600".parse().unwrap()))).unwrap();
    copy(&tree(&src), &root(&dst), &spec("d", "/way/d/", |s| s.mode = Some("0700".parse().unwrap()))).unwrap();
    assert_eq!(["way", "way/f", "way/d"].map(|p| mode(&dst.join(p))), [0o755, 0o600, 0o700]);
}

#[test]
fn existing_directories_take_over_the_look_of_the_source_below_the_top() {
    let dir = Scratch::new();
    let src = dir.dir("src", &["sub/f"]);
    let dst = dir.dir("dst", &["t/sub/"]);
    fs::set_permissions(src.join("sub"), fs::Permissions::from_mode(0o711)).unwrap();
    fs::set_permissions(dst.join("t"), fs::Permissions::from_mode(0o700)).unwrap();
    copy(&tree(&src), &root(&dst), &CopySpec::docker(".", "/t")).unwrap();
    assert_eq!((mode(&dst.join("t")), mode(&dst.join("t/sub"))), (0o700, 0o711));
}

#[test]
fn hard_links_holes_and_big_files_stay_what_they_are() {
    let dir = Scratch::new();
    let src = dir.dir("src", &["a=one", "d/b=>a", "d/e/c=>a", "lonely"]);
    let big: Vec<u8> = (0..700_000u32).flat_map(u32::to_le_bytes).collect();
    fs::write(src.join("big"), &big).unwrap();
    let sparse = fs::File::create(src.join("sparse")).unwrap();
    sparse.set_len(32 << 20).unwrap();
    let dst = dir.dir("dst", &["t/d/b=old"]);
    let stats = copy(&tree(&src), &root(&dst), &CopySpec::docker(".", "/t")).unwrap();
    let inode = |path: &str| fs::metadata(dst.join("t").join(path)).unwrap();
    assert_eq!((inode("a").ino(), inode("a").nlink()), (inode("d/e/c").ino(), 3));
    assert_eq!(inode("d/b").ino(), inode("a").ino());
    assert_eq!(fs::read(dst.join("t/big")).unwrap(), big);
    assert_eq!(inode("sparse").len(), 32 << 20);
    assert!(inode("sparse").blocks() < 100, "{}", inode("sparse").blocks());
    assert_eq!((stats.files, stats.directories), (6, 1));
}

#[test]
fn more_files_than_a_batch_and_odd_names_arrive() {
    let dir = Scratch::new();
    let src = dir.dir("src", &[]);
    for number in 0..700 {
        write(&src, &[&format!("many/{number}=n{number}"), &format!("deep/{}/f", ["d"; 30][..number % 30].join("/"))]);
    }
    write(&src, &["odd/-rf", "odd/a b\n\x1b[2J", "odd/*", "odd/[x]", "odd/ü"]);
    let dst = dir.dir("dst", &[]);
    copy(&tree(&src), &root(&dst), &CopySpec::docker(".", "/")).unwrap();
    assert_eq!(show(&dst), show(&src));
}

#[test]
fn a_file_that_changes_under_the_reader_is_an_error() {
    let dir = Scratch::new();
    let src = dir.dir("src", &[]);
    let dst = dir.dir("dst", &[]);
    fs::write(src.join("growing"), vec![7; 64 << 20]).unwrap();
    let file = fs::File::options().append(true).open(src.join("growing")).unwrap();
    let (stop, started) = (AtomicBool::new(false), Barrier::new(2));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            started.wait();
            for length in (64 << 20) + 1.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                file.set_len(length).unwrap();
            }
        });
        started.wait();
        let spec = CopySpec::docker("growing", "/");
        let copied = copy(&tree(&src), &root(&dst), &spec);
        let digested = digest_copy(&tree(&src), &spec, &kiln_fs::NoCache);
        stop.store(true, Ordering::Relaxed);
        assert!(matches!(copied, Err(Error::ChangedWhileRead { .. })), "{copied:?}");
        assert!(matches!(digested, Err(Error::ChangedWhileRead { .. })), "{digested:?}");
    });
}

#[test]
fn archives_are_unpacked_on_request_and_other_files_copied() {
    let dir = Scratch::new();
    let src = dir.dir("src", &["in/x=X", "in/sub/y=Y", "plain=not an archive", "in/l->/etc/passwd"]);
    let mut bytes = Vec::new();
    kiln_fs::layer::pack_tree(&root(&src.join("in")), &mut bytes).unwrap();
    fs::write(src.join("a.tar"), &bytes).unwrap();
    let threads = std::num::NonZeroUsize::MIN;
    let gzip = kiln_fs::compress::Compression::default();
    let mut out = kiln_fs::compress::Compressor::new(Vec::new(), gzip, threads).unwrap();
    std::io::Write::write_all(&mut out, &bytes).unwrap();
    fs::write(src.join("named-like-nothing"), out.finish().unwrap()).unwrap();
    let dst = dir.dir("dst", &["t->real", "real/"]);
    let unpack = |src: &str, dest: &str| spec(src, dest, |s| s.unpack_archives = true);
    let run = |spec: &CopySpec| copy(&tree(&src), &root(&dst), spec).unwrap();
    run(&unpack("a.tar", "/t"));
    run(&unpack("named-like-nothing", "/new/dir"));
    run(&unpack("plain", "/p/"));
    run(&CopySpec::docker("a.tar", "/asis/"));
    let shown = show(&dst);
    let unpacked = ["l->/etc/passwd", "sub/", "sub/y=Y", "x=X"];
    for name in ["real", "new/dir"] {
        unpacked.iter().for_each(|line| assert!(shown.contains(&format!("{name}/{line}")), "{name}/{line}: {shown:?}"));
    }
    assert!(shown.contains(&"p/plain=not an archive".to_owned()));
    assert_eq!(fs::read(dst.join("asis/a.tar")).unwrap(), bytes);
}
