//! What devices change of a container: its nodes, mounts, environment and groups.

use std::path::Path;

use kiln_exec::{ContainerMount, DeviceNode, MountSource};
use kiln_report::{Failure, FailureKind};
use kiln_sys::metadata::{Device, FileKind, Metadata};
use kiln_sys::root::Root;

use super::spec::{Bind, Edits, Node};
use crate::failure::Context as _;
use crate::job::Result;

/// The permissions of a node that nobody says anything about.
const MODE: u32 = 0o666;

/// What a step's devices change.
#[derive(Debug, Clone, Default)]
pub(crate) struct DeviceEdits {
    /// Added to the environment; the last word counts.
    pub(crate) env: Vec<String>,
    /// Groups of the process.
    pub(crate) groups: Vec<u32>,
    nodes: Vec<(String, DeviceNode)>,
    binds: Vec<Bind>,
}

impl DeviceEdits {
    /// Puts edits together. What kiln cannot do is refused: half a device is none.
    pub(super) fn of(all: impl Iterator<Item = Edits>) -> Result<Self> {
        let mut out = Self::default();
        for edits in all {
            if let Some(hook) = edits.hooks.first() {
                let message = format!("a device wants `{}` to be run on the machine for the step", hook.path);
                let hint = "describe the device without hooks: kiln runs none";
                return Err(Failure::new(FailureKind::Environment, message).hint(hint));
            }
            if !edits.net_devices.is_empty() {
                let message = "a device wants a network interface to be moved into the step, which kiln does not do";
                return Err(Failure::new(FailureKind::Environment, message));
            }
            if let Some(bind) =
                edits.mounts.iter().find(|bind| !matches!(bind.kind.as_deref(), None | Some("" | "bind")))
            {
                let message =
                    format!("a device wants a mount at `{}` that is no path of the machine", bind.container_path);
                return Err(Failure::new(FailureKind::Environment, message));
            }
            out.env.extend(edits.env);
            out.groups.extend(edits.additional_gids);
            for node in edits.device_nodes {
                out.nodes.push((node.path.clone(), read(&node)?));
            }
            out.binds.extend(edits.mounts);
        }
        Ok(out)
    }

    /// The mounts of a container.
    pub(crate) fn mounts(&self) -> Result<Vec<ContainerMount>> {
        let nodes = self.nodes.iter().map(|(path, node)| Ok(mount_of(path, *node)));
        nodes.chain(self.binds.iter().map(bind)).collect()
    }
}

fn mount_of(path: &str, node: DeviceNode) -> ContainerMount {
    ContainerMount { target: path.to_owned(), readonly: false, source: MountSource::Device(node) }
}

/// Says what is left open as the machine's own node has it.
fn read(node: &Node) -> Result<DeviceNode> {
    let path = node.host_path.as_deref().filter(|path| !path.is_empty()).unwrap_or(&node.path);
    let found = Root::open_ambient("/").and_then(|root| root.metadata_followed(path));
    let (kind, device, found) = match (told(node), found) {
        (Some((kind, device)), found) => (kind, device, found.ok()),
        (None, found) => {
            let found = found.or_environment(|| format!("cannot find the device `{path}`"))?;
            if !matches!(found.kind, FileKind::CharDevice | FileKind::BlockDevice) {
                return Err(Failure::new(FailureKind::Environment, format!("`{path}` is no device")));
            }
            (found.kind, found.rdev, Some(found))
        }
    };
    let own = |pick: fn(&Metadata) -> u32| found.as_ref().map(pick);
    Ok(DeviceNode {
        kind,
        device,
        mode: node.file_mode.or_else(|| own(|m| m.mode)).unwrap_or(MODE) & 0o777,
        uid: node.uid.or_else(|| own(|m| m.uid)).unwrap_or(0),
        gid: node.gid.or_else(|| own(|m| m.gid)).unwrap_or(0),
    })
}

/// The device, when its description says all of it.
fn told(node: &Node) -> Option<(FileKind, Device)> {
    let device = Device { major: node.major?, minor: node.minor? };
    Some((kind_of(node.kind.as_deref()?)?, device))
}

fn kind_of(kind: &str) -> Option<FileKind> {
    match kind {
        "c" | "u" => Some(FileKind::CharDevice),
        "b" => Some(FileKind::BlockDevice),
        _ => None,
    }
}

fn bind(bind: &Bind) -> Result<ContainerMount> {
    let doing = || format!("cannot mount `{}` for a device", bind.host_path.display());
    let relative = bind.host_path.strip_prefix("/").unwrap_or(&bind.host_path);
    let dir = Root::open_ambient(Path::new("/")).or_environment(doing)?.into_fd();
    let subpath = relative.to_str().map(str::to_owned);
    let subpath = subpath.ok_or_else(|| Failure::new(FailureKind::Environment, doing()))?;
    Ok(ContainerMount {
        target: bind.container_path.clone(),
        readonly: bind.options.iter().any(|option| option == "ro"),
        source: MountSource::Tree { dir, subpath },
    })
}

/// What a step without confinement finds in `/dev` besides the usual, as in BuildKit; loop devices for a few images.
pub(crate) fn insecure_devices() -> Vec<ContainerMount> {
    let known = [
        ("/dev/kmsg", 1, 11),
        ("/dev/cuse", 10, 203),
        ("/dev/fuse", 10, 229),
        ("/dev/kvm", 10, 232),
        ("/dev/net/tun", 10, 200),
        ("/dev/loop-control", 10, 237),
    ];
    let node = |kind, (major, minor)| DeviceNode { kind, device: Device { major, minor }, mode: MODE, uid: 0, gid: 0 };
    let characters =
        known.iter().map(|(path, major, minor)| mount_of(path, node(FileKind::CharDevice, (*major, *minor))));
    let loops = (0..8).map(|index| mount_of(&format!("/dev/loop{index}"), node(FileKind::BlockDevice, (7, index))));
    characters.chain(loops).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_as_the_machine_has_it_unless_the_description_says() {
        let null = Node { path: "/dev/mine".into(), host_path: Some("/dev/null".into()), ..Node::default() };
        let found = read(&null).unwrap();
        assert_eq!(
            (found.kind, found.device, found.mode),
            (FileKind::CharDevice, Device { major: 1, minor: 3 }, 0o666)
        );
        let told = Node { file_mode: Some(0o640), uid: Some(5), ..null.clone() };
        assert_eq!((read(&told).unwrap().mode, read(&told).unwrap().uid), (0o640, 5));
        let numbers = Node {
            path: "/dev/none".into(),
            kind: Some("b".into()),
            major: Some(7),
            minor: Some(3),
            ..Node::default()
        };
        assert_eq!(read(&numbers).unwrap().device, Device { major: 7, minor: 3 });
        assert!(read(&Node { path: "/dev/no-such-node".into(), ..Node::default() }).is_err());
        assert!(
            read(&Node { path: "/etc/passwd".into(), ..Node::default() }).unwrap_err().message.contains("no device")
        );
    }

    #[test]
    fn what_kiln_does_not_do_is_refused() {
        let hook = Edits { hooks: vec![super::super::spec::Hook { path: "/bin/x".into() }], ..Edits::default() };
        assert!(DeviceEdits::of([hook].into_iter()).unwrap_err().message.contains("/bin/x"));
        let tmpfs = Bind { kind: Some("tmpfs".into()), container_path: "/t".into(), ..Bind::default() };
        let edits = Edits { mounts: vec![tmpfs], ..Edits::default() };
        assert!(DeviceEdits::of([edits].into_iter()).is_err());
    }
}
