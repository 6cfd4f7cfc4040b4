//! What every container sees besides its root: `/dev`, `/sys`, `/proc`, and what is hidden of them.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use kiln_sys::container::{Mask, ProcMount};
use kiln_sys::mount::{self, Depth, INERT, MountAttrFlags, Swap, Tmpfs, attach, set_attributes};
use kiln_sys::root::Root;

use crate::Error;
use crate::assemble::owner;
use crate::kit::{DEVICES, Kit};
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

/// Mounts `/dev` and all in it, and opens its `null`: what a container holds must be what it sees, or it could change
/// the mode of ours.
pub(crate) fn mount_dev(targets: &mut Targets<'_>, kit: &Kit, spec: &ContainerSpec) -> Result<OwnedFd, Error> {
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
        put(&kit.device(name)?, &dev, name)?;
    }
    let shm =
        Tmpfs { size: Some(spec.shm_size.unwrap_or(SHM_BYTES)), mode: 0o1777, swap: Swap::Allowed, attributes: INERT };
    put(&mount::devpts_detached(owner(spec.users.as_deref(), TTY)?).map_err(fail)?, &dev, "pts")?;
    put(&shm.mount_detached().map_err(fail)?, &dev, "shm")?;
    put(&mount::mqueue_detached(INERT).map_err(fail)?, &dev, "mqueue")?;
    dev.open("null", rustix::fs::OFlags::RDWR).map_err(fail)
}

/// Mounts `/sys` of the container's network namespace, and its control groups.
pub(crate) fn mount_sys(targets: &mut Targets<'_>, kit: &Kit, security: Security) -> Result<(), Error> {
    let place = targets.kernel_directory("/sys")?;
    let fail = |source| Error::Mount { what: "/sys".into(), source };
    let attributes = match security {
        Security::Sandbox => INERT | MountAttrFlags::MOUNT_ATTR_RDONLY,
        Security::Insecure => INERT,
    };
    let sys = Root::new(mount::sysfs_detached(attributes).map_err(fail)?);
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
        return Ok(ProcMount { target, masks: Vec::new(), read_only: Vec::new() });
    }
    let name = |name: &str| CString::new(name).expect("the names are constants without NUL");
    let files = HIDDEN_PROC_FILES.iter();
    let files = files.map(|file| Ok(Mask { name: name(file), mount: kit.device("null")? }));
    let directories = HIDDEN_PROC_DIRECTORIES.iter();
    let directories = directories.map(|directory| Ok(Mask { name: name(directory), mount: kit.empty()? }));
    let masks = files.chain(directories).collect::<Result<_, Error>>()?;
    Ok(ProcMount { target, masks, read_only: READ_ONLY_PROC.map(name).into() })
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
