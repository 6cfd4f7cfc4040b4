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
const BLANK: &str = "blank";

/// The originals.
#[derive(Debug)]
pub(crate) struct Kit {
    root: Root,
    devices: Vec<(&'static str, Node)>,
}

/// A device.
#[derive(Debug)]
enum Node {
    /// Made by us.
    Ours(OwnedFd),
    /// The machine's.
    Machines(OwnedFd),
}

/// Second sights of the machine's own devices, for one container. They are taken while the machine's files are there.
#[derive(Debug)]
pub(crate) struct Lent(Vec<(&'static str, OwnedFd)>);

impl Kit {
    /// Makes the nodes; where that is not allowed (in a user namespace) takes the host's, by the same check.
    pub(crate) fn new() -> Result<Kit, Error> {
        let fail = |source| Error::Prepare { what: "the devices of containers", source };
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let tmpfs = Tmpfs { size: Some(64 << 10), mode: 0o755, swap: Swap::Allowed, attributes };
        let root = Root::new(tmpfs.mount_detached().map_err(fail)?);
        root.mkdir(EMPTY, 0o555).map_err(fail)?;
        root.create_file(BLANK, 0o444).map_err(fail)?;
        let devices = DEVICES.iter().map(|(name, device)| Ok((*name, node(&root, name, *device)?)));
        let devices = devices.collect::<Result<_, Error>>()?;
        Ok(Kit { root, devices })
    }

    /// Takes second sights of those devices that are the machine's.
    pub(crate) fn lend(&self) -> Result<Lent, Error> {
        let machines = self.devices.iter().filter_map(|(name, node)| match node {
            Node::Ours(_) => None,
            Node::Machines(original) => Some(sight(name, original).map(|sight| (*name, sight))),
        });
        machines.collect::<Result<_, _>>().map(Lent)
    }

    /// Gives a second sight of a device.
    pub(crate) fn device(&self, name: &'static str, lent: &mut Lent) -> Result<OwnedFd, Error> {
        if let Some(at) = lent.0.iter().position(|(device, _)| *device == name) {
            return Ok(lent.0.swap_remove(at).1);
        }
        let node = self.devices.iter().find(|(device, _)| *device == name).map(|(_, node)| node);
        match node.expect("callers name devices of the list") {
            Node::Ours(original) | Node::Machines(original) => sight(name, original),
        }
    }

    /// Gives an empty file.
    pub(crate) fn blank(&self) -> Result<OwnedFd, Error> {
        self.nothing(BLANK)
    }

    /// Gives an empty directory.
    pub(crate) fn empty(&self) -> Result<OwnedFd, Error> {
        self.nothing(EMPTY)
    }

    fn nothing(&self, name: &str) -> Result<OwnedFd, Error> {
        let fail = |source| Error::Mount { what: "an empty file or directory".into(), source };
        let inert = Bind { depth: Depth::One, attributes: INERT | MountAttrFlags::MOUNT_ATTR_RDONLY };
        bind_detached(self.root.open_nofollow(name).map_err(fail)?, inert).map_err(fail)
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

fn sight(name: &str, original: &OwnedFd) -> Result<OwnedFd, Error> {
    bind_detached(original, DEVICE).map_err(|source| Error::Mount { what: format!("/dev/{name}"), source })
}

fn node(root: &Root, name: &'static str, device: Device) -> Result<Node, Error> {
    let fail = |source| Error::Prepare { what: "the devices of containers", source };
    let is_made = root.mknod(name, FileKind::CharDevice, 0o666, device).is_ok();
    let node = match is_made {
        true => root.open_nofollow(name),
        false => Root::open_ambient("/dev").and_then(|dev| dev.open_nofollow(name)),
    };
    let node = node.map_err(fail)?;
    let metadata = Metadata::of(&node).map_err(fail)?;
    if (metadata.kind, metadata.rdev) != (FileKind::CharDevice, device) {
        return Err(Error::NotTheDevice { name });
    }
    Ok(if is_made { Node::Ours(node) } else { Node::Machines(node) })
}
