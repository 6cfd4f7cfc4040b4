//! What a container is made of, as its caller says it.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use kiln_sys::metadata::{Device, FileKind};
use kiln_sys::secret::Secret;
use kiln_sys::userns::UserNamespace;

use crate::network::PrivateNetwork;

use crate::groups::ControlGroup;
use crate::terminal::Terminal;

/// A container to be.
#[derive(Debug)]
pub struct ContainerSpec {
    /// The tree that becomes `/`: a detached mount.
    pub root: OwnedFd,
    /// Whether the tree itself cannot be written (mounts can).
    pub readonly_root: bool,
    /// The program and its arguments; a program without a slash is looked up in `PATH` of `env`.
    pub args: Vec<String>,
    /// `KEY=value`, exactly what the process gets.
    pub env: Vec<String>,
    /// The working directory, absolute; it must exist.
    pub cwd: String,
    /// Who the process is.
    pub user: User,
    /// Whose ids these are; `None` is the host's. The root, and the trees that are mounted, must show files with the same.
    pub users: Option<Arc<UserNamespace>>,
    /// What is mounted besides the usual (`/proc`, `/dev`, `/sys`, the files of the resolver).
    pub mounts: Vec<ContainerMount>,
    /// What it can reach.
    pub network: Network,
    /// Its host name.
    pub hostname: String,
    /// More lines for `/etc/hosts`: name and address.
    pub extra_hosts: Vec<(String, String)>,
    /// How far it is confined.
    pub security: Security,
    /// Bytes of `/dev/shm`; 64 MiB if not said.
    pub shm_size: Option<u64>,
    /// Resource limits. What is over our own hard limit is lowered to it.
    pub ulimits: Vec<Ulimit>,
    /// What it may take of the machine.
    pub group: Option<Arc<ControlGroup>>,
}

/// Who a process is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups; the primary group is always a member too.
    pub groups: Vec<u32>,
}

/// One mount of a container.
#[derive(Debug)]
pub struct ContainerMount {
    /// Where, absolute; links are followed inside the container's root.
    pub target: String,
    /// Whether it cannot be written.
    pub readonly: bool,
    /// What.
    pub source: MountSource,
}

/// What is mounted.
#[derive(Debug)]
pub enum MountSource {
    /// A part of a tree.
    Tree {
        /// A detached mount, or any directory of the host (`O_PATH`).
        dir: OwnedFd,
        /// A directory or a file in it; links never lead out of `dir`. Empty: all of it.
        subpath: String,
    },
    /// Memory.
    Tmpfs {
        /// Most bytes it may hold.
        size: Option<u64>,
        /// Permission bits of its top.
        mode: u32,
    },
    /// A device node of its own.
    Device(DeviceNode),
    /// A file with these bytes, in memory that is not swapped where the kernel can; for secrets.
    Bytes {
        /// The content; our copy is wiped when the container stands.
        data: Secret,
        /// Permission bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
}

/// A device node that a container is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceNode {
    /// A character or a block device.
    pub kind: FileKind,
    /// Which.
    pub device: Device,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// What a container can reach.
#[derive(Debug)]
pub enum Network {
    /// What the host can.
    Host,
    /// What lies beyond the host, by a network of its own.
    Private(PrivateNetwork),
    /// Nothing but its own loopback.
    None,
}

/// What keeps steps apart from the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// Namespaces.
    #[default]
    Namespaces,
    /// Another root directory, and nothing else.
    Chroot,
}

/// How far a container is confined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Security {
    /// Fewer capabilities, filtered system calls, masked kernel files.
    Sandbox,
    /// All that kiln itself may, in its own namespaces.
    Insecure,
}

/// A resource limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ulimit {
    /// Of what.
    pub limit: Limit,
    /// What the process starts with; `None` is unlimited.
    pub soft: Option<u64>,
    /// What it may raise it to; `None` is unlimited.
    pub hard: Option<u64>,
}

pub use kiln_sys::limits::Limit;

/// Where a process reads and writes.
#[derive(Debug)]
pub struct ProcessIo {
    /// Standard input; nothing (`/dev/null`) if not given.
    pub stdin: Option<OwnedFd>,
    /// Standard output.
    pub stdout: OwnedFd,
    /// Standard error.
    pub stderr: OwnedFd,
}

/// What the standard streams of a process are.
#[derive(Debug)]
pub enum Stdio {
    /// Files, pipes, or whatever was given.
    Streams(ProcessIo),
    /// All three a terminal of its own.
    Terminal(Terminal),
}

impl From<ProcessIo> for Stdio {
    fn from(io: ProcessIo) -> Self {
        Self::Streams(io)
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExitStatus {
    /// It exited with this code.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
}

impl ExitStatus {
    /// Tells whether it ended well.
    pub fn is_success(self) -> bool {
        self == ExitStatus::Code(0)
    }

    /// The one number a shell would give: a signal is 128 and its number.
    pub fn shell_code(self) -> i32 {
        match self {
            ExitStatus::Code(code) => code,
            ExitStatus::Signal(signal) => 128 + signal,
        }
    }
}
