//! Runs one process in a container: a root, mounts, a user, a network, and an exit status.
//!
//! [`Executor::run`] takes a [`ContainerSpec`] whose root is a detached mount, and gives an [`ExitStatus`]. Dropping the
//! future kills the container; so does the death of this process, however it dies. Nothing is ever attached to the
//! host's mount table. [`stubs`] says which mount points an image should have below it, [`resolve_user`] what `USER`
//! means in an image. [`HostCommand`] runs what is not contained: programs of the host, such as git.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests name files of the machine"))]

mod assemble;
mod chroot;
mod control;
mod diagnose;
mod error;
mod executor;
mod files;
mod groups;
mod host;
mod kit;
mod network;
mod preprocess;
mod program;
pub mod rootless;
mod skeleton;
mod sources;
mod spec;
mod stubs;
mod targets;
mod terminal;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod user;

pub use error::Error;
pub use executor::Executor;
pub use files::machine_files;
pub use groups::{ControlGroup, Controller, Reached, Resources, memory_budget};
pub use host::{HostCommand, HostOutput};
pub use kiln_sys::secret::Secret;
pub use network::{Networks, PendingNetwork, PrivateNetwork};
pub use preprocess::{PreprocessError, preprocess};
pub use spec::{
    ContainerMount, ContainerSpec, DeviceNode, ExitStatus, Isolation, Limit, MountSource, Network, ProcessIo, Security,
    Stdio, Ulimit, User,
};
pub use stubs::{Stub, StubKind, stubs, stubs_for, write_stubs};
pub use terminal::Terminal;
pub use user::{home_of, resolve_owner, resolve_user};
