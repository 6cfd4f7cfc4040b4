//! What is told of builds when they are over.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::project::Project;

const APP: &str = "FROM busybox\nARG VERSION=1\nRUN echo one >/one\nCOPY . /src\nRUN npm() { echo x; }; npm ci >/n\n\
                   RUN echo $VERSION >/v\n";

fn explain(project: &Project, args: &[&str]) -> String {
    project.kiln(&[&["explain"], args].concat()).ok().stdout
}

fn json(project: &Project, args: &[&str]) -> Value {
    serde_json::from_str(&explain(project, &[args, &["--format=json"]].concat())).unwrap()
}

#[test]
fn a_build_tells_its_causes_what_followed_and_what_to_do() {
    let project = Project::new();
    project.file("a", "1").file("b", "1").builds(APP);
    project.file("a", "2").build(&[]).ok();
    let story = json(&project, &[]);
    let cause = &story["causes"][0];
    assert_eq!((cause["text"].as_str(), story["causes"].as_array().unwrap().len()), (Some("a changed"), 1));
    let names =
        |steps: &Value| steps.as_array().unwrap().iter().map(|step| step["name"].to_string()).collect::<Vec<_>>();
    assert_eq!(names(&cause["steps"]), ["\"[3/5] COPY . /src\""]);
    assert_eq!(names(&cause["followers"]).len(), 2);
    assert_eq!(names(&story["found"]).len(), 2);
    assert_eq!(story["advice"][0]["line"], 4, "{story}");
    let text = explain(&project, &["app"]);
    assert!(
        text.contains("3 steps ran") && text.contains("2 steps follow") && text.contains("`npm ci` (line 5)"),
        "{text}"
    );
    project.build(&["--build-arg", "VERSION=2"]).ok();
    let text = explain(&project, &[]);
    assert!(text.contains("ARG VERSION 1 → 2") && text.contains("move it down to line 6"), "{text}");
}

#[test]
fn builds_are_compared_whether_or_not_they_ran() {
    let project = Project::new();
    project.file("a", "1").builds(APP);
    project.file("a", "2").build(&[]).ok();
    project.file("a", "1").build(&[]).ok();
    assert!(explain(&project, &[]).contains("every step was cached"));
    let text = explain(&project, &["--vs", "^1"]);
    assert!(text.contains("what differs from build") && text.contains("a changed\n"), "{text}");
    let text = explain(&project, &["--vs", "^2"]);
    assert!(text.contains("no step differs from"), "{text}");
}

#[test]
fn builds_that_fail_are_remembered_and_those_that_find_the_same_are_one() {
    let project = Project::new();
    project.builds("FROM busybox\nRUN echo\n");
    project.dockerfile("FROM busybox\nRUN echo\nRUN false\n").build(&[]).fails(1);
    let text = explain(&project, &[]);
    assert!(text.contains("failed after") && text.contains("[3/3] RUN false"), "{text}");
    let ids = || project.kiln(&["builds", "-q"]).ok().stdout.lines().map(str::to_owned).collect::<Vec<_>>();
    let before = ids();
    project.builds("FROM busybox\nRUN echo\n");
    project.build(&[]).ok();
    let metadata = project.path().join("metadata");
    project.build(&["--metadata-file", metadata.to_str().unwrap()]).ok();
    let after = ids();
    assert_eq!(after[1..], before, "three that found the same are one");
    let metadata: Value = serde_json::from_slice(&std::fs::read(metadata).unwrap()).unwrap();
    let story = json(&project, &[metadata["buildx.build.ref"].as_str().unwrap()]);
    assert!(story["build"]["id"].as_str().unwrap().starts_with(&after[0]));
    assert_eq!(project.kiln(&["buildx", "history", "ls", "-q"]).ok().stdout.lines().count(), after.len());
    project.kiln(&["explain", "nosuch"]).fails(1).says("kiln builds");
}

/// What became of the steps of a story, by name.
fn fates(story: &Value) -> Vec<(String, String)> {
    let causes = story["causes"].as_array().unwrap().iter().map(|cause| &cause["steps"]);
    let steps = causes.chain([&story["found"], &story["not_reached"]]).flat_map(|steps| steps.as_array().unwrap());
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    steps.map(|step| (text(&step["name"]), text(&step["fate"]))).collect()
}

