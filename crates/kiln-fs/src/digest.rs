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
use kiln_sys::metadata::{FileKind, Metadata, Timestamp};
use rayon::prelude::*;
use rustix::fs::OFlags;

use crate::copy::sources::{Source, sources};
use crate::copy::{CopySpec, CopyStats, Target, copy_sources, file};
use crate::error::{Error, Result, printable};
use crate::meta::{Xattr, xattrs};
use crate::share::pieces;
use crate::tree::{
    Entry, Listing, Located, NoCache, Ownership, Selection, SourceTree, StatCache, StatKey, open_beneath,
};

/// Goes first into every digest, and changes when their definition does.
const DEFINITION: &[u8] = b"kiln tree 1";
/// The same for trees of which less counts.
const PLAIN: &[u8] = b"kiln plain tree 2";

fn definition(tree: &SourceTree) -> &'static [u8] {
    if tree.ownership == Ownership::Plain { PLAIN } else { DEFINITION }
}

/// How long ago a file must have changed before its state can be told from the next by its times.
const SETTLED: Duration = Duration::from_millis(50);

/// A file that changed this shortly ago may change again within the same tick of its clock. Two seconds are the coarsest
/// tick there is (FAT).
const TICK: Duration = Duration::from_secs(2);

/// Times of whole seconds are those of a file system that knows no others.
fn settled(metadata: &Metadata) -> Duration {
    if metadata.ctime.nanos == 0 { TICK } else { SETTLED }
}

/// Digests what [`crate::copy::copy`] would read for `spec`.
///
/// The owner and attributes of a directory whose contents alone are copied do not count.
pub fn digest_copy(tree: &SourceTree, spec: &CopySpec, cache: &dyn StatCache) -> Result<Digest> {
    read_copy(tree, spec, cache).map(|reading| reading.digest)
}

/// As [`digest_copy`], and remembers all that it looked at, so that just this is copied: see [`Reading::copy_upon`].
pub fn read_copy(tree: &SourceTree, spec: &CopySpec, cache: &dyn StatCache) -> Result<Reading> {
    let nodes = Nodes { tree, cache, fresh: Mutex::default() };
    let mut hasher = Hasher::new();
    hasher.field(definition(tree));
    let mut found = Vec::new();
    for source in sources(tree, spec)? {
        let leaves = nodes.source(&source, spec.dir_copy_contents)?;
        hasher.field(source.name());
        node_field(&mut hasher, &leaves.whole);
        found.push((source, leaves));
    }
    let (sources, leaves) = found.into_iter().unzip();
    let fresh = nodes.fresh.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(Reading { digest: hasher.finish(), sources, leaves, fresh })
}

/// What of each file counts, by path from the root of the tree. Two files that differ have different numbers but for one
/// time in 2⁶⁴: enough to say what has changed, not to decide whether.
pub type Prints = BTreeMap<String, u64>;

/// What a copy reads, as it was when it was digested.
#[derive(Debug)]
pub struct Reading {
    digest: Digest,
    sources: Vec<Source>,
    leaves: Vec<Leaves>,
    fresh: Vec<Fresh>,
}

impl Reading {
    /// The digest.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// What of each file counts.
    pub fn prints(&self) -> Prints {
        let each = self.sources.iter().zip(&self.leaves);
        each.flat_map(|(source, leaves)| leaves.prints(source)).collect()
    }

    /// Copies what was digested, as [`crate::copy_upon`] does, without looking for it again. The spec may differ in what is
    /// made of the files, not in which they are. A file that is not as it was is an error; one that has come since is not
    /// there.
    pub fn copy_upon(&self, tree: &SourceTree, target: Target<'_>, spec: &CopySpec) -> Result<CopyStats> {
        let stats = copy_sources(tree, target, spec, &self.sources)?;
        // What their state cannot tell, their contents do.
        let nodes = Nodes { tree, cache: &NoCache, fresh: Mutex::default() };
        let is_same = |fresh: &Fresh| Ok::<_, Error>(nodes.read(&fresh.path, &fresh.metadata)? == fresh.digest);
        self.fresh.par_iter().try_for_each(|fresh| match is_same(fresh)? {
            true => Ok(()),
            false => Err(Error::ChangedWhileRead { path: printable(&fresh.path) }),
        })?;
        Ok(stats)
    }
}

