//! One entry of a tar archive.

use std::ffi::OsString;

use kiln_sys::metadata::{Device, Timestamp};

/// What an entry makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file; its content follows.
    Regular,
    /// A directory.
    Directory,
    /// A link with this target, any bytes.
    Symlink(Vec<u8>),
    /// Another name of an entry before, by that entry's path.
    Hardlink(Vec<u8>),
    /// A character device.
    CharDevice(Device),
    /// A block device.
    BlockDevice(Device),
    /// A named pipe.
    Fifo,
}

/// One entry of a tar archive, with everything its extended headers say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TarEntry {
    /// The path as the archive has it, any bytes.
    pub path: Vec<u8>,
    /// What it makes.
    pub kind: EntryKind,
    /// Permission bits, `0o7777`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of a regular file, holes included.
    pub size: u64,
    /// Modification time.
    pub mtime: Timestamp,
    /// Extended attributes, sorted by name.
    pub xattrs: Vec<(OsString, Vec<u8>)>,
    /// The stretches of data of a sparse file: offset and length.
    pub(crate) segments: Option<Vec<(u64, u64)>>,
}
