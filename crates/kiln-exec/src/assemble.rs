//! One container from start to end, in a thread of its own.
//!
//! The thread enters the container's namespaces and puts its tree together in ordinary code, starts the process, waits
//! for it, and cleans up. Only what a thread of many cannot do is left to the process itself.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use kiln_sys::container::{Isolation, Launch, NetworkNamespace, Outcome, ProcMount, pivot_into};
use kiln_sys::limits::{Clamped, Limit};
use kiln_sys::metadata::{FileKind, Metadata};
use kiln_sys::mount::{attach, detach_path};
use kiln_sys::root::Root;
use kiln_sys::userns::{UserNamespace, has_groups};
use rustix::fs::OFlags;

use crate::Error;
use crate::control::Control;
use crate::diagnose::Attempt;
use crate::executor::{Nesting, Shared};
use crate::files;
use crate::kit::{Kit, Lent};
use crate::program;
use crate::skeleton::{self, KernelViews};
use crate::sources::Source;
use crate::spec::{ContainerSpec, ExitStatus, Network, ProcessIo, Security, Stdio};
use crate::stubs::clean;
use crate::targets::Targets;

/// Targets and what is mounted there, in order.
type Mounts = Vec<(String, Source)>;

/// Runs a container in the calling thread, which is good for nothing afterwards.
pub(crate) fn run(
    shared: &Shared,
    mut spec: ContainerSpec,
    stdio: Stdio,
    control: &Control,
) -> Result<ExitStatus, Error> {
    let attempt = Attempt::new(&spec)?;
    let users = spec.users.clone();
    // What is made for the container from here on is its root's.
    let acting = users.as_deref().map(UserNamespace::act_as_root).transpose();
    let _acting = acting.map_err(|source| Error::Prepare { what: "a container's user", source })?;
    let uid = owner(users.as_deref(), spec.user.uid)?;
    if let Stdio::Streams(io) = &stdio {
        give_pipes(io, uid);
    }
    let mounts = collect_mounts(&mut spec)?;
    let root = Root::new(spec.root.try_clone().map_err(|source| Error::Resources { source })?);
    if control.is_cancelled() {
        return Err(Error::Lost);
    }
    let devices = Devices::new(shared, spec.users.is_some())?;
    let ready = enter(shared, &spec, mounts)?;
    let mut targets = Targets::new(&root);
    let result = mount_all(&mut targets, devices, &spec, ready).and_then(|mounted| {
        let takes_terminal = matches!(stdio, Stdio::Terminal(_));
        let stdio = streams(stdio, &mounted.dev, uid)?;
        let launch = launch(shared, &spec, stdio, mounted.proc, &attempt)?;
        supervise(Launch { takes_terminal, ..launch }, control)
    });
    if targets.has_made_some() {
        // A place can be removed once nothing is mounted on it in our own namespace. Nothing else needs the tree now.
        let _ = detach_path(Path::new("/"));
        targets.clean_up();
    }
    attempt.translate(result?, &root)
}

/// Mounts of the caller and our own files, cloned while the host's namespace is ours. Parents come before what lies in
/// them.
fn collect_mounts(spec: &mut ContainerSpec) -> Result<Mounts, Error> {
    let mut mounts: Vec<_> =
        files::prepare(spec)?.into_iter().map(|(target, source)| (target.to_string(), source)).collect();
    let (security, users) = (spec.security, spec.users.clone());
    let mut wanted = std::mem::take(&mut spec.mounts);
    wanted.sort_by_key(|mount| clean(&mount.target).matches('/').count());
    for mount in wanted {
        check_target(&mount.target)?;
        mounts.push(Source::prepare(mount, security, users.as_deref())?);
    }
    Ok(mounts)
}

/// What is ours cannot be mounted over: a container whose `/proc` is a stranger's is not confined.
fn check_target(target: &str) -> Result<(), Error> {
    let path = clean(target);
    let is_ours = matches!(path.as_str(), "/" | "/dev" | "/proc" | "/sys");
    if !target.starts_with('/') || is_ours || path.starts_with("/proc/") || path.starts_with("/sys/") {
        return Err(Error::ReservedTarget { target: target.to_string() });
    }
    Ok(())
}

/// The devices of a container.
enum Devices<'a> {
    /// Those of all containers.
    Shared(&'a Kit, Lent),
    /// Its own: older kernels clone only what is attached, for which these lie on `/proc` for a moment.
    Staged(Kit, Lent),
}