/// A file that may change without its state showing it.
#[derive(Debug)]
struct Fresh {
    path: Vec<u8>,
    metadata: Metadata,
    digest: Digest,
}

/// The SHA-256 of a node.
type Node = [u8; 32];

/// The digest of a source, and of each file in it.
#[derive(Debug)]
struct Leaves {
    whole: Node,
    /// By index in the listing. A file that is a source itself has its own digest only.
    nodes: Vec<Option<Node>>,
}

impl Leaves {
    fn prints(&self, source: &Source) -> Prints {
        let print = |node: &Node| u64::from_be_bytes(*node.first_chunk().expect("a node has more bytes"));
        let Some(listing) = &source.listing else {
            return Prints::from([(printable(&source.located.path), print(&self.whole))]);
        };
        let files = self.nodes.iter().enumerate().filter(|(index, _)| !listing.entries[*index].metadata.is_dir());
        let files = files.filter_map(|(index, node)| Some((printable(&listing.path(index)), print(node.as_ref()?))));
        files.collect()
    }
}

/// Digests the file or directory at `subpath`, links followed, as a bind mount shows it.
///
/// Mode and owner of a context's own directory do not count: they differ from checkout to checkout.
pub fn digest_tree(tree: &SourceTree, subpath: &str, cache: &dyn StatCache) -> Result<Digest> {
    read_tree(tree, subpath, cache).map(|(_, leaves)| Digest::from_sha256(&leaves.whole))
}

/// As [`digest_tree`], and lists what it read.
pub fn list_tree(tree: &SourceTree, subpath: &str, cache: &dyn StatCache) -> Result<(Digest, Prints)> {
    let (source, leaves) = read_tree(tree, subpath, cache)?;
    Ok((Digest::from_sha256(&leaves.whole), leaves.prints(&source)))
}

fn read_tree(tree: &SourceTree, subpath: &str, cache: &dyn StatCache) -> Result<(Source, Leaves)> {
    let source = Source::find(tree, subpath.as_bytes(), &Selection::default())?;
    let is_context = source.located.path.is_empty() && tree.ownership != Ownership::Keep;
    let nodes = Nodes { tree, cache, fresh: Mutex::default() };
    let leaves = nodes.source(&source, is_context)?;
    let mut hasher = Hasher::new();
    hasher.field(definition(tree));
    node_field(&mut hasher, &leaves.whole);
    Ok((source, Leaves { whole: hasher.finish_sha256(), ..leaves }))
}

struct Nodes<'a> {
    tree: &'a SourceTree,
    cache: &'a dyn StatCache,
    fresh: Mutex<Vec<Fresh>>,
}

