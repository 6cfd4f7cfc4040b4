//! `RUN --mount=type=cache`, by several steps and processes at once, and `kiln cache mounts`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use kiln_testkit::Registry;

use crate::project::Project;

/// A second step in a process of its own.
fn start(project: &Project, name: &str, dockerfile: &str) -> Child {
    let dir = project.path().join(name);
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("Dockerfile"), dockerfile).unwrap();
    let mut command = project.command();
    command.args(["build", "--progress=plain", "-t", name, dir.to_str().unwrap()]);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// The files of that name in any cache mount.
fn files(project: &Project, name: &str) -> Vec<PathBuf> {
    let mounts = fs::read_dir(project.state().join("cache-mounts")).into_iter().flatten().flatten();
    mounts.map(|mount| mount.path().join("fs").join(name)).filter(|path| path.exists()).collect()
}

#[track_caller]
fn await_file(project: &Project, name: &str) -> PathBuf {
    let since = Instant::now();
    loop {
        match files(project, name).pop() {
            Some(path) => return path,
            None => assert!(since.elapsed() < Duration::from_secs(30), "`{name}` never came"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A step that says it is there, and goes on when it is told to.
fn waits(sharing: &str) -> String {
    format!(
        "FROM busybox\nRUN --mount=type=cache,id=x,target=/c,sharing={sharing} \
         echo first > /c/first; while [ ! -e /c/go ]; do sleep 0.02; done; ls /c > /seen\n"
    )
}

fn go(mount: &Path) {
    fs::write(mount.with_file_name("go"), "").unwrap();
}

#[test]
fn shared_is_one_directory_for_two_processes_at_once() {
    let project = Project::new();
    let mut first = start(&project, "first", &waits("shared"));
    let mount = await_file(&project, "first");
    project.builds("FROM busybox\nRUN --mount=type=cache,id=x,target=/c cat /c/first && touch /c/second\n");
    go(&mount);
    assert!(first.wait().unwrap().success());
    assert_eq!(files(&project, "second").len(), 1);
    assert_eq!(files(&project, "first"), [mount]);
}

#[test]
fn private_is_another_directory_while_one_is_taken_and_the_first_again_afterwards() {
    let project = Project::new();
    let mut first = start(&project, "first", &waits("private"));
    let mount = await_file(&project, "first");
    let private = "RUN --mount=type=cache,id=x,target=/c,sharing=private";
    project.builds(&format!("FROM busybox\n{private} test ! -e /c/first && touch /c/second\n"));
    go(&mount);
    assert!(first.wait().unwrap().success());
    assert!(await_file(&project, "second") != mount.with_file_name("second"));
    project.builds(&format!("FROM busybox\n{private} cat /c/first\n"));
}

#[test]
fn locked_waits_for_a_step_of_another_process() {
    let project = Project::new();
    let mut first = start(&project, "first", &waits("locked"));
    let mount = await_file(&project, "first");
    let locked = "FROM busybox\nRUN --mount=type=cache,id=x,target=/c,sharing=locked cat /c/go && touch /c/second\n";
    let mut second = start(&project, "second", locked);
    std::thread::sleep(Duration::from_millis(500));
    assert!(second.try_wait().unwrap().is_none() && files(&project, "second").is_empty());
    go(&mount);
    assert!(first.wait().unwrap().success() && second.wait().unwrap().success());
}

#[test]
fn a_read_only_cache_is_read_and_not_written() {
    let project = Project::new();
    let mount = "--mount=type=cache,id=x,target=/c";
    project.builds(&format!("FROM busybox\nRUN {mount} echo kept > /c/f\nRUN {mount},ro cat /c/f && ! touch /c/g\n"));
    assert!(files(&project, "g").is_empty());
}

#[test]
fn owner_and_mode_and_what_it_begins_with_tell_caches_of_one_id_apart() {
    let project = Project::new();
    let cache = "RUN --mount=type=cache,id=x,target=/c";
    project.builds(&format!(
        "FROM busybox AS seed\nRUN mkdir -m 0700 /s && echo seed > /s/f && chown 5:6 /s\n\
         FROM busybox\n{cache} touch /c/plain\n\
         {cache},uid=7,gid=8,mode=0711 test ! -e /c/plain && stat -c '%u %g %a' /c >> /seen && touch /c/owned\n\
         {cache},from=seed,source=/s test ! -e /c/plain && stat -c '%u %g %a' /c >> /seen && cat /c/f >> /seen && rm /c/f\n\
         {cache},uid=7,gid=8,mode=0711 test -e /c/owned\n{cache} test -e /c/plain\n\
         {cache},from=seed,source=/s test ! -e /c/f\n"
    ));
    assert_eq!(project.sh("cat /seen"), "7 8 711\n5 6 700\nseed\n");
}

#[test]
fn a_cache_mount_is_in_no_key() {
    let project = Project::new();
    project.builds("FROM busybox\nRUN --mount=type=cache,id=x,target=/c echo $(ls /c) > /seen\n");
    fs::write(files(&project, "").pop().unwrap().join("new"), "new").unwrap();
    assert_eq!(project.build(&[]).ok().cached(), 2);
    assert_eq!(project.sh("cat /seen"), "\n");
}

#[test]
fn one_in_use_is_listed_with_its_process_and_not_removed() {
    let project = Project::new();
    let mut build = start(&project, "first", &waits("shared"));
    let mount = await_file(&project, "first");
    let user = format!("kiln ({})", build.id());
    let list = || {
        let listed = project.kiln(&["cache", "mounts", "ls", "--format=json"]).ok().stdout;
        serde_json::from_str::<serde_json::Value>(&listed).unwrap()
    };
    // The process that watches over a container has kiln's files open, too, until it has had its first turn.
    let (mut line, since) = (list(), Instant::now());
    while line["inUseBy"] != user.as_str() && since.elapsed() < Duration::from_secs(30) {
        line = list();
    }
    assert_eq!((line["id"].as_str().unwrap(), line["inUseBy"].as_str().unwrap()), ("x", user.as_str()));
    assert!(line["size"].as_u64().unwrap() > 0 && line["created"].as_str().unwrap().ends_with('Z'));
    project.kiln(&["cache", "mounts", "rm", "x"]).fails(3).says(&format!("`x` is in use by {user}")).says("hint:");
    project.kiln(&["cache", "mounts", "rm", "--all", "--force"]).fails(3).says(&user);
    go(&mount);
    assert!(build.wait().unwrap().success());
    project.kiln(&["cache", "mounts", "rm", "y"]).fails(1).says("there is no cache mount `y`").says("`x`");
    assert!(project.kiln(&["cache", "mounts", "rm", "x"]).ok().stdout.starts_with("x\n"));
    assert_eq!(project.kiln(&["cache", "mounts", "ls", "--format=json"]).ok().stdout, "");
    project.kiln(&["cache", "mounts", "rm"]).fails(2);
}

/// Writes files into the cache mount `pip`.
fn fill(project: &Project) {
    project.builds(
        "FROM busybox\nRUN --mount=type=cache,id=pip,target=/c mkdir /c/d && echo one > /c/d/f && ln -s f /c/d/l && chown 5:6 /c\n",
    );
}

/// Says what is in it, and what it looks like.
const LOOK: &str =
    "FROM busybox\nRUN --mount=type=cache,id=pip,target=/c cat /c/d/l > /seen; stat -c '%u %g' /c >> /seen\n";

#[test]
fn mounts_travel_by_directory_archive_and_registry() {
    let project = Project::new();
    fill(&project);
    let registry = Registry::start();
    let reference = registry.as_ref().map(|registry| format!("{}/cache:main", registry.host()));
    let typed = reference.as_ref().map(|reference| format!("type=registry,ref={reference}"));
    let at = |name: &str| project.path().join(name).display().to_string();
    let places = [Some((at("dir"), at("dir"))), Some((at("m.tar"), format!("type=local,src={}", at("m.tar"))))];
    let places = places.into_iter().chain([reference.zip(typed)]).flatten();
    for (to, from) in places {
        project.kiln(&["cache", "mounts", "export", "--to", &to]).ok().says("exporting cache mounts");
        let other = Project::new();
        assert_eq!(other.kiln(&["cache", "mounts", "import", "--from", &from]).ok().stdout, "pip: restored\n");
        other.builds(LOOK);
        assert_eq!(other.sh("cat /seen"), "one\n5 6\n", "{to}");
        let again = other.kiln(&["cache", "mounts", "import", "pip", "--from", &from]).ok();
        assert_eq!(again.stdout, "pip: is here already\n");
        fs::write(files(&other, "d/f").pop().unwrap(), "other").unwrap();
        other.kiln(&["cache", "mounts", "import", "--replace", "--from", &from]).ok();
        assert_eq!(fs::read_to_string(files(&other, "d/f").pop().unwrap()).unwrap(), "one\n");
    }
    project.kiln(&["cache", "mounts", "export", "--to", &at("dir"), "npm"]).fails(1).says("`npm`").says("`pip`");
    project.kiln(&["cache", "mounts", "import", "--from", &at("none")]).fails(1).says("there are no cache mounts at");
    let small = ["cache", "mounts", "export", "--max-size", "1k", "--to", &at("dir")];
    project.kiln(&small).fails(1).says("`pip` was not exported: it is larger than 1024 bytes");
}

#[test]
fn mounts_go_with_a_build_s_cache_and_come_back_when_a_step_wants_one() {
    let project = Project::new();
    let registry = Registry::start();
    let dir = project.path().join("cache").display().to_string();
    let mut places = vec![(format!("type=local,dest={dir}"), format!("type=local,src={dir}"))];
    let named = registry.as_ref().map(|registry| format!("type=registry,ref={}/cache:main", registry.host()));
    places.extend(named.map(|named| (named.clone(), named)));
    let text = "FROM busybox\nARG N\nRUN --mount=type=cache,id=pip,target=/c echo $N >> /c/log; cp /c/log /seen\n\
                RUN --mount=type=cache,id=other,target=/c ls /c > /other; touch /c/f\n";
    for (to, from) in places {
        project
            .dockerfile(text)
            .build(&["--build-arg", &format!("N={to}"), "--cache-to", &format!("{to},mounts=pip;gone")])
            .ok()
            .says("exporting cache mounts to")
            .says("warning: there is no cache mount `gone` to export");
        let before = project.sh("cat /seen");
        let other = Project::new();
        other.dockerfile(text);
        let run = other.build(&["--build-arg", "N=2", "--cache-from", &from]).ok().says("restoring cache mount pip");
        run.never_says("restoring cache mount other");
        assert_eq!(other.sh("cat /seen /other"), format!("{before}2\n"), "{to}");
        other.build(&["--build-arg", "N=3", "--cache-from", &from]).ok().never_says("restoring cache mount");
        assert_eq!(other.sh("cat /seen"), format!("{before}2\n3\n"), "what is here stays");
    }
}

#[test]
fn a_broken_cache_of_mounts_is_a_warning_and_the_mount_begins_empty() {
    let project = Project::new();
    fill(&project);
    project.kiln(&["cache", "mounts", "export", "--to", "out"]).ok();
    let out = project.path().join("out");
    for blob in fs::read_dir(out.join("blobs/sha256")).unwrap().flatten() {
        let bytes = fs::read(blob.path()).unwrap();
        if bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            fs::write(blob.path(), vec![0; bytes.len()]).unwrap();
        }
    }
    let other = Project::new();
    let from = format!("type=local,src={}", out.display());
    other.dockerfile("FROM busybox\nRUN --mount=type=cache,id=pip,target=/c ls /c > /seen\n");
    other.build(&["--cache-from", &from]).ok().says("warning: cache mount `pip` begins empty");
    assert_eq!(other.sh("cat /seen"), "");
    other
        .kiln(&["cache", "mounts", "import", "pip", "--replace", "--from", out.to_str().unwrap()])
        .fails(1)
        .says("`pip`");
}

#[test]
fn an_export_while_a_step_writes_is_whole() {
    let project = Project::new();
    let writes = "FROM busybox\nRUN --mount=type=cache,id=x,target=/c for i in $(seq 1 40); do \
         echo $i > /c/$i; done; touch /c/first; i=0; while [ ! -e /c/go ]; do \
         i=$((i+1)); echo $i > /c/busy; head -c 300000 /dev/zero | tr '\\0' a > /c/large; rm /c/large; done\n";
    let mut build = start(&project, "writer", writes);
    let mount = await_file(&project, "first");
    for _ in 0..3 {
        project.kiln(&["cache", "mounts", "export", "--to", "out"]).ok();
    }
    go(&mount);
    assert!(build.wait().unwrap().success());
    let other = Project::bare();
    other.kiln(&["cache", "mounts", "import", "--from", project.path().join("out").to_str().unwrap()]).ok();
    for number in 1..=40 {
        let file = files(&other, &number.to_string()).pop().unwrap();
        assert_eq!(fs::read_to_string(file).unwrap(), format!("{number}\n"));
    }
    for large in files(&other, "large") {
        assert!(fs::read(large).unwrap().iter().all(|byte| *byte == b'a'));
    }
}
