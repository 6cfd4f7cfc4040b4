//! Our own device nodes and our own emptiness, of which every container gets second sights.
//!
//! What covers a kernel file must be what we think it is. So it does not come from the image, whose `/dev/null` may be
//! a link, but from a memory filesystem that only we have ever seen; its nodes are checked by number when they are made.
//! The containers' sights of it are read-only: nobody can change the nodes for others.

use std::os::fd::OwnedFd;

use kiln_sys::metadata::{Device, FileKind, Metadata};
use kiln_sys::mount::{Bind, Depth, INERT, MountAttrFlags, Swap, Tmpfs, attach, bind_detached};
use kiln_sys::root::Root;

use crate::Error;

/// The devices of a container: all character devices that anyone may use.
pub(crate) const DEVICES: [(&str, Device); 6] = [
    ("null", Device { major: 1, minor: 3 }),
    ("zero", Device { major: 1, minor: 5 }),
    ("full", Device { major: 1, minor: 7 }),
    ("random", Device { major: 1, minor: 8 }),
    ("urandom", Device { major: 1, minor: 9 }),
    ("tty", Device { major: 5, minor: 0 }),
];

const EMPTY: &str = "empty";

/// The originals.
#[derive(Debug)]
pub(crate) struct Kit {
    root: Root,
    devices: Vec<(&'static str, OwnedFd)>,
}

impl Kit {
    /// Makes the nodes; where that is not allowed (in a user namespace) takes the host's, by the same check.
    pub(crate) fn new() -> Result<Kit, Error> {
        let fail = |source| Error::Prepare { what: "the devices of containers", source };
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let tmpfs = Tmpfs { size: Some(64 << 10), mode: 0o755, swap: Swap::Allowed, attributes };
        let root = Root::new(tmpfs.mount_detached().map_err(fail)?);
        root.mkdir(EMPTY, 0o555).map_err(fail)?;
        let devices = DEVICES.iter().map(|(name, device)| Ok((*name, node(&root, name, *device)?)));
        let devices = devices.collect::<Result<_, Error>>()?;
        Ok(Kit { root, devices })
    }

    /// Gives a second sight of a device.
    pub(crate) fn device(&self, name: &'static str) -> Result<OwnedFd, Error> {
        let fail = |source| Error::Mount { what: format!("/dev/{name}"), source };
        let original = self.devices.iter().find(|(device, _)| *device == name).map(|(_, original)| original);
        let original = original.expect("callers name devices of the list");
        bind_detached(original, DEVICE).map_err(fail)
    }

    /// Gives an empty directory.
    pub(crate) fn empty(&self) -> Result<OwnedFd, Error> {
        let fail = |source| Error::Mount { what: "an empty directory".into(), source };
        let inert = Bind { depth: Depth::One, attributes: INERT | MountAttrFlags::MOUNT_ATTR_RDONLY };
        bind_detached(self.root.open_nofollow(EMPTY).map_err(fail)?, inert).map_err(fail)
    }

    /// Attaches the originals in the calling thread's own mount namespace, for kernels (before 6.15) that clone only
    /// what is attached.
    pub(crate) fn attach(&self, place: &OwnedFd) -> Result<(), Error> {
        attach(&self.root, place).map_err(|source| Error::Mount { what: "our devices".into(), source })
    }
}

/// Read-only, as it is shared; devices work all the same.
const DEVICE: Bind = Bind {
    depth: Depth::One,
    attributes: MountAttrFlags::MOUNT_ATTR_RDONLY
        .union(MountAttrFlags::MOUNT_ATTR_NOSUID)
        .union(MountAttrFlags::MOUNT_ATTR_NOEXEC),
};

fn node(root: &Root, name: &'static str, device: Device) -> Result<OwnedFd, Error> {
    let fail = |source| Error::Prepare { what: "the devices of containers", source };
    let node = match root.mknod(name, FileKind::CharDevice, 0o666, device) {
        Ok(()) => root.open_nofollow(name),
        Err(_) => Root::open_ambient("/dev").and_then(|dev| dev.open_nofollow(name)),
    };
    let node = node.map_err(fail)?;
    let metadata = Metadata::of(&node).map_err(fail)?;
    if (metadata.kind, metadata.rdev) != (FileKind::CharDevice, device) {
        return Err(Error::NotTheDevice { name });
    }
    Ok(node)
}
