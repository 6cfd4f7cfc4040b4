//! `ADD` of files from the web: asked for each build, sent only when they changed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use kiln_testkit::{FileServer, HttpServer, Reply};

use crate::project::{Project, run};

/// How many answers had a body.
fn sent(files: &FileServer) -> usize {
    files.requests().iter().filter(|request| request.header("if-none-match").is_none()).count()
}

#[test]
fn a_file_has_the_mode_time_and_name_of_its_kind() {
    let (files, project) = (FileServer::start(), Project::bare());
    let url = files.put("/dir/tool%2B.sh", "content");
    project.dockerfile(&format!(
        "FROM scratch\nADD {url} /\nADD {url} /other/name\nADD --chmod=755 --chown=5:6 {url}?x=1 /set/\n"
    ));
    let out = project.tree(&[]);
    let found = |path: &str| {
        let metadata = fs::metadata(out.join(path)).unwrap();
        (metadata.mode() & 0o7777, metadata.mtime())
    };
    // The server's `Last-Modified`.
    assert_eq!(found("tool+.sh"), (0o600, 784_111_777));
    assert_eq!(found("other/name"), (0o600, 784_111_777));
    assert_eq!(found("set/tool+.sh"), (0o755, 784_111_777));
    let tar = project.path().join("tree.tar");
    project.build(&["-o", &format!("type=tar,dest={}", tar.display())]).ok();
    let listed = run(Command::new("tar").args(["--numeric-owner", "-tvf"]).arg(&tar)).ok().stdout;
    let owner = |path: &str| {
        let line = listed.lines().find(|line| line.ends_with(path)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    assert_eq!([owner(" tool+.sh"), owner("set/tool+.sh")], ["0/0", "5/6"]);
}

#[test]
fn a_file_is_asked_for_each_build_and_sent_once() {
    let (files, project) = (FileServer::start(), Project::bare());
    let url = files.put("/f", "one");
    project.dockerfile(&format!("FROM scratch\nADD {url} /f\n"));
    project.build(&[]).ok();
    assert_eq!((files.requests().len(), sent(&files)), (1, 1));
    assert!(project.build(&[]).ok().cached() >= 1);
    assert_eq!((files.requests().len(), sent(&files)), (2, 1));
    files.put("/f", "two");
    let out = project.tree(&[]);
    assert_eq!(fs::read_to_string(out.join("f")).unwrap(), "two");
}

#[test]
fn a_checksum_is_met_or_the_build_fails_and_a_met_one_needs_no_server() {
    let (files, project) = (FileServer::start(), Project::bare());
    let url = files.put("/f", "content");
    let digest = "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73";
    project.dockerfile(&format!("FROM scratch\nADD --checksum=sha256:{digest} {url} /f\n"));
    project.build(&[]).ok();
    let asked = files.requests().len();
    project.build(&["--no-cache"]).ok();
    assert_eq!(files.requests().len(), asked);
    project.dockerfile(&format!("FROM scratch\nADD --checksum=sha256:{} {url} /f\n", "0".repeat(64)));
    project.build(&[]).fails(1).says(digest).says("Dockerfile:2");
}

#[test]
fn archives_from_the_web_are_unpacked_only_when_asked() {
    let (files, project) = (FileServer::start(), Project::bare());
    project.file("t/x", "x");
    let archive = project.path().join("t.tar.gz");
    run(Command::new("tar").arg("-C").arg(project.context().join("t")).arg("-czf").arg(&archive).arg("x")).ok();
    let url = files.put("/t.tar.gz", fs::read(&archive).unwrap());
    project.dockerfile(&format!("FROM scratch\nADD {url} /kept/\nADD --unpack=true {url} /unpacked/\n"));
    let out = project.tree(&[]);
    assert!(out.join("kept/t.tar.gz").is_file() && out.join("unpacked/x").is_file());
    assert!(!out.join("unpacked/t.tar.gz").exists());
}

#[test]
fn tokens_are_lent_to_their_host_only_and_are_not_shown() {
    let server = HttpServer::start(|request| match request.header("authorization") {
        None => Reply::status(401),
        Some(_) => Reply::bytes("served"),
    });
    let project = Project::bare();
    let token = project.path().join("token");
    fs::write(&token, "SECRET-5e11\n").unwrap();
    let lent = |id: &str| format!("id={id},src={}", token.display());
    project.dockerfile(&format!("FROM scratch\nADD {} /f\n", server.url("/f")));
    project.build(&[]).fails(1).says("--secret id=HTTP_AUTH_TOKEN_127.0.0.1").says("Dockerfile:2");
    project.build(&["--secret", &lent("HTTP_AUTH_TOKEN_elsewhere.example")]).fails(1);
    project.build(&["--secret", &lent("HTTP_AUTH_TOKEN_127.0.0.1")]).ok().never_says("SECRET-5e11");
    fs::write(&token, "Custom SECRET-5e11").unwrap();
    project.dockerfile(&format!("FROM scratch\nADD {} /f\n", server.url("/g")));
    project.build(&["--secret", &lent("HTTP_AUTH_HEADER_127.0.0.1")]).ok().never_says("SECRET-5e11");
    let asked: Vec<_> = server.requests().iter().filter_map(|r| r.header("authorization").map(str::to_owned)).collect();
    assert_eq!(asked, ["Bearer SECRET-5e11", "Custom SECRET-5e11"]);
}
