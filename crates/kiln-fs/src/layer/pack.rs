//! Packing a directory into a tar: equal trees, equal bytes.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::ops::AddAssign;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use kiln_sys::metadata::{FileKind, Metadata, Timestamp};
use kiln_sys::passing;
use kiln_sys::root::{DirEntry, Root, read_dir_fd};
use kiln_sys::xattr;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::ahead::{Ahead, NAMES, Reading, Small, look_at};
use super::entry::{EntryKind, TarEntry};
use super::header::{write_header, write_padding, write_trailer};
use super::live::{Out, Rewind, is_gone};
use super::whiteout::{is_opacity, is_whiteout};
use super::{LayerError, OPAQUE, Result, Times, WHITEOUT};
use crate::copy::file::{open_itself, with_buffer};
use crate::error::printable;
use crate::meta::{Xattr, counts};
use crate::record;
use crate::tree::{StatKey, join, open_beneath};

/// Directories above the current one that are kept open; those further up are opened again on the way back.
const KEPT_OPEN: usize = 32;

/// Files of this size are read ahead of being packed, and the kernel need not keep them.
const LARGE: u64 = 64 << 20;

/// How a tree is packed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PackOptions {
    /// Takes the overlay's marks for deletions. Without it they are what they look like.
    pub whiteouts: bool,
    /// What becomes of modification times.
    pub times: Times,
    /// A directory of the archive that all is put into; none when empty.
    pub below: Vec<u8>,
}

/// What packing did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PackStats {
    /// Entries written, deletions included.
    pub entries: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Bytes of files among them: what unpacking counts.
    pub content: u64,
    /// Sockets, which no archive can hold.
    pub skipped_sockets: u64,
    /// What [`pack_live`] left out.
    pub left_out: u64,
}

impl AddAssign for PackStats {
    fn add_assign(&mut self, more: Self) {
        self.entries += more.entries;
        self.bytes += more.bytes;
        self.content += more.content;
        self.skipped_sockets += more.skipped_sockets;
        self.left_out += more.left_out;
    }
}

/// Packs the upper directory of an overlay as an OCI layer.
pub fn pack(upper: &Root, out: &mut dyn Write) -> Result<PackStats> {
    pack_with(upper, out, &PackOptions { whiteouts: true, ..PackOptions::default() })
}

/// Packs a whole tree as it stands.
pub fn pack_tree(root: &Root, out: &mut dyn Write) -> Result<PackStats> {
    pack_with(root, out, &PackOptions::default())
}

/// Packs whole trees as they stand into one archive, each in a directory of this name.
pub fn pack_trees(trees: &[(String, Root)], times: Times, out: &mut dyn Write) -> Result<PackStats> {
    let mut stats = PackStats::default();
    for (name, root) in trees {
        let options = PackOptions { below: name.clone().into_bytes(), times, ..PackOptions::default() };
        stats += pack_entries(root, Out::Strict(&mut *out), &options)?;
    }
    stats.bytes += write_trailer(out).map_err(|source| LayerError::Write { source })?;
    Ok(stats)
}

/// Packs a tree: directories before what is in them, siblings sorted by the bytes of their names.
pub fn pack_with(root: &Root, out: &mut dyn Write, options: &PackOptions) -> Result<PackStats> {
    pack_into(root, Out::Strict(out), options)
}

/// Packs a tree that others may be writing to. What changes while it is read is read again, and left out when it
/// does not come to rest; so are devices, and names that [`apply_with`](super::apply_with) would refuse.
pub fn pack_live(root: &Root, out: &mut dyn Rewind) -> Result<PackStats> {
    pack_into(root, Out::Live(out), &PackOptions::default())
}

fn pack_into(root: &Root, mut out: Out<'_>, options: &PackOptions) -> Result<PackStats> {
    let mut stats = pack_entries(root, out.reborrow(), options)?;
    stats.bytes += write_trailer(out.writer()).map_err(|source| LayerError::Write { source })?;
    Ok(stats)
}

/// Packs a tree without ending the archive.
fn pack_entries<'a>(root: &'a Root, out: Out<'a>, options: &'a PackOptions) -> Result<PackStats> {
    let mut pack = Pack { root, out, options, stats: PackStats::default(), links: HashMap::new(), stack: Vec::new() };
    let top = pack.open_directory(b"")?;
    if !options.below.is_empty() {
        let metadata = Metadata::of(&top).map_err(LayerError::io("look at", b""))?;
        let xattrs = pack.xattrs(&top, b"")?.0;
        pack.write(&pack.entry(b"", EntryKind::Directory, &metadata, xattrs))?;
    }
    pack.descend(top, Vec::new())?;
    while let Some(frame) = pack.stack.last_mut() {
        match frame.ahead.next() {
            Some(name) => pack.name(name)?,
            None if frame.names.len() > 0 => pack.look_ahead()?,
            None => drop(pack.stack.pop()),
        }
    }
    Ok(pack.stats)
}

