//! Mounts that nobody sees: each is a descriptor, attached to no namespace, and dropping it is the unmount.
//!
//! A process that dies, however it dies, therefore leaves no mount. [`attach`] puts one into the mount namespace of
//! the calling thread; nothing in kiln does that in the host's.

mod bind;
mod overlay;
mod shifted;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::io::Errno;
pub use rustix::mount::MountAttrFlags;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MoveMountFlags, UnmountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen, move_mount,
};

pub use bind::{Bind, Depth, bind_detached, bind_path_detached, make_private, set_attributes};
pub use overlay::{MAX_LAYERS, Overlay, Upper};
pub use shifted::{Shifted, bind_shifted};

use crate::{Error, Result};

/// The attributes of a mount that holds data: no devices, no setuid.
pub const DATA: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV);
/// The attributes of a mount from which nothing can run either.
pub const INERT: MountAttrFlags = DATA.union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// A memory filesystem to be.
#[derive(Debug, Clone)]
pub struct Tmpfs {
    /// Most bytes it may hold; half of the memory if not said.
    pub size: Option<u64>,
    /// Permission bits of its top directory.
    pub mode: u32,
    /// Whether its pages stay out of swap, where the kernel can (Linux 6.4).
    pub swap: Swap,
    /// `nosuid`, `nodev`, …
    pub attributes: MountAttrFlags,
}

/// Whether memory may be written to disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swap {
    /// As all memory.
    Allowed,
    /// Not, where the kernel knows how.
    Avoided,
}

impl Tmpfs {
    /// Mounts it.
    pub fn mount_detached(&self) -> Result<OwnedFd> {
        let mut mount = NewMount::open("tmpfs")?;
        mount.set("mode", &format!("{:o}", self.mode & 0o7777))?;
        if let Some(size) = self.size {
            mount.set("size", &size.to_string())?;
        }
        if self.swap == Swap::Avoided {
            mount.flag_if_known("noswap")?;
        }
        mount.finish(self.attributes)
    }
}

/// Mounts the devices of a new terminal namespace, as `/dev/pts` has them, for a group.
pub fn devpts_detached(group: u32) -> Result<OwnedFd> {
    let mut mount = NewMount::open("devpts")?;
    mount.flag("newinstance")?;
    for (key, value) in [("ptmxmode", "0666"), ("mode", "0620"), ("gid", &group.to_string())] {
        mount.set(key, value)?;
    }
    mount.finish(MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC)
}

/// Mounts `sysfs` as the calling thread's network namespace sees it.
pub fn sysfs_detached(attributes: MountAttrFlags) -> Result<OwnedFd> {
    NewMount::open("sysfs")?.finish(attributes)
}

/// Mounts the message queues of the calling thread's IPC namespace.
pub fn mqueue_detached(attributes: MountAttrFlags) -> Result<OwnedFd> {
    NewMount::open("mqueue")?.finish(attributes)
}

/// Mounts the unified control groups as the calling thread's cgroup namespace sees them.
pub fn cgroup2_detached(attributes: MountAttrFlags) -> Result<OwnedFd> {
    NewMount::open("cgroup2")?.finish(attributes)
}

/// Mounts the list of interpreters that the kernel starts for programs it does not know.
pub fn binfmt_detached() -> Result<OwnedFd> {
    NewMount::open("binfmt_misc")?.finish(MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC)
}

/// Puts a detached mount on what `target` stands for (`O_PATH`), in the namespace of the calling thread.
pub fn attach(mount: impl AsFd, target: impl AsFd) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", target, "", flags).map_err(|e| Error::call("attach a mount", e))
}

/// Puts a detached mount on a path of the host, following links, in the namespace of the calling thread.
pub fn attach_at_path(mount: impl AsFd, target: &Path) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
    move_mount(mount, "", CWD, target, flags).map_err(|e| Error::path("attach a mount at", target, e))
}

/// Takes the mount off that is topmost at a path, lazily, in the namespace of the calling thread.
pub fn detach_path(target: &Path) -> Result<()> {
    rustix::mount::unmount(target, UnmountFlags::DETACH).map_err(|e| Error::path("unmount", target, e))
}

/// A filesystem that is being configured.
struct NewMount {
    filesystem: &'static str,
    context: OwnedFd,
}

impl NewMount {
    fn open(filesystem: &'static str) -> Result<Self> {
        let context = fsopen(filesystem, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|e| Error::Mount {
            filesystem,
            log: String::new(),
            source: e.into(),
        })?;
        let mut mount = NewMount { filesystem, context };
        mount.set("source", filesystem)?;
        Ok(mount)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        fsconfig_set_string(&self.context, key, value).map_err(|e| self.error(e))
    }

    fn set_fd(&mut self, key: &str, fd: BorrowedFd<'_>) -> Result<(), Errno> {
        rustix::mount::fsconfig_set_fd(&self.context, key, fd)
    }

    fn flag(&mut self, key: &str) -> Result<()> {
        fsconfig_set_flag(&self.context, key).map_err(|e| self.error(e))
    }

    /// Sets a flag that older kernels lack and that changes nothing that is seen.
    fn flag_if_known(&mut self, key: &str) -> Result<()> {
        match fsconfig_set_flag(&self.context, key) {
            Ok(()) => Ok(()),
            Err(Errno::INVAL) => {
                self.log();
                Ok(())
            }
            Err(e) => Err(self.error(e)),
        }
    }

    fn finish(self, attributes: MountAttrFlags) -> Result<OwnedFd> {
        fsconfig_create(&self.context).map_err(|e| self.error(e))?;
        fsmount(&self.context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(|e| self.error(e))
    }

    fn error(&self, source: Errno) -> Error {
        Error::Mount { filesystem: self.filesystem, log: self.log(), source: source.into() }
    }

    /// Reads what the kernel has written into this mount's log: one message a read, `e overlay: …`.
    fn log(&self) -> String {
        let mut lines = Vec::new();
        let mut buffer = [0; 1024];
        while let Ok(length) = rustix::io::read(&self.context, &mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..length]);
            lines.push(text.trim_end().trim_start_matches(['e', 'w', 'i']).trim_start().to_string());
            if length == 0 || lines.len() == 8 {
                break;
            }
        }
        lines.join("; ")
    }
}
