//! Builds that ask nobody, and the rules for when registries are asked.

use std::fs;

use kiln_testkit::{FileServer, GitServer, Registry};

use crate::project::{Project, Run, run};

/// Pushes `busybox` with a file `/version`, and gives its name.
fn push(project: &Project, registry: &Registry, version: &str) -> String {
    let name = format!("{}/team/base:v1", registry.host());
    let dir = project.path().join("version");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("Dockerfile"), format!("FROM busybox\nRUN echo {version} > /version\n")).unwrap();
    project.kiln(&["build", "-q", "-t", &name, "--push", dir.to_str().unwrap()]).ok();
    project.kiln(&["rmi", &name]).ok();
    name
}

/// Builds with these flags, and gives what `/version` says.
fn version(project: &Project, flags: &[&str]) -> String {
    fs::read_to_string(project.tree(flags).join("version")).unwrap()
}

fn with_variable(project: &Project, name: &str, value: &str) -> Run {
    let context = project.context();
    run(project.command().args(["build", "--progress=plain"]).arg(context).env(name, value))
}

#[test]
fn what_one_build_fetched_is_enough_for_the_next_without_network() {
    let Some(registry) = Registry::start() else { return };
    let (files, server, pusher, project) = (FileServer::start(), GitServer::start(), Project::new(), Project::bare());
    let name = push(&pusher, &registry, "1");
    let url = files.put("/f", "from the web");
    server.repository("app", &[("file", "from git")]);
    let git = server.url("app");
    let fetches = format!("FROM {name}\nADD {url} /web\nADD {git}#main /git/\n");
    project.builds(&fetches);
    let asked = (files.requests().len(), server.requests().len());
    drop(registry);
    project.dockerfile(&format!("{fetches}RUN cat /web /git/file /version > /all\n"));
    let tree = project.tree(&["--offline", "--no-cache"]);
    assert_eq!(fs::read_to_string(tree.join("all")).unwrap(), "from the webfrom git1\n");
    with_variable(&project, "KILN_OFFLINE", "1").ok();
    with_variable(&project, "KILN_OFFLINE", "perhaps").fails(2).says("`KILN_OFFLINE` is `perhaps`");
    assert_eq!((files.requests().len(), server.requests().len()), asked);
    let variable = run(project.command().args(["pull", &name]).env("KILN_OFFLINE", "1"));
    variable.fails(3).says("is not asked");
}

#[test]
fn a_base_whose_layers_stay_is_known_without_network_after_a_prune() {
    let Some(registry) = Registry::start() else { return };
    let (pusher, project) = (Project::new(), Project::bare());
    let name = push(&pusher, &registry, "1");
    project.builds(&format!("FROM {name}\nRUN echo a > /a\n"));
    drop(registry);
    project.kiln(&["prune", "-f"]).ok();
    project.dockerfile(&format!("FROM {name}\nRUN cat /version > /b\n"));
    assert_eq!(fs::read_to_string(project.tree(&["--offline"]).join("b")).unwrap(), "1\n");
    project.kiln(&["rmi", "app"]).ok();
    project.kiln(&["prune", "-f"]).ok();
    project.build(&["--offline"]).fails(3).says("is not here");
    let kept = project.kiln(&["du", "--format", "{{.ID}}"]).ok().stdout;
    assert_eq!(kept, "", "nothing holds them but the layers");
}

#[test]
fn all_that_is_not_here_is_told_at_once_and_nothing_runs() {
    let (files, server, project) = (FileServer::start(), GitServer::start(), Project::new());
    let url = files.put("/f", "x");
    server.repository("app", &[("Dockerfile", "FROM scratch\nCOPY . /\n")]);
    let git = server.url("app");
    let marker = "RUN echo MARKER-$((40+2))\n";
    let text = format!(
        "FROM busybox AS one\n{marker}FROM no.example/a:1 AS two\nCOPY --from=no.example/b:2 /x /\nFROM busybox\n\
         COPY --from=one / /one\nCOPY --from=two / /two\nADD {url} /f\nADD {git}#main /git\n"
    );
    let told = project.dockerfile(&text).build(&["--offline"]).fails(3).never_says("MARKER-42");
    told.says("4 things that this build needs")
        .says("`no.example/a:1`")
        .says("`no.example/b:2`")
        .says(&url)
        .says(&git)
        .says("Dockerfile:3")
        .says("Dockerfile:8")
        .says("leave out `--offline`");
    project.kiln(&["build", "--offline", &git]).fails(3).says(&git);
    let contexts = [format!("one={git}"), format!("two={url}")];
    let [one, two] = contexts.each_ref().map(String::as_str);
    project.builds("FROM busybox\n");
    let told = project.build(&["--offline", "--build-context", one, "--build-context", two]).fails(3);
    told.says(&git).says(&url);
    project.build(&["--offline", "--push", "-t", "no.example/app:1"]).fails(2).says("cannot be pushed offline");
    project
        .build(&["--offline", "--cache-from", "no.example/cache"])
        .ok()
        .says("cache `no.example/cache:latest` is not used");
    assert_eq!((files.requests().len(), server.requests().len()), (0, 0));
}

#[test]
fn what_is_cached_needs_no_base_and_no_download_offline() {
    let Some(registry) = Registry::start() else { return };
    let (files, pusher, project) = (FileServer::start(), Project::new(), Project::bare());
    let name = push(&pusher, &registry, "1");
    let url = files.put("/f", "x");
    project.builds(&format!("FROM {name}\nADD {url} /f\nRUN cp /f /g\n"));
    drop((registry, files));
    assert!(project.build(&["--offline"]).ok().cached() >= 2);
}

#[test]
fn when_a_registry_is_asked_can_be_said() {
    let Some(registry) = Registry::start() else { return };
    let (pusher, project) = (Project::new(), Project::bare());
    let name = push(&pusher, &registry, "1");
    project.dockerfile(&format!("FROM {name}\n"));
    project.build(&["--pull=never"]).fails(3).says(&name).says("Dockerfile:1");
    assert_eq!(version(&project, &[]), "1\n");
    push(&pusher, &registry, "2");
    assert_eq!(version(&project, &["--pull=never"]), "1\n", "what the tag stood for last");
    assert_eq!(version(&project, &["--pull=missing"]), "2\n", "it is not in the local store");
    project.kiln(&["pull", &name]).ok();
    push(&pusher, &registry, "3");
    assert_eq!(version(&project, &[]), "2\n", "it is in the local store");
    assert_eq!(version(&project, &["--pull=newer"]), "3\n");
    assert_eq!(version(&project, &["--pull"]), "3\n");
    drop(registry);
    assert_eq!(version(&project, &["--pull=newer"]), "2\n");
    project.build(&["--pull=newer"]).ok().says("is used as it is here");
    project.build(&["--pull=always"]).fails(3);
    project.build(&["--pull=sometimes"]).fails(2).says("`missing`, `always`, `newer` or `never`");
}
