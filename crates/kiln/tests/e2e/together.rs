//! Many builds at once on one state directory: each piece of work is done by one of them.

use std::fs;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use kiln_testkit::{HttpServer, Registry, Reply};

use crate::project::{Project, Run};

const BUILDS: usize = 64;

fn start(project: &Project) -> Child {
    begin(project, &["build", "-q", project.context().to_str().unwrap()])
}

fn begin(project: &Project, args: &[&str]) -> Child {
    let mut command = project.command();
    command.args(args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn end(child: Child) -> Run {
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Run { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// A registry that serves one image, and tells who asked for what.
fn registry() -> HttpServer {
    let maker = Project::new();
    let layout = maker.path().join("layout");
    let output = format!("type=oci,tar=false,dest={}", layout.display());
    maker.dockerfile("FROM busybox\n").build(&["-o", &output]).ok();
    let read = move |path: String| fs::read(layout.join(path)).ok();
    let index: serde_json::Value = serde_json::from_slice(&read("index.json".to_owned()).unwrap()).unwrap();
    let manifest = index["manifests"][0].clone();
    HttpServer::start(move |request| {
        // Keeps the maker's directory for as long as the server lives.
        let _kept = &maker;
        let blob = |digest: &str| read(format!("blobs/{}", digest.replace(':', "/")));
        let digest = manifest["digest"].as_str().unwrap();
        let found = match request.path.strip_prefix("/v2/base/") {
            None => return Reply::status(200),
            Some("manifests/latest") => blob(digest),
            Some(rest) => rest.rsplit('/').next().and_then(blob),
        };
        let Some(bytes) = found else { return Reply::status(404) };
        let media_type = if request.path.contains("/manifests/") {
            "application/vnd.oci.image.manifest.v1+json"
        } else {
            "application/octet-stream"
        };
        Reply::bytes(bytes).with("Content-Type", media_type).with("Docker-Content-Digest", digest)
    })
}

#[test]
fn of_64_cold_builds_one_runs_each_step_and_fetches_each_blob() {
    let registry = registry();
    let project = Project::bare();
    project.dockerfile(&format!(
        "FROM {}/base\nRUN --mount=type=cache,target=/n echo a >>/n/log; sleep 0.2; head -c 16 /dev/urandom >/a\n\
         RUN --mount=type=cache,target=/n echo b >>/n/log; head -c 16 /dev/urandom >/b\n",
        registry.host()
    ));
    let builds: Vec<Child> = (0..BUILDS).map(|_| start(&project)).collect();
    let digests: Vec<String> = builds.into_iter().map(|build| end(build).ok().stdout).collect();
    assert!(digests[0].starts_with("sha256:"), "{}", digests[0]);
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
    let mut blobs: Vec<String> =
        registry.requests().into_iter().map(|request| request.path).filter(|path| path.contains("/blobs/")).collect();
    let asked = blobs.len();
    blobs.sort();
    blobs.dedup();
    assert!(asked == blobs.len() && !blobs.is_empty(), "{asked} requests for {blobs:?}");
    project.dockerfile(&format!("FROM {}/base\nRUN --mount=type=cache,target=/n cp /n/log /log\n", registry.host()));
    let ran = fs::read_to_string(project.tree(&[]).join("log")).unwrap();
    assert_eq!(ran, "a\nb\n");
}

#[test]
fn who_waits_for_a_build_that_is_killed_takes_over() {
    let project = Project::new();
    project.dockerfile(
        "FROM busybox\nRUN --mount=type=cache,target=/n echo x >>/n/log; [ $(wc -l </n/log) = 2 ] || sleep 60; cp /n/log /log\n",
    );
    let mut worker = start(&project);
    let log = || {
        let mounts = fs::read_dir(project.state().join("cache-mounts")).into_iter().flatten();
        mounts.flatten().find_map(|mount| fs::read_to_string(mount.path().join("fs/log")).ok()).unwrap_or_default()
    };
    let since = Instant::now();
    while log() != "x\n" {
        assert!(since.elapsed() < Duration::from_secs(20), "the first build never came to its step");
        std::thread::sleep(Duration::from_millis(10));
    }
    let waiter = start(&project);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(log(), "x\n", "the second waits");
    worker.kill().unwrap();
    worker.wait().unwrap();
    end(waiter).ok();
    assert_eq!(log(), "x\nx\n");
    assert!(since.elapsed() < Duration::from_secs(50), "it waited for nobody");
}

/// Builds an image with the file `f`, and pushes it.
fn push(project: &Project, name: &str) {
    project.dockerfile("FROM busybox\nCOPY f /f\n");
    project.kiln(&["build", "-q", "-t", name, "--push", project.context().to_str().unwrap()]).ok();
}

#[test]
fn pulls_at_once_and_pushes_to_one_tag_all_end_well() {
    let Some(registry) = Registry::start() else { return };
    let maker = Project::new();
    let names: Vec<String> = (0..8).map(|number| format!("{}/app:{number}", registry.host())).collect();
    for name in &names {
        push(maker.file("f", name), name);
    }
    let puller = Project::bare();
    let pulls: Vec<Child> = names.iter().map(|name| begin(&puller, &["pull", name])).collect();
    pulls.into_iter().for_each(|pull| drop(end(pull).ok()));
    puller.kiln(&["fsck", "--deep"]).ok();
    let tag = format!("{}/race:t", registry.host());
    maker.kiln(&["tag", &names[0], &tag]).ok();
    puller.kiln(&["tag", &names[1], &tag]).ok();
    let pushes = [&maker, &puller].map(|project| begin(project, &["push", &tag]));
    pushes.into_iter().for_each(|push| drop(end(push).ok()));
    let judge = Project::bare();
    judge.kiln(&["pull", &tag]).ok();
    let ids = [&names[0], &names[1]].map(|name| puller.inspect(name)["Id"].clone());
    assert!(ids.contains(&judge.inspect(&tag)["Id"]));
}
