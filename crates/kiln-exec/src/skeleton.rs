//! What every container sees besides its root: `/dev`, `/sys`, `/proc`, and what is hidden of them.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use kiln_sys::container::{Mask, ProcMount};
use kiln_sys::mount::{
    self, Bind, Depth, INERT, MountAttrFlags, Swap, Tmpfs, attach, bind_path_detached, set_attributes,
};
use kiln_sys::root::Root;

use crate::Error;
use crate::assemble::owner;
use crate::kit::{DEVICES, Kit, Lent};
use crate::spec::{ContainerSpec, Security};
use crate::targets::Targets;

/// Files of `/proc` that tell about the host or are work for its administrator.
const HIDDEN_PROC_FILES: [&str; 10] = [
    "interrupts",
    "kallsyms",
    "kcore",
    "keys",
    "kmsg",
    "latency_stats",
    "modules",
    "sched_debug",
    "timer_list",
    "timer_stats",
];
/// Directories of `/proc` to hide.
const HIDDEN_PROC_DIRECTORIES: [&str; 3] = ["acpi", "asound", "scsi"];
/// What of `/proc` can be read, as programs do, but never written.
const READ_ONLY_PROC: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];
/// Directories of `/sys` to hide: firmware tables, power meters (a side channel), the kernel's own insides.
const HIDDEN_SYS_DIRECTORIES: [&str; 5] =
    ["firmware", "devices/virtual/powercap", "kernel/debug", "kernel/tracing", "kernel/security"];

const LINKS: [(&str, &str); 6] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("/proc/kcore", "core"),
    ("pts/ptmx", "ptmx"),
];

/// The group of terminals.
const TTY: u32 = 5;
const DEV_BYTES: u64 = 64 << 20;
const SHM_BYTES: u64 = 64 << 20;

/// Mounts `/dev` and all in it, and gives it.
pub(crate) fn mount_dev(
    targets: &mut Targets<'_>,
    (kit, lent): (&Kit, &mut Lent),
    spec: &ContainerSpec,
) -> Result<Root, Error> {
    let place = targets.kernel_directory("/dev")?;
    let fail = |source| Error::Mount { what: "/dev".into(), source };
    // Without devices in the filesystem itself, a node that the container makes there (it may) opens nothing.
    let no_devices = match spec.security {
        Security::Sandbox => MountAttrFlags::MOUNT_ATTR_NODEV,
        Security::Insecure => MountAttrFlags::empty(),
    };
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_STRICTATIME | no_devices;
    let tmpfs = Tmpfs { size: Some(DEV_BYTES), mode: 0o755, swap: Swap::Allowed, attributes };
    let dev = Root::new(tmpfs.mount_detached().map_err(fail)?);
    for directory in ["pts", "shm", "mqueue"] {
        dev.mkdir(directory, 0o755).map_err(fail)?;
    }
    for (target, name) in LINKS {
        dev.symlink(target, name).map_err(fail)?;
    }
    attach(&dev, place).map_err(fail)?;
    for (name, _) in DEVICES {
        dev.create_file(name, 0o666).map_err(fail)?;
        put(&kit.device(name, lent)?, &dev, name)?;
    }
    let shm =
        Tmpfs { size: Some(spec.shm_size.unwrap_or(SHM_BYTES)), mode: 0o1777, swap: Swap::Allowed, attributes: INERT };
    let users = spec.users.as_deref();
    // Where there is but one group, terminals are its.
    let group = owner(users, TTY).or_else(|_| owner(users, 0))?;
    put(&mount::devpts_detached(group).map_err(fail)?, &dev, "pts")?;
    put(&shm.mount_detached().map_err(fail)?, &dev, "shm")?;
    put(&mount::mqueue_detached(INERT).map_err(fail)?, &dev, "mqueue")?;
    Ok(dev)
}

/// What the kernel shows of itself to a container; made while the machine's own is still there.
#[derive(Debug)]
pub(crate) struct KernelViews {
    sys: OwnedFd,
    /// The machine's `/proc`, which who is in a user namespace must have to get another.
    proc: Option<OwnedFd>,
}

impl KernelViews {
    /// Makes them, in the container's namespaces.
    pub(crate) fn new(security: Security, is_nested: bool) -> Result<KernelViews, Error> {
        let see = |path: &'static str, attributes| {
            let bind = Bind { depth: Depth::Recursive, attributes };
            bind_path_detached(Path::new(path), bind).map_err(|source| Error::Mount { what: path.into(), source })
        };
        let attributes = sys_attributes(security);
        let sys = match mount::sysfs_detached(attributes) {
            // The network is the machine's, or parts of the machine's `/sys` are covered.
            Err(e) if is_nested && e.errno() == Some(rustix::io::Errno::PERM.raw_os_error()) => {
                see("/sys", attributes)?
            }
            sys => sys.map_err(|source| Error::Mount { what: "/sys".into(), source })?,
        };
        let proc = is_nested.then(|| see("/proc", INERT)).transpose()?;
        Ok(KernelViews { sys, proc })
    }

    /// Puts the machine's `/proc` where the container's will be.
    pub(crate) fn show_proc(self, mount: &mut ProcMount) -> Result<(), Error> {
        let Some(machines) = self.proc else { return Ok(()) };
        attach(machines, &mount.target).map_err(|source| Error::Mount { what: "/proc".into(), source })?;
        mount.replaces = true;
        Ok(())
    }
}

