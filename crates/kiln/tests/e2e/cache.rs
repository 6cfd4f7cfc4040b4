//! What hits the cache and what does not, across processes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use crate::project::Project;

const APP: &str =
    "FROM busybox\nARG VERSION=1\nENV LEVEL=1\nCOPY a /a\nRUN echo $VERSION > /v\nCOPY b /b\nRUN cat /a /b > /ab\n";

fn built() -> Project {
    let project = Project::new();
    project.file("a", "a\n").file("b", "b\n").builds(APP);
    project
}

#[test]
fn an_unchanged_build_runs_nothing_and_is_the_same_image() {
    let project = built();
    let before = project.inspect("app")["Id"].clone();
    let run = project.build(&[]).ok();
    assert_eq!(run.cached(), 5, "{}", run.stderr);
    assert_eq!(project.inspect("app")["Id"], before);
}

#[test]
fn touching_a_file_busts_nothing() {
    let project = built();
    let file = fs::File::options().append(true).open(project.context().join("a")).unwrap();
    file.set_modified(SystemTime::now() + Duration::from_secs(100)).unwrap();
    assert_eq!(project.build(&[]).ok().cached(), 5);
}

#[test]
fn a_changed_file_reruns_its_step_and_what_follows_only() {
    let project = built();
    project.file("b", "B\n");
    let run = project.build(&[]).ok();
    assert_eq!(run.cached(), 3, "{}", run.stderr);
    assert_eq!(project.sh("cat /ab"), "a\nB\n");
}

