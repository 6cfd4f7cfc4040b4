//! `RUN --mount=type=ssh`: an agent of the client in a step, asked by OpenSSH's own tools.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::project::{Project, run};

/// Makes a key, and gives its path.
pub(crate) fn key(dir: &Path, kind: &str, passphrase: &str) -> PathBuf {
    let path = dir.join(format!("id_{kind}"));
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-t", kind, "-N", passphrase, "-C", kind, "-f"]).arg(&path);
    run(&mut command).ok();
    path
}

/// A real agent.
struct Agent {
    child: Child,
    socket: PathBuf,
}

impl Agent {
    fn start(dir: &Path) -> Self {
        let socket = dir.join("agent.sock");
        let mut command = Command::new("ssh-agent");
        let child = command.args(["-D", "-a"]).arg(&socket).stdout(Stdio::null()).spawn().unwrap();
        let end = Instant::now() + Duration::from_secs(10);
        while !socket.exists() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { child, socket }
    }

    fn add(&self, args: &[&str]) -> crate::project::Run {
        run(Command::new("ssh-add").args(args).env("SSH_AUTH_SOCK", &self.socket).stdin(Stdio::null()))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Puts a program of the machine and its libraries into the context, so that `COPY root /` brings it in.
pub(crate) fn bring(project: &Project, program: &str) {
    let found = std::env::split_paths("/usr/bin:/bin").map(|dir| dir.join(program)).find(|path| path.exists()).unwrap();
    let libraries = run(Command::new("ldd").arg(&found)).ok().stdout;
    let paths = libraries.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from);
    for path in paths.chain([found]) {
        let to = project.context().join("root").join(path.strip_prefix("/").unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(fs::canonicalize(&path).unwrap(), &to).unwrap();
    }
}

/// A project with an image `tools` that has OpenSSH's tools.
fn with_tools() -> Project {
    let project = Project::new();
    for program in ["ssh-add", "ssh-keygen"] {
        bring(&project, program);
    }
    project.dockerfile("FROM busybox\nCOPY root /\n");
    let context = project.context();
    project.kiln(&["build", "-q", "-t", "tools", context.to_str().unwrap()]).ok();
    fs::remove_dir_all(context.join("root")).unwrap();
    project
}

#[test]
fn an_agent_is_lent_for_listing_and_signing_and_nothing_else() {
    let project = with_tools();
    let agent = Agent::start(project.path());
    let path = key(project.path(), "ed25519", "");
    agent.add(&["-q", path.to_str().unwrap()]).ok();
    fs::copy(path.with_extension("pub"), project.context().join("key.pub")).unwrap();
    fs::copy(&path, project.context().join("other")).unwrap();
    project.dockerfile(
        "FROM tools\nCOPY key.pub other /\nRUN chmod 600 /other\nRUN --mount=type=ssh test $SSH_AUTH_SOCK = /run/buildkit/ssh_agent.0 && \
         stat -c '%a %u %g %F' $SSH_AUTH_SOCK && ssh-add -l && echo text > /text && \
         ssh-keygen -q -Y sign -n test -f /key.pub /text && test -s /text.sig && echo signed && \
         { ssh-add -D || echo no-removal; } && { ssh-add /other || echo no-adding; } && { ssh-add -x </dev/null || echo no-locking; } && ssh-add -l\n\
         RUN --mount=type=ssh,target=/my/agent,uid=1000,gid=1001,mode=0640 stat -c '%a %u %g' /my/agent\n\
         RUN test ! -e /run/buildkit && test ! -e /my/agent\n",
    );
    let lent = format!("default={}", agent.socket.display());
    let run = project.build(&["--ssh", &lent]).ok();
    let run = run.says("600 0 0 socket").says("ED25519").says("signed").says("no-removal").says("no-adding");
    run.says("640 1000 1001");
    assert!(agent.add(&["-l"]).ok().stdout.contains("ED25519"), "the agent lost its key");
    // By the environment, under a name of its own.
    project.dockerfile("FROM tools\nRUN --mount=type=ssh,id=work,required ssh-add -l\n");
    let context = project.context();
    let mut command = project.command();
    command.args(["build", "--progress=plain", "--ssh", "work"]).arg(&context).env("SSH_AUTH_SOCK", &agent.socket);
    crate::project::run(&mut command).ok().says("ED25519");
}

#[test]
fn keys_of_every_kind_sign_without_an_agent() {
    let project = with_tools();
    let kinds = ["ed25519", "ecdsa", "rsa"];
    let keys: Vec<PathBuf> = kinds.iter().map(|kind| key(project.path(), kind, "")).collect();
    for kind in kinds {
        fs::copy(project.path().join(format!("id_{kind}.pub")), project.context().join(format!("{kind}.pub"))).unwrap();
    }
    project.dockerfile(
        "FROM tools\nCOPY *.pub /keys/\nRUN --mount=type=ssh,required ssh-add -l && echo text > /text && \
         for kind in ed25519 ecdsa rsa; do \
         ssh-keygen -q -Y sign -n test -f /keys/$kind.pub - < /text > /$kind.sig && \
         ssh-keygen -q -Y check-novalidate -n test -s /$kind.sig < /text && echo $kind-is-good || exit 1; done\n",
    );
    let lent = format!("default={}", keys.iter().map(|key| key.display().to_string()).collect::<Vec<_>>().join(","));
    let run = project.build(&["--ssh", &lent]).ok();
    run.says("ed25519-is-good").says("ecdsa-is-good").says("rsa-is-good");
    let left = Command::new("grep").args(["-rlF", "OPENSSH PRIVATE KEY"]).arg(project.state()).output().unwrap();
    let left = String::from_utf8_lossy(&left.stdout).lines().filter(|path| !path.contains("ssh-")).count();
    assert_eq!(left, 0, "a key was written into the state directory");
}

#[test]
fn an_agent_that_is_not_lent_is_left_out_unless_it_is_required() {
    let project = Project::new();
    project.dockerfile("FROM busybox\nRUN --mount=type=ssh test ! -e \"$SSH_AUTH_SOCK\"\n");
    project.build(&[]).ok();
    project.dockerfile("FROM busybox\nRUN --mount=type=ssh,id=github,required true\n");
    project.build(&[]).fails(1).says("ssh agent `github` was not given").says("--ssh github=").says("Dockerfile:2");
}

#[test]
fn what_cannot_be_lent_says_why_before_anything_is_built() {
    let project = Project::bare();
    project.dockerfile("FROM scratch\n");
    let locked = key(project.path(), "ed25519", "passphrase");
    let lend = |path: &str| project.build(&["--ssh", &format!("default={path}")]).fails(2);
    lend(locked.to_str().unwrap()).says("has a passphrase").says("ssh-add");
    lend(&format!("{}.pub", locked.display())).says("the public key");
    lend("/no/such/key").says("cannot read `/no/such/key`");
    let mut command = project.command();
    command.args(["build", "--ssh", "default"]).arg(project.context()).env_remove("SSH_AUTH_SOCK");
    run(&mut command).fails(2).says("`SSH_AUTH_SOCK` is not set");
}