pub(super) struct Pack<'a> {
    root: &'a Root,
    pub(super) out: Out<'a>,
    options: &'a PackOptions,
    pub(super) stats: PackStats,
    /// Where files with several names were packed first.
    pub(super) links: HashMap<(u64, u64), Vec<u8>>,
    stack: Vec<Frame>,
}

/// A directory being packed, and what of it is left.
struct Frame {
    handle: Option<OwnedFd>,
    path: Vec<u8>,
    /// As they are in the archive, and in their order there.
    names: std::vec::IntoIter<OsString>,
    /// Those whose turn is next.
    ahead: std::vec::IntoIter<Ahead>,
}

impl Pack<'_> {
    fn open_directory(&self, path: &[u8]) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        open_beneath(self.root, path, flags).map_err(LayerError::io("open", path))
    }

    fn descend(&mut self, handle: OwnedFd, path: Vec<u8>) -> Result<()> {
        let entries = read_dir_fd(&handle).map_err(LayerError::io("list", &path))?;
        let mut names = Vec::with_capacity(entries.len());
        for entry in entries {
            if self.out.is_live() && entry.name.as_bytes().starts_with(WHITEOUT) {
                self.stats.left_out += 1;
                continue;
            }
            names.push(self.packed_name((&handle, &path), entry)?);
        }
        names.sort_unstable();
        if let Some(above) = self.stack.len().checked_sub(KEPT_OPEN) {
            self.stack[above].handle = None;
        }
        self.stack.push(Frame { handle: Some(handle), path, names: names.into_iter(), ahead: Vec::new().into_iter() });
        Ok(())
    }

    /// The name a file has in the archive.
    fn packed_name(&self, (directory, path): (&OwnedFd, &[u8]), entry: DirEntry) -> Result<OsString> {
        let DirEntry { name, kind } = entry;
        if !self.options.whiteouts {
            return Ok(name);
        }
        if name.as_bytes().starts_with(WHITEOUT) {
            return Err(LayerError::ReservedName { path: printable(&join(path, name.as_bytes())) });
        }
        if !matches!(kind, FileKind::CharDevice | FileKind::Socket) {
            return Ok(name);
        }
        let stat = rustix::fs::statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW);
        let stat = stat.map_err(LayerError::io("look at", &join(path, name.as_bytes())))?;
        let is_deletion = is_whiteout(&Metadata::from(&stat));
        Ok(if is_deletion { OsString::from_vec([WHITEOUT, name.as_bytes()].concat()) } else { name })
    }

    /// The name on disk of what has this name in the archive.
    fn own_name(&self, packed: OsString) -> OsString {
        match packed.as_bytes().strip_prefix(WHITEOUT) {
            Some(name) if self.options.whiteouts => OsStr::from_bytes(name).to_owned(),
            _ => packed,
        }
    }

    /// Looks at the names whose turn is next.
    fn look_ahead(&mut self) -> Result<()> {
        let Some(directory) = self.take_handle()? else { return Ok(()) };
        let Some(mut frame) = self.stack.pop() else { return Ok(()) };
        let names: Vec<OsString> = frame.names.by_ref().take(NAMES).map(|name| self.own_name(name)).collect();
        let reading =
            if self.out.is_live() { Reading::Later } else { Reading::Now { whiteouts: self.options.whiteouts } };
        let mut ahead = Vec::with_capacity(names.len());
        for (looked, name) in look_at(&directory, &frame.path, names, reading) {
            match looked {
                Ok((metadata, small)) => ahead.push(Ahead { name, metadata, small }),
                Err(Errno::NOENT) if self.out.is_live() => self.stats.left_out += 1,
                Err(errno) => return Err(LayerError::io("look at", &join(&frame.path, name.as_bytes()))(errno)),
            }
        }
        self.stack.push(Frame { handle: Some(directory), ahead: ahead.into_iter(), ..frame });
        Ok(())
    }

    /// The handle of the directory being packed. Nothing if it is gone, and may be: then it is left.
    fn take_handle(&mut self) -> Result<Option<OwnedFd>> {
        let Some(frame) = self.stack.last_mut() else { return Ok(None) };
        if let Some(handle) = frame.handle.take() {
            return Ok(Some(handle));
        }
        let path = frame.path.clone();
        match self.open_directory(&path) {
            Err(error) if self.out.is_live() && is_gone(&error) => {
                self.stack.pop();
                Ok(None)
            }
            opened => opened.map(Some),
        }
    }

    fn name(&mut self, Ahead { name, metadata, small }: Ahead) -> Result<()> {
        let Some(frame) = self.stack.last() else { return Ok(()) };
        let path = join(&frame.path, name.as_bytes());
        if let Some(small) = small {
            return self.small(small?, &metadata, &path);
        }
        let Some(directory) = self.take_handle()? else { return Ok(()) };
        let deeper = self.file(&directory, &name, &metadata, &path);
        if let Some(frame) = self.stack.last_mut() {
            frame.handle = Some(directory);
        }
        match deeper {
            Ok(Some(directory)) => self.descend(directory, path),
            Err(error) if !(self.out.is_live() && is_gone(&error)) => Err(error),
            Ok(None) => Ok(()),
            Err(_gone) => {
                self.stats.left_out += 1;
                Ok(())
            }
        }
    }

    /// Packs one file; gives back the handle of a directory, to go on in.
    fn file(&mut self, from: &OwnedFd, name: &OsStr, metadata: &Metadata, path: &[u8]) -> Result<Option<OwnedFd>> {
        if self.options.whiteouts && is_whiteout(metadata) {
            let directory = path.len() - name.len();
            self.deletion([&path[..directory], WHITEOUT, name.as_bytes()].concat())?;
            return Ok(None);
        }
        let kind = match metadata.kind {
            FileKind::Regular => return self.regular(from, name, metadata, path).map(|()| None),
            FileKind::Directory => return self.directory(from, name, metadata, path).map(Some),
            FileKind::Socket => {
                self.stats.skipped_sockets += 1;
                return Ok(None);
            }
            FileKind::Symlink => {
                let target =
                    rustix::fs::readlinkat(from, name, Vec::new()).map_err(LayerError::io("read the link", path))?;
                EntryKind::Symlink(target.into_bytes())
            }
            FileKind::CharDevice | FileKind::BlockDevice if self.out.is_live() => {
                self.stats.left_out += 1;
                return Ok(None);
            }
            FileKind::CharDevice => EntryKind::CharDevice(metadata.rdev),
            FileKind::BlockDevice => EntryKind::BlockDevice(metadata.rdev),
            FileKind::Fifo => EntryKind::Fifo,
        };
        if let Some(first) = self.first_name(metadata, path) {
            return self.hardlink(metadata, path, first).map(|()| None);
        }
        let handle = open_itself(from.as_fd(), name).map_err(LayerError::io("open", path))?;
        let xattrs = self.xattrs(&handle, path)?.0;
        self.write(&self.entry(path, kind, metadata, xattrs))?;
        Ok(None)
    }

    fn directory(&mut self, from: &OwnedFd, name: &OsStr, metadata: &Metadata, path: &[u8]) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle = rustix::fs::openat(from, name, flags, Mode::empty()).map_err(LayerError::io("open", path))?;
        let (xattrs, is_opaque) = self.xattrs(&handle, path)?;
        self.write(&self.entry(path, EntryKind::Directory, metadata, xattrs))?;
        if is_opaque {
            self.deletion(join(path, OPAQUE))?;
        }
        Ok(handle)
    }

    fn regular(&mut self, from: &OwnedFd, name: &OsStr, metadata: &Metadata, path: &[u8]) -> Result<()> {
        if let Some(first) = self.first_name(metadata, path) {
            return self.hardlink(metadata, path, first);
        }
        if self.out.is_live() {
            return self.restless(from, name, metadata, path);
        }
        self.content(from, name, metadata, path)
    }

    pub(super) fn content(&mut self, from: &OwnedFd, name: &OsStr, metadata: &Metadata, path: &[u8]) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let handle = rustix::fs::openat(from, name, flags, Mode::empty()).map_err(LayerError::io("open", path))?;
        let xattrs = self.xattrs(&handle, path)?.0;
        self.write(&self.entry(path, EntryKind::Regular, metadata, xattrs))?;
        let changed = || LayerError::ChangedWhileRead { path: printable(path) };
        let file = File::from(handle);
        let read = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => changed(),
            _ => LayerError::io("read", path)(error),
        };
        let mut write = |bytes: std::io::Result<&[u8]>| {
            self.out.writer().write_all(bytes.map_err(read)?).map_err(|source| LayerError::Write { source })
        };
        if metadata.size >= LARGE {
            let file = file.try_clone().map_err(LayerError::io("open", path))?;
            passing::chunks(file, metadata.size, write)?;
        } else {
            with_buffer(|buffer| {
                let mut left = metadata.size;
                while left > 0 {
                    let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    let part = &mut buffer[..wanted];
                    write((&file).read_exact(part).map(|()| &*part))?;
                    left -= wanted as u64;
                }
                Ok(())
            })?;
        }
        let now = Metadata::of(&file).map_err(LayerError::io("look at", path))?;
        if StatKey::of(&now) != StatKey::of(metadata) {
            return Err(changed());
        }
        self.stats.content += metadata.size;
        self.stats.bytes += metadata.size;
        self.stats.bytes +=
            write_padding(self.out.writer(), metadata.size).map_err(|source| LayerError::Write { source })?;
        Ok(())
    }

    /// Packs a file that was read ahead.
    fn small(&mut self, Small { xattrs, content }: Small, metadata: &Metadata, path: &[u8]) -> Result<()> {
        self.write(&self.entry(path, EntryKind::Regular, metadata, xattrs))?;
        let out = self.out.writer();
        let written = out.write_all(&content).and_then(|()| write_padding(out, metadata.size));
        self.stats.content += metadata.size;
        self.stats.bytes += metadata.size + written.map_err(|source| LayerError::Write { source })?;
        Ok(())
    }

    /// The first name of a file that has several, if this is not it.
    fn first_name(&mut self, metadata: &Metadata, path: &[u8]) -> Option<Vec<u8>> {
        if metadata.nlink < 2 {
            return None;
        }
        let key = (metadata.dev, metadata.ino);
        if let Some(first) = self.links.get(&key) {
            return Some(first.clone());
        }
        self.links.insert(key, path.to_vec());
        None
    }

    fn hardlink(&mut self, metadata: &Metadata, path: &[u8], first: Vec<u8>) -> Result<()> {
        self.write(&self.entry(path, EntryKind::Hardlink(self.placed(&first)), metadata, Vec::new()))
    }

    /// Says that something is gone. No clock and no owner: the same deletion has the same bytes.
    fn deletion(&mut self, path: Vec<u8>) -> Result<()> {
        let kind = EntryKind::Regular;
        let (mtime, xattrs) = (Timestamp::default(), Vec::new());
        self.write(&TarEntry { path, kind, mode: 0, uid: 0, gid: 0, size: 0, mtime, xattrs, segments: None })
    }

    fn entry(&self, path: &[u8], kind: EntryKind, metadata: &Metadata, xattrs: Vec<Xattr>) -> TarEntry {
        let mut entry = TarEntry {
            path: self.placed(path),
            kind,
            mode: metadata.mode,
            uid: metadata.uid,
            gid: metadata.gid,
            size: metadata.size,
            mtime: self.options.times.of(metadata.mtime),
            xattrs,
            segments: None,
        };
        record::apply(&mut entry);
        entry
    }

    /// A path in the archive.
    fn placed(&self, path: &[u8]) -> Vec<u8> {
        match self.options.below.as_slice() {
            [] => path.to_vec(),
            below if path.is_empty() => below.to_vec(),
            below => join(below, path),
        }
    }

    fn write(&mut self, entry: &TarEntry) -> Result<()> {
        self.stats.entries += 1;
        self.stats.bytes += write_header(self.out.writer(), entry).map_err(|source| LayerError::Write { source })?;
        Ok(())
    }

    fn xattrs(&self, handle: &OwnedFd, path: &[u8]) -> Result<(Vec<Xattr>, bool)> {
        attributes(handle, path, self.options.whiteouts)
    }
}

/// The attributes that count, and whether the overlay's own say that a directory is opaque.
pub(super) fn attributes(handle: &OwnedFd, path: &[u8], whiteouts: bool) -> Result<(Vec<Xattr>, bool)> {
    let failed = |error| LayerError::io::<kiln_sys::Error>("read the attributes of", path)(error);
    let mut found = Vec::new();
    let mut is_opaque = false;
    for name in xattr::list(handle).map_err(failed)? {
        let is_steering =
            whiteouts && matches!(name.as_bytes(), b"trusted.overlay.redirect" | b"trusted.overlay.metacopy");
        if is_steering {
            // The content is in another layer: what is here is not the file.
            return Err(LayerError::OverlayPrivate { entry: printable(path), what: printable(name.as_bytes()) });
        }
        let is_opacity = whiteouts && is_opacity(&name);
        if !is_opacity && !counts(&name) {
            continue;
        }
        let Some(value) = xattr::get(handle, &name).map_err(failed)? else { continue };
        if is_opacity {
            is_opaque = value == b"y";
        } else {
            found.push((name, value));
        }
    }
    Ok((found, is_opaque))
}
