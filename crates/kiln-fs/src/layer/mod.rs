//! Layers: from an overlay's upper directory to an OCI layer tar, and back.
//!
//! On disk a layer has the overlay's own form: a character device 0:0 says that a name is gone, the attribute
//! `trusted.overlay.opaque` that nothing of a lower directory shows through. Who is not the machine's root has
//! `user.overlay.opaque` instead. In a tar the same is said by files named `.wh.…` (OCI image-spec, layer.md#whiteouts).

mod ahead;
mod apply;
mod compare;
mod entry;
mod header;
mod implied;
mod live;
mod pack;
mod pax;
mod place;
mod reader;
mod same;
mod sparse;
mod times;
mod whiteout;

use std::io;

pub use apply::{ApplyOptions, ApplyStats, Target, apply, apply_with};
pub use compare::{Aspect, Difference, compare, kind_name};
pub use entry::{EntryKind, TarEntry};
pub(crate) use header::{BLOCK, padding, write_lone_file};
pub use implied::inherit_implied;
pub use live::Rewind;
pub use pack::{PackOptions, PackStats, pack, pack_live, pack_tree, pack_trees, pack_with};
pub use reader::TarReader;
pub(crate) use reader::extended_size;
pub use same::{same_but_times, same_root};
pub use times::{Times, has_times, newest};
pub(crate) use whiteout::{hide_those_below, is_opaque, is_whiteout, make_whiteout};

use crate::compress::ExpansionError;
use crate::error::printable;

/// Begins the name that says a name is gone.
pub(crate) const WHITEOUT: &[u8] = b".wh.";
/// The name that says a directory hides those below it.
pub(crate) const OPAQUE: &[u8] = b".wh..wh..opq";
/// Begins names that other storage drivers kept their own data under.
pub(crate) const WHITEOUT_META: &[u8] = b".wh..wh.";
/// The attribute of a directory that hides those below it.
pub(crate) fn opaque_xattr() -> &'static str {
    if kiln_sys::userns::is_machine_root() { "trusted.overlay.opaque" } else { "user.overlay.opaque" }
}
/// The attribute of a directory that was in a lower one.
pub(crate) fn origin_xattr() -> &'static str {
    if kiln_sys::userns::is_machine_root() { "trusted.overlay.origin" } else { "user.overlay.origin" }
}
/// Begins the attributes by which an overlay is steered.
pub(crate) const OVERLAY_XATTR: &[u8] = b"trusted.overlay.";
/// The same for overlays of unprivileged users.
pub(crate) const OVERLAY_USER_XATTR: &[u8] = b"user.overlay.";

/// Says why a layer cannot be read or written. Names are those of entries in the archive.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// The archive breaks its own format.
    #[error("the archive is malformed at `{entry}`: {what}")]
    Malformed {
        /// The entry, or the last one before the place.
        entry: String,
        /// What is wrong.
        what: &'static str,
    },
    /// The archive ends in the middle of something.
    #[error("the archive ends in the middle of `{entry}`")]
    Truncated {
        /// The entry, or the last one before the place.
        entry: String,
    },
    /// A name that leads out, or that cannot be a file's.
    #[error("`{entry}` is not a usable name: {what}")]
    InvalidName {
        /// The entry.
        entry: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// An entry of a type we do not know.
    #[error("`{entry}` has the unknown type `{}`", char::from(*.kind).escape_default())]
    UnknownType {
        /// The entry.
        entry: String,
        /// The type flag.
        kind: u8,
    },
    /// A hard link to something this archive has not brought.
    #[error("`{entry}` is a hard link to `{target}`, which is not there")]
    HardlinkTargetMissing {
        /// The link.
        entry: String,
        /// What it wants to be a link to.
        target: String,
    },
    /// Something only the overlay itself may write.
    #[error("`{entry}` carries `{what}`, which belongs to the overlay filesystem")]
    OverlayPrivate {
        /// The entry.
        entry: String,
        /// The attribute or node.
        what: String,
    },
    /// Something that may not be in this archive.
    #[error("`{entry}` is {what}, which has no place here")]
    Refused {
        /// The entry.
        entry: String,
        /// What it is.
        what: &'static str,
    },
    /// A file whose name a layer would read as a deletion.
    #[error("`{path}` cannot be part of a layer: names that begin with `.wh.` mean deletions there")]
    ReservedName {
        /// The file.
        path: String,
    },
    /// A number over its limit.
    #[error("`{entry}` is over the limit: {what} of at most {limit}")]
    Limit {
        /// The entry.
        entry: String,
        /// What is counted.
        what: &'static str,
        /// How much is allowed.
        limit: u64,
    },
    /// The stream grew beyond its limits.
    #[error(transparent)]
    Expansion(ExpansionError),
    /// A file that was written to while it was read.
    #[error("`{path}` changed while it was read")]
    ChangedWhileRead {
        /// The file.
        path: String,
    },
    /// The archive could not be read.
    #[error("cannot read the archive after `{entry}`")]
    Read {
        /// The last entry before the place.
        entry: String,
        /// What the stream said.
        source: io::Error,
    },
    /// The archive could not be written.
    #[error("cannot write the archive")]
    Write {
        /// What the stream said.
        source: io::Error,
    },
    /// A call of the system that did not do what was asked.
    #[error("cannot {action} `{path}`")]
    Io {
        /// The verb.
        action: &'static str,
        /// The operand.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

impl LayerError {
    /// Tells whether the archive may be right, but asks for more than it was allowed.
    pub fn is_too_much(&self) -> bool {
        matches!(self, Self::Limit { .. } | Self::Expansion(_))
    }
}

/// What functions on layers return.
pub type Result<T, E = LayerError> = std::result::Result<T, E>;

impl LayerError {
    pub(crate) fn io<E: Into<io::Error>>(action: &'static str, path: &[u8]) -> impl FnOnce(E) -> Self {
        move |source| Self::Io { action, path: printable(path), source: source.into() }
    }

    pub(crate) fn malformed(entry: &[u8], what: &'static str) -> Self {
        Self::Malformed { entry: printable(entry), what }
    }

    pub(crate) fn invalid_name(entry: &[u8], what: &'static str) -> Self {
        Self::InvalidName { entry: printable(entry), what }
    }

    pub(crate) fn limit(entry: &[u8], what: &'static str, limit: u64) -> Self {
        Self::Limit { entry: printable(entry), what, limit }
    }

    /// The error for a stream that failed, by its cause.
    pub(crate) fn read(entry: &[u8], source: io::Error) -> Self {
        if let Some(expansion) = source.get_ref().and_then(|inner| inner.downcast_ref::<ExpansionError>()) {
            return Self::Expansion(expansion.clone());
        }
        match source.kind() {
            io::ErrorKind::UnexpectedEof => Self::Truncated { entry: printable(entry) },
            _ => Self::Read { entry: printable(entry), source },
        }
    }
}
