//! Build contexts that are fetched: repositories, tars and Dockerfiles by their URLs.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use kiln_testkit::{FileServer, GitServer};

use crate::project::{Project, Run};

const DOCKERFILE: &str = "FROM scratch\nCOPY . /\n";

/// Builds a URL into a directory.
fn build(project: &Project, args: &[&str], url: &str) -> Run {
    let _ = fs::remove_dir_all(out(project));
    let dest = format!("type=local,dest={}", out(project).display());
    project.kiln(&[&["build", "--progress", "plain", "-o", &dest], args, &[url]].concat())
}

fn out(project: &Project) -> PathBuf {
    project.path().join("out")
}

fn names(project: &Project) -> Vec<String> {
    let entries = fs::read_dir(out(project)).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_repository_is_built_at_any_reference_and_directory() {
    let (server, project) = (GitServer::start(), Project::bare());
    let sub = "FROM scratch\nCOPY only /\n";
    let files = [("Dockerfile", DOCKERFILE), ("version", "1"), ("dir/Dockerfile", sub), ("dir/only", "x")];
    let repository = server.repository("app", &files);
    repository.git(&["tag", "v1"]);
    repository.commit(&[("version", "2"), (".dockerignore", "dir\n")]);
    let url = server.url("app");
    build(&project, &[], &url).ok().says(&format!("[internal] load git source {url}"));
    assert_eq!(names(&project), [".dockerignore", "Dockerfile", "version"]);
    assert_eq!(fs::read_to_string(out(&project).join("version")).unwrap(), "2");
    build(&project, &[], &format!("{url}#v1")).ok();
    assert_eq!(fs::read_to_string(out(&project).join("version")).unwrap(), "1");
    build(&project, &[], &format!("{url}#v1:dir")).ok();
    assert_eq!(names(&project), ["only"]);
    build(&project, &["-f", "dir/Dockerfile"], &format!("{url}#v1")).fails(1).says("dir/Dockerfile:2").says("only");
    build(&project, &["--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1"], &url).ok();
    assert!(out(&project).join(".git/HEAD").exists());
    // What did not change is fetched once and hits.
    let before = server.requests().iter().filter(|request| request.method == "POST").count();
    build(&project, &[], &format!("{url}#v1")).ok().says("CACHED");
    let after = server.requests().iter().filter(|request| request.method == "POST").count();
    assert!(after <= before + 1, "{before} {after}");
    build(&project, &[], &format!("{url}#v2")).fails(1).says("`v2`");
    build(&project, &[], &format!("{url}?rf=v1")).fails(2).says("did you mean `ref`?");
}

#[test]
fn a_repository_is_asked_with_lent_credentials_that_stay_nowhere() {
    let (server, project) = (GitServer::start(), Project::bare());
    server.repository("app", &[("Dockerfile", DOCKERFILE)]);
    // `x-access-token:SECRET-8d5a01bb` in base64.
    server.require("Basic eC1hY2Nlc3MtdG9rZW46U0VDUkVULThkNWEwMWJi");
    fs::write(project.path().join("token"), "SECRET-8d5a01bb").unwrap();
    let url = server.url("app");
    build(&project, &[], &url).fails(1).says("--secret id=GIT_AUTH_TOKEN");
    let secret = format!("id=GIT_AUTH_TOKEN,src={}", project.path().join("token").display());
    build(&project, &["--secret", &secret], &url).ok().never_says("SECRET-8d5a01bb");
    let inline = url.replacen("://", "://x-access-token:SECRET-8d5a01bb@", 1);
    build(&project, &[], &inline).ok().never_says("SECRET-8d5a01bb");
    let left = Command::new("grep").args(["-rl", "SECRET-8d5a01bb"]).arg(project.state()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&left.stdout), "");
}

