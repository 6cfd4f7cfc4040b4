//! Several stages: what is skipped, what runs side by side, what is copied across.

use std::process::Command;
use std::time::{Duration, Instant};

use kiln_testkit::Registry;

use crate::project::{Project, have, run};

#[test]
fn unused_stages_do_not_run_and_a_target_ends_the_build() {
    let project = Project::new();
    let dockerfile = "FROM busybox AS base\nRUN echo base > /base\nFROM base AS unused\nRUN exit 1\n\
                      FROM base AS wanted\nRUN echo wanted > /wanted\nFROM base\nRUN exit 2\n";
    project.dockerfile(dockerfile).build(&["--target", "wanted"]).ok();
    assert_eq!(project.sh("cat /base /wanted"), "base\nwanted\n");
    project.build(&["--target", "Wanted"]).ok();
    project.build(&["--target", "wantd"]).fails(1).says("wantd").says("wanted");
}

#[test]
fn independent_stages_run_at_once() {
    let project = Project::new();
    let stage = |name: &str| format!("FROM busybox AS {name}\nRUN sleep 1.5 && echo {name} > /{name}\n");
    let copies: String = ["a", "b", "c", "d"].iter().map(|n| format!("COPY --from={n} /{n} /\n")).collect();
    let stages: String = ["a", "b", "c", "d"].iter().map(|n| stage(n)).collect();
    let start = Instant::now();
    project.builds(&format!("{stages}FROM busybox\n{copies}"));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(project.sh("cat /a /b /c /d"), "a\nb\nc\nd\n");
}

#[test]
fn with_one_job_steps_run_one_at_a_time() {
    // Fails where another is at it.
    let alone = "RUN --mount=type=cache,target=/n mkdir /n/busy && sleep 0.3 && rmdir /n/busy";
    let names = ["a", "b", "c"];
    let stages: String = names.iter().map(|n| format!("FROM busybox AS {n}\n{alone} && echo {n} >/{n}\n")).collect();
    let copies: String = names.iter().map(|n| format!("COPY --from={n} /{n} /\n")).collect();
    let build = |jobs| {
        let project = Project::new();
        project.dockerfile(&format!("{stages}FROM busybox\n{copies}")).build(&["--jobs", jobs])
    };
    build("3").fails(1).says("File exists");
    build("1").ok();
}

#[test]
fn stages_are_named_numbered_and_built_on() {
    let project = Project::new();
    project.builds(
        "ARG BASE=busybox\nFROM ${BASE} AS one\nARG WHO=me\nENV KEEP=$WHO\nRUN echo $WHO > /one\n\
         FROM one AS two\nRUN echo $KEEP > /two\nFROM scratch\nCOPY --from=0 /one /\nCOPY --from=two /two /\n\
         COPY --from=busybox /bin/busybox /bin/sh\n",
    );
    let tree = project.tree(&[]);
    assert_eq!(std::fs::read_to_string(tree.join("one")).unwrap(), "me\n");
    assert_eq!(std::fs::read_to_string(tree.join("two")).unwrap(), "me\n");
    assert!(project.inspect("app")["Config"]["Env"].to_string().contains("PATH"));
}

#[test]
fn a_copy_from_scratch_copies_nothing_and_finds_nothing() {
    let project = Project::new();
    project.builds("FROM busybox\nCOPY --from=scratch / /none/\nRUN ls -A /none >/list\n");
    assert_eq!(project.sh("cat /list"), "");
    project.dockerfile("FROM busybox\nCOPY --from=scratch /x /\n").build(&[]).fails(1).says("/x").says("Dockerfile:2");
}

#[test]
fn triggers_of_the_base_run_first_and_are_not_inherited() {
    let project = Project::new();
    project.file("base/Dockerfile", "FROM busybox\nONBUILD COPY f /f\nONBUILD RUN echo triggered > /t\n");
    let base = project.context().join("base");
    project.kiln(&["build", "-q", "-t", "trigger", base.to_str().unwrap()]).ok();
    project.file("f", "f").builds("FROM trigger\nRUN cat /f /t > /both\n");
    assert_eq!(project.sh("cat /both"), "ftriggered\n");
    assert!(
        project.inspect("app")["Config"].get("OnBuild").is_none_or(|v| v.is_null() || v.as_array().unwrap().is_empty())
    );
}

