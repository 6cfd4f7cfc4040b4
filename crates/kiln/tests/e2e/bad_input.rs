//! Bad input: a clear error, the right exit code, nothing left behind.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::project::Project;

#[test]
fn a_missing_source_says_why_and_what_is_near() {
    let project = Project::new();
    project.file("package.json", "{}").file("ignored.txt", "x").file(".dockerignore", "# comment\n*.txt\n");
    let run = project.dockerfile("FROM busybox\nCOPY packge.json /\n").build(&[]).fails(1);
    let place = format!("the build context `{}`", project.context().display());
    run.says("packge.json").says("Dockerfile:2").says("package.json").says(&place);
    let run = project.dockerfile("FROM busybox\nCOPY ignored.txt /\n").build(&[]).fails(1);
    run.says("ignored.txt").says(".dockerignore:2").says("*.txt").says("Dockerfile:2");
    for (source, said) in [("packge.json", "package.json"), ("ignored.txt", ".dockerignore:2")] {
        let dockerfile = format!("FROM busybox\nRUN --mount=source={source},target=/m true\n");
        let run = project.dockerfile(&dockerfile).build(&[]).fails(1);
        run.says(&format!("cannot mount `{source}`")).says(said).says("Dockerfile:2");
    }
    project
        .dockerfile("FROM busybox AS a\nFROM busybox\nCOPY --from=a /no/such /\n")
        .build(&[])
        .fails(1)
        .says("/no/such");
}

#[test]
fn mistakes_of_the_language_name_the_place_and_the_nearest_word() {
    let project = Project::new();
    project.dockerfile("FROM busybox\nRNU echo\n").build(&[]).fails(1).says("Dockerfile:2").says("RUN");
    project.dockerfile("FROM busybox\nCOPY --form=x a b\n").build(&[]).fails(1).says("--from");
    project
        .dockerfile("FROM busybox AS build\nFROM busybox\nCOPY --from=biuld /a /\n")
        .build(&[])
        .fails(1)
        .says("build");
    project.dockerfile("").build(&[]).fails(1);
    project
        .file("Dockerfile", b"FROM busybox\n# caf\xe9\n")
        .build(&[])
        .fails(1)
        .says("not UTF-8")
        .says("Dockerfile:2:6");
    project.build(&["-f", "/dev/zero"]).fails(1).says("larger than 16 MiB");
    project.dockerfile("RUN true\n").build(&[]).fails(1).says("FROM");
    project.dockerfile("FROM busybox\nCOPY a b ./ # comment\n").build(&[]).fails(1).says("#");
}

#[test]
fn the_guides_own_errors_get_a_hint() {
    let project = Project::new();
    project
        .dockerfile("FROM busybox\nRUN echo v > /app/version.txt\n")
        .build(&[])
        .fails(1)
        .says("/app")
        .says("WORKDIR /app");
    fs::write(project.path().join("s"), "SECRET-9c1e44aa77").unwrap();
    let source = format!("id=mysecret,src={}", project.path().join("s").display());
    project.dockerfile(
        "FROM busybox\nRUN mkdir /app\nRUN --mount=type=secret,id=mysecret,target=/run/secrets/mysecret \\\n\
         cat /run/secrets/mysecret > /app/secret_output.txt\n",
    );
    let run = project.build(&["--secret", &source]).fails(1).says("SecretWrittenByStep").says("Dockerfile:3");
    run.says("secret `mysecret` is in what the step leaves").says("`/app/secret_output.txt`, line 1,");
}

#[test]
fn unknown_flags_and_values_are_usage_errors() {
    let project = Project::new();
    project.dockerfile("FROM busybox\n");
    project.kiln(&["build", "--taget", "x", "."]).fails(2).says("--target");
    project.kiln(&["biuld", "."]).fails(2).says("build");
    for args in [&["-t", "UPPER"][..], &["-o", "type=nonsense"], &["--network", "some"], &["--platform", "x/y/z/w"]] {
        project.build(args).fails(2);
    }
    project.kiln(&["build", "/no/such/dir"]).fails(2).says("/no/such/dir");
    fs::remove_file(project.context().join("Dockerfile")).unwrap();
    project.file("Containerfile.txt", "").build(&[]).fails(1).says("Dockerfile");
}

#[test]
fn an_unwritable_state_is_the_environment_s_fault() {
    let project = Project::bare();
    project.dockerfile("FROM scratch\nCOPY Dockerfile /\n");
    let file = project.path().join("file");
    fs::write(&file, "").unwrap();
    let state = file.join("state");
    let context = project.context();
    let args = ["--state", state.to_str().unwrap(), "build", context.to_str().unwrap()];
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_kiln")).args(args).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(stderr.contains(state.to_str().unwrap()), "{stderr}");
}

#[test]
fn the_state_is_private() {
    let project = Project::new();
    assert_eq!(project.state().metadata().unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_failed_build_leaves_the_old_image_and_no_rest() {
    let project = Project::new();
    project.builds("FROM busybox\nRUN echo 1 > /x\n");
    let id = project.inspect("app")["Id"].clone();
    project.dockerfile("FROM busybox\nRUN echo 2 > /x\nRUN exit 3\n").build(&[]).fails(1);
    assert_eq!(project.inspect("app")["Id"], id);
    let work = fs::read_dir(project.state().join("work")).map_or(0, Iterator::count);
    assert_eq!(work, 0, "a step's working directory is left");
}

#[test]
fn a_file_where_a_directory_must_be_is_an_error() {
    let project = Project::new();
    project.file("f", "f");
    project.dockerfile("FROM busybox\nCOPY f /file\nCOPY f /file/below\n").build(&[]).fails(1).says("Dockerfile:3");
    project.dockerfile("FROM busybox\nCOPY f f2 /file\n").build(&[]).fails(1);
}
