//! The digest of what a copy would read: equal trees, equal digests, on every machine.
//!
//! A node counts with its name, kind, mode, owner, attributes and content, a directory with its children in the order
//! of their names. Modification times, inode numbers and which names are hard links of each other do not count.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kiln_oci::{Digest, Hasher};
use kiln_sys::metadata::{FileKind, Metadata};
use rayon::prelude::*;
use rustix::fs::OFlags;

use crate::copy::sources::{Source, sources};
use crate::copy::{CopySpec, file};
use crate::error::{Error, Result, printable};
use crate::meta::{Xattr, xattrs};
use crate::tree::{Listing, Located, Selection, SourceTree, StatCache, StatKey, open_beneath};

/// Goes first into every digest, and changes when their definition does.
const DEFINITION: &[u8] = b"kiln tree 1";

/// How long ago a file must have changed before its state can be told from the next by its times.
const SETTLED: Duration = Duration::from_millis(50);

/// Digests what [`crate::copy::copy`] would read for `spec`.
///
/// The owner and attributes of a directory whose contents alone are copied do not count.
pub fn digest_copy(tree: &SourceTree, spec: &CopySpec, cache: &dyn StatCache) -> Result<Digest> {
    digest_sources(&Nodes { tree, cache, listed: None }, spec)
}

/// As [`digest_copy`], and lists what it read.
pub fn list_copy(tree: &SourceTree, spec: &CopySpec, cache: &dyn StatCache) -> Result<(Digest, Prints)> {
    let nodes = Nodes { tree, cache, listed: Some(Mutex::default()) };
    let digest = digest_sources(&nodes, spec)?;
    Ok((digest, nodes.prints()))
}

/// What of each file counts, by path from the root of the tree. Two files that differ have different numbers but for one
/// time in 2⁶⁴: enough to say what has changed, not to decide whether.
pub type Prints = BTreeMap<String, u64>;

fn digest_sources(nodes: &Nodes<'_>, spec: &CopySpec) -> Result<Digest> {
    let mut hasher = Hasher::new();
    hasher.field(DEFINITION);
    for source in sources(nodes.tree, spec)? {
        let digest = nodes.source(&source, spec.dir_copy_contents)?;
        hasher.field(source.name());
        hasher.field(digest.as_str().as_bytes());
    }
    Ok(hasher.finish())
}

/// Digests the file or directory at `subpath`, links followed, as a bind mount shows it.
///
/// Mode and owner of a context's own directory do not count: they differ from checkout to checkout.
pub fn digest_tree(tree: &SourceTree, subpath: &str, cache: &dyn StatCache) -> Result<Digest> {
    digest_source(&Nodes { tree, cache, listed: None }, subpath)
}

/// As [`digest_tree`], and lists what it read.
pub fn list_tree(tree: &SourceTree, subpath: &str, cache: &dyn StatCache) -> Result<(Digest, Prints)> {
    let nodes = Nodes { tree, cache, listed: Some(Mutex::default()) };
    let digest = digest_source(&nodes, subpath)?;
    Ok((digest, nodes.prints()))
}

fn digest_source(nodes: &Nodes<'_>, subpath: &str) -> Result<Digest> {
    let tree = nodes.tree;
    let source = Source::find(tree, subpath.as_bytes(), &Selection::default())?;
    let is_context = source.located.path.is_empty() && tree.ownership == crate::Ownership::Reset;
    let mut hasher = Hasher::new();
    hasher.field(DEFINITION);
    hasher.field(nodes.source(&source, is_context)?.as_str().as_bytes());
    Ok(hasher.finish())
}

struct Nodes<'a> {
    tree: &'a SourceTree,
    cache: &'a dyn StatCache,
    /// What was read, when it is to be listed.
    listed: Option<Mutex<Prints>>,
}

