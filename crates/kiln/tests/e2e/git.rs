//! `ADD` of git repositories, from a real server.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;

use kiln_testkit::{GitServer, Request};

use crate::project::{Project, Run};

/// A project whose Dockerfile adds one repository to `/`.
fn adds(project: &Project, source: &str) -> Run {
    project.dockerfile(&format!("FROM scratch\nADD {source} /\n"));
    project.build(&["-o", &format!("type=local,dest={}", out(project).display())])
}

fn out(project: &Project) -> PathBuf {
    project.path().join("out")
}

/// What a repository's checkout looks like: the sorted names of its files, and the content of `version`.
fn added(project: &Project, source: &str) -> (Vec<String>, String) {
    let _ = fs::remove_dir_all(out(project));
    adds(project, source).ok();
    let mut names: Vec<String> =
        fs::read_dir(out(project)).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    (names, fs::read_to_string(out(project).join("version")).unwrap_or_default())
}

fn fetches(requests: &[Request]) -> usize {
    requests.iter().filter(|request| request.method == "POST").count()
}

#[test]
fn every_spelling_of_a_reference_finds_its_commit() {
    let (server, project) = (GitServer::start(), Project::bare());
    let repository = server.repository("app", &[("version", "1"), ("dir/sub/version", "sub")]);
    let first = repository.git(&["rev-parse", "HEAD"]);
    repository.git(&["tag", "light"]);
    repository.git(&["tag", "--annotate", "--message=x", "heavy"]);
    repository.commit(&[("version", "2")]);
    repository.git(&["branch", "release/2"]);
    let last = repository.commit(&[("version", "3")]);
    let url = server.url("app");
    let top = || vec!["dir".to_owned(), "version".to_owned()];
    for (source, version) in [
        (url.clone(), "3"),
        (format!("{url}#main"), "3"),
        (format!("{url}#refs/heads/main"), "3"),
        (format!("{url}#light"), "1"),
        (format!("{url}#heavy"), "1"),
        (format!("{url}?tag=heavy"), "1"),
        (format!("{url}#release/2"), "2"),
        (format!("{url}?branch=release/2"), "2"),
        (format!("{url}?ref={first}"), "1"),
        (format!("{url}#{last}"), "3"),
        (format!("{url}#{}", &first[..9]), "1"),
        (format!("{url}?ref=main&checksum={last}&fetch-by-commit=true"), "3"),
        (format!("--checksum={} {url}#heavy", &first[..12]), "1"),
    ] {
        assert_eq!(added(&project, &source), (top(), version.to_owned()), "{source}");
    }
    for source in [format!("{url}#main:dir/sub"), format!("{url}?subdir=dir/sub"), format!("{url}#:dir/sub/")] {
        assert_eq!(added(&project, &source), (vec!["version".to_owned()], "sub".to_owned()), "{source}");
    }
}

#[test]
fn the_same_commit_hits_and_a_moved_branch_is_a_miss() {
    let (server, project) = (GitServer::start(), Project::bare());
    let repository = server.repository("app", &[("version", "1")]);
    let url = server.url("app");
    assert_eq!(added(&project, &format!("{url}#main")).1, "1");
    let before = fetches(&server.requests());
    adds(&project, &format!("{url}#main")).ok().says("CACHED");
    let asked_only_for_names = fetches(&server.requests()) - before;
    assert!(asked_only_for_names <= 1, "a cached commit was fetched again");
    let commit = repository.commit(&[("version", "2")]);
    assert_eq!(added(&project, &format!("{url}#main")).1, "2");
    let before = server.requests().len();
    adds(&project, &format!("{url}#{commit}")).ok().says("CACHED");
    assert_eq!(server.requests().len(), before, "a commit by its whole name needs no network");
}

#[test]
fn a_checked_out_tree_has_plain_modes_no_git_directory_and_the_times_asked_for() {
    let (server, project) = (GitServer::start(), Project::bare());
    let repository = server.repository("app", &[("dir/run", "x"), ("dir/file", "y")]);
    fs::set_permissions(repository.dir().join("dir/run"), fs::Permissions::from_mode(0o777)).unwrap();
    symlink("dir/file", repository.dir().join("link")).unwrap();
    repository.commit(&[]);
    adds(&project, &format!("{}?mtime=commit", server.url("app"))).ok();
    let found = |path: &str| {
        let metadata = fs::symlink_metadata(out(&project).join(path)).unwrap();
        (metadata.mode() & 0o7777, metadata.uid(), metadata.mtime())
    };
    assert_eq!(found("dir"), (0o755, 0, 1_000_000_000));
    assert_eq!(found("dir/run"), (0o755, 0, 1_000_000_000));
    assert_eq!(found("dir/file"), (0o644, 0, 1_000_000_000));
    assert_eq!(found("link").2, 1_000_000_000);
    assert!(!out(&project).join(".git").exists());
    // Times count for nothing in the cache, so they are seen where nothing is cached.
    let fresh = Project::bare();
    adds(&fresh, &server.url("app")).ok();
    assert!(fs::metadata(out(&fresh).join("dir/file")).unwrap().mtime() > 1_500_000_000);
}