impl<'a> Devices<'a> {
    fn new(shared: &'a Shared, have_ids: bool) -> Result<Self, Error> {
        if shared.nesting == Nesting::Direct {
            let kit = shared.kit(have_ids)?;
            return Ok(Devices::Shared(kit, kit.lend()?));
        }
        let kit = Kit::new()?;
        let lent = kit.lend()?;
        Ok(Devices::Staged(kit, lent))
    }
}

/// Enters the namespaces and leaves the host's files behind.
fn enter(shared: &Shared, spec: &ContainerSpec, mounts: Mounts) -> Result<(Mounts, KernelViews), Error> {
    let fail = |source| Error::Prepare { what: "a container's namespaces", source };
    let network = match &spec.network {
        Network::Host => NetworkNamespace::Inherited,
        Network::Private(network) => {
            network.enter()?;
            NetworkNamespace::Inherited
        }
        Network::None => NetworkNamespace::New,
    };
    Isolation { network, hostname: &spec.hostname }.enter().map_err(fail)?;
    let stage = |(target, source): (String, Source)| {
        let source = source.stage(&target)?;
        Ok((target, source))
    };
    let mounts = mounts.into_iter().map(stage).collect::<Result<_, Error>>()?;
    let views = KernelViews::new(spec.security, shared.is_nested)?;
    pivot_into(&spec.root).map_err(fail)?;
    Ok((mounts, views))
}

/// What the process needs of what was mounted.
struct Mounted {
    proc: ProcMount,
    dev: Root,
}

fn mount_all(
    targets: &mut Targets<'_>,
    devices: Devices<'_>,
    spec: &ContainerSpec,
    (mounts, views): (Mounts, KernelViews),
) -> Result<Mounted, Error> {
    let proc = targets.kernel_directory("/proc")?;
    let mut mounted = match devices {
        Devices::Shared(kit, lent) => mount_with(targets, (kit, lent, &views), spec, mounts, proc)?,
        Devices::Staged(kit, lent) => {
            kit.attach(&proc)?;
            let mounted = mount_with(targets, (&kit, lent, &views), spec, mounts, proc)?;
            detach_path(Path::new("/proc")).map_err(|source| Error::Mount { what: "/proc".into(), source })?;
            mounted
        }
    };
    views.show_proc(&mut mounted.proc)?;
    Ok(mounted)
}

fn mount_with(
    targets: &mut Targets<'_>,
    (kit, mut lent, views): (&Kit, Lent, &KernelViews),
    spec: &ContainerSpec,
    mounts: Mounts,
    proc: OwnedFd,
) -> Result<Mounted, Error> {
    skeleton::confine_root(&spec.root, spec.security)?;
    let dev = skeleton::mount_dev(targets, (kit, &mut lent), spec)?;
    skeleton::mount_sys(targets, kit, views, spec.security)?;
    for (target, source) in mounts {
        let place = targets.find(&target, source.kind)?;
        attach(source.into_mount(), place).map_err(|source| Error::Mount { what: target, source })?;
    }
    let proc = skeleton::prepare_proc(proc, kit, spec.security)?;
    if spec.readonly_root {
        skeleton::make_root_read_only(&spec.root)?;
    }
    Ok(Mounted { proc, dev })
}

fn launch(
    shared: &Shared,
    spec: &ContainerSpec,
    stdio: [OwnedFd; 3],
    proc: ProcMount,
    attempt: &Attempt,
) -> Result<Launch, Error> {
    let resources = |source| Error::Resources { source };
    let granted = match spec.security {
        Security::Sandbox if spec.users.is_some() => shared.permitted & kiln_sys::caps::OF_ITS_OWN,
        Security::Sandbox => shared.permitted & kiln_sys::caps::SANDBOX,
        Security::Insecure => shared.permitted,
    };
    let mut groups = spec.user.groups.clone();
    if !groups.contains(&spec.user.gid) {
        groups.insert(0, spec.user.gid);
    }
    let groups = has_groups().then_some(groups);
    Ok(Launch {
        proc: Some(proc),
        chroot: None,
        takes_terminal: false,
        cwd: CString::new(spec.cwd.as_str()).map_err(|_| Error::Nul { what: "the working directory" })?,
        stdio,
        control: spec.group.as_ref().map_or(Ok(Vec::new()), |group| group.entrances()).map_err(resources)?,
        group: spec.group.as_ref().map_or(Ok(None), |group| group.unified()).map_err(resources)?,
        badness: shared.badness,
        limits: limits(spec),
        bounding: granted,
        effective: granted,
        filter: (spec.security == Security::Sandbox).then(|| Arc::clone(&shared.filter)),
        users: spec.users.clone(),
        uid: spec.user.uid,
        gid: spec.user.gid,
        groups,
        programs: attempt.candidates().to_vec(),
        args: program::strings("an argument", &spec.args)?,
        env: program::strings("the environment", &spec.env)?,
    })
}