#[test]
fn a_changed_mode_is_a_change() {
    let project = built();
    fs::set_permissions(project.context().join("a"), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(project.build(&[]).ok().cached(), 1);
    assert_eq!(project.sh("stat -c %a /a"), "700\n");
}

#[test]
fn a_changed_arg_reruns_the_runs_after_it() {
    let project = built();
    let run = project.build(&["--build-arg", "VERSION=2"]).ok();
    assert_eq!(run.cached(), 2, "{}", run.stderr);
    assert_eq!(project.sh("cat /v"), "2\n");
}

#[test]
fn a_changed_env_reruns_the_runs_after_it() {
    let project = built();
    let app = APP.replace("echo $VERSION", "echo $VERSION $LEVEL");
    project.builds(&app);
    let run = project.builds(&app.replace("LEVEL=1", "LEVEL=2"));
    assert_eq!(run.cached(), 2, "{}", run.stderr);
}

#[test]
fn a_changed_base_reruns_all() {
    let project = built();
    project.file("base/Dockerfile", "FROM busybox\nRUN echo new > /new\n");
    let base = project.context().join("base");
    project.kiln(&["build", "-q", "-t", "busybox", base.to_str().unwrap()]).ok();
    fs::remove_dir_all(base).unwrap();
    let run = project.build(&[]).ok();
    assert!(run.cached() <= 1, "{}", run.stderr);
    assert_eq!(project.sh("cat /new"), "new\n");
}

#[test]
fn a_proxy_is_in_no_key_and_in_no_image() {
    let project = built();
    assert_eq!(project.build(&["--build-arg", "HTTP_PROXY=http://user:PASS-5511@nowhere"]).ok().cached(), 5);
    let run = project.build(&["--no-cache", "--build-arg", "HTTP_PROXY=http://user:PASS-5511@nowhere"]).ok();
    assert!(run.cached() <= 1, "{}", run.stderr);
    assert!(!project.inspect("app").to_string().contains("PASS-5511"));
}

#[test]
fn no_cache_runs_all() {
    let project = built();
    let run = project.build(&["--no-cache"]).ok();
    assert!(run.cached() <= 1, "only the base may be cached: {}", run.stderr);
}

#[test]
fn a_stage_that_changes_without_changing_the_copied_file_lets_the_copy_hit() {
    let project = Project::new();
    let dockerfile = "FROM busybox AS build\nCOPY src /src\nRUN head -n 1 /src > /out\n\
                      FROM busybox\nCOPY --from=build /out /out\nRUN cat /out > /copy\n";
    project.file("src", "same\none\n").builds(dockerfile);
    project.file("src", "same\ntwo\n");
    let run = project.build(&[]).ok();
    let cached: Vec<&str> = run.stderr.lines().filter(|line| line.ends_with("CACHED")).collect();
    assert!(cached.len() >= 2, "{}", run.stderr);
    assert_eq!(project.sh("cat /copy"), "same\n");
}

#[test]
fn equal_steps_of_two_dockerfiles_share_their_results() {
    let project = built();
    project.file("other/Dockerfile", format!("{APP}CMD [\"other\"]\n")).file("other/a", "a\n").file("other/b", "b\n");
    let other = project.context().join("other");
    let run = project.kiln(&["build", "--progress=plain", other.to_str().unwrap()]).ok();
    assert_eq!(run.cached(), 5, "{}", run.stderr);
}

#[test]
fn a_step_that_makes_the_same_files_again_lets_what_follows_hit() {
    let project = Project::new();
    project.file("version", "# one\n1\n").builds(
        "FROM busybox\nRUN --mount=type=bind,target=/ctx grep -v '#' /ctx/version >/version\nRUN head -c 8 /dev/urandom >/random\n",
    );
    let before = (project.inspect("app")["Id"].clone(), project.sh("cat /random"));
    project.file("version", "# a new comment\n1\n");
    let run = project.build(&[]).ok().says("same result as before");
    assert_eq!(run.cached(), 2, "the base, and the last step\n{}", run.stderr);
    assert_eq!((project.inspect("app")["Id"].clone(), project.sh("cat /random")), before);
    assert_eq!(project.build(&[]).ok().cached(), 3);
    project.file("version", "# a new comment\n2\n");
    project.build(&[]).ok().never_says("same result as before");
    assert_ne!(project.sh("cat /random"), before.1);
}

#[test]
fn a_step_that_sets_other_times_or_links_other_names_is_not_the_same() {
    let project = Project::new();
    let dockerfile = |command: &str| format!("FROM busybox\nRUN {command}\nRUN ls -i /d | wc -l >/n\n");
    for (before, after) in [
        ("chmod 711 /", "chmod 700 /"),
        ("touch -d 2020-01-01 /f", "touch -d 2021-01-01 /f"),
        (
            "mkdir /d && cd /d && echo >a && ln a b && echo >c && ln c d",
            "mkdir /d && cd /d && echo >a && ln a c && echo >b && ln b d",
        ),
    ] {
        project.builds(&dockerfile(before));
        project.file("Dockerfile", dockerfile(after));
        project.build(&[]).ok().never_says("same result as before");
    }
    assert_eq!(project.sh("cd /d && [ a -ef c ] && [ b -ef d ] && echo yes"), "yes\n");
}

#[test]
fn a_miss_names_the_file_the_argument_or_the_variable() {
    let project = Project::new();
    let app = "FROM busybox\nARG VERSION=1.0\nARG API_TOKEN=one\nENV LEVEL=1\nRUN echo $VERSION $LEVEL >/v\n\
               COPY src /src\nRUN --mount=type=bind,target=/ctx cat /ctx/src/a >/a\n";
    project.file("src/a", "1").file("src/b", "1").builds(app).says("first build");
    project.build(&["--build-arg", "VERSION=1.1"]).ok().says("ARG VERSION 1.0 → 1.1");
    project.build(&["--build-arg", "VERSION=1.1", "--build-arg", "API_TOKEN=two"]).ok().says("ARG API_TOKEN changed");
    project.dockerfile(&app.replace("LEVEL=1", "LEVEL=2"));
    project.build(&["--build-arg", "VERSION=1.1", "--build-arg", "API_TOKEN=two"]).ok().says("ENV LEVEL 1 → 2");
    project.file("src/a", "2").build(&[]).ok().says("src/a changed").never_says("src/b");
    project.file("src/a", "3").file("src/c", "1").build(&[]).ok().says("src/a changed (2 files in all)");
    fs::remove_file(project.context().join("src/b")).unwrap();
    project.build(&[]).ok().says("src/b is gone");
}

#[test]
fn two_versions_that_alternate_are_each_compared_with_their_like() {
    let project = Project::new();
    let one = "FROM busybox\nARG VERSION=1\nCOPY . /src\nRUN echo $VERSION >/v\n";
    project.file("a", "1").file("b", "1").builds(one);
    project.file("a", "2").file("b", "2").build(&["--build-arg", "VERSION=2"]).ok().says("(2 files in all)");
    project.file("a", "3").file("b", "1").build(&[]).ok().says("a changed").never_says("files in all");
    project.file("a", "1").build(&["--build-arg", "VERSION=4"]).ok().says("ARG VERSION 1 → 4");
}

#[test]
fn what_was_changed_behind_its_time_is_seen_and_a_new_time_alone_is_nothing() {
    use std::os::unix::fs::FileExt as _;
    let project = Project::new();
    let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_600_000_000);
    let put_back = |name: &str| {
        let file = std::fs::File::options().write(true).open(project.context().join(name)).unwrap();
        file.set_modified(old).unwrap();
    };
    for name in ["rewritten", "replaced", "still"] {
        project.file(name, "one");
        put_back(name);
    }
    // So long ago that the times of files are believed.
    std::thread::sleep(std::time::Duration::from_millis(2200));
    let dockerfile = "FROM busybox\nCOPY rewritten /\nCOPY replaced /\nCOPY still /\n";
    project.builds(dockerfile);
    assert_eq!(project.builds(dockerfile).cached(), 4);
    let file = std::fs::File::options().write(true).open(project.context().join("rewritten")).unwrap();
    file.write_all_at(b"two", 0).unwrap();
    put_back("rewritten");
    project.builds(dockerfile).says("miss: rewritten changed");
    project.file("other", "two");
    put_back("other");
    std::fs::rename(project.context().join("other"), project.context().join("replaced")).unwrap();
    project.builds(dockerfile).says("miss: replaced changed");
    assert_eq!(project.sh("cat /rewritten /replaced /still"), "twotwoone");
    let touched = std::fs::File::options().write(true).open(project.context().join("still")).unwrap();
    touched.set_modified(std::time::SystemTime::now()).unwrap();
    assert_eq!(project.builds(dockerfile).cached(), 4);
}

#[test]
fn a_filter_that_names_no_stage_is_told() {
    let project = Project::bare();
    project.dockerfile("FROM scratch AS build\nCOPY <<E /a\nE\n");
    let run = project.build(&["--no-cache-filter", "biuld"]).ok();
    run.says("`--no-cache-filter biuld` names no stage; did you mean `build`?");
    project.build(&["--no-cache-filter", "Build"]).ok().never_says("names no stage");
}