#[test]
fn a_download_is_a_tar_or_a_dockerfile() {
    let (files, project) = (FileServer::start(), Project::bare());
    let context = project.path().join("tree");
    fs::create_dir_all(context.join("sub")).unwrap();
    fs::write(context.join("Dockerfile"), DOCKERFILE).unwrap();
    fs::write(context.join("sub/Other"), "FROM scratch\nCOPY sub /sub\n").unwrap();
    let tar = project.path().join("context.tar.gz");
    let packed = Command::new("tar").arg("-czf").arg(&tar).arg("-C").arg(&context).arg(".").status().unwrap();
    assert!(packed.success());
    let url = files.put("/context.tar.gz", fs::read(&tar).unwrap());
    build(&project, &[], &url).ok().says("[internal] load remote build context");
    assert_eq!(names(&project), ["Dockerfile", "sub"]);
    build(&project, &["-f", "sub/Other"], &url).ok();
    assert_eq!(names(&project), ["sub"]);
    build(&project, &["-f", "missing"], &url).fails(1).says("`missing`");
    let text = files.put("/Dockerfile", "FROM scratch\nCOPY <<E /made\nx\nE\n");
    build(&project, &[], &text).ok();
    assert_eq!(names(&project), ["made"]);
    build(&project, &["-f", "sub/Other"], &text).fails(2).says("is no tar");
    let neither = files.put("/blob", [0x00, 0xff, 0xfe]);
    build(&project, &[], &neither).fails(1).says("neither a tar nor a Dockerfile");
    build(&project, &[], &format!("{text}-missing")).fails(1);
}

#[test]
fn named_contexts_are_fetched_too() {
    let (server, project) = (GitServer::start(), Project::bare());
    server.repository("lib", &[("lib.txt", "lib")]);
    project.dockerfile("FROM scratch\nCOPY --from=lib /lib.txt /\n");
    let lib = format!("lib={}", server.url("lib"));
    let tree = project.tree(&["--build-context", &lib]);
    assert_eq!(fs::read_to_string(tree.join("lib.txt")).unwrap(), "lib");
}

#[test]
fn checks_and_lists_look_into_contexts_that_are_elsewhere() {
    let (server, files, project) = (GitServer::start(), FileServer::start(), Project::bare());
    let text = "FROM scratch as one\nCOPY f gone /\n";
    server.repository("app", &[("Dockerfile", text), ("f", "f"), ("dir/Dockerfile", "FROM scratch\n"), ("x.env", "")]);
    let url = server.url("app");
    let found = project.kiln(&["build", "--check", &url]).fails(1).stdout;
    assert!(
        found.contains("FromAsCasing") && found.contains("CopySourceMissing") && found.contains("Dockerfile:2"),
        "{found}"
    );
    let found = project.kiln(&["check", &url]).fails(0).stdout;
    assert!(found.contains("FromAsCasing") && found.contains("`gone`"), "{found}");
    project.kiln(&["check", "--fix", &url]).fails(2).says("cannot be changed");
    let found = project.kiln(&["build", "--call=targets", &url]).ok().stdout;
    assert!(found.contains("one"), "{found}");
    let list = project.kiln(&["context", "ls", &format!("{url}#main:dir")]).ok().stdout;
    assert!(list.contains("Dockerfile") && !list.contains("x.env"), "{list}");
    // A tar on standard input, and a Dockerfile by its URL.
    let context = project.path().join("tree");
    fs::create_dir_all(&context).unwrap();
    fs::write(context.join("Dockerfile"), text).unwrap();
    let tar = Command::new("tar").arg("-C").arg(&context).args(["-czf", "-", "."]).output().unwrap().stdout;
    let found = project.kiln_with_input(&["build", "--check", "-"], &tar).fails(1).stdout;
    assert!(found.contains("`gone`"), "{found}");
    let dockerfile = files.put("/Dockerfile", "FROM scratch as two\nCOPY Dockerfile /\n");
    project.dockerfile("FROM scratch\n");
    let context = project.context();
    let found = project.kiln(&["build", "--check", "-f", &dockerfile, context.to_str().unwrap()]).fails(1).stdout;
    assert!(found.contains("FromAsCasing"), "{found}");
    build(&project, &["-f", &dockerfile], context.to_str().unwrap()).ok();
    assert_eq!(fs::read_to_string(out(&project).join("Dockerfile")).unwrap(), "FROM scratch\n");
    // Asked for again each time, and sent once.
    let sent = files.requests().iter().filter(|request| request.header("if-none-match").is_none()).count();
    assert_eq!((sent, files.requests().len()), (1, 2));
}