#[test]
fn a_git_directory_that_is_kept_is_whole_and_holds_no_secret() {
    let (server, project) = (GitServer::start(), Project::bare());
    let repository = server.repository("app", &[("version", "1")]);
    let commit = repository.git(&["rev-parse", "HEAD"]);
    repository.git(&["tag", "--annotate", "--message=x", "v1"]);
    server.require("Basic dTpTRUNSRVQtYzBmZmVl");
    let url = server.url("app").replace("http://", "http://u:SECRET-c0ffee@");
    adds(&project, &format!("--keep-git-dir=true {url}#v1")).ok();
    let git = |args: &[&str]| {
        let output = Command::new("git").arg("-C").arg(out(&project)).args(args).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    assert_eq!(git(&["rev-parse", "HEAD"]), commit);
    assert_eq!(git(&["status", "--porcelain"]), "");
    assert_eq!(git(&["describe", "--tags"]), "v1");
    assert_eq!(git(&["config", "remote.origin.url"]), server.url("app"));
    assert_eq!(git(&["fsck", "--strict"]), "");
    let left = Command::new("grep").args(["-rlE", "SECRET-c0ffee|dTpTRUNS"]).arg(out(&project)).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&left.stdout), "");
    adds(&project, &format!("--keep-git-dir=true {url}#v1:")).ok();
}

#[test]
fn submodules_are_fetched_unless_they_are_left_out() {
    let (server, project) = (GitServer::start(), Project::bare());
    server.repository("deep", &[("deep.txt", "deep")]);
    let middle = server.repository("middle", &[("middle.txt", "middle")]);
    middle.git(&["submodule", "--quiet", "add", &server.url("deep"), "deep"]);
    middle.commit(&[]);
    let top = server.repository("top", &[("top.txt", "top")]);
    // One that is named relative to its parent.
    top.git(&[
        "-c",
        &format!("remote.origin.url={}", server.url("top")),
        "submodule",
        "--quiet",
        "add",
        "../middle.git",
        "middle",
    ]);
    top.commit(&[]);
    adds(&project, &server.url("top")).ok();
    assert_eq!(fs::read_to_string(out(&project).join("middle/deep/deep.txt")).unwrap(), "deep");
    assert!(!out(&project).join("middle/.git").exists() && !out(&project).join("middle/deep/.git").exists());
    let _ = fs::remove_dir_all(out(&project));
    adds(&project, &format!("{}?submodules=false", server.url("top"))).ok();
    assert_eq!(fs::read_dir(out(&project).join("middle")).unwrap().count(), 0);
    let _ = fs::remove_dir_all(out(&project));
    adds(&project, &format!("--keep-git-dir {}", server.url("top"))).ok();
    assert!(out(&project).join("middle/deep/deep.txt").exists());
}

#[test]
fn tokens_are_lent_by_secrets_and_are_nowhere_afterwards() {
    let (server, project) = (GitServer::start(), Project::bare());
    let repository = server.repository("app", &[("version", "1")]);
    let token = "SECRET-8d5a01bb";
    fs::write(project.path().join("token"), format!("{token}\n")).unwrap();
    let lent = |id: &str| format!("id={id},src={}", project.path().join("token").display());
    // `x-access-token:SECRET-8d5a01bb` in base64.
    let basic = "Basic eC1hY2Nlc3MtdG9rZW46U0VDUkVULThkNWEwMWJi";
    server.require(basic);
    let source = server.url("app");
    adds(&project, &source)
        .fails(1)
        .says("Dockerfile:2")
        .says(&format!("--secret id=GIT_AUTH_TOKEN.{}", server.host()));
    let build = |secret: &str, version: &str| {
        repository.commit(&[("version", version)]);
        project.build(&["--secret", secret])
    };
    build(&lent("GIT_AUTH_TOKEN"), "2").ok().never_says(token).never_says(&basic[6..]);
    build(&lent(&format!("GIT_AUTH_TOKEN.{}", server.host())), "3").ok();
    build(&lent("GIT_AUTH_TOKEN.elsewhere.example"), "4").fails(1);
    fs::write(project.path().join("token"), basic).unwrap();
    build(&lent("GIT_AUTH_HEADER"), "5").ok().never_says(&basic[6..]);
    fs::write(project.path().join("token"), "SECRET-wrong-one").unwrap();
    build(&lent("GIT_AUTH_TOKEN"), "6").fails(1).says("does not take it").never_says("SECRET-wrong");
    let left = Command::new("grep").args(["-rlE", &format!("{token}|{}", &basic[6..])]).arg(project.state()).output();
    assert_eq!(String::from_utf8_lossy(&left.unwrap().stdout), "");
}