impl Nodes<'_> {
    fn source(&self, source: &Source, contents_only: bool) -> Result<Digest> {
        let Some(listing) = &source.listing else {
            let digest = self.leaf(&source.located)?;
            self.note(std::iter::once((source.located.path.as_slice(), &digest)));
            return Ok(digest);
        };
        self.directory(listing, contents_only)
    }

    fn note<'d>(&self, files: impl Iterator<Item = (&'d [u8], &'d Digest)>) {
        let Some(listed) = &self.listed else { return };
        let print = |digest: &Digest| u64::from_str_radix(&digest.hex()[..16], 16).expect("a digest is of hex digits");
        let mut listed = listed.lock().unwrap_or_else(PoisonError::into_inner);
        listed.extend(files.map(|(path, digest)| (printable(path), print(digest))));
    }

    fn prints(self) -> Prints {
        self.listed.map(|listed| listed.into_inner().unwrap_or_else(PoisonError::into_inner)).unwrap_or_default()
    }

    /// Digests leaves in parallel, then joins them upwards: children stand behind their parents in a listing.
    fn directory(&self, listing: &Listing, contents_only: bool) -> Result<Digest> {
        let count = listing.entries.len();
        let leaf = |index: usize| -> Result<Option<Digest>> {
            let entry = &listing.entries[index];
            if !entry.is_needed || entry.metadata.is_dir() {
                return Ok(None);
            }
            self.leaf(&Located { path: listing.path(index), metadata: entry.metadata }).map(Some)
        };
        let mut nodes = (0..count).into_par_iter().with_min_len(64).map(leaf).collect::<Result<Vec<_>>>()?;
        if self.listed.is_some() {
            let paths: Vec<Vec<u8>> = (0..count).map(|index| listing.path(index)).collect();
            self.note(paths.iter().zip(&nodes).filter_map(|(path, node)| Some((path.as_slice(), node.as_ref()?))));
        }
        for index in (0..count).rev() {
            let entry = &listing.entries[index];
            if !entry.metadata.is_dir() || !(entry.is_needed || index == 0) {
                continue;
            }
            let mut hasher =
                if index == 0 && contents_only { Hasher::new() } else { self.header(&entry.metadata, &entry.xattrs) };
            for (child, entry) in listing.needed(index) {
                let digest = nodes[child].as_ref().expect("children are digested before their parents");
                hasher.field(entry.name.as_bytes());
                hasher.field(digest.as_str().as_bytes());
            }
            nodes[index] = Some(hasher.finish());
        }
        Ok(nodes.swap_remove(0).expect("the listed directory is digested last"))
    }

    /// What counts of every kind of file.
    fn header(&self, metadata: &Metadata, attributes: &[Xattr]) -> Hasher {
        let kind: u8 = match metadata.kind {
            FileKind::Regular => b'f',
            FileKind::Directory => b'd',
            FileKind::Symlink => b'l',
            FileKind::CharDevice => b'c',
            FileKind::BlockDevice => b'b',
            FileKind::Fifo => b'p',
            FileKind::Socket => b's',
        };
        let (uid, gid) = self.tree.owner(metadata);
        // The permission bits of a link mean nothing and differ between filesystems.
        let mode = if metadata.is_symlink() { 0o777 } else { metadata.mode };
        let mut hasher = Hasher::new();
        hasher.update(&[kind]);
        for number in [mode, uid, gid, metadata.rdev.major, metadata.rdev.minor] {
            hasher.update(&number.to_le_bytes());
        }
        attribute_fields(&mut hasher, attributes);
        hasher
    }

    fn leaf(&self, located: &Located) -> Result<Digest> {
        let Located { path, metadata } = located;
        if metadata.is_file() {
            // The digest of the content covers the attributes: a cached one makes reading them needless.
            let mut hasher = self.header(metadata, &[]);
            hasher.update(&metadata.size.to_le_bytes());
            hasher.field(self.content(path, metadata)?.as_str().as_bytes());
            return Ok(hasher.finish());
        }
        let handle = self.open_state(path, metadata, OFlags::PATH)?;
        let attributes = xattrs(&handle).map_err(Error::io("read the attributes of", path))?;
        let mut hasher = self.header(metadata, &attributes);
        if metadata.is_symlink() {
            let target = rustix::fs::readlinkat(&handle, "", Vec::new()).map_err(Error::io("read the link", path))?;
            hasher.field(target.as_bytes());
        }
        Ok(hasher.finish())
    }

    /// The digest of a file's attributes and bytes, from memory if the file has not changed since.
    fn content(&self, path: &[u8], metadata: &Metadata) -> Result<Digest> {
        let key = StatKey::of(metadata);
        if let Some(digest) = self.cache.get(&key) {
            return Ok(digest);
        }
        // Asked before it is read: a long read must not make a fresh change look old.
        let is_settled = is_settled(metadata);
        let handle = self.open_state(path, metadata, OFlags::RDONLY | OFlags::NONBLOCK)?;
        let mut hasher = Hasher::new();
        let attributes = xattrs(&handle).map_err(Error::io("read the attributes of", path))?;
        attribute_fields(&mut hasher, &attributes);
        let mut file = std::fs::File::from(handle);
        file::with_buffer(|buffer| -> std::io::Result<()> {
            loop {
                match file.read(buffer) {
                    Ok(0) => return Ok(()),
                    Ok(read) => hasher.update(&buffer[..read]),
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
        })
        .map_err(Error::io("read", path))?;
        check_state(&file, path, metadata)?;
        let digest = hasher.finish();
        // A file changed this very moment may change again without its times showing it.
        if is_settled {
            self.cache.put(&key, digest.clone());
        }
        Ok(digest)
    }

    /// Opens a file and makes sure that it is in the state it was listed in.
    fn open_state(&self, path: &[u8], metadata: &Metadata, flags: OFlags) -> Result<OwnedFd> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle = open_beneath(&self.tree.root, path, flags).map_err(Error::io("open", path))?;
        check_state(&handle, path, metadata)?;
        Ok(handle)
    }
}

/// Refuses a file that is not in the state it was in when it was listed.
pub(crate) fn check_state(handle: impl AsFd, path: &[u8], metadata: &Metadata) -> Result<()> {
    let now = Metadata::of(handle).map_err(Error::io("look at", path))?;
    if StatKey::of(&now) == StatKey::of(metadata) && now.kind == metadata.kind {
        return Ok(());
    }
    Err(Error::ChangedWhileRead { path: printable(path) })
}

fn attribute_fields(hasher: &mut Hasher, attributes: &[Xattr]) {
    hasher.update(&(attributes.len() as u64).to_le_bytes());
    for (name, value) in attributes {
        hasher.field(name.as_bytes());
        hasher.field(value);
    }
}

fn is_settled(metadata: &Metadata) -> bool {
    let changed = Duration::new(u64::try_from(metadata.ctime.secs).unwrap_or(0), metadata.ctime.nanos);
    SystemTime::now().duration_since(UNIX_EPOCH).is_ok_and(|now| now > changed + SETTLED)
}