#[test]
fn a_hostile_address_of_a_context_reaches_nothing() {
    let (server, project) = (GitServer::start(), Project::bare());
    let repository = server.repository("app", &[("Dockerfile", DOCKERFILE), ("proj/Dockerfile", DOCKERFILE)]);
    std::os::unix::fs::symlink("/", repository.dir().join("root")).unwrap();
    repository.commit(&[]);
    let (marker, canary) = (project.path().join("marker"), project.path().join("canary"));
    fs::create_dir(&canary).unwrap();
    fs::write(canary.join("Dockerfile"), "FROM scratch\nCOPY <<E /HOST-CANARY\nE\n").unwrap();
    let url = server.url("app");
    let inside = format!("root{}", canary.display());
    for fragment in [
        format!("--upload-pack=touch {}", marker.display()),
        format!("-c core.sshCommand=touch {}", marker.display()),
        format!("main:../../../..{}", canary.display()),
        format!("main:proj/../../..{}", canary.display()),
        format!("main:{inside}"),
        format!("main:{}", canary.display()),
    ] {
        let _ = fs::remove_dir_all(out(&project));
        build(&project, &[], &format!("{url}#{fragment}")).fails(1);
        assert!(!out(&project).join("HOST-CANARY").exists() && !marker.exists(), "{fragment}");
    }
    for address in [
        format!("ext::sh -c touch% {}", marker.display()),
        format!("file://{}", server.root().join("app.git").display()),
        format!("ssh://-oProxyCommand=touch% {}/x.git", marker.display()),
        format!("git@-oProxyCommand=touch {}:x.git", marker.display()),
    ] {
        let run = build(&project, &[], &address);
        assert!(matches!(run.code, 1 | 2), "{address}: {}", run.stderr);
        assert!(!marker.exists(), "{address}");
    }
}

#[test]
fn git_reads_no_configuration_of_the_user_or_the_environment() {
    let (server, project) = (GitServer::start(), Project::bare());
    let repository = server.repository("app", &[("Dockerfile", DOCKERFILE), ("version", "1")]);
    let marker = project.path().join("marker");
    let home = project.path().join("home");
    fs::create_dir_all(home.join("hooks")).unwrap();
    let touch = format!("touch {}", marker.display());
    let hook = home.join("hooks/post-checkout");
    fs::write(&hook, format!("#!/bin/sh\n{touch}\n")).unwrap();
    fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let config = format!(
        "[core]\nfsmonitor = {touch}\nhooksPath = {}\n[alias]\nfetch = !{touch}\n[credential]\nhelper = !{touch}\n\
         [filter \"x\"]\nsmudge = {touch}\n[url \"http://127.0.0.1:9/\"]\ninsteadOf = {}\n",
        home.join("hooks").display(),
        server.url("").trim_end_matches(".git")
    );
    fs::write(home.join(".gitconfig"), &config).unwrap();
    repository.commit(&[(".gitattributes", "* filter=x\n")]);
    repository.git(&["config", "core.fsmonitor", &format!("touch {}", marker.display())]);
    let dest = format!("type=local,dest={}", out(&project).display());
    let mut command = project.command();
    command.args(["build", "-o", &dest, &server.url("app")]).env("HOME", &home).env("XDG_CONFIG_HOME", &home);
    command.env("GIT_CONFIG_GLOBAL", home.join(".gitconfig")).env("GIT_CONFIG_PARAMETERS", "'core.fsmonitor=true'");
    command.env("GIT_SSH_COMMAND", &touch).env("GIT_EXTERNAL_DIFF", &touch).env("GIT_TEMPLATE_DIR", &home);
    crate::project::run(&mut command).ok();
    assert_eq!(names(&project), [".gitattributes", "Dockerfile", "version"]);
    assert!(!marker.exists());
}
