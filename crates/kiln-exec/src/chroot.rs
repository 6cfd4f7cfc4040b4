//! A process in a root of its own and in no namespace of its own, for places where none can be made.
//!
//! It sees the processes, the network and the names of the machine, or of the container that we are in; what it can do is
//! limited by its capabilities alone. All that it needs in its root its caller has put there: nothing is mounted.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use kiln_sys::caps::{self, CapabilitySet};
use kiln_sys::container::Launch;
use kiln_sys::root::Root;
use kiln_sys::seccomp::Filter;
use kiln_sys::userns::has_groups;

use crate::Error;
use crate::assemble::{give_pipes, limits, supervise};
use crate::control::Control;
use crate::diagnose::Attempt;
use crate::program;
use crate::spec::{ContainerSpec, ExitStatus, Network, ProcessIo, Security, Stdio};

/// Runs a process in the calling thread, which is good for nothing afterwards.
pub(crate) fn run(spec: &ContainerSpec, stdio: Stdio, control: &Control) -> Result<ExitStatus, Error> {
    let attempt = Attempt::new(spec)?;
    let what = match (&spec.network, &stdio) {
        (_, Stdio::Terminal(_)) => Some("a terminal"),
        (Network::None | Network::Private(_), _) => Some("a network of its own"),
        _ if spec.security == Security::Insecure => Some("`--security=insecure`"),
        _ if !spec.mounts.is_empty() => Some("a mount"),
        _ => None,
    };
    let io = match (what, stdio) {
        (None, Stdio::Streams(io)) => io,
        (what, _) => return Err(Error::NeedsNamespaces { what: what.unwrap_or("a terminal").to_owned() }),
    };
    give_pipes(&io, spec.user.uid);
    let launch = launch(spec, io, &attempt)?;
    if control.is_cancelled() {
        return Err(Error::Lost);
    }
    let root = Root::new(spec.root.try_clone().map_err(|source| Error::Resources { source })?);
    attempt.translate(supervise(launch, control)?, &root)
}

