//! A busybox image on an overlay, and running commands in it.
#![allow(clippy::print_stdout, reason = "a test that skips says why")]

pub(crate) mod machine;

use std::ffi::OsString;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_exec::{ContainerMount, ContainerSpec, Error, Executor, ExitStatus, Network, ProcessIo, Security, User};
use kiln_sys::mount::{Bind, Depth, MountAttrFlags, Overlay, Shifted, Upper, bind_path_detached, bind_shifted};
use kiln_sys::userns::UserNamespace;

const BUSYBOX: &str = "/bin/busybox";

/// Why containers cannot be run here, if so.
pub(crate) fn obstacle() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root".into());
    }
    if !Path::new(BUSYBOX).exists() {
        return Some(format!("needs a static `{BUSYBOX}` (package busybox-static)"));
    }
    None
}

/// A base image, and a layer of changes on it.
pub(crate) struct Image {
    dir: tempfile::TempDir,
    view: Option<Shifted>,
}

pub(crate) struct Ran {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Image {
    /// One for containers with ids of their own.
    pub(crate) fn new() -> Image {
        let mut image = Image::with_host_ids();
        let users = Arc::new(UserNamespace::new().unwrap());
        image.view = Some(Shifted::new(image.dir.path(), users).unwrap());
        image
    }

