//! An attack: a project, a canary that nobody may read or touch, and what must be true however a command ends.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use kiln_testkit::ForgedImage;

use super::machine;
use crate::project::{Project, Run};
use crate::rootless;

/// Stands in files that no build may see.
pub(crate) const SECRET: &str = "HOST-CANARY-7f3a";

/// The most memory of one command, whatever it is given.
pub(super) const MOST_MEMORY: u64 = 300 << 20;

/// An attack under way. At its end, all of the machine must be as it was.
pub(crate) struct Attack {
    pub(crate) project: Project,
    canary: tempfile::TempDir,
    before: BTreeMap<PathBuf, String>,
}

impl Attack {
    /// A project with an empty store, and a canary beside it.
    pub(crate) fn new() -> Self {
        Self::of(Project::bare())
    }

    /// One of whoever runs the tests, and one of each ordinary user that can be had: with a range of ids, with a single one.
    pub(crate) fn by_everybody() -> impl Iterator<Item = Self> {
        let ordinary = [rootless::theirs, rootless::nobodys].into_iter().filter_map(|user| user());
        std::iter::once_with(Project::bare).chain(ordinary).map(Self::of)
    }

    /// Whether its steps can have other users than root.
    pub(crate) fn has_users(&self) -> bool {
        self.project.path().metadata().unwrap().uid() != rootless::NOBODY
    }