#[test]
fn credentials_do_not_follow_a_redirect() {
    use kiln_testkit::{HttpServer, Reply};
    let (thief, project) = (GitServer::start(), Project::bare());
    thief.repository("app", &[("version", "1")]);
    let there = format!("http://{}", thief.host());
    let server =
        HttpServer::start(move |request| Reply::status(301).with("Location", format!("{there}{}", request.path)));
    fs::write(project.path().join("token"), "SECRET-33aa33").unwrap();
    let secret = format!("id=GIT_AUTH_TOKEN,src={}", project.path().join("token").display());
    project.dockerfile(&format!("FROM scratch\nADD {} /\n", server.url("/app.git")));
    project.build(&["--secret", &secret]).fails(1).says("the address it leads to");
    assert!(thief.requests().iter().all(|request| request.header("authorization").is_none()));
    assert!(server.requests().iter().any(|request| request.header("authorization").is_some()));
    // Without credentials there is nothing to lose.
    project.build(&[]).ok();
}

#[test]
fn a_wrong_checksum_and_a_missing_name_say_what_is_there() {
    let (server, project) = (GitServer::start(), Project::bare());
    let repository = server.repository("app", &[("version", "1")]);
    let commit = repository.git(&["rev-parse", "HEAD"]);
    let url = server.url("app");
    adds(&project, &format!("--checksum=abcdef1 {url}#main")).fails(1).says(&commit).says("Dockerfile:2");
    adds(&project, &format!("{url}#nosuch")).fails(1).says("nosuch").says(&format!("git ls-remote {url}"));
    adds(&project, &format!("{url}#main:no/dir")).fails(1).says("no/dir");
    adds(&project, &format!("{url}#{}", "d".repeat(40))).fails(1).says("dddd");
    adds(&project, &server.url("none")).fails(1).says("check the address");
    adds(&project, "http://127.0.0.1:9/app.git").fails(3).says("can be reached");
}

#[test]
fn a_hostile_repository_reaches_nothing() {
    let (server, project) = (GitServer::start(), Project::bare());
    let marker = project.path().join("marker");
    let repository = server.repository("app", &[("file", "x")]);
    // A link on the way to the wanted directory.
    symlink("/etc", repository.dir().join("etc")).unwrap();
    // A driver for files that nobody has set up, and a hook that is only a file.
    let hook = format!("#!/bin/sh\ntouch {}\n", marker.display());
    repository.commit(&[(".gitattributes", "* filter=evil\n"), ("hooks/post-checkout", &hook)]);
    let url = server.url("app");
    adds(&project, &url).ok();
    assert_eq!(fs::read_link(out(&project).join("etc")).unwrap(), PathBuf::from("/etc"));
    adds(&project, &format!("{url}#main:etc")).fails(1).says("no directory");
    // Submodules from the machine, and by a command.
    for (name, address) in [
        ("local", format!("file://{}", server.root().join("app.git").display())),
        ("ext", format!("ext::touch {}", marker.display())),
    ] {
        let evil = server.repository(name, &[("x", "x")]);
        evil.commit(&[(".gitmodules", &format!("[submodule \"m\"]\n\tpath = m\n\turl = {address}\n"))]);
        let commit = repository.git(&["rev-parse", "HEAD"]);
        evil.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{commit},m")]);
        evil.git(&["commit", "--quiet", "--message=evil"]);
        adds(&project, &server.url(name)).fails(1).says("submodules");
    }
    assert!(!marker.exists());
    // What git would take for an option.
    adds(&project, &format!("{url}#--upload-pack=touch")).fails(1).says("cannot be a branch");
}

