//! Builds without overlayfs, and without namespaces: slower or less confined, and with the same layers.

use std::fs;
use std::process::{Command, Stdio};

use crate::project::{Project, Run, run};
use crate::rootless::{nobodys, theirs};

/// Steps of every kind, whose result does not depend on how they are kept apart.
const STEPS: &str = "FROM busybox AS one\n\
    RUN --mount=type=cache,target=/cache --mount=type=tmpfs,target=/mem echo x >/cache/x && echo y >/mem/y \
    && mkdir -p /d/e && echo d >/d/e/f && ln /d/e/f /d/name && ls -A /mem >/listed\n\
    COPY c /d/\n\
    RUN rm -r /root && mkdir /root && echo a >/root/a && rm /bin/yes && echo z >>/d/name && rm /etc/group\n\
    FROM busybox\n\
    COPY --from=one /d /d\n\
    RUN --mount=type=bind,from=one,target=/one --mount=type=cache,target=/cache cat /one/root/a /cache/x >/x && mv /d/e /moved\n\
    RUN --mount=type=secret,id=s,mode=0400 --mount=type=bind,target=/context \
    stat -c '%a %s' /run/secrets/s >/s && cp /context/c /copy && echo 1 >/dev/null && ls /run/secrets /context | wc -l >/n\n";

fn with(project: &Project, variables: &[(&str, &str)], args: &[&str]) -> Run {
    let secret = format!("id=s,src={}", project.context().join("secret").display());
    let mut command = project.command();
    command.envs(variables.iter().copied()).args(["build", "--progress=plain", "-t", "app", "--reproducible"]);
    run(command.args(["--no-cache", "--secret", &secret]).args(args).arg(project.context()))
}

fn prepared(project: &Project) {
    project.file("c", "c").file("secret", "hush").file(".dockerignore", "secret\n").dockerfile(STEPS);
}

fn id(project: &Project) -> String {
    project.inspect("app")["Id"].as_str().unwrap().to_owned()
}

#[test]
fn layers_are_the_same_without_an_overlay_and_without_namespaces() {
    let project = Project::new();
    prepared(&project);
    with(&project, &[("KILN_SNAPSHOTTER", "overlay")], &[]).ok();
    let stacked = id(&project);
    with(&project, &[("KILN_SNAPSHOTTER", "native")], &[]).ok().never_says("warning: layers are copied");
    assert_eq!(id(&project), stacked);
    with(&project, &[], &["--isolation=chroot"]).ok().says("warning: steps run with `--isolation=chroot`");
    assert_eq!(id(&project), stacked);
    let work = fs::read_dir(project.state().join("work")).unwrap().count();
    assert_eq!(work, 0, "what was copied is removed");
    for other in [theirs(), nobodys()].into_iter().flatten() {
        let other = other.with_busybox();
        prepared(&other);
        let ids = ["overlay", "native"].map(|way| {
            with(&other, &[("KILN_SNAPSHOTTER", way)], &[]).ok();
            id(&other)
        });
        assert_eq!(ids[0], ids[1]);
    }
    with(&project, &[("KILN_SNAPSHOTTER", "btrfs")], &[]).fails(2).says("expected `auto`, `overlay` or `native`");
}

