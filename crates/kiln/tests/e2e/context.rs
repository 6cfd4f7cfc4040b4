//! The build context: what is seen of it, and where it may come from.

use std::process::Command;

use crate::project::{Project, run};

#[test]
fn ignored_files_are_absent_and_exceptions_are_not() {
    let project = Project::new();
    for file in ["a.env", "keep.env", "src/id_rsa", "secret/x", "src/main.c"] {
        project.file(file, file);
    }
    project.file(".dockerignore", "*.env\n!keep.env\n**/id_rsa\nsecret/\n.dockerignore\nDockerfile\n");
    project.builds("FROM busybox\nCOPY . /c/\nRUN --mount=target=/m find /m -type f | sort > /m.txt\n");
    assert_eq!(project.sh("cd /c; find . -type f | sort"), "./keep.env\n./src/main.c\n");
    assert_eq!(project.sh("cat /m.txt"), "/m/keep.env\n/m/src/main.c\n");
}

#[test]
fn a_dockerfile_and_an_ignore_file_that_are_ignored_still_count_and_cannot_be_copied() {
    let project = Project::new();
    project.file("a", "a").file("b", "b").file(".dockerignore", "b\n.dockerignore\nDockerfile\n");
    project.builds("FROM busybox\nCOPY . /c/\n");
    assert_eq!(project.sh("ls -A /c"), "a\n");
    for name in ["Dockerfile", ".dockerignore"] {
        let run = project.dockerfile(&format!("FROM busybox\nCOPY {name} /\n")).build(&[]).fails(1);
        run.says(&format!("cannot copy `{name}`: it is left out")).says("warning[CopyIgnoredFile]");
    }
}

#[test]
fn an_ignore_file_may_be_named_and_is_the_only_one_read() {
    let project = Project::new();
    project.file("a", "a").file("b", "b").file("c", "c").file(".dockerignore", "a\n").file(".containerignore", "b\n");
    project.dockerfile("FROM busybox\nCOPY a* b* c* /c/\n").build(&[]).ok();
    assert_eq!(project.sh("ls /c"), "a\nc\n");
    std::fs::write(project.path().join("mine"), "c\n").unwrap();
    project.build(&["--ignorefile", project.path().join("mine").to_str().unwrap()]).ok();
    assert_eq!(project.sh("ls /c"), "a\nb\n");
    project.build(&["--ignorefile", "/no/such"]).fails(2).says("--ignorefile");
}

#[test]
fn named_contexts_honour_their_own_ignore_file() {
    let project = Project::new();
    project.file("lib/.dockerignore", "*.o\n").file("lib/a.c", "c").file("lib/a.o", "o").file("b.o", "o");
    project.dockerfile("FROM busybox\nCOPY --from=lib . /lib/\nCOPY b.o /\n");
    let lib = format!("lib={}", project.context().join("lib").display());
    project.build(&["--build-context", &lib]).ok();
    assert_eq!(project.sh("ls /lib /b.o"), "/b.o\n\n/lib:\na.c\n");
    project
        .dockerfile("FROM busybox\nCOPY --from=lib a.o /\n")
        .build(&["--build-context", &lib])
        .fails(1)
        .says("lib/.dockerignore:1");
}

#[test]
fn a_build_warns_of_a_source_that_is_ignored_and_may_fail_for_it() {
    let project = Project::new();
    project.file("a", "a").file("b.env", "b").file(".dockerignore", "*.env\n");
    // A wildcard that matches nothing fails no step.
    let run = project.builds("FROM busybox\nCOPY a *.env /\n");
    run.says("warning[CopyIgnoredFile]").says(".dockerignore:1").says("Dockerfile:2:8");
    assert_eq!(project.build(&[]).ok().says("CopyIgnoredFile").cached(), 2, "a warning is told of cached steps too");
    project.builds("FROM busybox\n# check=skip=CopyIgnoredFile\nCOPY a *.env /\n").never_says("CopyIgnoredFile");
    project
        .dockerfile("# check=error=true\nFROM busybox\nCOPY a *.env /\n")
        .build(&[])
        .fails(1)
        .says("its checks count as errors, and 1 finding is of `CopyIgnoredFile`");
}

#[test]
fn a_dockerfile_s_own_ignore_file_comes_first() {
    let project = Project::new();
    project.file("a", "a").file("b", "b").file(".dockerignore", "a\n").file("x.Dockerfile.dockerignore", "b\n");
    project.file("x.Dockerfile", "FROM busybox\nCOPY a* b* /c/\n");
    project.build(&["-f", project.context().join("x.Dockerfile").to_str().unwrap()]).ok();
    assert_eq!(project.sh("ls /c"), "a\n");
}