#[test]
fn named_contexts_stand_for_directories_and_images() {
    let project = Project::new();
    std::fs::create_dir(project.path().join("more")).unwrap();
    std::fs::write(project.path().join("more/m"), "more").unwrap();
    let more = format!("extra={}", project.path().join("more").display());
    project.dockerfile("FROM alpine\nCOPY --from=extra m /m\n");
    project.build(&["--build-context", &more, "--build-context", "alpine=docker-image://busybox"]).ok();
    assert_eq!(project.sh("cat /m"), "more");
    let layout = project.path().join("layout");
    let out = format!("type=oci,tar=false,dest={}", layout.display());
    project.build(&["--build-context", &more, "--build-context", "alpine=docker-image://busybox", "-o", &out]).ok();
    project.dockerfile("FROM base\nRUN cat /m > /again\n");
    project.build(&["--build-context", &format!("base=oci-layout://{}", layout.display())]).ok();
    assert_eq!(project.sh("cat /again"), "more");
}

#[test]
fn a_stage_comes_after_another_that_it_takes_nothing_from() {
    let project = Project::new();
    let tests = "FROM busybox AS tests\nRUN --mount=type=cache,target=/shared echo report > /shared/r\n";
    let ship = "FROM --after=tests busybox\nRUN --mount=type=cache,target=/shared cp /shared/r /r\n";
    project.builds(&format!("{tests}{ship}"));
    assert_eq!(project.sh("cat /r"), "report\n");
    let layers = |name: &str| project.inspect(name)["RootFS"]["Layers"].as_array().unwrap().len();
    assert_eq!(layers("app"), layers("busybox") + 1);
    project.builds("FROM busybox AS tests\nRUN true\nFROM --after=tests busybox\n");
    assert_eq!(project.inspect("app")["RootFS"], project.inspect("busybox")["RootFS"]);
    project.dockerfile("FROM busybox AS tests\nRUN exit 7\nFROM --after=tests scratch\nCOPY Dockerfile /\n");
    project.build(&[]).fails(1).says("exit code: 7");
}

#[test]
fn an_image_that_exists_for_another_platform_only_is_taken_as_it_is_with_a_warning() {
    let Some(registry) = Registry::start() else { return };
    if !have("umoci") || !have("skopeo") {
        return;
    }
    let project = Project::new();
    let layout = project.path().join("layout");
    project.dockerfile("FROM busybox\n");
    project.build(&["-o", &format!("type=oci,tar=false,name=x:t,dest={}", layout.display())]).ok();
    let image = format!("{}:t", layout.display());
    run(Command::new("umoci").args(["config", "--architecture", "s390x", "--image", &image])).ok();
    let (from, to) = (format!("oci:{image}"), format!("{}/other:1", registry.host()));
    let copy = ["copy", "--dest-tls-verify=false", &from, &format!("docker://{to}")];
    run(Command::new("skopeo").arg("--insecure-policy").args(copy)).ok();
    project.dockerfile(&format!("FROM {to}\nCOPY Dockerfile /\n"));
    project.build(&[]).ok().says("InvalidBaseImagePlatform").says("linux/s390x");
    assert_eq!(project.inspect("app")["Architecture"], "s390x");
}

#[test]
fn a_context_may_be_a_stage_and_a_base_may_lie_in_an_archive_of_the_context() {
    let project = Project::new();
    let stages = "FROM busybox AS one\nRUN echo one > /x\nFROM busybox AS two\nRUN echo two > /x\nFROM base\nCOPY --from=two /x /y\n";
    project.dockerfile(stages);
    project.build(&["--build-context", "base=target:two", "--build-context", "two=target:one"]).ok();
    assert_eq!(project.sh("cat /x /y"), "one\none\n");
    project.build(&["--build-context", "base=target:three"]).fails(1).says("context `base` is stage `three`");
    for kind in ["oci", "docker"] {
        let output = format!("type={kind},dest={}", project.context().join("base.tar").display());
        project.dockerfile("FROM busybox\nRUN echo archived > /x\n").build(&["-o", &output]).ok();
        let from = format!(
            "FROM {kind}-archive:./base.tar AS base\nFROM {kind}-archive:base.tar:app:latest\nCOPY --from=base /x /y\n"
        );
        project.dockerfile(&from).build(&[]).ok();
        assert_eq!(project.sh("cat /x /y"), "archived\narchived\n");
    }
    project.link("out.tar", "/etc/passwd");
    for (archive, told) in [
        ("no.tar", "no archive `no.tar`"),
        ("../no.tar", "no archive"),
        ("base.tar:no:1", "docker.io/library/app:latest"),
    ] {
        project
            .dockerfile(&format!("FROM oci-archive:{archive}\n"))
            .build(&[])
            .fails(1)
            .says(told)
            .says("Dockerfile:1");
    }
    project.dockerfile("FROM oci-archive:out.tar\n").build(&[]).fails(1).never_says("root:");
}
