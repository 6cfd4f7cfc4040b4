//! Copying from a tree into a root, as docker's COPY and ADD do it.

mod beneath;
mod dest;
pub(crate) mod file;
mod materialize;
mod mode;
mod pending;
mod probe;
mod run;
pub(crate) mod sources;
mod unpack;

use kiln_sys::root::Root;

pub use dest::own_directory;
pub use materialize::materialize;
pub use mode::{ModeChange, ModeClause, ModeError};
pub use probe::{Presence, probe};
pub(crate) use run::copy_sources;

use crate::Limits;
use crate::error::Result;
use crate::tree::SourceTree;

/// What is copied where. The fields mean what those of BuildKit's copy action mean.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CopySpec {
    /// The source, from the root of its tree. May hold wildcards.
    pub src: String,
    /// The destination. With a slash at its end it is a directory.
    pub dest: String,
    /// Owner and group of everything copied, and of directories made on the way. Without it files keep theirs.
    pub owner: Option<(u32, u32)>,
    /// How the permission bits change.
    pub mode: Option<ModeChange>,
    /// Permissions of directories made on the way. Without them, 0755.
    pub parents_mode: Option<u32>,
    /// Follows a link at the end of the source. Links below it are copied as links.
    pub follow_symlink: bool,
    /// Copies what is in a source directory, not the directory itself.
    pub dir_copy_contents: bool,
    /// Makes the directories that lead to the destination.
    pub create_dest_path: bool,
    /// Takes `*`, `?` and `[` in the source as wildcards.
    pub allow_wildcard: bool,
    /// Wildcards that match nothing are no error.
    pub allow_empty_wildcard: bool,
    /// Copies only what matches, with the directories that lead there.
    pub include: Vec<String>,
    /// Does not copy what matches.
    pub exclude: Vec<String>,
    /// Paths that must be among what is copied.
    pub required_paths: Vec<String>,
    /// Unpacks sources that are archives.
    pub unpack_archives: bool,
    /// How much such an archive may ask for.
    pub limits: Limits,
    /// Replaces whatever stands at the destination, also where a directory meets a file.
    pub always_replace: bool,
    /// Modification time of everything copied, in nanoseconds since the epoch. Without it files keep theirs.
    pub timestamp: Option<i64>,
    /// The destination is a directory of the host and not of an image: others may look on or write there, too, so files
    /// get their names when they are whole, and no file gives its new owner's rights to whoever runs it.
    pub on_host: bool,
}

impl CopySpec {
    /// The spec of a plain `COPY src dest`.
    pub fn docker(src: impl Into<String>, dest: impl Into<String>) -> Self {
        Self {
            src: src.into(),
            dest: dest.into(),
            follow_symlink: true,
            dir_copy_contents: true,
            create_dest_path: true,
            allow_wildcard: true,
            allow_empty_wildcard: true,
            ..Self::default()
        }
    }
}

/// What a copy did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CopyStats {
    /// Regular files, links to them included.
    pub files: u64,
    /// Bytes of their contents.
    pub bytes: u64,
    /// Directories.
    pub directories: u64,
    /// Links, devices and pipes.
    pub others: u64,
    /// Extended attributes the destination's filesystem does not take.
    pub skipped_xattrs: u64,
    /// Whether something was put beneath the overlay that was copied into.
    pub is_beneath: bool,
}

impl std::ops::AddAssign for CopyStats {
    fn add_assign(&mut self, other: Self) {
        self.files += other.files;
        self.bytes += other.bytes;
        self.directories += other.directories;
        self.others += other.others;
        self.skipped_xattrs += other.skipped_xattrs;
        self.is_beneath |= other.is_beneath;
    }
}

/// Copies what `spec` names from `tree` into `dest`.
pub fn copy(tree: &SourceTree, dest: &Root, spec: &CopySpec) -> Result<CopyStats> {
    run::copy(tree, Target { root: dest, upper: None }, spec)
}

/// As [`copy`], into an overlay whose upper directory is known.
pub fn copy_upon(tree: &SourceTree, target: Target<'_>, spec: &CopySpec) -> Result<CopyStats> {
    run::copy(tree, target, spec)
}

/// What is copied into.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The tree.
    pub root: &'a Root,
    /// The upper directory, if the tree is an overlay. What is copied into an empty directory goes to the upper directory
    /// itself, which costs half of what it costs through the overlay. Where that was done ([`CopyStats::is_beneath`]) the
    /// overlay may not know it: mount it anew before it is looked at.
    pub upper: Option<&'a Root>,
}
