//! The crate's error: which call could not do what, to which operand.

use std::io;
use std::path::{Path, PathBuf};

/// What every function of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A system call that did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A call on a path (inside a root, or on the host when the path is a trust anchor).
    #[error("cannot {action} `{}`", .path.display())]
    Path {
        /// The verb, with its preposition: `open`, `create the directory`.
        action: &'static str,
        /// The path as the caller wrote it.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A call that has no path.
    #[error("cannot {action}")]
    Call {
        /// The verb and its object: `wait for a process`.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A filesystem that could not be mounted.
    #[error("cannot mount {filesystem}{}", explain(.log))]
    Mount {
        /// The filesystem's name.
        filesystem: &'static str,
        /// What the kernel wrote into the mount's own log, often empty.
        log: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// More layers than the kernel stacks.
    #[error("an overlay of {count} layers is over the kernel's limit of {limit}")]
    TooManyLayers {
        /// How many there are.
        count: usize,
        /// How many the kernel takes.
        limit: usize,
    },
    /// A path that has no last name (`/`, `..`), where something should be made or removed.
    #[error("`{}` does not end in a name", .path.display())]
    NoName {
        /// The path as the caller wrote it.
        path: PathBuf,
    },
    /// Something else than a regular file, where only that can be read.
    #[error("`{}` is not a regular file", .path.display())]
    NotRegular {
        /// The path as the caller wrote it.
        path: PathBuf,
    },
    /// An id that the user namespace we are in does not have.
    #[error("there is no {what} {id} in this user namespace, whose ids end at {last}")]
    NoId {
        /// User or group.
        what: &'static str,
        /// The id.
        id: u32,
        /// The last there is.
        last: u32,
    },
    /// A file over the size that the caller wants to hold in memory.
    #[error("`{}` is larger than {limit} bytes", .path.display())]
    TooLarge {
        /// The path as the caller wrote it.
        path: PathBuf,
        /// The limit in bytes.
        limit: u64,
    },
}

fn explain(log: &str) -> String {
    if log.is_empty() { String::new() } else { format!(": {log}") }
}

impl Error {
    pub(crate) fn path(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Error::Path { action, path: path.to_path_buf(), source: source.into() }
    }

    pub(crate) fn call(action: &'static str, source: impl Into<io::Error>) -> Self {
        Error::Call { action, source: source.into() }
    }

    /// Returns the kernel's error number, when the kernel gave one.
    pub fn errno(&self) -> Option<i32> {
        self.io().and_then(io::Error::raw_os_error)
    }

    /// Returns the kind in the words of the standard library.
    pub fn kind(&self) -> io::ErrorKind {
        self.io().map_or(io::ErrorKind::InvalidInput, io::Error::kind)
    }

    /// Tells whether the operand does not exist.
    pub fn is_not_found(&self) -> bool {
        self.kind() == io::ErrorKind::NotFound
    }

    fn io(&self) -> Option<&io::Error> {
        match self {
            Error::Path { source, .. } | Error::Call { source, .. } | Error::Mount { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        io::Error::new(error.kind(), error)
    }
}
