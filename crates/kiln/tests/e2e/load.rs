//! Images into what runs containers here: docker by its socket, podman by its program, and nobody.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use kiln_testkit::{HttpServer, Reply, Request};

use crate::project::{Project, Run, run};

fn project() -> Project {
    let project = Project::new();
    project.file("f", "content").dockerfile("FROM busybox\nCOPY f /f\nCMD [\"cat\", \"/f\"]\n");
    project
}

/// Builds with `--load`, where docker listens at `host` and programs are found in `path`.
fn load(project: &Project, flag: &str, (host, path): (&str, &str)) -> Run {
    let mut command = project.command();
    command.args(["build", "--progress", "plain", "-t", "app", flag]).arg(project.context());
    run(command.env("DOCKER_HOST", host).env("PATH", path))
}

/// A docker that keeps what it is sent, and knows images by the configs that were in it.
fn docker(known: Arc<Mutex<BTreeSet<String>>>) -> HttpServer {
    HttpServer::start(move |request: &Request| {
        let path = request.path.split('?').next().unwrap();
        match (request.method.as_str(), path) {
            ("GET", "/_ping") => Reply::bytes("OK"),
            ("POST", "/images/load") => {
                known.lock().unwrap().insert(config_of(&request.body));
                Reply::bytes("{\"stream\":\"Loaded image: app:latest\\n\"}\n")
            }
            ("GET", _) => match path.split('/').nth(2) {
                Some(id) if known.lock().unwrap().contains(id) => Reply::bytes("{}"),
                _ => Reply::bytes("{\"message\":\"no such image\"}").with_status(404),
            },
            ("POST", _) => Reply::status(201),
            _ => Reply::status(405),
        }
    })
}

/// The id of the one image in an archive for `docker load`.
fn config_of(archive: &[u8]) -> String {
    let mut archive = tar::Archive::new(archive);
    let mut entries = archive.entries().unwrap().map(Result::unwrap);
    let manifest = entries.find(|entry| entry.path().unwrap() == Path::new("manifest.json")).expect("a manifest.json");
    let manifest: serde_json::Value = serde_json::from_reader(manifest).unwrap();
    assert_eq!(manifest[0]["RepoTags"][0], "app:latest");
    manifest[0]["Config"].as_str().unwrap().replace("blobs/sha256/", "sha256:")
}

/// Puts a server behind a socket in the file system, for one connection after the other.
fn behind_socket(path: &Path, server: String) {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        for here in listener.incoming().flatten() {
            let there = TcpStream::connect(&server).unwrap();
            let back: (TcpStream, UnixStream) = (there.try_clone().unwrap(), here.try_clone().unwrap());
            std::thread::spawn(move || io::copy(&mut &back.0, &mut &back.1));
            std::thread::spawn(move || io::copy(&mut &here, &mut &there));
        }
    });
}

#[test]
fn docker_gets_an_image_once_and_then_only_its_name() {
    let project = project();
    let known = Arc::<Mutex<BTreeSet<String>>>::default();
    let server = docker(Arc::clone(&known));
    let socket = project.path().join("docker.sock");
    behind_socket(&socket, server.host());
    let host = format!("unix://{}", socket.display());
    load(&project, "--load", (&host, "")).ok().says("importing to docker");
    let id = project.inspect("app")["Id"].as_str().unwrap().to_owned();
    assert_eq!(known.lock().unwrap().iter().collect::<Vec<_>>(), [&id]);
    load(&project, "--output=type=docker", (&host, "")).ok().says("is there already");
    let asked: Vec<String> = server.requests().iter().map(|r| format!("{} {}", r.method, r.path)).collect();
    assert_eq!(asked.iter().filter(|asked| asked.contains("/images/load")).count(), 1, "{asked:?}");
    let tag = format!("POST /images/{id}/tag?repo=docker.io%2Flibrary%2Fapp&tag=latest");
    assert_eq!(asked.last().unwrap(), &tag);
}

#[test]
fn what_docker_says_is_why_it_failed() {
    let project = project();
    let server = HttpServer::start(|request: &Request| match request.path.as_str() {
        "/_ping" => Reply::bytes("OK"),
        path if path.starts_with("/images/load") => Reply::bytes("{\"error\":\"no space left on device\"}\n"),
        _ => Reply::bytes("{\"message\":\"no such image\"}").with_status(404),
    });
    let host = format!("tcp://{}", server.host());
    load(&project, "--load=docker", (&host, "")).fails(3).says("no space left on device");
}

#[test]
fn without_anybody_the_image_is_in_our_own_store_alone() {
    let project = project();
    let nobody = "unix:///nonexistent/docker.sock";
    load(&project, "--load", (nobody, "")).ok().says("in kiln's own store only");
    assert_eq!(project.kiln(&["run", "--rm", "app"]).ok().stdout, "content");
    load(&project, "--load=docker", (nobody, "")).fails(3).says("DOCKER_HOST");
    load(&project, "--load=podman", (nobody, "")).fails(3).says("there is no `podman`");
}

#[test]
fn podman_reads_the_archive_from_a_file() {
    let project = project();
    let bin = project.path().join("bin");
    fs::create_dir(&bin).unwrap();
    let script = "#!/bin/sh\n[ \"$1 $2 $3\" = \"load --quiet --input\" ] && exec /bin/cp \"$4\" \"${0%/*}/got.tar\"\n";
    fs::write(bin.join("podman"), script).unwrap();
    fs::set_permissions(bin.join("podman"), fs::Permissions::from_mode(0o755)).unwrap();
    let nobody = "unix:///nonexistent/docker.sock";
    load(&project, "--load", (nobody, bin.to_str().unwrap())).ok().says("importing to podman");
    let id = project.inspect("app")["Id"].as_str().unwrap().to_owned();
    assert_eq!(config_of(&fs::read(bin.join("got.tar")).unwrap()), id);
}
