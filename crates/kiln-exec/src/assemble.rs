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
use kiln_sys::userns::UserNamespace;

use crate::Error;
use crate::control::Control;
use crate::diagnose::Attempt;
use crate::executor::{Nesting, Shared};
use crate::files;
use crate::kit::Kit;
use crate::program;
use crate::skeleton;
use crate::sources::Source;
use crate::spec::{ContainerSpec, ExitStatus, Network, ProcessIo, Security};
use crate::stubs::clean;
use crate::targets::Targets;

/// Targets and what is mounted there, in order.
type Mounts = Vec<(String, Source)>;

/// Runs a container in the calling thread, which is good for nothing afterwards.
pub(crate) fn run(
    shared: &Shared,
    mut spec: ContainerSpec,
    io: ProcessIo,
    control: &Control,
) -> Result<ExitStatus, Error> {
    let attempt = Attempt::new(&spec)?;
    let users = spec.users.clone();
    // What is made for the container from here on is its root's.
    let acting = users.as_deref().map(UserNamespace::act_as_root).transpose();
    let _acting = acting.map_err(|source| Error::Prepare { what: "a container's user", source })?;
    give_pipes(&io, owner(users.as_deref(), spec.user.uid)?);
    let mounts = collect_mounts(&mut spec)?;
    let root = Root::new(spec.root.try_clone().map_err(|source| Error::Resources { source })?);
    if control.is_cancelled() {
        return Err(Error::Lost);
    }
    let mounts = enter(&spec, mounts)?;
    let mut targets = Targets::new(&root);
    let result = mount_all(&mut targets, shared, &spec, mounts).and_then(|mounted| {
        let stdio = [io.stdin.unwrap_or(mounted.null), io.stdout, io.stderr];
        let launch = launch(shared, &spec, stdio, mounted.proc, &attempt)?;
        supervise(launch, control)
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

/// Enters the namespaces and leaves the host's files behind.
fn enter(spec: &ContainerSpec, mounts: Mounts) -> Result<Mounts, Error> {
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
    pivot_into(&spec.root).map_err(fail)?;
    Ok(mounts)
}

/// What the process needs of what was mounted.
struct Mounted {
    proc: ProcMount,
    null: OwnedFd,
}

fn mount_all(
    targets: &mut Targets<'_>,
    shared: &Shared,
    spec: &ContainerSpec,
    mounts: Mounts,
) -> Result<Mounted, Error> {
    let proc = targets.kernel_directory("/proc")?;
    if shared.nesting == Nesting::Direct {
        return mount_with(targets, shared.kit(spec.users.is_some())?, spec, mounts, proc);
    }
    // These kernels clone only what is attached, so devices of this container's own lie on `/proc` for a moment.
    let kit = Kit::new()?;
    kit.attach(&proc)?;
    let mounted = mount_with(targets, &kit, spec, mounts, proc)?;
    detach_path(Path::new("/proc")).map_err(|source| Error::Mount { what: "/proc".into(), source })?;
    Ok(mounted)
}

fn mount_with(
    targets: &mut Targets<'_>,
    kit: &Kit,
    spec: &ContainerSpec,
    mounts: Mounts,
    proc: OwnedFd,
) -> Result<Mounted, Error> {
    skeleton::confine_root(&spec.root, spec.security)?;
    let null = skeleton::mount_dev(targets, kit, spec)?;
    skeleton::mount_sys(targets, kit, spec.security)?;
    for (target, source) in mounts {
        let place = targets.find(&target, source.kind)?;
        attach(source.into_mount(), place).map_err(|source| Error::Mount { what: target, source })?;
    }
    let proc = skeleton::prepare_proc(proc, kit, spec.security)?;
    if spec.readonly_root {
        skeleton::make_root_read_only(&spec.root)?;
    }
    Ok(Mounted { proc, null })
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
    Ok(Launch {
        proc: Some(proc),
        cwd: CString::new(spec.cwd.as_str()).map_err(|_| Error::Nul { what: "the working directory" })?,
        stdio,
        control: spec.group.as_ref().map_or(Ok(Vec::new()), |group| group.entrances()).map_err(resources)?,
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

/// No core dumps unless asked for: they hold secrets and land in the image, or on the host.
fn limits(spec: &ContainerSpec) -> Vec<Clamped> {
    let asked = spec.ulimits.iter().map(|ulimit| ulimit.limit.clamp(ulimit.soft, ulimit.hard));
    std::iter::once(Limit::Core.clamp(Some(0), None)).chain(asked).collect()
}

/// Starts the process and waits for its end.
fn supervise(launch: Launch, control: &Control) -> Result<Outcome, Error> {
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

/// Programs open `/dev/stdout` anew, for which a pipe must be theirs. Files and terminals of the host keep their owner.
fn give_pipes(io: &ProcessIo, uid: u32) {
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
