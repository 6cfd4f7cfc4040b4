//! Pull and push against a real registry on loopback.

use std::process::Command;

use kiln_testkit::{FileServer, Registry};

use crate::project::{Project, Run, have, run};

#[test]
fn images_travel_through_a_registry() {
    let Some(registry) = Registry::start() else { return };
    let name = format!("{}/team/app:v1", registry.host());
    let project = Project::new();
    project.file("f", "f").dockerfile("FROM busybox\nCOPY f /f\nCMD [\"cat\", \"/f\"]\n");
    project.build(&[]).ok();
    project.kiln(&["build", "-t", &name, "--push", project.context().to_str().unwrap()]).ok();
    if have("skopeo") {
        let target = format!("docker://{name}");
        let text = run(Command::new("skopeo").args(["inspect", "--tls-verify=false", &target])).ok().stdout;
        let seen: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            seen["Layers"].as_array().unwrap().len(),
            project.inspect("app")["RootFS"]["Layers"].as_array().unwrap().len()
        );
    }
    let other = Project::bare();
    other.kiln(&["pull", &name]).ok();
    assert_eq!(other.inspect(&name)["Id"], project.inspect("app")["Id"]);
    assert_eq!(other.kiln(&["run", "--rm", &name]).ok().stdout, "f");
    let third = Project::bare();
    third.builds(&format!("FROM {name}\nRUN cat /f > /g\n"));
    let again = third.build(&[]).ok();
    assert!(again.cached() >= 2, "{}", again.stderr);
    third.kiln(&["tag", "app", &format!("{}/x:1", registry.host())]).ok();
    third.kiln(&["push", &format!("{}/x:1", registry.host())]).ok();
    other.kiln(&["pull", &format!("{}/x:1", registry.host())]).ok();
    third.kiln(&["pull", &format!("{}/nosuch:1", registry.host())]).fails(1).says("nosuch");
}

#[test]
fn all_tags_of_a_repository_are_pushed() {
    let Some(registry) = Registry::start() else { return };
    let name = |rest: &str| format!("{}/{rest}", registry.host());
    let project = Project::new();
    for tag in ["app:2", "app:1", "apple:1"] {
        project.kiln(&["tag", "busybox", &name(tag)]).ok();
    }
    let pushed = project.kiln(&["push", "--all-tags", &name("app")]).ok().stdout;
    let tags: Vec<&str> =
        pushed.lines().filter_map(|line| line.split_once(": digest: sha256:")).map(|(tag, _)| tag).collect();
    assert_eq!(tags, ["1", "2"], "{pushed}");
    let other = Project::bare();
    for tag in ["app:1", "app:2"] {
        other.kiln(&["pull", &name(tag)]).ok();
    }
    other.kiln(&["pull", &name("apple:1")]).fails(1);
    project.kiln(&["push", "-a", &name("none")]).fails(1).says("no image here has a tag");
}

#[test]
fn a_cached_build_never_pulls_its_base_again() {
    let Some(registry) = Registry::start() else { return };
    let name = format!("{}/base:v1", registry.host());
    let project = Project::new();
    project.kiln(&["tag", "busybox", &name]).ok();
    project.kiln(&["push", &name]).ok();
    let other = Project::bare();
    other.builds(&format!("FROM {name}\nRUN echo x > /x\n"));
    let run = other.build(&[]).ok();
    assert_eq!(run.cached(), 2, "{}", run.stderr);
}

#[test]
fn logins_are_kept_where_docker_keeps_them() {
    let Some(registry) = Registry::with_login() else { return };
    let name = format!("{}/private:v1", registry.host());
    let project = Project::new();
    project.kiln(&["tag", "busybox", &name]).ok();
    project.kiln(&["push", &name]).fails(1).says("login");
    let (user, password) = Registry::login();
    let args = ["login", "-u", user, "--password-stdin", &registry.host()];
    project.kiln_with_input(&args, b"wrong").fails(1);
    project.kiln_with_input(&args, password.as_bytes()).ok();
    project.kiln(&["push", &name]).ok();
    project.kiln(&["logout", &registry.host()]).ok();
    project.kiln(&["pull", &name]).fails(1);
}

#[test]
fn files_are_fetched_over_http_and_checked() {
    let project = Project::new();
    let server = FileServer::start();
    let url = server.put("/f.txt", "fetched");
    let sum = kiln_oci::Digest::sha256("fetched");
    project.builds(&format!("FROM busybox\nADD {url} /a\nADD {url} /dir/\nADD --checksum={sum} {url} /b\n"));
    assert_eq!(project.sh("cat /a /dir/f.txt /b; stat -c %a /a"), "fetchedfetchedfetched600\n");
    assert!(project.build(&[]).ok().cached() >= 4);
    let wrong = kiln_oci::Digest::sha256("other");
    let run = project.dockerfile(&format!("FROM busybox\nADD --checksum={wrong} {url} /b\n")).build(&[]).fails(1);
    run.says(wrong.as_str());
    server.put("/f.txt", "changed!");
    project.builds(&format!("FROM busybox\nADD {url} /a\n"));
    assert_eq!(project.sh("cat /a"), "changed!");
}

/// The lines of a build's events.
fn events(run: &Run) -> Vec<serde_json::Value> {
    run.stderr.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[test]
fn layers_are_at_the_registry_before_the_build_is_over() {
    let Some(registry) = Registry::start() else { return };
    let project = Project::new();
    project.dockerfile("FROM busybox\nRUN dd if=/dev/urandom of=/f bs=1M count=2\nRUN sleep 3\n");
    let build = |name: &str| {
        let mut command = project.command();
        run(command.args(["build", "--progress", "rawjson", "--push", "-t", name]).arg(project.context()))
    };
    let events = events(&build(&format!("{}/early:1", registry.host())).ok());
    let position = |is_it: &dyn Fn(&serde_json::Value) -> bool| events.iter().position(is_it);
    let any = |list: &serde_json::Value, is_it: &dyn Fn(&serde_json::Value) -> bool| {
        list.as_array().is_some_and(|list| list.iter().any(is_it))
    };
    let slept = position(&|event| {
        any(&event["vertexes"], &|v| v["name"].as_str().unwrap().contains("sleep") && v["completed"].is_string())
    });
    let is_layer =
        |s: &serde_json::Value| s["id"].as_str().unwrap().starts_with("layer ") && s["completed"].is_string();
    let uploaded = position(&|event| any(&event["statuses"], &is_layer));
    assert!(uploaded.unwrap() < slept.unwrap(), "{uploaded:?} {slept:?}");
    project.dockerfile("FROM busybox\nRUN dd if=/dev/urandom of=/f bs=1M count=2\nRUN sleep 1 && false\n");
    let name = format!("{}/failed:1", registry.host());
    build(&name).fails(1);
    Project::bare().kiln(&["pull", &name]).fails(1);
}