#[test]
fn a_dockerfile_may_come_from_standard_input_or_another_path() {
    let project = Project::new();
    project.file("f", "f");
    let context = project.context().display().to_string();
    let run =
        project.kiln_with_input(&["build", "-t", "app", "-f", "-", &context], b"FROM busybox\nCOPY f /from-stdin\n");
    run.ok();
    assert_eq!(project.sh("cat /from-stdin"), "f");
    project.kiln_with_input(&["build", "-t", "app", "-"], b"FROM busybox\nRUN echo no context > /x\n").ok();
    assert_eq!(project.sh("cat /x"), "no context\n");
}

#[test]
fn a_context_may_be_a_tar_on_standard_input() {
    let project = Project::new();
    project
        .file("f", "f")
        .file("sub/My.Dockerfile", "FROM busybox\nCOPY f* g* h* /c/\n")
        .file(".dockerignore", "g\n")
        .file("g", "g")
        .file("h", "h");
    // From the second time on the Dockerfile has an ignore file of its own.
    let flags = ["-c", "-cz", "-cj", "-cJ", "-c --zstd"];
    for (flag, seen) in flags.into_iter().zip(["f\nh\n"].into_iter().chain(std::iter::repeat("f\ng\n"))) {
        let tar = project.path().join("context.tar");
        run(Command::new("tar").arg("-C").arg(project.context()).args(flag.split(' ')).arg("-f").arg(&tar).arg("."))
            .ok();
        let bytes = std::fs::read(&tar).unwrap();
        project.kiln_with_input(&["build", "-t", "app", "-f", "sub/My.Dockerfile", "-"], &bytes).ok();
        assert_eq!(project.sh("ls /c"), seen);
        project.file("sub/My.Dockerfile.dockerignore", "h\n");
    }
}

#[test]
fn odd_files_in_a_context_do_not_hang_a_build() {
    let project = Project::new();
    project.file("f", "f").dockerfile("FROM busybox\nCOPY . /c/\n");
    run(Command::new("mkfifo").arg(project.context().join("fifo"))).ok();
    let _socket = std::os::unix::net::UnixListener::bind(project.context().join("socket")).unwrap();
    project.build(&[]).ok();
    assert_eq!(project.sh("cat /c/f"), "f");
}

#[test]
fn nothing_outside_the_context_is_reached() {
    let project = Project::new();
    std::fs::write(project.path().join("outside"), "HOST-CANARY-7f3a").unwrap();
    project.link("l", "../outside").link("dir", "..");
    for copy in ["../outside", "/../../outside", "dir/outside", "l"] {
        let run = project.dockerfile(&format!("FROM busybox\nCOPY {copy} /x\n")).build(&[]).fails(1);
        run.never_says("HOST-CANARY");
    }
}

#[test]
fn a_file_may_be_touched_before_its_turn_comes_and_not_changed() {
    let project = Project::new();
    project.file("f", "f").dockerfile("FROM busybox\nRUN sleep 3\nCOPY f /f\n");
    let meanwhile = |text: &str, flag: &str| {
        let file = project.context().join("f");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(std::time::Duration::from_millis(1500));
                std::fs::write(file, text).unwrap();
            });
            project.build(&[flag])
        })
    };
    meanwhile("f", "--no-cache").ok();
    assert_eq!(project.sh("cat /f"), "f");
    meanwhile("other", "--no-cache").fails(1).says("changed while").says("Dockerfile:3");
}

#[test]
fn a_file_that_changes_while_it_is_copied_is_never_kept_under_the_wrong_key() {
    use std::os::unix::fs::FileExt;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    let project = Project::new();
    // Large enough that a writer gets its turn while the file is read, however busy the machine is.
    project.file("f", vec![0; 64 << 20]).dockerfile("FROM busybox\nCOPY f /f\n");
    let file = std::fs::File::options().write(true).open(project.context().join("f")).unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let turns = (1_u64..).take_while(|_| !is_over.load(Relaxed));
            turns.for_each(|turn| file.write_all_at(&turn.to_le_bytes(), 0).unwrap());
        });
        let run = project.build(&[]);
        is_over.store(true, Relaxed);
        run.fails(1).says("changed while").says("Dockerfile:2");
    });
    project.file("f", "quiet").build(&[]).ok();
    assert_eq!(project.sh("cat /f"), "quiet");
}