impl Nodes<'_> {
    fn source(&self, source: &Source, contents_only: bool) -> Result<Leaves> {
        let Some(listing) = &source.listing else {
            let Located { path, metadata } = &source.located;
            return Ok(Leaves { whole: self.leaf(metadata, &|| path.clone())?, nodes: Vec::new() });
        };
        self.directory(listing, contents_only)
    }

    /// Digests leaves in parallel, then joins them upwards: children stand behind their parents in a listing.
    fn directory(&self, listing: &Listing, contents_only: bool) -> Result<Leaves> {
        let count = listing.entries.len();
        let leaf = |index: usize| -> Result<Option<Node>> {
            let entry = &listing.entries[index];
            if !entry.is_needed || entry.metadata.is_dir() {
                return Ok(None);
            }
            self.leaf(&entry.metadata, &|| listing.path(index)).map(Some)
        };
        let files = listing.entries.iter().filter(|entry| entry.is_needed && entry.metadata.is_file());
        self.cache.expect(&mut files.map(|entry| StatKey::of(&entry.metadata)));
        let size = |entry: &Entry| if entry.metadata.is_file() { entry.metadata.size } else { 0 };
        let pieces = pieces(listing.entries.iter().map(size));
        let leaves = pieces.into_par_iter().map(|piece| piece.map(leaf).collect::<Result<Vec<_>>>());
        let mut nodes = leaves.collect::<Result<Vec<_>>>()?.concat();
        for index in (0..count).rev() {
            let entry = &listing.entries[index];
            if !entry.metadata.is_dir() || !(entry.is_needed || index == 0) {
                continue;
            }
            let attributes = &listing.directory(index).xattrs;
            let mut hasher =
                if index == 0 && contents_only { Hasher::new() } else { self.header(&entry.metadata, attributes) };
            for (child, entry) in listing.needed(index) {
                let node = nodes[child].as_ref().expect("children are digested before their parents");
                hasher.field(entry.name.as_bytes());
                node_field(&mut hasher, node);
            }
            nodes[index] = Some(hasher.finish_sha256());
        }
        let whole = nodes[0].expect("the listed directory is digested last");
        Ok(Leaves { whole, nodes })
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

    fn leaf(&self, metadata: &Metadata, path: &dyn Fn() -> Vec<u8>) -> Result<Node> {
        if metadata.is_file() {
            // The digest of the content covers the attributes: a cached one makes reading them needless.
            let mut hasher = self.header(metadata, &[]);
            hasher.update(&metadata.size.to_le_bytes());
            hasher.field(self.content(path, metadata)?.as_str().as_bytes());
            return Ok(hasher.finish_sha256());
        }
        let path = &path();
        let handle = self.open_state(path, metadata, OFlags::PATH)?;
        let attributes = self.tree.attributes(&handle).map_err(Error::io("read the attributes of", path))?;
        let mut hasher = self.header(metadata, &attributes);
        if metadata.is_symlink() {
            let target = rustix::fs::readlinkat(&handle, "", Vec::new()).map_err(Error::io("read the link", path))?;
            hasher.field(target.as_bytes());
        }
        Ok(hasher.finish_sha256())
    }

    /// The digest of a file's attributes and bytes, from memory if the file has not changed since.
    fn content(&self, path: &dyn Fn() -> Vec<u8>, metadata: &Metadata) -> Result<Digest> {
        let key = StatKey::of(metadata);
        if let Some(digest) = self.cache.get(&key) {
            return Ok(digest);
        }
        let path = path();
        // Asked before it is read: a long read must not make a fresh change look old.
        let age = age(metadata);
        let digest = self.read(&path, metadata)?;
        // A file changed this very moment may change again without its times showing it.
        if age > settled(metadata) {
            self.cache.put(&key, digest.clone());
        }
        if age <= TICK {
            let fresh = Fresh { path, metadata: *metadata, digest: digest.clone() };
            self.fresh.lock().unwrap_or_else(PoisonError::into_inner).push(fresh);
        }
        Ok(digest)
    }

    /// The digest of a file's attributes and bytes.
    fn read(&self, path: &[u8], metadata: &Metadata) -> Result<Digest> {
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
        Ok(hasher.finish())
    }

    /// Opens a file and makes sure that it is in the state it was listed in.
    fn open_state(&self, path: &[u8], metadata: &Metadata, flags: OFlags) -> Result<OwnedFd> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle = open_beneath(&self.tree.root, path, flags).map_err(|errno| file::gone(errno, path))?;
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

fn node_field(hasher: &mut Hasher, node: &Node) {
    hasher.field(Digest::from_sha256(node).as_str().as_bytes());
}

fn attribute_fields(hasher: &mut Hasher, attributes: &[Xattr]) {
    hasher.update(&(attributes.len() as u64).to_le_bytes());
    for (name, value) in attributes {
        hasher.field(name.as_bytes());
        hasher.field(value);
    }
}

/// How long ago a file changed last. Some file systems have no time of change to show: then it is now.
fn age(metadata: &Metadata) -> Duration {
    let Ok(now) = SystemTime::now().duration_since(UNIX_EPOCH) else { return Duration::ZERO };
    let last = metadata.ctime.max(metadata.mtime);
    if metadata.ctime == Timestamp::default() {
        return Duration::ZERO;
    }
    now.saturating_sub(Duration::new(u64::try_from(last.secs).unwrap_or(0), last.nanos))
}
