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
