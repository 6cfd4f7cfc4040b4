//! Brings cache mounts back: every byte is checked before it becomes part of a file.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use futures::StreamExt as _;
use kiln_fs::Limits;
use kiln_fs::layer::{ApplyOptions, Target, apply_with};
use kiln_image::BlobSource;
use kiln_oci::{Descriptor, Digest};
use kiln_report::{Failure, FailureKind};
use kiln_sys::root::{Root, set_mode, set_owner};

use super::format::{Chunk, Contents, Opened, decompress_to, open};
use crate::blocking::blocking;
use crate::failure::{Context as _, build, registry};
use crate::job::Result;

/// Packs on their way at once.
const PARALLEL: usize = 3;
/// Files and directories that a mount may bring.
const ENTRIES: u64 = 2_000_000;

/// A mount that is here, in a file without a name, and not unpacked yet.
pub(crate) struct Fetched {
    contents: Contents,
    spool: File,
    /// Where each pack begins in the spool.
    starts: Vec<u64>,
}

/// Fetches a mount of at most `limit` bytes; meanwhile it lies in `dir`.
pub(crate) async fn fetch(from: &dyn BlobSource, manifest: &Descriptor, limit: u64, dir: &Path) -> Result<Fetched> {
    let Opened { contents, packs } = open(from, manifest, limit).await?;
    let cannot_spool = || format!("cannot write to `{}`", dir.display());
    let spool = Arc::new(tempfile::tempfile_in(dir).or_environment(cannot_spool)?);
    let mut starts = Vec::new();
    let mut end = 0;
    for size in &contents.packs {
        starts.push(end);
        end += size;
    }
    let mut fetches: Vec<futures::future::BoxFuture<'_, Result<()>>> = Vec::new();
    for ((pack, size), start) in packs.iter().zip(&contents.packs).zip(&starts) {
        fetches.push(Box::pin(spool_pack(from, pack, *size, (Arc::clone(&spool), *start))));
    }
    let mut fetches = futures::stream::iter(fetches).buffer_unordered(PARALLEL);
    while fetches.next().await.transpose()?.is_some() {}
    drop(fetches);
    let spool = spool.try_clone().or_environment(cannot_spool)?;
    Ok(Fetched { contents, spool, starts })
}

async fn spool_pack(from: &dyn BlobSource, pack: &Descriptor, size: u64, to: (Arc<File>, u64)) -> Result<()> {
    let doing = format!("read pack `{}` of a cache mount", pack.digest);
    let bytes = from.fetch(pack).await.map_err(registry)?.bytes(&doing, pack.size).await.map_err(registry)?;
    let digest = pack.digest.clone();
    blocking(move || {
        let (file, mut at) = to;
        let mut kept = Ok(());
        let found = decompress_to(&bytes, size, |piece| {
            kept = file.write_all_at(piece, at);
            at += piece.len() as u64;
            kept.as_ref().map(drop).map_err(|error| error.kind().into())
        });
        kept.or_environment(|| "cannot keep a pack of a cache mount".into())?;
        let found = found.or_build(|| format!("cannot read pack `{digest}` of a cache mount"))?;
        if found != size {
            let message = format!("pack `{digest}` of a cache mount has {found} bytes, not {size}");
            return Err(Failure::new(FailureKind::Build, message));
        }
        Ok(())
    })
    .await
}

impl Fetched {
    /// Unpacks it into an empty directory, which gets the owner and mode that the mount's had.
    pub(crate) fn unpack(&self, dir: &Path) -> Result<()> {
        let root = Root::open_ambient(dir).or_environment(|| format!("cannot open `{}`", dir.display()))?;
        let stream = Stream { fetched: self, next: 0, chunk: io::Cursor::default() };
        let limits = Limits { bytes: self.contents.size, entries: ENTRIES, ..Limits::default() };
        let options = ApplyOptions { limits, target: Target::Archive, owner: None, refuse_devices: true };
        apply_with(stream, &root, &options).map_err(build)?;
        let look = self.contents.root;
        let dressed = set_owner(&root, look.uid, look.gid).and_then(|()| set_mode(&root, look.mode & 0o7777));
        dressed.or_environment(|| format!("cannot change the owner of `{}`", dir.display()))
    }

    fn chunk(&self, Chunk(pack, offset, length, digest): &Chunk) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(*length).map_err(io::Error::other)?];
        self.spool.read_exact_at(&mut bytes, self.starts[*pack] + offset)?;
        if Digest::sha256(&bytes) != *digest {
            return Err(io::Error::other(format!("chunk `{digest}` is not what its digest says")));
        }
        Ok(bytes)
    }
}

/// The tar stream, chunk by chunk.
struct Stream<'a> {
    fetched: &'a Fetched,
    next: usize,
    chunk: io::Cursor<Vec<u8>>,
}

impl Read for Stream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.chunk.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            let Some(chunk) = self.fetched.contents.chunks.get(self.next) else { return Ok(0) };
            self.chunk = io::Cursor::new(self.fetched.chunk(chunk)?);
            self.next += 1;
        }
    }
}