#[test]
fn a_stopped_build_remembers_what_it_did_what_it_was_doing_and_what_it_did_not_come_to() {
    let project = Project::new();
    project.dockerfile("FROM busybox\nRUN echo one\nRUN echo ready; sleep 60\nRUN echo three\n");
    for (signal, ran) in [(Signal::INT, 3), (Signal::TERM, 2)] {
        let mut command = project.command();
        command.args(["build", "--progress=plain", "--no-cache"]).arg(project.context()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        assert!(lines.any(|line| line.ends_with(" ready")), "the step began");
        kill_process(Pid::from_child(&child), signal).unwrap();
        drop(lines);
        assert_eq!(child.wait().unwrap().code(), Some(if signal == Signal::INT { 130 } else { 143 }));
        let story = json(&project, &[]);
        assert_eq!(
            (&story["build"]["outcome"], &story["ran"]),
            (&Value::from("canceled"), &Value::from(ran)),
            "{story}"
        );
        let fates = fates(&story);
        let fate = |step: &str| fates.iter().find(|(name, _)| name.contains(step)).map(|(_, fate)| fate.as_str());
        let each = ["RUN echo one", "RUN echo ready", "RUN echo three"].map(fate);
        assert_eq!(each, [Some("ran"), Some("canceled"), Some("not_reached")], "{story}");
    }
    let text = explain(&project, &[]);
    assert!(text.contains("sleep 60; canceled\n") && text.contains("not reached:\n"), "{text}");
}

#[test]
fn a_failed_build_remembers_the_steps_that_it_did_not_come_to() {
    let project = Project::new();
    project.dockerfile("FROM busybox\nRUN false\nRUN echo after\n").build(&[]).fails(1);
    let fates = fates(&json(&project, &[]));
    assert!(fates.contains(&("[3/3] RUN echo after".into(), "not_reached".into())), "{fates:?}");
    assert!(fates.contains(&("[2/3] RUN false".into(), "failed".into())), "{fates:?}");
}

#[test]
fn all_variables_that_changed_are_told_before_the_step_s_output() {
    let project = Project::new();
    let dockerfile = |a: u8, b: u8, z: u8| format!("FROM busybox\nARG A={a}\nARG B={b}\nENV Z={z}\nRUN echo output\n");
    project.builds(&dockerfile(1, 1, 1));
    project.dockerfile(&dockerfile(2, 2, 2));
    let dry = project.build(&["--dry-run"]).ok().stdout;
    assert!(dry.contains("RUN echo output  # ARG A 1 → 2 (3 variables in all)\n"), "{dry}");
    let told = project.build(&[]).ok().stderr;
    let place = |text: &str| told.rfind(text).unwrap_or_else(|| panic!("`{text}` is not in\n{told}"));
    assert!(place("miss: ARG A 1 → 2 (3 variables in all)\n") < place(" output\n"), "{told}");
    let text = explain(&project, &[]);
    for each in ["ARG A 1 → 2 (3 variables in all)\n", "ARG B 1 → 2\n", "ENV Z 1 → 2\n", "that name none of them"]
    {
        assert!(text.contains(each), "`{each}` is not in\n{text}");
    }
    let reasons = json(&project, &[])["causes"][0]["reason"]["several"].as_array().unwrap().len();
    assert_eq!(reasons, 3);
}

#[test]
fn what_changed_of_how_a_step_runs_is_named() {
    let project = Project::new();
    let run = |flags: &str, above: &str| format!("FROM busybox\n{above}RUN {flags} echo x\n");
    let said = |dockerfile: String, args: &[&str], reason: &str| {
        project.dockerfile(&dockerfile).build(args).ok().says(&format!("miss: {reason}"));
    };
    said(run("--network=none", ""), &[], "first build\n");
    said(run("", ""), &[], "network none → default");
    said(run("--mount=type=tmpfs,target=/t", ""), &[], "mounts changed");
    said(run("--mount=type=tmpfs,target=/u", ""), &[], "mounts changed");
    said(run("--mount=type=tmpfs,target=/u", "USER daemon\n"), &[], "user root → daemon");
    said(run("--mount=type=tmpfs,target=/u", "USER daemon\n"), &["--network=none"], "network default → none");
    for (args, what) in [
        (["--add-host", "db:10.0.0.1"], "hosts changed"),
        (["--ulimit", "nofile=100"], "limits changed"),
        (["--shm-size", "1m"], "limits changed"),
    ] {
        said(format!("FROM busybox\nRUN echo {}\n", args[0]), &[], "command changed");
        said(format!("FROM busybox\nRUN echo {}\n", args[0]), &args, what);
    }
}

#[test]
fn a_result_that_is_gone_was_lost_and_one_that_was_removed_was_pruned() {
    let project = Project::new();
    let run = "FROM busybox\nRUN echo x >/x\n";
    project.builds(run);
    let layers = std::fs::read_dir(project.state().join("layers")).unwrap().map(|entry| entry.unwrap().path());
    let layer = layers.into_iter().find(|layer| layer.join("fs/x").exists()).expect("the step's layer");
    std::fs::remove_dir_all(layer).unwrap();
    project.build(&[]).ok().says("miss: result lost\n");
    project.kiln(&["rmi", "app"]).ok();
    project.kiln(&["prune", "-f", "-a"]).ok();
    let again = project.build(&[]);
    assert!(!again.stderr.contains("result lost"), "{}", again.stderr);
}

#[test]
fn builds_of_other_projects_are_not_compared() {
    let (project, other) = (Project::new(), "FROM busybox\nRUN echo other\n");
    project.builds(other);
    project.file("Other", other).build(&["-f", project.context().join("Other").to_str().unwrap()]).ok();
    project.kiln(&["explain", "--vs", "^1"]).fails(2).says("is of another Dockerfile (Dockerfile of ");
}

#[test]
fn a_file_of_another_context_is_told_with_it() {
    let project = Project::new();
    let other = project.path().join("other");
    std::fs::create_dir(&other).unwrap();
    let context = format!("c={}", other.display());
    project.file("f", "1").dockerfile("FROM busybox\nCOPY f /a\nCOPY --from=c f /b\n");
    for (content, reason) in [("1", "miss: first build"), ("2", "miss: c: f changed\n")] {
        std::fs::write(other.join("f"), content).unwrap();
        project.build(&["--build-context", &context]).ok().says(reason);
    }
    let text = explain(&project, &[]);
    assert!(text.contains("c: f changed\n"), "{text}");
}

#[test]
fn secrets_and_private_values_are_in_no_record() {
    let project = Project::new();
    project.file("token", "s3cr3t-value").dockerfile(
        "FROM busybox\nARG API_TOKEN\nRUN --mount=type=secret,id=t cat /run/secrets/t && echo $API_TOKEN >/dev/null\n",
    );
    let secret = format!("id=t,src={}", project.context().join("token").display());
    project.build(&["--secret", &secret, "--build-arg", "API_TOKEN=pr1vate-value"]).ok();
    let text = explain(&project, &["--format=json"]);
    assert!(!text.contains("s3cr3t-value") && !text.contains("pr1vate-value"), "{text}");
}

/// All that is in the state directory, by name and content.
fn state(project: &Project) -> std::collections::BTreeMap<std::path::PathBuf, Vec<u8>> {
    let mut open = vec![project.state()];
    let mut files = std::collections::BTreeMap::new();
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
            match entry.file_type().unwrap() {
                kind if kind.is_dir() => open.push(entry.path()),
                // What SQLite shares between processes is written by those who read, too.
                kind if kind.is_file() && !entry.path().ends_with("kiln.db-shm") => {
                    files.insert(entry.path(), std::fs::read(entry.path()).unwrap());
                }
                _ => {}
            }
        }
    }
    files
}

