//! kiln inside of containers that others made: podman's, and bubblewrap's.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::project::{Project, Run, have, run};

/// Files of others, deletions, and a directory that takes another's place.
const STEPS: &str = "FROM busybox\nRUN mkdir /d && echo a >/d/a && ln /d/a /d/b\nCOPY c /d/\n\
    RUN rm -r /root && mkdir /root && echo a >/root/a && rm /bin/yes /d/b\n";

/// The same with what takes more than one id.
const OWNERS: &str = "RUN chown -R 5:6 /d\nUSER daemon\nRUN id -u >/tmp/id\n";

/// A filter as containers have it that are not to have namespaces of their own: 0x7e020000 are the flags for them.
const NO_NAMESPACES: &str = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
    {"names": ["unshare", "setns", "mount", "fsopen", "fsmount", "open_tree", "move_mount", "mount_setattr"],
     "action": "SCMP_ACT_ERRNO", "errnoRet": 1},
    {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
    {"names": ["clone"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1,
     "args": [{"index": 0, "value": 268435456, "valueTwo": 268435456, "op": "SCMP_CMP_MASKED_EQ"}]}]}"#;

/// A project that root's kiln has built, and a root file system for containers.
struct Ground {
    project: Project,
    image: String,
}

impl Ground {
    fn new(steps: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            kiln_testkit::skip("only root can start containers for root");
            return None;
        }
        let project = Project::new();
        project.file("c", "c").dockerfile(steps);
        project.build(&["--reproducible"]).ok();
        let image = project.inspect("app")["Id"].as_str().unwrap().to_owned();
        project.kiln(&["save", "-o", project.path().join("busybox.tar").to_str().unwrap(), "busybox"]).ok();
        let ground = Self { project, image };
        for name in ["usr", "etc", "proc", "sys", "dev", "tmp", "root", "var/lib", "srv"] {
            fs::create_dir_all(ground.root().join(name)).unwrap();
        }
        for name in ["bin", "sbin", "lib", "lib64"] {
            symlink(format!("usr/{name}"), ground.root().join(name)).unwrap();
        }
        fs::write(ground.root().join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
        let program = ground.project.path().join("kiln");
        fs::copy(env!("CARGO_BIN_EXE_kiln"), &program).unwrap();
        fs::set_permissions(program, PermissionsExt::from_mode(0o755)).unwrap();
        Some(ground)
    }

    fn root(&self) -> PathBuf {
        self.project.path().join("rootfs")
    }

    /// Runs a script in one of podman's containers, as its root, without privileges. `:O` gives it an overlay as its root.
    fn podman(&self, options: &[&str], overlay: &str, script: &str) -> Run {
        let all = self.project.path().display();
        let mut command = Command::new("podman");
        // Its own limits may be higher than those that we can give.
        command.args(["run", "--rm", "--network=none", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"]);
        command.args(["-v", "/usr:/usr:ro", "-v", &format!("{all}:/srv:ro")]).args(options);
        command.arg("--rootfs").arg(format!("{}{overlay}", self.root().display())).args(["sh", "-c", script]);
        run(command.stdin(Stdio::null()))
    }

    /// Builds inside, with a state directory of its own.
    fn build(&self, options: &[&str], overlay: &str) -> Run {
        let _ = fs::remove_dir_all(self.root().join("var/lib/kiln"));
        let script = "/srv/kiln load -i /srv/busybox.tar && /srv/kiln build --progress=plain --reproducible -t app \
             /srv/context && /srv/kiln inspect app";
        self.podman(options, overlay, script)
    }

    fn has(&self, run: &Run) {
        assert!(run.stdout.contains(&self.image), "{}{}", run.stdout, run.stderr);
    }
}

/// Whether podman starts containers on this machine; says so if it does not.
fn podman_works(ground: &Ground) -> bool {
    if !have("podman") {
        return false;
    }
    let tried = ground.podman(&[], "", "true");
    if tried.code != 0 {
        kiln_testkit::skip(&format!("podman starts no container here: {}", tried.stderr.trim()));
    }
    tried.code == 0
}

#[test]
fn root_of_a_container_builds_what_root_builds() {
    let Some(ground) = Ground::new(&format!("{STEPS}{OWNERS}")) else { return };
    if !podman_works(&ground) {
        return;
    }
    // Nobody looks for what no container may have.
    for filter in [&[][..], &["--security-opt=seccomp=unconfined"]] {
        ground.has(&ground.build(filter, "").ok().never_says("layers are copied"));
        ground.has(&ground.build(filter, ":O").ok().says("layers are copied for each step"));
    }
}

#[test]
fn where_a_container_allows_no_namespaces_a_chroot_is_the_way_out() {
    let Some(ground) = Ground::new(&format!("{STEPS}{OWNERS}")) else { return };
    if !podman_works(&ground) {
        return;
    }
    let filter = ground.project.path().join("filter.json");
    fs::write(&filter, NO_NAMESPACES).unwrap();
    let filter = format!("--security-opt=seccomp={}", filter.display());
    ground.build(&[&filter], "").fails(3).says("gives its users no user namespaces").says("`--isolation=chroot`");
    let doctor = ground.podman(&[&filter], "", "/srv/kiln doctor");
    assert_eq!(doctor.code, 3, "{doctor:?}");
    assert!(doctor.stdout.contains("build what you trust with `--isolation=chroot`"), "{}", doctor.stdout);
    for overlay in ["", ":O"] {
        let run = ground.build(&[&filter, "--env=KILN_ISOLATION=chroot"], overlay).ok();
        ground.has(&run.says("warning: steps run with `--isolation=chroot`"));
    }
    // Even without the right to make devices.
    let run = ground.build(&[&filter, "--env=KILN_ISOLATION=chroot", "--cap-drop=mknod"], "").ok();
    ground.has(&run);
}

#[test]
fn in_bubblewrap_an_ordinary_user_builds_with_one_id() {
    let Some(ground) = Ground::new(STEPS) else { return };
    if !have("bwrap") {
        return;
    }
    let Some(theirs) = crate::rootless::nobodys() else { return };
    let all = ground.project.path();
    fs::set_permissions(all, PermissionsExt::from_mode(0o755)).unwrap();
    let inside = |args: &[&str]| {
        let kiln = theirs.command();
        let whose = crate::rootless::NOBODY.to_string();
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &whose, "--regid", &whose, "--clear-groups", "env", "HOME=/nonexistent"]);
        command.args(["bwrap", "--unshare-all", "--dev-bind", "/", "/", "--proc", "/proc"]);
        command.arg(kiln.get_program()).args(kiln.get_args()).args(args).stdin(Stdio::null());
        run(&mut command)
    };
    inside(&["load", "-i", all.join("busybox.tar").to_str().unwrap()]).ok();
    let context = ground.project.context();
    let build = ["build", "--progress=plain", "--reproducible", "-t", "app", context.to_str().unwrap()];
    inside(&build).ok().says("steps have one user id");
    ground.has(&inside(&["inspect", "app"]).ok());
}
