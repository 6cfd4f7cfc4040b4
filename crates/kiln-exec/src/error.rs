//! What can keep a process from running in a container.

use std::io;
use std::path::PathBuf;

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
    #[error("the id `{id}` is out of range (0 to 2147483647)")]
    IdOutOfRange {
        /// The number as written.
        id: String,
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
    /// We ran out of something: descriptors, threads.
    #[error("cannot prepare a container")]
    Resources {
        /// Of what.
        source: io::Error,
    },
}
