//! Unpacking: an archive becomes a tree inside a root, entry by entry, on handles only.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use kiln_sys::metadata::{Device, Metadata, Timestamp};
use kiln_sys::root::{Root, set_mode, set_times};
use kiln_sys::userns::is_machine_root;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::entry::{EntryKind, TarEntry};
use super::reader::TarReader;
use super::whiteout::{find, is_whiteout, make_opaque};
use super::{LayerError, OVERLAY_USER_XATTR, OVERLAY_XATTR, Result, WHITEOUT};
use crate::Limits;
use crate::blank::write_with_holes;
use crate::copy::file::{open_itself, with_buffer};
use crate::error::printable;
use crate::meta::{counts, set_xattrs};
use crate::record::{self, is_record};
use crate::remove::remove_at;

/// What is unpacked onto what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Target {
    /// A layer into an empty directory that becomes one layer of an overlay: deletions become marks.
    #[default]
    Layer,
    /// A layer onto the merged tree of those below it: deletions are done.
    Merged,
    /// An ordinary archive onto a tree: there are no deletions, and the directory's own look stays.
    Archive,
}

/// How an archive is unpacked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ApplyOptions {
    /// How much it may ask for.
    pub limits: Limits,
    /// What it is unpacked onto.
    pub target: Target,
    /// Owner and group of everything, whatever the archive says.
    pub owner: Option<(u32, u32)>,
    /// Whether an archive with devices is refused.
    pub refuse_devices: bool,
}

/// What unpacking did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ApplyStats {
    /// Entries of any kind.
    pub entries: u64,
    /// Regular files.
    pub files: u64,
    /// Bytes of their contents.
    pub bytes: u64,
    /// Names and directories taken away.
    pub whiteouts: u64,
    /// Attributes that are not the file's, or that the filesystem does not take.
    pub skipped_xattrs: u64,
    /// Directories the archive puts something into without describing them. They were made 0755 for root; in a layer
    /// of its own that would override what the layers below say of them.
    pub implied: Vec<Vec<u8>>,
}

/// Unpacks a layer's tar into an empty directory, in the overlay's form.
pub fn apply(tar: impl Read, dest: &Root, limits: &Limits) -> Result<ApplyStats> {
    apply_with(tar, dest, &ApplyOptions { limits: limits.clone(), ..ApplyOptions::default() })
}

/// Unpacks a tar into `dest`. Links in the archive and in the tree are followed inside `dest`, never out of it.
pub fn apply_with(tar: impl Read, dest: &Root, options: &ApplyOptions) -> Result<ApplyStats> {
    let mut reader = TarReader::new(tar, &options.limits);
    let mut apply = Apply {
        root: dest,
        options,
        stats: ApplyStats::default(),
        last_parent: None,
        directories: Vec::new(),
        gone: HashSet::new(),
        new: HashSet::new(),
    };
    while let Some(entry) = reader.next_entry()? {
        apply.stats.entries += 1;
        apply.entry(&entry, &mut reader)?;
    }
    reader.drain()?;
    apply.finish()
}

/// An archive being unpacked.
pub(super) struct Apply<'a> {
    pub(super) root: &'a Root,
    pub(super) options: &'a ApplyOptions,
    pub(super) stats: ApplyStats,
    /// The directory the entry before was in: archives come in order.
    pub(super) last_parent: Option<(Vec<u8>, Arc<OwnedFd>)>,
    /// Directories whose times are set at the end, when nothing is put into them any more.
    directories: Vec<(Vec<u8>, Timestamp)>,
    /// Names this layer takes away and also brings.
    pub(super) gone: HashSet<Vec<u8>>,
    /// Inodes this layer brought, where older ones are around.
    pub(super) new: HashSet<(u64, u64)>,
}

