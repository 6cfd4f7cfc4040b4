//! What can go wrong while keeping things, each with the thing it went wrong with.

use std::io;
use std::path::{Path, PathBuf};

use kiln_fs::layer::LayerError;
use kiln_oci::Digest;

use crate::owner::Standing;
use crate::snapshot::LayerId;

/// Says what the store could not do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The state directory is not ours to write.
    #[error("cannot write to the state directory `{}`", .path.display())]
    NotWritable {
        /// The state directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The database could not be opened by this name.
    #[error(
        "the path of the state directory `{}` is too long for SQLite: it has {} bytes, and may have {limit}",
        .path.display(), .path.as_os_str().len()
    )]
    PathTooLong {
        /// The state directory, links followed.
        path: PathBuf,
        /// How many bytes it may have.
        limit: usize,
    },
    /// The state directory, or one above it, is a link that leads nowhere.
    #[error("the state directory is not there: `{}` is a link to `{}`, which does not exist", .link.display(), .target.display())]
    DanglingLink {
        /// The link.
        link: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// Somebody else's kiln made this state directory, whose layers have the form of their owner's.
    #[error("the state directory `{}` belongs to user {owner}", .path.display())]
    Others {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// Layers have the form of others' rights and ids.
    #[error("the layers in the state directory `{}` were written by {made}, and cannot be used by {now}", .path.display())]
    OtherStanding {
        /// The directory.
        path: PathBuf,
        /// Who wrote them.
        made: Standing,
        /// Who we are.
        now: Standing,
    },
    /// Layers could not be stacked.
    #[error("layers cannot be stacked")]
    NoOverlay {
        /// What the kernel said.
        #[source]
        source: kiln_sys::Error,
    },
    /// Layers could not be copied into one tree, or what was written there not be found.
    #[error("cannot work on the copy of a tree in `{}`", .path.display())]
    Copy {
        /// Where it is.
        path: PathBuf,
        /// Why.
        #[source]
        source: kiln_fs::Error,
    },
    /// The files of a layer could not be read, or those it came as not be unpacked.
    #[error("cannot look through `{}`", .path.display())]
    Layer {
        /// Where they are.
        path: PathBuf,
        /// Why.
        #[source]
        source: LayerError,
    },
    /// What another boot of the machine left could not be looked at, so that it is not used.
    #[error("cannot tell whether {what} is whole, which was written shortly before the machine stopped: {why}")]
    Undecided {
        /// The layer or content.
        what: String,
        /// Why not.
        why: String,
    },
    /// A newer kiln made this state directory.
    #[error(
        "the state directory `{}` was written by a newer kiln (schema {found}, this one knows {supported})",
        .path.display()
    )]
    NewerSchema {
        /// The state directory.
        path: PathBuf,
        /// The schema it has.
        found: i64,
        /// The newest schema this binary knows.
        supported: i64,
    },
    /// There is a database of another program where ours should be.
    #[error("`{}` is not a kiln database", .path.display())]
    ForeignDatabase {
        /// The database file.
        path: PathBuf,
    },
    /// A file operation failed.
    #[error("cannot {action} `{}`", .path.display())]
    Io {
        /// What was tried, as a verb: `create`, `rename`, …
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// There is nothing of this id.
    #[error("nothing that is kept has the id `{id}`")]
    UnknownEntry {
        /// The id.
        id: String,
    },
    /// Several things have ids that begin so.
    #[error("`{id}` begins the ids of {count} things")]
    AmbiguousEntry {
        /// The beginning.
        id: String,
        /// How many.
        count: usize,
    },
    /// The metadata database failed.
    #[error("cannot use the metadata database `{}`", .path.display())]
    Database {
        /// The database file.
        path: PathBuf,
        /// What SQLite says.
        #[source]
        source: rusqlite::Error,
    },
    /// The metadata database is not what was written to it, or is gone.
    #[error("the metadata database `{}` is damaged", .path.display())]
    DamagedDatabase {
        /// The database file.
        path: PathBuf,
        /// What SQLite says.
        #[source]
        source: rusqlite::Error,
    },
    /// There is no metadata database, but what it should know of is there.
    #[error("the metadata database `{}` is gone, but not what it should know of", .path.display())]
    LostDatabase {
        /// The database file.
        path: PathBuf,
    },
    /// A record does not parse; it was written by something else.
    #[error("the stored record of `{what}` is damaged")]
    Damaged {
        /// Whose record.
        what: String,
        /// Why it does not parse.
        #[source]
        source: serde_json::Error,
    },
    /// Content does not have the digest it was promised to have.
    #[error("content has digest `{found}`, expected `{expected}`")]
    DigestMismatch {
        /// The promised digest.
        expected: Digest,
        /// What the bytes hash to.
        found: Digest,
    },
    /// Content does not have the size it was promised to have.
    #[error("content `{digest}` has {found} bytes, expected {expected}")]
    SizeMismatch {
        /// Which content.
        digest: Digest,
        /// The promised size.
        expected: u64,
        /// The size found.
        found: u64,
    },
    /// A document is larger than the reader wants to hold in memory.
    #[error("content `{digest}` is larger than {limit} bytes")]
    TooLarge {
        /// Which content.
        digest: Digest,
        /// The limit in bytes.
        limit: u64,
    },
    /// Content is wanted under a digest kiln cannot compute.
    #[error("cannot verify `{digest}`: only sha256 is supported")]
    UnsupportedDigest {
        /// The digest.
        digest: Digest,
    },
    /// There is no such content.
    #[error("content `{digest}` is not in the store")]
    UnknownBlob {
        /// The digest asked for.
        digest: Digest,
    },
    /// There is no such layer, or not any more.
    #[error("layer `{layer}` is not in the store")]
    UnknownLayer {
        /// The layer asked for.
        layer: LayerId,
    },
    /// There is no such image.
    #[error("no image `{name}` in the store")]
    UnknownImage {
        /// The name or id asked for.
        name: String,
    },
    /// A short id fits several images.
    #[error("`{prefix}` fits several images: {}", quoted(.candidates))]
    AmbiguousImage {
        /// What was asked for.
        prefix: String,
        /// The ids it fits.
        candidates: Vec<Digest>,
    },
    /// Something is to be done that nobody may watch.
    #[error("{builds} running builds or commands use the state directory `{}`", .path.display())]
    InUse {
        /// The state directory.
        path: PathBuf,
        /// How many.
        builds: usize,
    },
    /// A lock could not be taken.
    #[error("cannot lock `{}`", .path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The result of store operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

fn quoted(candidates: &[Digest]) -> String {
    candidates.iter().map(|digest| format!("`{digest}`")).collect::<Vec<_>>().join(", ")
}

/// Growing the index of the log is the one write whose failure SQLite does not call a full disk.
fn is_full(error: &rusqlite::ffi::Error) -> bool {
    error.code == rusqlite::ErrorCode::DiskFull || error.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE
}

/// Gives an IO error its verb and its operand.
pub(crate) trait IoContext<T> {
    fn context(self, action: &'static str, path: &Path) -> Result<T>;
}

impl<T, E: Into<io::Error>> IoContext<T> for Result<T, E> {
    fn context(self, action: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| Error::Io { action, path: path.to_owned(), source: source.into() })
    }
}

impl Error {
    /// A failure of the database, damage told apart.
    pub(crate) fn database(path: &Path, source: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode;
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::DamagedDatabase { path, source },
            _ => Self::Database { path, source },
        }
    }

    /// Whether the store's index is damaged or lost: `fsck` can make a new one.
    pub fn is_damaged_index(&self) -> bool {
        matches!(self, Self::DamagedDatabase { .. } | Self::LostDatabase { .. } | Self::Damaged { .. })
    }

    /// Whether another state directory would do.
    pub fn is_about_place(&self) -> bool {
        matches!(
            self,
            Self::PathTooLong { .. } | Self::DanglingLink { .. } | Self::Others { .. } | Self::OtherStanding { .. }
        )
    }

    /// Whether the disk is full, whoever noticed it.
    pub fn is_no_space(&self) -> bool {
        match self {
            Self::Copy { source: kiln_fs::Error::Io { source, .. }, .. }
            | Self::Layer { source: LayerError::Io { source, .. }, .. }
            | Self::Io { source, .. }
            | Self::NotWritable { source, .. }
            | Self::Lock { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            Self::Database { source, .. } => source.sqlite_error().is_some_and(is_full),
            _ => false,
        }
    }
}
