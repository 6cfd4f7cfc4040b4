//! What can keep a process from running in a container.

use std::io;
use std::path::PathBuf;

use crate::rootless::Obstacle;

/// A container that could not be made, or a process that could not be started in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `USER` names somebody the image does not have.
    #[error("the image has no user `{name}`")]
    NoSuchUser {
        /// The name.
        name: String,
    },
    /// `USER` names a group the image does not have.
    #[error("the image has no group `{name}`")]
    NoSuchGroup {
        /// The name.
        name: String,
    },
    /// A number that is no id.
    #[error("the id `{id}` is out of range (0 to {max})")]
    IdOutOfRange {
        /// The number as written.
        id: String,
        /// The last that is one.
        max: u64,
    },
    /// The image's user database cannot be read.
    #[error("cannot read `{path}` of the image")]
    UserFile {
        /// Which file.
        path: &'static str,
        /// Why.
        source: kiln_sys::Error,
    },
    /// The layer of mount points could not be written.
    #[error("cannot write mount points into `{}`", .path.display())]
    Stubs {
        /// The layer.
        path: PathBuf,
        /// Why.
        source: kiln_sys::Error,
    },
    /// A mount's source is not there.
    #[error("cannot mount `{subpath}`: it cannot be opened in its source")]
    MountSource {
        /// The path inside the source.
        subpath: String,
        /// Why.
        source: kiln_sys::Error,
    },
    /// A mount's target is one of our own places, or no absolute path.
    #[error("nothing can be mounted at `{target}`")]
    ReservedTarget {
        /// The target as written.
        target: String,
    },
    /// A mount's target cannot be found or made in the container's root.
    #[error("cannot mount at `{target}`: it cannot be opened or made in the image")]
    MountTarget {
        /// The target.
        target: String,
        /// Why.
        source: kiln_sys::Error,
    },
    /// A directory is to be mounted on a file, or the other way round.
    #[error("cannot mount at `{target}`: it is not {wanted}")]
    TargetKind {
        /// The target.
        target: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// A mount did not succeed.
    #[error("cannot mount {what}")]
    Mount {
        /// What.
        what: String,
        /// Why.
        source: kiln_sys::Error,
    },
    /// There is no command.
    #[error("there is no command to run")]
    NoCommand,
    /// A text for the kernel has a byte that ends it.
    #[error("{what} contains a NUL byte")]
    Nul {
        /// Which text.
        what: &'static str,
    },
    /// The program cannot be executed.
    #[error("exec: \"{program}\": {reason}")]
    Program {
        /// The program as written.
        program: String,
        /// Why not.
        reason: String,
    },
    /// The working directory is no place to work.
    #[error("working directory `{cwd}` {reason}")]
    Cwd {
        /// The directory as written.
        cwd: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The kernel cannot filter system calls, and without that nothing is run.
    #[error("the kernel cannot filter system calls")]
    NoFilter {
        /// What it said.
        source: io::Error,
    },
    /// Who is not root here can have no user namespace.
    #[error("this machine gives its users no user namespaces")]
    NoUserNamespace {
        /// What is in the way.
        obstacle: Obstacle,
        /// What the kernel said.
        source: kiln_sys::Error,
    },
    /// A step is to have what only namespaces give.
    #[error("a step without namespaces cannot have {what}")]
    NeedsNamespaces {
        /// What.
        what: String,
    },
    /// The process could not be prepared.
    #[error("cannot start a container: `{step}` did not succeed")]
    Start {
        /// What was done.
        step: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Something that all containers share could not be made.
    #[error("cannot prepare {what}")]
    Prepare {
        /// What.
        what: &'static str,
        /// Why.
        source: kiln_sys::Error,
    },
    /// This machine does not give containers networks of their own.
    #[error("steps cannot have a network of their own: {why}")]
    NoNetwork {
        /// Why.
        why: String,
    },
    /// A node of ours is not the device it should be.
    #[error("`/dev/{name}` is not the device of that name")]
    NotTheDevice {
        /// The name.
        name: &'static str,
    },
    /// A program of the host cannot be run.
    #[error("cannot run `{program}`")]
    HostProgram {
        /// Which.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// A program of the host took too long.
    #[error("`{program}` did not end within {} seconds", .patience.as_secs())]
    HostPatience {
        /// Which.
        program: String,
        /// How long it had.
        patience: std::time::Duration,
    },
    /// The thread of a container ended without a word.
    #[error("the container was given up")]
    Lost,
    /// We ran out of something: descriptors, threads.
    #[error("cannot prepare a container")]
    Resources {
        /// Of what.
        source: io::Error,
    },
}

impl Error {
    /// Tells whether the kernel, or a container around us, refuses what namespaces are made of.
    pub fn is_refused(&self) -> bool {
        let is = |errno: Option<i32>| errno == Some(rustix::io::Errno::PERM.raw_os_error());
        match self {
            Error::Prepare { source, .. } | Error::Mount { source, .. } => is(source.errno()),
            Error::Start { source, .. } => is(source.raw_os_error()),
            _ => false,
        }
    }

    /// Tells whether the image or the command is at fault, rather than this machine.
    pub fn is_image_fault(&self) -> bool {
        match self {
            Error::NoSuchUser { .. }
            | Error::NoSuchGroup { .. }
            | Error::IdOutOfRange { .. }
            | Error::UserFile { .. }
            | Error::MountSource { .. }
            | Error::ReservedTarget { .. }
            | Error::MountTarget { .. }
            | Error::TargetKind { .. }
            | Error::NoCommand
            | Error::Nul { .. }
            | Error::Program { .. }
            | Error::Cwd { .. } => true,
            Error::Stubs { .. }
            | Error::Mount { .. }
            | Error::NoFilter { .. }
            | Error::Start { .. }
            | Error::NeedsNamespaces { .. }
            | Error::Prepare { .. }
            | Error::NoNetwork { .. }
            | Error::NotTheDevice { .. }
            | Error::HostProgram { .. }
            | Error::HostPatience { .. }
            | Error::Lost
            | Error::Resources { .. }
            | Error::NoUserNamespace { .. } => false,
        }
    }
}
