//! What is to be mounted, cloned as detached mounts before the container's namespaces exist.

use std::io::Write as _;
use std::os::fd::OwnedFd;

use kiln_sys::metadata::Metadata;
use kiln_sys::mount::{Bind, DATA, Depth, INERT, MountAttrFlags, Swap, Tmpfs, attach_at_path, bind_detached};
use kiln_sys::root::Root;
use kiln_sys::userns::UserNamespace;

use crate::Error;
use crate::assemble::owner;
use crate::spec::{ContainerMount, DeviceNode, MountSource, Security};
use crate::stubs::StubKind;

/// What a device is called where only we see it.
const NODE: &str = "node";

/// A mount that is ready, or nearly.
#[derive(Debug)]
pub(crate) struct Source {
    /// What its target must be.
    pub(crate) kind: StubKind,
    state: State,
}

#[derive(Debug)]
enum State {
    Ready(OwnedFd),
    /// A part of a detached mount, which kernels before 6.15 clone only while it is attached somewhere.
    ToStage {
        tree: OwnedFd,
        handle: OwnedFd,
        bind: Bind,
    },
}

impl Source {
    /// Prepares what a caller wants to be mounted in a container with these ids.
    pub(crate) fn prepare(
        mount: ContainerMount,
        security: Security,
        users: Option<&UserNamespace>,
    ) -> Result<(String, Source), Error> {
        let ContainerMount { target, readonly, source } = mount;
        let no_devices = match security {
            Security::Sandbox => MountAttrFlags::MOUNT_ATTR_NODEV,
            Security::Insecure => MountAttrFlags::empty(),
        };
        let read_only = if readonly { MountAttrFlags::MOUNT_ATTR_RDONLY } else { MountAttrFlags::empty() };
        let source = match source {
            MountSource::Tree { dir, subpath } => {
                let tree = Root::new(dir);
                let handle = tree.open_path(&subpath).map_err(|source| Error::MountSource { subpath, source })?;
                let bind = Bind { depth: Depth::Recursive, attributes: no_devices | read_only };
                Source::clone_or_stage(tree.into_fd(), handle, bind, &target)?
            }
            MountSource::Tmpfs { size, mode } => {
                let tmpfs = Tmpfs { size, mode, swap: Swap::Allowed, attributes: DATA | read_only };
                let mount = tmpfs.mount_detached().map_err(|source| Error::Mount { what: target.clone(), source })?;
                Source { kind: StubKind::Dir, state: State::Ready(mount) }
            }
            MountSource::Device(node) => Source::device(node, users, &target)?,
            MountSource::Bytes { data, mode, uid, gid } => {
                let fail = |source| Error::Mount { what: target.clone(), source };
                let tmpfs = Tmpfs { size: None, mode: 0o700, swap: Swap::Avoided, attributes: INERT };
                let root = Root::new(tmpfs.mount_detached().map_err(fail)?);
                let mut file = root.create_file("bytes", 0o600).map_err(fail)?;
                file.write_all(data.expose()).map_err(|source| Error::Resources { source })?;
                kiln_sys::root::set_owner(&file, owner(users, uid)?, owner(users, gid)?).map_err(fail)?;
                kiln_sys::root::set_mode(&file, mode).map_err(fail)?;
                let handle = root.open_nofollow("bytes").map_err(fail)?;
                let bind = Bind { depth: Depth::One, attributes: INERT | read_only };
                Source::clone_or_stage(root.into_fd(), handle, bind, &target)?
            }
        };
        Ok((target, source))
    }

    /// Makes a node that only this container sees, so that it may do with its mode what it likes.
    fn device(node: DeviceNode, users: Option<&UserNamespace>, target: &str) -> Result<Source, Error> {
        let fail = |source| Error::Mount { what: target.to_string(), source };
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let tmpfs = Tmpfs { size: Some(64 << 10), mode: 0o700, swap: Swap::Allowed, attributes };
        let root = Root::new(tmpfs.mount_detached().map_err(fail)?);
        root.mknod(NODE, node.kind, node.mode, node.device).map_err(fail)?;
        let handle = root.open_nofollow(NODE).map_err(fail)?;
        kiln_sys::root::set_owner(&handle, owner(users, node.uid)?, owner(users, node.gid)?).map_err(fail)?;
        kiln_sys::root::set_mode(&handle, node.mode).map_err(fail)?;
        Source::clone_or_stage(root.into_fd(), handle, Bind { depth: Depth::One, attributes }, target)
    }

    /// Clones what `handle` stands for in `tree`, at once if the kernel can.
    pub(crate) fn clone_or_stage(tree: OwnedFd, handle: OwnedFd, bind: Bind, target: &str) -> Result<Source, Error> {
        let fail = |source| Error::Mount { what: target.to_string(), source };
        let kind = if Metadata::of(&handle).map_err(fail)?.is_dir() { StubKind::Dir } else { StubKind::File };
        let state = match bind_detached(&handle, bind) {
            Ok(mount) => State::Ready(mount),
            Err(e) if e.errno() == Some(rustix::io::Errno::INVAL.raw_os_error()) => {
                State::ToStage { tree, handle, bind }
            }
            Err(e) => return Err(fail(e)),
        };
        Ok(Source { kind, state })
    }

    /// Stages what has to be. To be called in the container's mount namespace, while its old root is still there: the
    /// stage goes with that.
    pub(crate) fn stage(self, target: &str) -> Result<Source, Error> {
        let State::ToStage { tree, handle, bind } = self.state else {
            return Ok(self);
        };
        let mount = stage_and_clone(&tree, &handle, bind);
        let mount = mount.map_err(|source| Error::Mount { what: target.to_string(), source })?;
        Ok(Source { kind: self.kind, state: State::Ready(mount) })
    }

    /// Gives the mount.
    pub(crate) fn into_mount(self) -> OwnedFd {
        match self.state {
            State::Ready(mount) => mount,
            State::ToStage { handle, .. } => handle,
        }
    }
}

fn stage_and_clone(tree: &OwnedFd, handle: &OwnedFd, bind: Bind) -> Result<OwnedFd, kiln_sys::Error> {
    attach_at_path(tree, std::path::Path::new("/"))?;
    bind_detached(handle, bind)
}

#[cfg(test)]
mod tests {
    use kiln_sys::container::{Isolation, NetworkNamespace};

    use super::*;

    #[test]
    fn parts_of_detached_mounts_can_be_cloned_by_way_of_a_stage() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root");
            return;
        }
        let staged = std::thread::spawn(|| {
            let tmpfs = Tmpfs { size: None, mode: 0o755, swap: Swap::Allowed, attributes: DATA };
            let root = Root::new(tmpfs.mount_detached().unwrap());
            root.mkdir_all("a/b", 0o755).unwrap();
            root.create_file("a/b/f", 0o644).unwrap();
            let handle = root.open_nofollow("a/b").unwrap();
            let tree = root.into_fd();
            Isolation { network: NetworkNamespace::Inherited, hostname: "test" }.enter().unwrap();
            let bind = Bind { depth: Depth::Recursive, attributes: MountAttrFlags::MOUNT_ATTR_RDONLY };
            let clone = Root::new(stage_and_clone(&tree, &handle, bind).unwrap());
            (clone.contains("f").unwrap(), clone.create_file("x", 0o600).unwrap_err().errno())
        });
        assert_eq!(staged.join().unwrap(), (true, Some(rustix::io::Errno::ROFS.raw_os_error())));
    }
}
