//! A throw-away project: a context, a state directory, and a `busybox` base made by kiln itself.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// A context directory and a state directory, removed at the end.
pub(crate) struct Project {
    dir: TempDir,
    /// Who runs kiln, if not who runs the test: user and group.
    user: Option<(u32, u32)>,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    /// Insists on success.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, 0, "\n--- stdout\n{}\n--- stderr\n{}", self.stdout, self.stderr);
        self
    }

    /// Insists on an exit code, and that nothing panicked.
    #[track_caller]
    pub(crate) fn fails(self, code: i32) -> Self {
        assert_eq!(self.code, code, "\n--- stdout\n{}\n--- stderr\n{}", self.stdout, self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self
    }

    /// Insists that the progress or error says this.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "`{text}` is not in\n{}", self.stderr);
        self
    }

    /// Insists that it does not.
    #[track_caller]
    pub(crate) fn never_says(self, text: &str) -> Self {
        assert!(!self.stderr.contains(text), "`{text}` is in\n{}", self.stderr);
        self
    }

    /// How many steps were taken from the cache.
    pub(crate) fn cached(&self) -> usize {
        self.stderr.lines().filter(|line| line.ends_with(" CACHED")).count()
    }
}

impl Project {
    /// An empty project whose store holds `busybox`.
    pub(crate) fn new() -> Self {
        Self::bare().with_busybox()
    }

    /// Makes `busybox` as its user would.
    pub(crate) fn with_busybox(self) -> Self {
        let project = self;
        let base = project.path().join("base");
        fs::create_dir(&base).unwrap();
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|p| Path::new(p).exists());
        fs::copy(busybox.expect("busybox-static is installed"), base.join("busybox")).unwrap();
        let etc = base.join("etc");
        fs::create_dir(&etc).unwrap();
        fs::write(etc.join("passwd"), "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\n")
            .unwrap();
        fs::write(etc.join("group"), "root:x:0:\ndaemon:x:1:\nmail:x:8:daemon\n").unwrap();
        let dockerfile = "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\",\"--install\",\"-s\",\"/bin\"]\n\
             COPY etc /etc\nRUN mkdir -p -m 1777 /tmp && mkdir /root\nCMD [\"sh\"]\n";
        fs::write(base.join("Dockerfile"), dockerfile).unwrap();
        project.kiln(&["build", "-q", "-t", "busybox", base.to_str().unwrap()]).ok();
        project
    }

    /// A project whose store is empty.
    pub(crate) fn bare() -> Self {
        let dir = tempfile::Builder::new().prefix("kiln-e2e-").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(dir.path().join("context")).unwrap();
        Self { dir, user: None }
    }

    /// A project whose store is empty and whose kiln is run by somebody else.
    pub(crate) fn of(uid: u32, gid: u32) -> Self {
        let project = Self { user: Some((uid, gid)), ..Self::bare() };
        std::os::unix::fs::chown(project.path(), Some(uid), Some(gid)).unwrap();
        // Where kiln was built nobody else may be let in.
        let program = project.program();
        if fs::hard_link(env!("CARGO_BIN_EXE_kiln"), &program).is_err() {
            fs::copy(env!("CARGO_BIN_EXE_kiln"), &program).unwrap();
        }
        project
    }

    fn program(&self) -> PathBuf {
        match self.user {
            Some(_) => self.path().join("kiln"),
            None => env!("CARGO_BIN_EXE_kiln").into(),
        }
    }

    /// Where everything of it is.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The context directory.
    pub(crate) fn context(&self) -> PathBuf {
        self.path().join("context")
    }

    /// The state directory.
    pub(crate) fn state(&self) -> PathBuf {
        self.path().join("state")
    }

    /// Writes a file of the context.
    pub(crate) fn file(&self, path: &str, content: impl AsRef<[u8]>) -> &Self {
        let path = self.context().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    /// Makes a symbolic link in the context.
    pub(crate) fn link(&self, path: &str, target: &str) -> &Self {
        let path = self.context().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
        self
    }

    /// Writes the Dockerfile.
    pub(crate) fn dockerfile(&self, text: &str) -> &Self {
        self.file("Dockerfile", text)
    }

    /// The kiln command with this project's state.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(self.program());
        if let Some((uid, gid)) = self.user {
            // Groups other than these are left as well.
            command.uid(uid).gid(gid).env("HOME", self.path());
        }
        command.arg("--state").arg(self.state()).env("DOCKER_CONFIG", self.path().join("docker"));
        command.env_remove("SOURCE_DATE_EPOCH").current_dir(self.path()).stdin(Stdio::null());
        command
    }

    /// Runs kiln.
    pub(crate) fn kiln(&self, args: &[&str]) -> Run {
        run(self.command().args(args))
    }

    /// Runs kiln with bytes on standard input.
    pub(crate) fn kiln_with_input(&self, args: &[&str], input: &[u8]) -> Run {
        let path = self.path().join("stdin");
        fs::write(&path, input).unwrap();
        run(self.command().args(args).stdin(fs::File::open(path).unwrap()))
    }

    /// Builds the context as `app`.
    pub(crate) fn build(&self, args: &[&str]) -> Run {
        let context = self.context();
        let mut all = vec!["build", "--progress=plain", "-t", "app"];
        all.extend(args);
        all.push(context.to_str().unwrap());
        self.kiln(&all)
    }

    /// Writes the Dockerfile and builds it; it must succeed.
    #[track_caller]
    pub(crate) fn builds(&self, dockerfile: &str) -> Run {
        self.dockerfile(dockerfile).build(&[]).ok()
    }

    /// Builds and gives the file tree.
    #[track_caller]
    pub(crate) fn tree(&self, args: &[&str]) -> PathBuf {
        let out = self.path().join(format!("out-{}", self.entries()));
        let output = format!("type=local,dest={}", out.display());
        let mut all = vec!["-o", output.as_str()];
        all.extend(args);
        self.build(&all).ok();
        out
    }

    fn entries(&self) -> usize {
        fs::read_dir(self.path()).unwrap().count()
    }

    /// What a shell command prints in a container of `app`.
    #[track_caller]
    pub(crate) fn sh(&self, script: &str) -> String {
        self.kiln(&["run", "--rm", "--entrypoint", "/bin/sh", "app", "-c", script]).ok().stdout
    }

    /// One field of `inspect`, as JSON.
    #[track_caller]
    pub(crate) fn inspect(&self, name: &str) -> serde_json::Value {
        let text = self.kiln(&["inspect", name]).ok().stdout;
        serde_json::from_str::<serde_json::Value>(&text).unwrap()[0].clone()
    }
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Run {
    let output = command.output().unwrap();
    Run {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Whether a foreign tool is here; says so when it is not.
pub(crate) fn have(tool: &str) -> bool {
    let found = std::env::split_paths(&std::env::var_os("PATH").unwrap()).any(|dir| dir.join(tool).exists());
    if !found {
        kiln_testkit::skip(&format!("`{tool}` is not installed"));
    }
    found
}
