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