    /// One for containers with the host's ids.
    pub(crate) fn with_host_ids() -> Image {
        let image = Image { dir: tempfile::tempdir().unwrap(), view: None };
        for directory in ["base/bin", "base/etc", "base/tmp", "base/root", "stubs", "upper", "work"] {
            std::fs::create_dir_all(image.dir.path().join(directory)).unwrap();
        }
        let busybox = image.base("bin/busybox");
        std::fs::copy(BUSYBOX, &busybox).unwrap();
        std::fs::set_permissions(&busybox, PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::set_permissions(image.base("tmp"), PermissionsExt::from_mode(0o1777)).unwrap();
        std::fs::set_permissions(image.dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        for applet in APPLETS.split_whitespace() {
            symlink("busybox", image.base("bin").join(applet)).unwrap();
        }
        std::fs::write(image.base("etc/passwd"), "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home:/bin/sh\n")
            .unwrap();
        std::fs::write(image.base("etc/group"), "root:x:0:\napp:x:1000:\nvideo:x:44:app\n").unwrap();
        image
    }

    /// A path in the base layer.
    pub(crate) fn base(&self, path: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join("base").join(path)
    }

    /// A path in the layer of changes.
    pub(crate) fn upper(&self, path: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join("upper").join(path)
    }

    /// Everything a container has changed, sorted.
    pub(crate) fn changes(&self) -> Vec<String> {
        fn walk(dir: &Path, prefix: &Path, found: &mut Vec<String>) {
            for entry in std::fs::read_dir(dir).unwrap() {
                let entry = entry.unwrap();
                let name = prefix.join(entry.file_name());
                found.push(name.to_str().unwrap().to_string());
                if entry.file_type().unwrap().is_dir() {
                    walk(&entry.path(), &name, found);
                }
            }
        }
        let mut found = Vec::new();
        walk(&self.upper(""), Path::new(""), &mut found);
        found.sort();
        found
    }

    /// Mounts the image with the mount points below it that these mounts need.
    pub(crate) fn mount(&self, mounts: &[ContainerMount]) -> OwnedFd {
        let stubs = kiln_exec::stubs(mounts).unwrap();
        kiln_exec::write_stubs(&self.dir.path().join("stubs"), &stubs).unwrap();
        self.overlay(vec![self.base(""), self.dir.path().join("stubs")])
    }

    /// Mounts the image without any help.
    pub(crate) fn mount_bare(&self) -> OwnedFd {
        std::fs::create_dir_all(self.dir.path().join("nothing")).unwrap();
        self.overlay(vec![self.base(""), self.dir.path().join("nothing")])
    }

    fn overlay(&self, lowers: Vec<PathBuf>) -> OwnedFd {
        let upper = Some(Upper { upper: self.upper(""), work: self.dir.path().join("work") });
        self.sight(&Overlay { lowers, upper, userxattr: false })
    }

    /// Mounts what is in its directory, with the ids of its containers.
    pub(crate) fn sight(&self, overlay: &Overlay) -> OwnedFd {
        match &self.view {
            Some(view) => overlay.mount_shifted(view).unwrap(),
            None => overlay.mount_detached().unwrap(),
        }
    }

    /// A directory of the host, with the ids of its containers.
    pub(crate) fn host(&self, path: &Path) -> OwnedFd {
        let bind = Bind { depth: Depth::Recursive, attributes: MountAttrFlags::empty() };
        match &self.view {
            Some(view) => bind_shifted(path, bind, view.users()).unwrap(),
            None => bind_path_detached(path, bind).unwrap(),
        }
    }

    /// Whose ids its containers have.
    pub(crate) fn users(&self) -> Option<Arc<UserNamespace>> {
        self.view.as_ref().map(|view| Arc::clone(view.users()))
    }

    pub(crate) fn spec(&self, command: &[&str]) -> ContainerSpec {
        self.spec_with(command, Vec::new())
    }

    pub(crate) fn spec_with(&self, command: &[&str], mounts: Vec<ContainerMount>) -> ContainerSpec {
        ContainerSpec {
            root: self.mount(&mounts),
            readonly_root: false,
            args: command.iter().map(ToString::to_string).collect(),
            env: vec!["PATH=/bin".into(), "HOME=/root".into()],
            cwd: "/".into(),
            user: User::default(),
            users: self.users(),
            mounts,
            network: Network::Host,
            hostname: "box".into(),
            extra_hosts: Vec::new(),
            security: Security::Sandbox,
            shm_size: None,
            ulimits: Vec::new(),
            group: None,
        }
    }

    pub(crate) fn sh(&self, script: &str) -> Ran {
        run(self.spec(&["sh", "-c", script])).unwrap()
    }
}

const APPLETS: &str = "sh cat ls id mount umount sleep mkdir rm ln mv touch echo env pwd hostname ps kill mknod chmod \
    chown unshare setsid true false stat dd head wc grep su chroot ip find sort readlink test trap ulimit \
    tail tr cut od nc ping";

/// Compiles a static program out of C; `None`, with a word, where there is no compiler.
pub(crate) fn compile(source: &str, to: &Path) -> Option<()> {
    let file = to.with_extension("c");
    std::fs::write(&file, source).unwrap();
    #[allow(clippy::disallowed_methods, reason = "a test may call the compiler")]
    let compiled = std::process::Command::new("cc").args(["-static", "-O1", "-w", "-o"]).arg(to).arg(&file).output();
    match compiled {
        Ok(output) if output.status.success() => Some(()),
        other => {
            println!("skipped: no C compiler that links statically: {other:?}");
            None
        }
    }
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

pub(crate) fn user(uid: u32, gid: u32) -> User {
    User { uid, gid, groups: vec![gid] }
}

/// Pipes for a process, and threads that read them to the end.
pub(crate) fn piped() -> (ProcessIo, impl FnOnce() -> (String, String)) {
    let reader = |mut read: std::io::PipeReader| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            read.read_to_end(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let (out_read, out) = std::io::pipe().unwrap();
    let (err_read, err) = std::io::pipe().unwrap();
    let (out_thread, err_thread) = (reader(out_read), reader(err_read));
    let io = ProcessIo { stdin: None, stdout: out.into(), stderr: err.into() };
    (io, move || (out_thread.join().unwrap(), err_thread.join().unwrap()))
}

pub(crate) fn run(spec: ContainerSpec) -> Result<Ran, Error> {
    run_on(&Executor::new(), spec)
}

pub(crate) fn run_on(executor: &Executor, spec: ContainerSpec) -> Result<Ran, Error> {
    let (io, output) = piped();
    let status = runtime().block_on(executor.run(spec, io));
    let (stdout, stderr) = output();
    Ok(Ran { status: status?, stdout, stderr })
}

/// Processes whose command line contains a text.
pub(crate) fn processes(text: &str) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).replace('\0', " ").contains(text)
    })
    .collect()
}

/// Waits until something holds; false if it does not within five seconds.
pub(crate) fn eventually(mut holds: impl FnMut() -> bool) -> bool {
    for _ in 0..500 {
        if holds() {
            return true;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    holds()
}

pub(crate) fn descriptors() -> Vec<OsString> {
    std::fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().file_name()).collect()
}
