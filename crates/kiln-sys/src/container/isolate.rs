//! Putting one thread into namespaces of its own.

use std::os::fd::{AsFd, AsRawFd};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, UnmountFlags, move_mount};
use rustix::net::{AddressFamily, SocketType, socket};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::mount::make_private;
use crate::root::descriptors;
use crate::userns::is_machine_root;
use crate::{Error, Result};

/// Whose network a container has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkNamespace {
    /// That of the calling thread.
    Inherited,
    /// A new one, with nothing but a loopback that is up.
    New,
}

/// Namespaces to be.
#[derive(Debug, Clone, Copy)]
pub struct Isolation<'a> {
    /// Whose network.
    pub network: NetworkNamespace,
    /// The host name inside.
    pub hostname: &'a str,
}

impl Isolation<'_> {
    /// Moves the calling thread into new mount, IPC, UTS and cgroup (and network) namespaces.
    ///
    /// There is no way back: call it in a thread that ends with the container. All signals are blocked in it, so that
    /// none of our handlers runs there or in a child. The pid namespace is the child's alone, and so is the user
    /// namespace: the kernel lets no thread of many enter one. So all the others are the host's, and a container's root
    /// has no rights over them.
    #[expect(clippy::disallowed_methods, reason = "the kernel's own files, by names that are written here")]
    pub fn enter(&self) -> Result<()> {
        block_signals()?;
        let flags = UnshareFlags::NEWNS | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS | UnshareFlags::FS;
        let network = match self.network {
            NetworkNamespace::Inherited => UnshareFlags::empty(),
            NetworkNamespace::New => UnshareFlags::NEWNET,
        };
        unshare(flags | network).map_err(|e| Error::call("make namespaces", e))?;
        // Kernels without it have no cgroup paths worth hiding.
        let _ = unshare(UnshareFlags::NEWCGROUP);
        stand_at_the_top()?;
        make_private()?;
        match rustix::system::sethostname(self.hostname.as_bytes()) {
            // A container around us may filter the call, in whose container we are a guest with its name.
            Err(Errno::PERM) if !is_machine_root() => {}
            set => set.map_err(|e| Error::call("set the host name", e))?,
        }
        if self.network == NetworkNamespace::New {
            bring_up_loopback()?;
            // Everybody may listen on any port of a network that nobody else is in. Kernels without it keep to their rule.
            let _ = std::fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
        }
        Ok(())
    }
}

fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    // SAFETY: no flag concerns descriptors or memory; the thread's namespaces and working directory are its own affair.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}

/// Makes the namespace's own root the calling thread's. In a `chroot` they differ, and what is above would stay in the
/// container's namespace, to be climbed to: only the namespace's root can be exchanged.
fn stand_at_the_top() -> Result<()> {
    const ACTION: &str = "stand at the root of a mount namespace";
    let descriptors = descriptors().map_err(|e| Error::call(ACTION, e))?;
    let namespace = format!("../task/{}/ns/mnt", rustix::thread::gettid().as_raw_nonzero());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let namespace = openat(descriptors, namespace, flags, Mode::empty()).map_err(|e| Error::call(ACTION, e))?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount)).map_err(|e| Error::call(ACTION, e))
}

/// Blocks every signal in the calling thread, those too that libc keeps for itself.
pub(crate) fn block_signals() -> Result<()> {
    let all = u64::MAX;
    let arguments = [libc::SIG_SETMASK as usize, std::ptr::from_ref(&all) as usize, 0, size_of::<u64>(), 0, 0];
    // SAFETY: the kernel reads eight bytes of `all`.
    let result = unsafe { crate::raw::syscall(libc::SYS_rt_sigprocmask, arguments) };
    result.map(drop).map_err(|e| Error::call("block signals", std::io::Error::from_raw_os_error(e.0 as i32)))
}

/// Sets the loopback of the calling thread's network namespace up; the kernel then gives it its addresses.
fn bring_up_loopback() -> Result<()> {
    const ACTION: &str = "bring the loopback up";
    let any = socket(AddressFamily::UNIX, SocketType::DGRAM, None).map_err(|e| Error::call(ACTION, e))?;
    // SAFETY: all fields of the request are integers or bytes, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the socket is open, and the kernel reads one `ifreq`.
    let rc = unsafe { libc::ioctl(any.as_raw_fd(), libc::SIOCSIFFLAGS, &request) };
    if rc == 0 { Ok(()) } else { Err(Error::call(ACTION, std::io::Error::last_os_error())) }
}

/// Makes a detached mount the root of the calling thread's mount namespace, and takes the old root away: from here on
/// no path of this thread, or of a child, can lead to the host's files.
pub fn pivot_into(root: impl AsFd) -> Result<()> {
    const ACTION: &str = "make a container's root the root";
    let root = root.as_fd();
    // On top of the old root, because any other place would have to exist.
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(root, "", CWD, "/", flags).map_err(|e| Error::call("attach a container's root", e))?;
    rustix::process::fchdir(root).map_err(|e| Error::call(ACTION, e))?;
    // The old root comes to lie over the new one, at the working directory, from where it is taken off.
    rustix::process::pivot_root(".", ".").map_err(|e| Error::call(ACTION, e))?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(|e| Error::call("take the host's root away", e))?;
    rustix::process::chdir("/").map_err(|e| Error::call(ACTION, e))
}