#[test]
fn two_builds_at_once_and_one_that_was_killed_leave_the_repository_usable() {
    let (server, project) = (GitServer::start(), Project::bare());
    let repository = server.repository("app", &[("version", "1")]);
    repository.git(&["branch", "other"]);
    repository.commit(&[("version", "2")]);
    let url = server.url("app");
    let start = |reference: &str, name: &str| {
        let context = project.path().join(name);
        fs::create_dir(&context).unwrap();
        fs::write(context.join("Dockerfile"), format!("FROM scratch\nADD {url}#{reference} /\n")).unwrap();
        project.command().args(["build", "-q", context.to_str().unwrap()]).spawn().unwrap()
    };
    let mut both = [start("main", "one"), start("other", "two")];
    both.iter_mut().for_each(|build| assert!(build.wait().unwrap().success()));
    repository.commit(&[("version", "3")]);
    for (delay, name) in [(20, "k1"), (60, "k2"), (120, "k3")] {
        let mut build = start("main", name);
        std::thread::sleep(std::time::Duration::from_millis(delay));
        build.kill().unwrap();
        build.wait().unwrap();
    }
    // What a git that was killed may leave.
    let mirror = fs::read_dir(project.state().join("git")).unwrap().flatten().find(|entry| entry.path().is_dir());
    fs::write(mirror.unwrap().path().join("shallow.lock"), "").unwrap();
    assert_eq!(added(&project, &format!("{url}#main")).1, "3");
    let pruned = project.kiln(&["prune", "--all", "--force"]).ok();
    assert!(format!("{}{}", pruned.stdout, pruned.stderr).contains("repository"));
    assert_eq!(added(&project, &format!("{url}#main")).1, "3");
}

#[test]
fn servers_that_know_little_give_what_they_have() {
    let (server, project) = (GitServer::start(), Project::bare());
    let repository = server.repository("app", &[("version", "1")]);
    let first = repository.git(&["rev-parse", "HEAD"]);
    repository.git(&["tag", "--annotate", "--message=x", "v1"]);
    repository.commit(&[("version", "2")]);
    repository.git(&["update-server-info"]);
    // Plain files, of which git finds its way by itself.
    let root = repository.dir().join(".git");
    let files = kiln_testkit::HttpServer::start(move |request| {
        let path = request.path.split('?').next().unwrap_or_default().trim_start_matches("/plain.git/");
        fs::read(root.join(path)).map_or_else(|_| kiln_testkit::Reply::status(404), kiln_testkit::Reply::bytes)
    });
    let url = files.url("/plain.git");
    for (source, version) in [(url.clone(), "2"), (format!("{url}#v1"), "1"), (format!("{url}#{first}"), "1")] {
        assert_eq!(added(&project, &source).1, version, "{source}");
    }
}

#[test]
fn git_s_own_protocol_is_spoken() {
    let (server, project) = (GitServer::start(), Project::bare());
    server.repository("app", &[("version", "daemon")]);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    // The program itself: behind `git daemon` it would be a process that is not ours to end.
    let programs = crate::project::run(Command::new("git").arg("--exec-path")).ok().stdout;
    let mut daemon = Command::new(PathBuf::from(programs.trim()).join("git-daemon"));
    daemon.args(["--export-all", "--listen=127.0.0.1"]).arg(format!("--port={port}"));
    daemon.arg(format!("--base-path={}", server.root().display()));
    let mut daemon = daemon.stderr(std::process::Stdio::null()).spawn().unwrap();
    let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() && std::time::Instant::now() < end {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let run = adds(&project, &format!("git://127.0.0.1:{port}/app.git#main"));
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    run.ok();
    assert_eq!(fs::read_to_string(out(&project).join("version")).unwrap(), "daemon");
}

/// Without a server for it in every machine, ssh is played by a script that says what it was given.
#[test]
fn ssh_gets_the_lent_agent_and_nothing_of_the_machine_s_own() {
    let (server, project) = (GitServer::start(), Project::bare());
    server.repository("app", &[("version", "ssh")]);
    let bin = project.path().join("bin");
    fs::create_dir(&bin).unwrap();
    let log = project.path().join("ssh.log");
    let script = format!(
        "#!/bin/sh\necho \"$@\" >> {log}\nssh-add -l >> {log} 2>&1\nfor last; do :; done\ncd {root} && exec sh -c \"$last\"\n",
        log = log.display(),
        root = server.root().display()
    );
    fs::write(bin.join("ssh"), script).unwrap();
    fs::set_permissions(bin.join("ssh"), fs::Permissions::from_mode(0o755)).unwrap();
    let key = crate::ssh::key(project.path(), "ed25519", "");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    project.dockerfile("FROM scratch\nADD git@git.example:app.git /\n");
    let output = format!("type=local,dest={}", out(&project).display());
    let context = project.context();
    let build = |ssh: &[&str]| {
        let mut command = project.command();
        command.args(["build", "--progress=plain", "-o", &output]).args(ssh).arg(&context);
        crate::project::run(command.env("PATH", &path).env_remove("SSH_AUTH_SOCK"))
    };
    build(&[]).fails(1).says("--ssh default").says("Dockerfile:2");
    let lent = format!("default={}", key.display());
    build(&["--ssh", &lent]).ok();
    assert_eq!(fs::read_to_string(out(&project).join("version")).unwrap(), "ssh");
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("ED25519") && log.contains("-F /dev/null") && log.contains("BatchMode=yes"), "{log}");
}
