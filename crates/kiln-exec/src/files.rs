//! The three files in `/etc` that describe the machine, as a container sees them.

use std::os::fd::OwnedFd;

use kiln_sys::mount::{Bind, Depth, INERT, MountAttrFlags, Swap, Tmpfs};
use kiln_sys::root::Root;

use crate::Error;
use crate::sources::Source;
use crate::spec::{ContainerSpec, Network};

/// More than any resolver reads.
const RESOLV_CONF_LIMIT: u64 = 64 << 10;

/// Makes the files and gives them with their targets.
pub(crate) fn prepare(spec: &ContainerSpec) -> Result<Vec<(&'static str, Source)>, Error> {
    let fail = |source| Error::Prepare { what: "the files in `/etc`", source };
    let tmpfs = Tmpfs { size: Some(1 << 20), mode: 0o755, swap: Swap::Allowed, attributes: INERT };
    let root = Root::new(tmpfs.mount_detached().map_err(fail)?);
    let bind = Bind { depth: Depth::One, attributes: INERT | MountAttrFlags::MOUNT_ATTR_RDONLY };
    let one = |(target, content): (&'static str, Vec<u8>)| {
        let name = target.trim_start_matches("/etc/");
        let mut file = root.create_file(name, 0o644).map_err(fail)?;
        std::io::Write::write_all(&mut file, &content).map_err(|source| Error::Resources { source })?;
        let handle = root.open_nofollow(name).map_err(fail)?;
        let tree: OwnedFd = root.try_clone().map_err(fail)?.into_fd();
        Ok((target, Source::clone_or_stage(tree, handle, bind, target)?))
    };
    machine_files(&spec.hostname, &spec.extra_hosts, &spec.network).into_iter().map(one).collect()
}

/// The files by their paths, for a step of this host name, with more lines for `/etc/hosts` (name and address).
pub fn machine_files(
    hostname: &str,
    extra_hosts: &[(String, String)],
    network: &Network,
) -> [(&'static str, Vec<u8>); 3] {
    [
        ("/etc/resolv.conf", resolv_conf(network)),
        ("/etc/hosts", hosts(hostname, extra_hosts).into_bytes()),
        ("/etc/hostname", format!("{hostname}\n").into_bytes()),
    ]
}

/// The host's resolver serves a container that has the host's network. One without a network has none to ask.
fn resolv_conf(network: &Network) -> Vec<u8> {
    match network {
        Network::None => Vec::new(),
        Network::Private(network) => network.resolv_conf().as_bytes().to_vec(),
        Network::Host => {
            let host = Root::open_ambient("/");
            // A host without the file has no resolver to share.
            host.and_then(|host| host.read_to_limit("/etc/resolv.conf", RESOLV_CONF_LIMIT)).unwrap_or_default()
        }
    }
}

fn hosts(hostname: &str, extra: &[(String, String)]) -> String {
    let mut text = String::from("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    text.push_str(&format!("127.0.0.1\t{hostname}\n"));
    for (name, address) in extra {
        text.push_str(&format!("{address}\t{name}\n"));
    }
    text
}
