//! What is told of builds when they are over.

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
