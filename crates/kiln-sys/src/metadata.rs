//! What the kernel knows about a file, in our own words.

use std::os::fd::AsFd;

use rustix::fs::{FileType, Stat, Timespec};

use crate::{Error, Result};

/// The kind of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

impl FileKind {
    /// Reads the kind out of `st_mode`.
    pub fn from_raw_mode(mode: u32) -> Self {
        match FileType::from_raw_mode(mode) {
            FileType::Directory => FileKind::Directory,
            FileType::Symlink => FileKind::Symlink,
            FileType::CharacterDevice => FileKind::CharDevice,
            FileType::BlockDevice => FileKind::BlockDevice,
            FileType::Fifo => FileKind::Fifo,
            FileType::Socket => FileKind::Socket,
            FileType::RegularFile | FileType::Unknown => FileKind::Regular,
        }
    }
}

/// A point in time as the kernel keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Timestamp {
    /// Seconds since the epoch; negative before it.
    pub secs: i64,
    /// Nanoseconds within the second.
    pub nanos: u32,
}

impl From<Timestamp> for Timespec {
    fn from(time: Timestamp) -> Self {
        Timespec { tv_sec: time.secs, tv_nsec: time.nanos.into() }
    }
}

/// A device number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Device {
    /// The driver.
    pub major: u32,
    /// The driver's instance.
    pub minor: u32,
}

/// What `stat` says of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// Regular file, directory, …
    pub kind: FileKind,
    /// Permission bits with setuid, setgid and sticky (`0o7777`).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of a regular file, length of a link's target.
    pub size: u64,
    /// 512-byte blocks that are allocated.
    pub blocks: u64,
    /// Number of names.
    pub nlink: u64,
    /// Number of the filesystem the file is on.
    pub dev: u64,
    /// Number of the inode in it.
    pub ino: u64,
    /// The device a device node stands for, else 0:0.
    pub rdev: Device,
    /// Last change of the content.
    pub mtime: Timestamp,
    /// Last change of the content or the attributes.
    pub ctime: Timestamp,
}

impl Metadata {
    /// Asks an open file (`O_PATH` will do).
    pub fn of(fd: impl AsFd) -> Result<Self> {
        rustix::fs::fstat(fd).map(|stat| Self::from(&stat)).map_err(|e| Error::call("stat an open file", e))
    }

    /// Tells whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == FileKind::Directory
    }

    /// Tells whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.kind == FileKind::Regular
    }

    /// Tells whether it is a symbolic link.
    pub fn is_symlink(&self) -> bool {
        self.kind == FileKind::Symlink
    }

    /// Tells whether both describe the same inode.
    pub fn is_same_file(&self, other: &Metadata) -> bool {
        self.dev == other.dev && self.ino == other.ino && self.kind == other.kind
    }
}

#[allow(clippy::useless_conversion, reason = "the number of names has 32 bits on some architectures")]
impl From<&Stat> for Metadata {
    fn from(stat: &Stat) -> Self {
        Metadata {
            kind: FileKind::from_raw_mode(stat.st_mode),
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            blocks: u64::try_from(stat.st_blocks).unwrap_or(0),
            nlink: u64::from(stat.st_nlink),
            dev: stat.st_dev,
            ino: stat.st_ino,
            rdev: Device { major: rustix::fs::major(stat.st_rdev), minor: rustix::fs::minor(stat.st_rdev) },
            mtime: time(stat.st_mtime, stat.st_mtime_nsec),
            ctime: time(stat.st_ctime, stat.st_ctime_nsec),
        }
    }
}

fn time(secs: i64, nanos: impl TryInto<u32>) -> Timestamp {
    Timestamp { secs, nanos: nanos.try_into().unwrap_or(0) }
}