/// What a program may open when it does not ask for more, as the kernel has it, and when it does. Some look at every
/// number up to the first when they start others.
const FILES: (u64, u64) = (1024, 1 << 20);

/// No core dumps unless asked for: they hold secrets and land in the image, or on the host.
pub(crate) fn limits(spec: &ContainerSpec) -> Vec<Clamped> {
    let usual = [Limit::Core.clamp(Some(0), None), Limit::NoFile.clamp(Some(FILES.0), Some(FILES.1))];
    let asked = spec.ulimits.iter().map(|ulimit| ulimit.limit.clamp(ulimit.soft, ulimit.hard));
    let mut limits: Vec<Clamped> = Vec::new();
    for limit in usual.into_iter().chain(asked) {
        // Who is not the machine's root cannot raise again what was lowered, so each is set once: as it was said last.
        limits.retain(|other| other.limit != limit.limit);
        limits.push(limit);
    }
    limits
}

/// Starts the process and waits for its end.
pub(crate) fn supervise(launch: Launch, control: &Control) -> Result<Outcome, Error> {
    let fail = |source| Error::Prepare { what: "a container's process", source };
    let child = launch.start().map_err(fail)?;
    // The container has its own handles now, and readers wait for the last writer to go.
    drop(launch);
    control.started(child.pidfd().map_err(fail)?);
    child.wait().map_err(fail)
}

/// The host's number of an id in a container.
pub(crate) fn owner(users: Option<&UserNamespace>, id: u32) -> Result<u32, Error> {
    users
        .map_or(Ok(id), |users| users.on_host(id))
        .map_err(|source| Error::Prepare { what: "a container's files", source })
}

/// Opens what the process is to read and write. Its `null` is the one it sees: it could change the mode of ours.
fn streams(stdio: Stdio, dev: &Root, uid: u32) -> Result<[OwnedFd; 3], Error> {
    let same = |fd: &OwnedFd| fd.try_clone().map_err(|source| Error::Resources { source });
    match stdio {
        Stdio::Streams(ProcessIo { stdin, stdout, stderr }) => {
            let null = || dev.open("null", OFlags::RDWR);
            let stdin = stdin.map_or_else(null, Ok);
            Ok([stdin.map_err(|source| Error::Mount { what: "/dev".into(), source })?, stdout, stderr])
        }
        Stdio::Terminal(terminal) => {
            let end = terminal.open(dev, uid)?;
            Ok([same(&end)?, same(&end)?, end])
        }
    }
}

/// Programs open `/dev/stdout` anew, for which a pipe must be theirs. Files and terminals of the host keep their owner.
pub(crate) fn give_pipes(io: &ProcessIo, uid: u32) {
    for stream in [Some(&io.stdout), Some(&io.stderr), io.stdin.as_ref()].into_iter().flatten() {
        let is_pipe = Metadata::of(stream).is_ok_and(|metadata| metadata.kind == FileKind::Fifo);
        if is_pipe && uid != 0 {
            // A pipe that stays ours works too, except for that.
            let _ = rustix::fs::fchown(stream, Some(rustix::fs::Uid::from_raw(uid)), None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_places_cannot_be_mounted_over() {
        for target in ["/", "//", "/proc", "/proc/", "/sys/kernel", "/a/../proc", "/dev", "relative", "", "/.."] {
            assert!(matches!(check_target(target), Err(Error::ReservedTarget { .. })), "{target:?}");
        }
        for target in ["/dev/shm", "/process", "/a/proc", "/etc/hosts", "/../../x"] {
            assert!(check_target(target).is_ok(), "{target:?}");
        }
    }
}