    fn of(project: Project) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let canary = dir.path().join("canary");
        for (directory, file) in [(canary.clone(), "secret"), (canary.join("sub"), "secret2")] {
            fs::create_dir(&directory).unwrap();
            fs::write(directory.join(file), SECRET).unwrap();
            fs::set_permissions(directory.join(file), fs::Permissions::from_mode(0o600)).unwrap();
            fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).unwrap();
            // Whoever builds might read it.
            let owner = project.path().metadata().unwrap();
            for path in [directory.join(file), directory] {
                chown(path, Some(owner.uid()), Some(owner.gid())).unwrap();
            }
        }
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        // Orphans come to this process, which has no other children: one test, one process.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
        let before = machine::state(&canary, project.path());
        Self { project, canary: dir, before }
    }

    /// Where the canary is.
    pub(crate) fn canary(&self) -> String {
        self.canary.path().join("canary").to_str().unwrap().to_owned()
    }

    /// Where the canary's secret is.
    pub(crate) fn secret(&self) -> String {
        format!("{}/secret", self.canary())
    }

    /// Makes an image the one that is called `evil`; gives the digests of its layers.
    pub(crate) fn image(&self, image: ForgedImage) -> Vec<String> {
        let dir = self.layout();
        let _ = fs::remove_dir_all(&dir);
        image.write(&dir)
    }

    fn layout(&self) -> PathBuf {
        self.project.path().join("evil")
    }

    /// Builds a Dockerfile that may take `evil`, with these options.
    #[track_caller]
    pub(crate) fn build_with(&self, dockerfile: &str, options: &[&str]) -> Run {
        self.project.dockerfile(dockerfile);
        let (context, evil) = (self.project.context(), format!("evil=oci-layout://{}:t", self.layout().display()));
        let mut args = vec!["build", "--progress=plain", "--no-cache", "-t", "app", "--build-context", &evil];
        args.extend(options);
        args.push(context.to_str().unwrap());
        self.kiln(&args)
    }

    /// Builds a Dockerfile that may take `evil`.
    #[track_caller]
    pub(crate) fn build(&self, dockerfile: &str) -> Run {
        self.build_with(dockerfile, &[])
    }

    /// Runs kiln, and checks what must be true of every command.
    #[track_caller]
    pub(crate) fn kiln(&self, args: &[&str]) -> Run {
        self.run(self.project.command().args(args))
    }

    /// Runs a command of kiln's, and checks what must be true of every one.
    #[track_caller]
    pub(crate) fn run(&self, command: &mut Command) -> Run {
        let output = ["stdout", "stderr"].map(|name| self.project.path().join(name));
        let [stdout, stderr] = output.each_ref().map(|path| File::create(path).unwrap());
        let child = command.stdout(stdout).stderr(stderr).spawn().unwrap();
        let pid = child.id();
        let link = Some(link_of(pid)).filter(|link| !link.exists());
        let (code, memory) = watch(child);
        let [stdout, stderr] = output.map(|path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned());
        let run = Run { code, stdout, stderr };
        let said = format!("{}{}", run.stdout, run.stderr);
        assert!((0..=3).contains(&code), "exit {code}\n{said}");
        assert!(!said.contains("panicked") && !said.contains(SECRET), "{said}");
        assert!(memory <= MOST_MEMORY, "{} MiB of memory\n{said}", memory >> 20);
        let errors = run.stderr.lines().filter(|line| line.starts_with("error")).count();
        assert_eq!(errors > 0, code != 0, "an error, if it failed\n{said}");
        assert_eq!(self.left(pid, link.as_deref()), Vec::<String>::new());
        run
    }

    /// What a command left: processes, control groups, working directories, and the link into the network of a step.
    fn left(&self, pid: u32, link: Option<&Path>) -> Vec<String> {
        // The kernel takes the rest of a container away behind its last process.
        let start = Instant::now();
        loop {
            let mut left = Self::processes();
            let groups = Command::new("find").arg("/sys/fs/cgroup").args(["-name", &format!("kiln-{pid}-*")]).output();
            left.extend(String::from_utf8_lossy(&groups.unwrap().stdout).lines().map(|path| format!("group {path}")));
            for directory in ["work", "tmp"] {
                let entries = fs::read_dir(self.project.state().join(directory)).into_iter().flatten().flatten();
                left.extend(entries.map(|entry| entry.path().display().to_string()));
            }
            left.extend(link.filter(|link| link.exists()).map(|link| link.display().to_string()));
            if left.is_empty() || start.elapsed() > Duration::from_secs(2) {
                return left;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Processes that come from this one, orphans too.
    pub(crate) fn processes() -> Vec<String> {
        let all = fs::read_dir("/proc").unwrap().flatten();
        let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let alive: BTreeMap<u32, u32> = numbers.filter_map(|pid| Some((pid, parent(pid)?))).collect();
        let own = std::process::id();
        let line = |pid: u32| std::iter::successors(Some(pid), |pid| alive.get(pid).copied()).skip(1);
        let ours = alive.keys().filter(|pid| line(**pid).any(|pid| pid == own));
        ours.map(|pid| format!("process {pid} {}", command_line(*pid))).collect()
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let after = machine::state(Path::new(&self.canary()), self.project.path());
            let changed = |key: &&PathBuf| self.before.get(*key) != after.get(*key);
            let changed: Vec<_> =
                self.before.keys().filter(changed).map(|key| (&self.before[key], after.get(key))).collect();
            assert!(changed.is_empty(), "of the machine, changed: {changed:#?}");
        }
    }
}

/// What steps printed, line by line.
pub(crate) fn printed(run: &Run) -> Vec<&str> {
    run.stderr.lines().filter_map(printed_line).collect()
}

/// What follows `#4 0.123 `.
fn printed_line(line: &str) -> Option<&str> {
    let (_, rest) = line.strip_prefix('#')?.split_once(' ')?;
    let (seconds, text) = rest.split_once(' ')?;
    seconds.parse::<f64>().ok().map(|_| text)
}

/// The link into the network of a command's first step, unless that name was taken (kiln-exec, `Ground::connect`).
pub(super) fn link_of(pid: u32) -> PathBuf {
    Path::new("/sys/class/net").join(format!("kiln-{}", pid.wrapping_mul(61) % 2048))
}

/// Waits for a command; gives its exit code, and the most memory it had.
pub(super) fn watch(mut child: Child) -> (i32, u64) {
    let status = PathBuf::from(format!("/proc/{}/status", child.id()));
    let (start, mut most) = (Instant::now(), 0);
    loop {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
        most = most.max(line.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024);
        if let Some(status) = child.try_wait().unwrap() {
            return (status.code().unwrap_or(-1), most);
        }
        if start.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
            panic!("it did not end within a minute");
        }
        std::thread::sleep(Duration::from_millis(3));
    }
}

/// The parent of a process that is not only waiting to be waited for.
fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    fields.next().filter(|state| *state != "Z")?;
    fields.next()?.parse().ok()
}

fn command_line(pid: u32) -> String {
    String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()).replace('\0', " ")
}