#[test]
fn a_state_directory_on_an_overlay_is_used_by_copying() {
    if !rustix::process::geteuid().is_root() {
        kiln_testkit::skip("only root mounts");
        return;
    }
    const SCRIPT: &str = "set -e; cd $1; shift; mkdir -p low up work merged; mount --make-rprivate /; \
        mount -t overlay overlay -o lowerdir=low,upperdir=up,workdir=work merged; exec \"$@\"";
    let project = Project::new();
    project.dockerfile("FROM busybox\nRUN rm -r /root && mkdir /root && echo a >/root/a && rm /bin/yes\n");
    project.build(&["--reproducible"]).ok();
    let (archive, image) = (project.path().join("busybox.tar"), id(&project));
    project.kiln(&["save", "-o", archive.to_str().unwrap(), "busybox"]).ok();
    let inside = |args: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", SCRIPT, "sh"]).arg(project.path()).arg(env!("CARGO_BIN_EXE_kiln"));
        command.arg("--state").arg(project.path().join("merged/state")).args(args).stdin(Stdio::null());
        run(&mut command)
    };
    inside(&["load", "-i", archive.to_str().unwrap()]).ok();
    let context = project.context();
    let build = ["build", "--progress=plain", "--reproducible", "-t", "app", context.to_str().unwrap()];
    inside(&build).ok().says("warning: layers are copied for each step").says("in a container a volume");
    let built = inside(&["inspect", "app"]).ok().stdout;
    assert!(built.contains(&image), "{built}");
    // What was deleted is found again by the next step, and by who packs the layer.
    project.dockerfile("FROM app\nRUN ! test -e /bin/yes && ls /root >/list\n");
    inside(&build).ok();
    let doctor = inside(&["doctor"]).ok().stdout;
    assert!(doctor.contains("on an overlay itself"), "{doctor}");
}

#[test]
fn what_takes_namespaces_is_refused_by_name_in_a_chroot() {
    let project = Project::new();
    let refused = |dockerfile: &str, args: &[&str]| {
        project.dockerfile(dockerfile);
        let args = [&["--isolation=chroot"], args].concat();
        project.build(&args).fails(3).says("a step without namespaces cannot have")
    };
    refused("FROM busybox\nRUN --network=none true\n", &[]).says("cannot have no network");
    refused("FROM busybox\nRUN --security=insecure true\n", &["--allow=security.insecure"]).says("insecure");
    project.build(&["--isolation=hyperv"]).fails(2).says("expected `default`, `oci`, `rootless` or `chroot`");
}

#[test]
fn a_failed_step_in_a_chroot_leaves_nobody_behind() {
    let project = Project::new();
    project.dockerfile(
        "FROM busybox\nRUN --mount=type=cache,target=/c echo k >/c/k; setsid sleep 86437 & sleep 0.2; exit 4\n",
    );
    project.build(&["--isolation=chroot"]).fails(1).says("exit code: 4");
    let all = fs::read_dir("/proc").unwrap().flatten();
    let mut lines = all.filter_map(|entry| fs::read_to_string(entry.path().join("cmdline")).ok());
    assert!(!lines.any(|line| line.ends_with("sleep\x0086437\0")));
    project.builds("FROM busybox\nRUN --mount=type=cache,target=/c cp /c/k /k\n");
    assert_eq!(project.sh("cat /k"), "k\n");
}

#[test]
fn layers_of_a_user_with_a_range_are_not_taken_for_those_of_one_id() {
    let Some(project) = theirs() else { return };
    let project = project.with_busybox();
    project.dockerfile("FROM busybox\nRUN true\n");
    let mut command = project.command();
    command.env("PATH", project.path()).args(["build", "--progress=plain"]).arg(project.context());
    let refused = run(&mut command).fails(3);
    refused
        .says("were written by a user with a range of ids, and cannot be used by a user with one id")
        .says("`--state`");
    project.build(&[]).ok();
}

#[test]
fn what_was_placed_for_a_step_is_gone_for_the_next() {
    let project = Project::new();
    project.file("secret", "q7-x-5511").dockerfile(
        "FROM busybox\nRUN mkdir /c && echo image >/c/own\n\
         RUN --mount=type=cache,target=/c --mount=type=secret,id=s,target=/c/key test -s /c/key && echo k >/c/kept && ! test -e /c/own\n\
         RUN cat /c/own && ! test -e /c/kept && ! test -e /c/key && ls -A /dev | wc -l >/devices\n\
         RUN --mount=type=cache,target=/c test -e /c/kept && ! test -e /c/key\n",
    );
    let run = with(&project, &[], &["--isolation=chroot"]).ok();
    assert!(!run.stderr.contains("warning: layers are copied"), "{}", run.stderr);
    // Nor is it in what is kept.
    let found = Command::new("grep").args(["-rl", "q7-x-5511"]).arg(project.state()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
}