#[expect(clippy::disallowed_methods, reason = "a device of the machine, by a name that is written here")]
fn launch(spec: &ContainerSpec, io: ProcessIo, attempt: &Attempt) -> Result<Launch, Error> {
    let resources = |source| Error::Resources { source };
    let permitted = caps::permitted().map_err(|source| Error::Prepare { what: "a process", source })?;
    // With the right to change its root it could leave this one.
    let granted = permitted & caps::SANDBOX.difference(CapabilitySet::SYS_CHROOT);
    let may_drop = permitted.contains(CapabilitySet::SETPCAP);
    // Without this right the kernel takes a filter only from who renounces setuid programs. A container has its own.
    let may_filter = permitted.contains(CapabilitySet::SYS_ADMIN);
    let mut control: Vec<OwnedFd> =
        spec.group.as_ref().map_or(Ok(Vec::new()), |group| group.entrances()).map_err(resources)?;
    let unified = spec.group.as_ref().map_or(Ok(None), |group| group.unified()).map_err(resources)?;
    control.extend(unified.map(|group| group.entrance));
    let mut groups = spec.user.groups.clone();
    if !groups.contains(&spec.user.gid) {
        groups.insert(0, spec.user.gid);
    }
    let stdin = match io.stdin {
        Some(stdin) => stdin,
        None => File::open("/dev/null").map_err(resources)?.into(),
    };
    Ok(Launch {
        proc: None,
        chroot: Some(spec.root.as_fd().try_clone_to_owned().map_err(resources)?),
        takes_terminal: false,
        cwd: CString::new(spec.cwd.as_str()).map_err(|_| Error::Nul { what: "the working directory" })?,
        stdio: [stdin, io.stdout, io.stderr],
        control,
        group: None,
        badness: 0,
        limits: limits(spec),
        bounding: if may_drop { granted } else { CapabilitySet::all() },
        effective: granted,
        filter: may_filter.then(|| Arc::new(Filter::sandbox(caps::SANDBOX))),
        users: None,
        uid: spec.user.uid,
        gid: spec.user.gid,
        groups: has_groups().then_some(groups),
        programs: attempt.candidates().to_vec(),
        args: program::strings("an argument", &spec.args)?,
        env: program::strings("the environment", &spec.env)?,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::Executor;
    use crate::spec::{Isolation, User};

    /// A root with nothing but busybox in it.
    struct Image(tempfile::TempDir);

    impl Image {
        fn new() -> Option<Self> {
            let busybox = Path::new("/bin/busybox");
            if !rustix::process::geteuid().is_root() || !busybox.exists() {
                println!("skipped: needs root and a static `/bin/busybox`");
                return None;
            }
            let dir = tempfile::tempdir().unwrap();
            std::fs::copy(busybox, dir.path().join("busybox")).unwrap();
            std::fs::set_permissions(dir.path().join("busybox"), PermissionsExt::from_mode(0o755)).unwrap();
            Some(Self(dir))
        }

        fn spec(&self, script: &str) -> ContainerSpec {
            ContainerSpec {
                root: Root::open_ambient(self.0.path()).unwrap().into_fd(),
                readonly_root: false,
                args: ["/busybox", "sh", "-c", script].map(String::from).into(),
                env: vec!["PATH=/".into()],
                cwd: "/".into(),
                user: User::default(),
                users: None,
                mounts: vec![],
                network: Network::Host,
                hostname: "kiln".into(),
                extra_hosts: vec![],
                security: Security::Sandbox,
                shm_size: None,
                ulimits: vec![],
                group: None,
            }
        }
    }

    fn run(spec: ContainerSpec, limit: Duration) -> (Option<Result<ExitStatus, Error>>, String) {
        let (read, write) = std::io::pipe().unwrap();
        let io = ProcessIo { stdin: None, stdout: write.try_clone().unwrap().into(), stderr: write.into() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let executor = Executor::new().isolated_by(Isolation::Chroot);
        let ended = runtime.block_on(async { tokio::time::timeout(limit, executor.run(spec, io)).await.ok() });
        (ended, std::io::read_to_string(read).unwrap())
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_process_is_in_its_root_and_stays_there() {
        let Some(image) = Image::new() else { return };
        let script = "/busybox ls /; /busybox chroot / /busybox true 2>&- || echo kept; exit 3";
        let (status, said) = run(image.spec(script), LONG);
        assert_eq!(status.unwrap().unwrap(), ExitStatus::Code(3));
        assert_eq!(said, "busybox\nkept\n");
        let missing = ContainerSpec { args: vec!["/nowhere".into()], ..image.spec("") };
        let error = run(missing, LONG).0.unwrap().unwrap_err();
        assert_eq!(error.to_string(), "exec: \"/nowhere\": no such file or directory");
        let (status, _) = run(image.spec("kill -TERM $$"), LONG);
        assert_eq!(status.unwrap().unwrap(), ExitStatus::Signal(15));
    }

    #[test]
    fn what_is_left_of_it_is_killed() {
        let Some(image) = Image::new() else { return };
        let script =
            "(/busybox setsid /busybox sh -c '/busybox sleep 86433 & /busybox sleep 86433' &) ; /busybox sleep 0.2";
        let begun = Instant::now();
        let (status, _) = run(image.spec(script), LONG);
        assert_eq!(status.unwrap().unwrap(), ExitStatus::Code(0));
        assert_eq!(sleepers("86433"), 0);
        let (status, _) = run(image.spec("/busybox sleep 86434 & /busybox sleep 86434"), Duration::from_millis(300));
        assert!(status.is_none());
        assert_eq!(sleepers("86434"), 0);
        assert!(begun.elapsed() < Duration::from_secs(30));
    }

    fn sleepers(time: &str) -> usize {
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        let lines = all.filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok());
        lines.filter(|line| line.ends_with(&format!("sleep\0{time}\0"))).count()
    }

    #[test]
    fn what_takes_namespaces_is_refused() {
        let Some(image) = Image::new() else { return };
        let (status, _) = run(ContainerSpec { network: Network::None, ..image.spec("") }, LONG);
        let error = status.unwrap().unwrap_err();
        assert_eq!(error.to_string(), "a step without namespaces cannot have a network of its own");
    }
}
