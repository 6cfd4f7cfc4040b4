//! What others on the machine see of kiln's state.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use kiln_testkit::ForgedImage;

use super::attack::Attack;
use crate::project::{have, run};

#[test]
fn the_state_is_its_owner_s_alone_whatever_the_umask() {
    let attack = Attack::new();
    let before: Vec<_> = fs::read_dir("/tmp").unwrap().flatten().map(|entry| entry.file_name()).collect();
    for mask in ["000", "077"] {
        attack.image(ForgedImage::busybox());
        let (context, evil) = (attack.project.context(), attack.project.path().join("evil"));
        attack.project.dockerfile("FROM evil\nRUN --mount=type=cache,target=/c echo x > /c/x; mkdir /made; umask\n");
        let kiln = attack.project.command();
        let mut command = Command::new("sh");
        command.args(["-c", &format!("umask {mask}; exec \"$@\""), "sh"]).arg(kiln.get_program()).args(kiln.get_args());
        command.args(["build", "--no-cache", "--build-context"]).arg(format!("evil=oci-layout://{}:t", evil.display()));
        attack.run(command.arg(context).current_dir(attack.project.path())).ok();
        let state = attack.project.state();
        assert_eq!(fs::metadata(&state).unwrap().mode() & 0o7777, 0o700, "{mask}");
    }
    let ours = |name: &std::ffi::OsString| {
        name.to_string_lossy().starts_with("kiln") && !name.to_string_lossy().starts_with("kiln-e2e-")
    };
    let after = fs::read_dir("/tmp").unwrap().flatten().map(|entry| entry.file_name());
    let new: Vec<_> = after.filter(|name| ours(name) && !before.contains(name)).collect();
    assert_eq!(new, Vec::<std::ffi::OsString>::new());
}

#[test]
fn another_user_opens_nothing_of_the_state() {
    if !have("setpriv") {
        return;
    }
    let attack = Attack::new();
    attack.image(ForgedImage::busybox());
    attack.build("FROM evil\nRUN --mount=type=cache,target=/c echo x > /c/x\n").ok();
    let mut other = Command::new("setpriv");
    other.args(["--reuid=65533", "--regid=65533", "--clear-groups", "find"]).arg(attack.project.state());
    let seen = run(&mut other);
    assert!(seen.stderr.contains("Permission denied"), "{}", seen.stderr);
    assert_eq!(seen.stdout.lines().count(), 1, "{}", seen.stdout);
}
