//! Images in tar files: `oci` and `docker` archives, written as a stream and read with suspicion.

mod read;
mod tar_write;
mod write;

use kiln_oci::Descriptor;

pub use read::Archive;
pub use tar_write::{ArchiveFile, ArchiveOut};
pub use write::{ArchiveWriter, Followed, Format, write};

/// An image in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveImage {
    /// Its manifest or index.
    pub descriptor: Descriptor,
    /// Its full names, `docker.io/library/app:1`.
    pub names: Vec<String>,
}