impl Apply<'_> {
    fn entry<R: Read>(&mut self, entry: &TarEntry, reader: &mut TarReader<R>) -> Result<()> {
        let names = self.names(&entry.path, &entry.path)?;
        self.check_xattrs(entry)?;
        let Some((&name, parents)) = names.split_last() else { return self.root_entry(entry) };
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            return self.whiteout(entry, parents, name, hidden);
        }
        let path = parents.join(&b'/');
        let parent = self.enter(&entry.path, path)?;
        let name = OsStr::from_bytes(name);
        let path = names.join(&b'/');
        match &entry.kind {
            EntryKind::Directory => return self.directory(entry, parent.as_fd(), name, path),
            EntryKind::Hardlink(target) => return self.hardlink(entry, target, parent.as_fd(), name),
            EntryKind::Regular => {
                let file = self.create(entry, parent.as_fd(), name, || {
                    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    rustix::fs::openat(&*parent, name, flags, Mode::RUSR | Mode::WUSR)
                })?;
                let file = File::from(file);
                self.content(entry, reader, &file)?;
                return self.dress(entry, file.as_fd());
            }
            EntryKind::Symlink(target) => {
                let link = || rustix::fs::symlinkat(OsStr::from_bytes(target), &*parent, name);
                self.create(entry, parent.as_fd(), name, link)?;
            }
            EntryKind::Fifo => self.node(entry, &parent, name, (FileType::Fifo, Device::default()))?,
            EntryKind::CharDevice(device) => self.node(entry, &parent, name, (FileType::CharacterDevice, *device))?,
            EntryKind::BlockDevice(device) => self.node(entry, &parent, name, (FileType::BlockDevice, *device))?,
        }
        let made = open_itself(parent.as_fd(), name).map_err(LayerError::io("open", &entry.path))?;
        self.dress(entry, made.as_fd())
    }

    /// Splits an entry's path, and refuses what no honest path holds.
    fn names<'p>(&self, entry: &[u8], path: &'p [u8]) -> Result<Vec<&'p [u8]>> {
        let names: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b".")).collect();
        if names.len() > self.options.limits.depth {
            return Err(LayerError::limit(entry, "components of a path", self.options.limits.depth as u64));
        }
        if names.contains(&&b".."[..]) {
            return Err(LayerError::invalid_name(entry, "it leads upwards"));
        }
        let directories = names.split_last().map_or(&[][..], |(_, directories)| directories);
        if directories.iter().any(|name| name.starts_with(WHITEOUT)) {
            return Err(LayerError::invalid_name(entry, "a directory cannot begin with `.wh.`"));
        }
        Ok(names)
    }

    fn check_xattrs(&self, entry: &TarEntry) -> Result<()> {
        for (name, _) in &entry.xattrs {
            let bytes = name.as_bytes();
            if bytes.starts_with(OVERLAY_XATTR) || bytes.starts_with(OVERLAY_USER_XATTR) {
                return Err(private(entry, printable(bytes)));
            }
        }
        Ok(())
    }

    /// `./` describes the root itself; nothing else can take its place.
    fn root_entry(&mut self, entry: &TarEntry) -> Result<()> {
        if entry.kind != EntryKind::Directory {
            return Err(LayerError::invalid_name(&entry.path, "the root can only be a directory"));
        }
        if self.options.target == Target::Archive {
            return Ok(());
        }
        self.directories.push((Vec::new(), entry.mtime));
        self.dress(entry, self.root.as_fd())
    }

    fn directory(&mut self, entry: &TarEntry, parent: BorrowedFd<'_>, name: &OsStr, path: Vec<u8>) -> Result<()> {
        let make = || rustix::fs::mkdirat(parent, name, Mode::RWXU);
        let mut hides = self.gone.remove(&path);
        match make() {
            Err(Errno::EXIST) => {
                let found = find(parent, name).map_err(LayerError::io("look at", &entry.path))?;
                if !found.is_some_and(|found| found.is_dir()) {
                    // What was gone and is a directory again must not show what was in it before.
                    hides |= self.is_layer() && found.is_some_and(|found| is_whiteout(&found));
                    self.clear(parent, name).and_then(|()| make()).map_err(LayerError::io("replace", &entry.path))?;
                }
            }
            made => made.map_err(LayerError::io("create the directory", &entry.path))?,
        }
        let handle = open_itself(parent, name).map_err(LayerError::io("open", &entry.path))?;
        if hides {
            make_opaque(&handle, &entry.path)?;
        }
        self.directories.push((path, entry.mtime));
        self.dress(entry, handle.as_fd())
    }

    fn hardlink(&mut self, entry: &TarEntry, target: &[u8], parent: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        let names = self.names(&entry.path, target)?;
        let missing = || LayerError::HardlinkTargetMissing { entry: printable(&entry.path), target: printable(target) };
        let (target_name, parents) = names.split_last().ok_or_else(missing)?;
        let target_name = OsStr::from_bytes(target_name);
        let directory = self.open_directory(&parents.join(&b'/')).map_err(|_| missing())?;
        let found = find(directory.as_fd(), target_name).map_err(LayerError::io("look at", target))?;
        let found = found.filter(|found| !is_whiteout(found)).ok_or_else(missing)?;
        if found.is_dir() {
            return Err(LayerError::invalid_name(&entry.path, "a directory cannot have a hard link"));
        }
        let there = find(parent, name).map_err(LayerError::io("look at", &entry.path))?;
        if there.is_some_and(|there| there.is_same_file(&found)) {
            return Ok(());
        }
        // What is there may hold the target: it is found before, and looked for again after.
        let link = || rustix::fs::linkat(&directory, target_name, parent, name, AtFlags::empty());
        match self.create(entry, parent, name, link) {
            Err(LayerError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Err(missing()),
            made => made,
        }
    }

    fn node(&mut self, entry: &TarEntry, parent: &OwnedFd, name: &OsStr, what: (FileType, Device)) -> Result<()> {
        let (kind, device) = what;
        if self.options.refuse_devices && kind != FileType::Fifo {
            return Err(LayerError::Refused { entry: printable(&entry.path), what: "a device" });
        }
        if kind == FileType::CharacterDevice && device == Device::default() {
            return Err(private(entry, "a character device 0:0".to_owned()));
        }
        let device = rustix::fs::makedev(device.major, device.minor);
        let make = || match rustix::fs::mknodat(parent, name, kind, Mode::RUSR | Mode::WUSR, device) {
            Err(Errno::PERM) if kind != FileType::Fifo && !is_machine_root() => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR).map(Some)
            }
            made => made.map(|()| None),
        };
        match self.create(entry, parent.as_fd(), name, make)? {
            Some(instead) => {
                record::note_device(instead, &entry.kind).map_err(LayerError::io("note the device", &entry.path))
            }
            None => Ok(()),
        }
    }

    /// Makes something that is no directory, taking away what has its name.
    fn create<T>(
        &mut self,
        entry: &TarEntry,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        mut make: impl FnMut() -> Result<T, Errno>,
    ) -> Result<T> {
        match make() {
            Err(Errno::EXIST) => {}
            made => return made.map_err(LayerError::io("create", &entry.path)),
        }
        self.clear(parent, name).map_err(LayerError::io("replace", &entry.path))?;
        make().map_err(LayerError::io("create", &entry.path))
    }

    /// Takes away what has a name. Directories that were entered before may have been in it.
    pub(super) fn clear(&mut self, parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
        self.last_parent = None;
        remove_at(parent, name)
    }

    fn content<R: Read>(&mut self, entry: &TarEntry, reader: &mut TarReader<R>, mut file: &File) -> Result<()> {
        let limit = self.options.limits.bytes;
        let whole = [(0, entry.size)];
        let segments = entry.segments.as_deref().unwrap_or(&whole);
        let failed = |error| LayerError::io::<std::io::Error>("write", &entry.path)(error);
        let mut has_holes = entry.segments.is_some();
        for &(offset, length) in segments {
            self.stats.bytes += length;
            if self.stats.bytes > limit {
                return Err(LayerError::limit(&entry.path, "bytes of content", limit));
            }
            if entry.segments.is_some() {
                file.seek(SeekFrom::Start(offset)).map_err(failed)?;
            }
            let mut left = length;
            with_buffer(|buffer| {
                while left > 0 {
                    let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    let read = reader.read_data(&mut buffer[..wanted])?;
                    has_holes |= write_with_holes(file, &buffer[..read]).map_err(failed)?;
                    left -= read as u64;
                }
                Ok(())
            })?;
        }
        if has_holes {
            file.set_len(entry.size).map_err(failed)?;
        }
        self.stats.files += 1;
        Ok(())
    }

    /// Gives what was made its look: the owner first, since a new owner takes away setuid and capabilities.
    fn dress(&mut self, entry: &TarEntry, handle: BorrowedFd<'_>) -> Result<()> {
        let own: Vec<_> = entry.xattrs.iter().filter(|(name, _)| counts(name) && !is_record(name)).cloned().collect();
        let mut skipped = entry.xattrs.len() - own.len();
        let mut dress = || -> std::io::Result<()> {
            let (uid, gid) = self.options.owner.unwrap_or((entry.uid, entry.gid));
            record::give(handle, uid, gid)?;
            if !matches!(entry.kind, EntryKind::Symlink(_)) {
                set_mode(handle, entry.mode)?;
            }
            skipped += set_xattrs(handle, &own)?;
            if entry.kind != EntryKind::Directory {
                set_times(handle, entry.mtime)?;
            }
            Ok(())
        };
        dress().map_err(LayerError::io("set the attributes of", &entry.path))?;
        self.stats.skipped_xattrs += skipped as u64;
        self.mark_new(&entry.path, handle)
    }

    pub(super) fn is_layer(&self) -> bool {
        self.options.target == Target::Layer
    }

    pub(super) fn mark_new(&mut self, path: &[u8], handle: BorrowedFd<'_>) -> Result<()> {
        if self.options.target == Target::Merged {
            let metadata = Metadata::of(handle).map_err(LayerError::io("look at", path))?;
            self.new.insert((metadata.dev, metadata.ino));
        }
        Ok(())
    }

    fn finish(mut self) -> Result<ApplyStats> {
        for (path, mtime) in self.directories.iter().rev() {
            let Ok(handle) = self.root.open_nofollow(OsStr::from_bytes(path)) else { continue };
            // Something else may have taken its place later in the archive.
            let metadata = Metadata::of(&handle).map_err(LayerError::io("look at", path))?;
            if metadata.is_dir() {
                set_times(&handle, *mtime).map_err(LayerError::io("set the times of", path))?;
            }
        }
        // A directory may be put into first and described later.
        let described: HashSet<&Vec<u8>> = self.directories.iter().map(|(path, _)| path).collect();
        self.stats.implied.retain(|path| !described.contains(path));
        Ok(self.stats)
    }
}

fn private(entry: &TarEntry, what: String) -> LayerError {
    LayerError::OverlayPrivate { entry: printable(&entry.path), what }
}
