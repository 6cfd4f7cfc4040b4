//! What can go wrong with a tree on disk.

use std::io;

use crate::copy::ModeError;
use crate::layer::LayerError;
use crate::pattern::PatternError;

/// Says which path could not be worked on, and why.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A source that is not there, or that an ignore pattern hides.
    #[error("`{path}` {}", match .ignored_by { Some((_, pattern)) => format!("is hidden by the ignore pattern `{pattern}`"), None => "is not there".to_owned() })]
    NotFound {
        /// The path as it was asked for, from the root of its tree.
        path: String,
        /// The pattern that hides it: its index in the list that was compiled, and its text.
        ignored_by: Option<(usize, String)>,
        /// Up to three names that are there and look alike.
        similar: Vec<String>,
    },
    /// A source that is a socket.
    #[error("`{path}` is a socket, and an image cannot hold one")]
    Socket {
        /// The path as it was asked for, from the root of its tree.
        path: String,
    },
    /// A file that was written to while its content was read.
    #[error("`{path}` changed while it was read")]
    ChangedWhileRead {
        /// The file.
        path: String,
    },
    /// A directory that would have to replace something else.
    #[error("a directory cannot be copied onto `{path}`, which is none")]
    NotADirectory {
        /// The destination.
        path: String,
    },
    /// A file that would have to replace a directory.
    #[error("a file cannot replace the directory `{path}`")]
    IsADirectory {
        /// The destination.
        path: String,
    },
    /// Links that lead to each other, or too many in a row.
    #[error("`{path}` goes through too many links")]
    TooManyLinks {
        /// The path.
        path: String,
    },
    /// A call of the system that did not do what was asked.
    #[error("cannot {action} `{path}`")]
    Io {
        /// The verb.
        action: &'static str,
        /// The operand, relative to its tree.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// A pattern that is not usable.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// A mode that is not usable.
    #[error(transparent)]
    Mode(#[from] ModeError),
    /// An archive that could not be unpacked.
    #[error("cannot unpack `{path}`")]
    Unpack {
        /// The archive.
        path: String,
        /// Why.
        source: LayerError,
    },
}

/// What functions on trees return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Makes a closure for `map_err` that names the verb and the operand.
    pub(crate) fn io<E: Into<io::Error>>(action: &'static str, path: impl AsRef<[u8]>) -> impl FnOnce(E) -> Error {
        move |source| Error::Io { action, path: printable(path.as_ref()), source: source.into() }
    }
}

/// A path of any bytes as text for a message.
pub(crate) fn printable(path: &[u8]) -> String {
    if path.is_empty() { "/".to_owned() } else { String::from_utf8_lossy(path).into_owned() }
}