fn sys_attributes(security: Security) -> MountAttrFlags {
    match security {
        Security::Sandbox => INERT | MountAttrFlags::MOUNT_ATTR_RDONLY,
        Security::Insecure => INERT,
    }
}

/// Mounts `/sys` of the container's network namespace, and its control groups.
pub(crate) fn mount_sys(
    targets: &mut Targets<'_>,
    kit: &Kit,
    views: &KernelViews,
    security: Security,
) -> Result<(), Error> {
    let place = targets.kernel_directory("/sys")?;
    let fail = |source| Error::Mount { what: "/sys".into(), source };
    let attributes = sys_attributes(security);
    let sys = Root::new(views.sys.try_clone().map_err(|source| Error::Resources { source })?);
    attach(&sys, place).map_err(fail)?;
    if let Ok(place) = sys.open_nofollow("fs/cgroup") {
        let groups = control_groups(kit, attributes)?;
        attach(groups, place).map_err(|source| Error::Mount { what: "/sys/fs/cgroup".into(), source })?;
    }
    if security == Security::Insecure {
        return Ok(());
    }
    let hidden = HIDDEN_SYS_DIRECTORIES.iter().map(ToString::to_string).chain(thermal_throttles(&sys));
    for name in hidden {
        match sys.open_nofollow(&name) {
            // Not in this kernel.
            Err(e) if e.is_not_found() => {}
            place => attach(kit.empty()?, place.map_err(fail)?)
                .map_err(|source| Error::Mount { what: format!("/sys/{name}"), source })?,
        }
    }
    Ok(())
}

/// How often each processor was too hot: a way to tell what others compute.
fn thermal_throttles(sys: &Root) -> Vec<String> {
    const PROCESSORS: &str = "devices/system/cpu";
    let entries = sys.read_dir(PROCESSORS).unwrap_or_default();
    let names = entries.iter().filter_map(|entry| entry.name.to_str());
    let processors =
        names.filter(|name| name.strip_prefix("cpu").is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit())));
    processors.map(|name| format!("{PROCESSORS}/{name}/thermal_throttle")).collect()
}

/// The unified hierarchy from the container's own group down. A machine that has none shows an empty directory: its
/// groups are not for containers to see.
fn control_groups(kit: &Kit, attributes: MountAttrFlags) -> Result<OwnedFd, Error> {
    match mount::cgroup2_detached(attributes) {
        Ok(groups) => Ok(groups),
        Err(_) => kit.empty(),
    }
}

/// Prepares `/proc`, which only a process of the container can mount.
pub(crate) fn prepare_proc(target: OwnedFd, kit: &Kit, security: Security) -> Result<ProcMount, Error> {
    if security == Security::Insecure {
        return Ok(ProcMount { target, replaces: false, masks: Vec::new(), read_only: Vec::new() });
    }
    let name = |name: &str| CString::new(name).expect("the names are constants without NUL");
    let files = HIDDEN_PROC_FILES.iter();
    let files = files.map(|file| Ok(Mask { name: name(file), mount: kit.blank()? }));
    let directories = HIDDEN_PROC_DIRECTORIES.iter();
    let directories = directories.map(|directory| Ok(Mask { name: name(directory), mount: kit.empty()? }));
    let masks = files.chain(directories).collect::<Result<_, Error>>()?;
    Ok(ProcMount { target, replaces: false, masks, read_only: READ_ONLY_PROC.map(name).into() })
}

/// Forbids device nodes of the image to work.
pub(crate) fn confine_root(root: impl AsFd, security: Security) -> Result<(), Error> {
    if security == Security::Insecure {
        return Ok(());
    }
    set_attributes(root, MountAttrFlags::MOUNT_ATTR_NODEV, Depth::One)
        .map_err(|source| Error::Mount { what: "/".into(), source })
}

/// Makes the root's own tree read-only; what is mounted on it keeps its own word.
pub(crate) fn make_root_read_only(root: impl AsFd) -> Result<(), Error> {
    set_attributes(root, MountAttrFlags::MOUNT_ATTR_RDONLY, Depth::One)
        .map_err(|source| Error::Mount { what: "/".into(), source })
}

fn put(mount: &OwnedFd, at: &Root, name: &str) -> Result<(), Error> {
    let fail = |source| Error::Mount { what: format!("/dev/{name}"), source };
    attach(mount, at.open_nofollow(name).map_err(fail)?).map_err(fail)
}
