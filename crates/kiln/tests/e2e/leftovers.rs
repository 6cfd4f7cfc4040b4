//! What a build leaves behind: nothing but its result.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::process::Command;

use crate::project::{Project, run};

fn entries(project: &Project, dir: &str) -> usize {
    fs::read_dir(project.state().join(dir)).unwrap().count()
}

#[test]
fn a_context_that_is_mounted_is_not_kept() {
    let project = Project::new();
    project.file("f", "f").dockerfile("FROM busybox\nRUN --mount=target=/src cat /src/f > /f\n");
    let before = entries(&project, "layers");
    project.build(&[]).ok();
    assert_eq!((entries(&project, "layers"), entries(&project, "work")), (before + 1, 0));
    project.dockerfile("FROM busybox\nRUN --mount=target=/src,rw touch /src/new && cat /src/f > /g\n");
    project.build(&[]).ok();
    assert_eq!((entries(&project, "layers"), entries(&project, "work")), (before + 2, 0));
    assert!(!project.context().join("new").exists());
}

#[test]
fn failed_steps_leave_no_half_written_trees() {
    let project = Project::new();
    project.file("f", "f");
    for step in [
        "COPY --chown=nobody f /f",
        "COPY missing /f",
        "RUN echo x > /x && exit 3",
        "RUN --mount=type=secret,id=s,required true",
    ] {
        project.dockerfile(&format!("FROM busybox\n{step}\n"));
        project.build(&[]).fails(1);
        assert_eq!((entries(&project, "work"), entries(&project, "ingest")), (0, 0), "{step}");
    }
    // A tar on standard input that ends too early.
    let tar = run(Command::new("tar").arg("-cC").arg(project.context()).arg("."));
    let tar = tar.ok().stdout.into_bytes();
    project.kiln_with_input(&["build", "-"], &tar[..700]).fails(1);
    assert_eq!(entries(&project, "work"), 0);
}

#[test]
fn one_cache_can_be_mounted_at_two_places_of_a_step() {
    let project = Project::new();
    let mount = |target: &str| format!("--mount=type=cache,id=c,sharing=locked,target={target}");
    let step = format!("RUN {} {} echo x > /a/x && cat /b/x > /x", mount("/a"), mount("/b"));
    project.dockerfile(&format!("FROM busybox\n{step}\n"));
    project.build(&[]).ok();
}

#[test]
fn outputs_write_to_special_files_and_through_links() {
    let project = Project::new();
    project.dockerfile("FROM busybox\n");
    let null = project.path().join("null");
    run(Command::new("mknod").arg(&null).args(["c", "1", "3"])).ok();
    project
        .kiln(&["build", "-o", &format!("type=tar,dest={}", null.display()), project.context().to_str().unwrap()])
        .ok();
    assert!(fs::metadata(&null).unwrap().file_type().is_char_device());
    fs::write(project.path().join("out.tar"), "old").unwrap();
    std::os::unix::fs::symlink("out.tar", project.path().join("link.tar")).unwrap();
    let dest = format!("type=tar,dest={}", project.path().join("link.tar").display());
    project.kiln(&["build", "-o", &dest, project.context().to_str().unwrap()]).ok();
    assert!(fs::symlink_metadata(project.path().join("link.tar")).unwrap().is_symlink());
    assert!(fs::metadata(project.path().join("out.tar")).unwrap().len() > 1000);
}