#[test]
fn an_instruction_put_above_others_is_new_and_those_below_follow_it() {
    let project = Project::new();
    project.builds("FROM busybox\nRUN echo a\nRUN echo b\nRUN echo c\n");
    project.dockerfile("FROM busybox\nRUN echo a\nRUN touch /new\nRUN echo b\nRUN echo c\n");
    let dry = project.build(&["--dry-run"]).ok().stdout;
    assert!(dry.contains("[3/5] RUN touch /new  # first build (new instruction)\n"), "{dry}");
    project.build(&[]).ok().says("first build (new instruction)").says("follows [3/5]").says("follows [4/5]");
    let text = explain(&project, &[]);
    assert!(text.contains("first build (new instruction)") && !text.contains("command changed"), "{text}");
    let text = explain(&project, &["--vs", "^1"]);
    assert!(text.contains("first build (new instruction)") && !text.contains("command changed"), "{text}");
    project.builds("FROM busybox\nRUN echo a\nRUN touch /newer\nRUN echo b\nRUN echo c\n").says("command changed");
}

#[test]
fn a_dry_run_says_what_would_run_and_why_and_writes_nothing() {
    let project = Project::new();
    project.file("a", "1").file("b", "1").dockerfile(
        "FROM busybox AS build\nRUN echo one\nCOPY . /src\nRUN cat /src/a >/out\n\
         FROM busybox\nCOPY --from=build /out /out\nRUN echo two\n",
    );
    let dry = |args: &[&str]| project.build(&[&["--dry-run"], args].concat()).ok().stdout;
    let before = state(&project);
    assert!(dry(&[]).contains("would run  [build 2/4] RUN echo one  # first build\n"), "{}", dry(&[]));
    assert_eq!(state(&project), before);
    project.build(&[]).ok();
    assert!(dry(&[]).ends_with("\n0 would run, 6 cached\n"), "{}", dry(&[]));
    project.file("b", "2");
    let before = state(&project);
    let told = dry(&[]);
    assert!(told.contains("would run  [build 3/4] COPY . /src  # b changed\n"), "{told}");
    assert!(told.contains("# follows [build 3/4]\n") && told.contains("depends on what [build 4/4] makes\n"), "{told}");
    let answer: Value = serde_json::from_str(&project.build(&["--dry-run=json"]).ok().stdout).unwrap();
    assert_eq!((&answer["would_run"], &answer["may_hit"]), (&Value::from(2), &Value::from(2)), "{answer}");
    assert_eq!(state(&project), before, "not even what was read of the context is noted");
    let run = project.build(&[]).ok().says("b changed").says("follows [build 3/4]");
    assert_eq!(run.cached(), 4, "what may hit hits: the same file is copied\n{}", run.stderr);
}
