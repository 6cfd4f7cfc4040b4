//! Images on their way: what comes from elsewhere goes on as it came.

use std::io::{Read, Write};
use std::net::TcpListener;

use kiln_testkit::Registry;
use serde_json::Value;

use crate::project::Project;

fn repo_digests(project: &Project, name: &str) -> Vec<String> {
    let digests = project.inspect(name)["RepoDigests"].clone();
    digests.as_array().unwrap().iter().map(|digest| digest.as_str().unwrap().to_owned()).collect()
}

fn layers(image: &Value) -> Vec<Value> {
    image["RootFS"]["Layers"].as_array().unwrap().clone()
}

/// Pushes a small image with zstd layers, unlike what kiln does by itself.
fn push_unlike_ours(project: &Project, name: &str) {
    let output = format!("type=image,name={name},push=true,oci-mediatypes=true,compression=zstd");
    project.file("f", "f").dockerfile("FROM busybox\nCOPY f /f\n");
    project.kiln(&["build", "-o", &output, project.context().to_str().unwrap()]).ok();
}

#[test]
fn a_pulled_image_is_pushed_byte_for_byte() {
    let Some(registry) = Registry::start() else { return };
    let (name, copy) = (format!("{}/a/app:1", registry.host()), format!("{}/b/copy:1", registry.host()));
    let project = Project::new();
    push_unlike_ours(&project, &name);
    let other = Project::bare();
    other.kiln(&["pull", &name]).ok();
    other.kiln(&["tag", &name, &copy]).ok();
    other.kiln(&["push", &copy]).ok();
    let digests = repo_digests(&other, &copy);
    let only: std::collections::BTreeSet<_> = digests.iter().filter_map(|d| d.split_once('@')).map(|d| d.1).collect();
    assert_eq!((digests.len(), only.len()), (2, 1), "{digests:?}");
    assert_eq!(repo_digests(&project, &name), repo_digests(&other, &name)[..1]);
    // Built again from what is kept, it is still that image.
    project.kiln(&["build", "-t", &name, project.context().to_str().unwrap()]).ok();
    project.kiln(&["push", &name]).ok();
    assert_eq!(repo_digests(&project, &name), digests[..1]);
}

#[test]
fn layers_of_a_base_keep_their_digests_when_they_are_packed_anew() {
    let Some(registry) = Registry::start() else { return };
    let name = format!("{}/base:1", registry.host());
    let project = Project::new();
    push_unlike_ours(&project, &name);
    let other = Project::bare();
    other.kiln(&["pull", &name]).ok();
    let base = layers(&other.inspect(&name));
    other.file("g", "g").dockerfile(&format!("FROM {name}\nCOPY g /g\n"));
    let archive = other.path().join("out.tar");
    let output = format!("type=oci,dest={},compression=gzip,force-compression=true,name=app", archive.display());
    other.kiln(&["build", "-o", &output, other.context().to_str().unwrap()]).ok();
    assert_eq!(layers(&other.inspect(&name)), base);
    let third = Project::bare();
    third.kiln(&["load", "-i", archive.to_str().unwrap()]).ok();
    let loaded = third.inspect("app");
    assert_eq!(layers(&loaded)[..base.len()], base);
    assert_eq!(loaded["RepoDigests"], serde_json::json!([]), "no registry has it");
}

/// A registry whose every manifest is this one, whatever was asked for, and that says so.
fn lying_registry(manifest: &'static str, says: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let count = stream.read(&mut request).unwrap();
            let body = if request[..count].starts_with(b"HEAD") { "" } else { manifest };
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.oci.image.manifest.v1+json\r\n\
                 Docker-Content-Digest: {says}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                manifest.len()
            );
            stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        }
    });
    host
}

#[test]
fn a_registry_cannot_answer_for_a_digest_with_another() {
    let project = Project::bare();
    let other = format!("sha256:{}", "b".repeat(64));
    let host = lying_registry("{\"schemaVersion\":2}", other);
    project.dockerfile(&format!("FROM {host}/app@sha256:{}\n", "a".repeat(64)));
    project.build(&[]).fails(1).says(&"a".repeat(64)).never_says(&"b".repeat(64));
}
