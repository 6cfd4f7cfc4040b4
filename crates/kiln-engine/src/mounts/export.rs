//! Sends cache mounts: what the other side has of an earlier export is not sent again.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use kiln_fs::layer::{self, LayerError};
use kiln_image::{BlobSink, MemoryBlobs, Pushed, Role};
use kiln_oci::{Descriptor, Digest, Document, Index, MediaType, Raw};
use kiln_report::{Failure, FailureKind};
use kiln_store::{CacheMount, CacheMountName, Store};
use kiln_sys::metadata::Metadata;
use kiln_sys::root::Root;
use tokio::sync::mpsc;

use super::chunker::{Chunker, Cut, PackNumber, Piece, Spot};
use super::format::{
    ARTIFACT, CONTENTS, Chunk, Contents, EMPTY, ID, Look, NAME, Opened, PACK, compress, manifest, open,
};
use super::place::Found;
use super::{Skipped, shown};
use crate::blocking::blocking;
use crate::failure::{Context as _, environment, registry};
use crate::job::Result;

/// How long a mount is waited for that a step has to itself.
const PATIENCE: Duration = Duration::from_secs(30);
/// A pack is left behind when less than this share of it, in percent, was of use to the last export.
const LEAST_USE: u64 = 50;
/// A pack smaller than this is small.
const SMALL: u64 = 4 << 20;
/// So many small packs are kept as they are; when there are more, all are packed anew.
const MOST_SMALL: usize = 24;

/// What is to be exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountExport {
    /// Ids; none stands for all there are.
    pub ids: Vec<String>,
    /// A larger mount is skipped.
    pub max_size: u64,
}

/// What an export did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MountsExported {
    /// The mounts that are there now.
    pub mounts: Vec<ExportedMount>,
    /// Those that are not, or not as they are here.
    pub skipped: Vec<Skipped>,
}

/// A mount that was exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedMount {
    /// Its id.
    pub id: String,
    /// Bytes of it.
    pub size: u64,
    /// Bytes that were sent, compressed.
    pub sent: u64,
    /// Files that were left out because they would not come to rest, and what no archive holds.
    pub left_out: u64,
}

/// A mount of the store that is to be exported.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) id: String,
    pub(crate) name: CacheMountName,
    pub(crate) key: String,
}

/// Sends mounts to a sink, and makes its name point at an index of them. Others that were there before stay.
pub(crate) async fn export(
    store: &Store,
    (wanted, max_size): (&[Wanted], u64),
    before: Option<&Found>,
    sink: &dyn BlobSink,
) -> Result<(MountsExported, Option<Descriptor>)> {
    let mut entries = earlier(before).await;
    let mut report = MountsExported::default();
    let mut documents = Vec::new();
    for mount in wanted {
        let known = entries.get(&mount.name).cloned();
        let old = match before.zip(known) {
            // What cannot be read is packed anew.
            Some((found, entry)) => open(found.blobs.as_ref(), &entry, max_size).await.ok(),
            None => None,
        };
        match one(store, mount, max_size, old, sink).await? {
            Sent::Done(exported, document) => {
                let mut entry = Descriptor::of(MediaType::OCI_MANIFEST, document.bytes());
                entry.artifact_type = Some(ARTIFACT.into());
                entry.annotations.insert(ID.into(), mount.id.clone());
                entry.annotations.insert(NAME.into(), mount.name.as_str().to_owned());
                documents.push((entry.clone(), document));
                entries.insert(mount.name.clone(), entry);
                report.mounts.push(exported);
            }
            Sent::Skipped(why) => report.skipped.push(Skipped { id: shown(&mount.id), why }),
        }
    }
    if documents.is_empty() {
        return Ok((report, None));
    }
    for (entry, document) in &documents {
        let bare = Descriptor::of(entry.media_type.clone(), document.bytes());
        sink.push_document(&bare, document.bytes(), Role::Child).await.map_err(registry)?;
    }
    let index = Raw::new(Index {
        schema_version: 2,
        media_type: Some(MediaType::OCI_INDEX.into()),
        manifests: entries.into_values().collect(),
        annotations: BTreeMap::new(),
    });
    let root = Descriptor::of(MediaType::OCI_INDEX, index.bytes());
    sink.push_document(&root, index.bytes(), Role::Root).await.map_err(registry)?;
    Ok((report, Some(root)))
}

/// The mounts of an earlier export, by name. One that cannot be read is none: it is replaced.
async fn earlier(before: Option<&Found>) -> BTreeMap<CacheMountName, Descriptor> {
    let Some(found) = before else { return BTreeMap::new() };
    entries(found).await.unwrap_or_default().into_iter().map(|entry| (entry.name, entry.manifest)).collect()
}

/// A mount in an index.
pub(crate) struct Entry {
    pub(crate) id: String,
    pub(crate) name: CacheMountName,
    pub(crate) manifest: Descriptor,
}

/// The mounts of an index.
pub(crate) async fn entries(found: &Found) -> Result<Vec<Entry>> {
    let document = kiln_image::fetch_document(found.blobs.as_ref(), &found.root).await.map_err(registry)?;
    let Document::Index(index) = document else {
        let message = format!("`{}` holds no cache mounts", found.root.digest);
        return Err(Failure::new(FailureKind::Build, message));
    };
    let entry = |manifest: Descriptor| {
        let is_ours = manifest.artifact_type.as_deref() == Some(ARTIFACT) && manifest.media_type.is_manifest();
        let name = manifest.annotations.get(NAME).filter(|_| is_ours)?;
        let name = CacheMountName::parse(name)?;
        Some(Entry { id: manifest.annotations.get(ID)?.clone(), name, manifest })
    };
    Ok(index.into_parts().1.manifests.into_iter().filter_map(entry).collect())
}

enum Sent {
    Done(ExportedMount, Raw<kiln_oci::Manifest>),
    Skipped(String),
}

/// What packing one mount gave.
enum Packed {
    Done { cut: Cut, root: Look, left_out: u64 },
    TooLarge,
}

async fn one(store: &Store, mount: &Wanted, max_size: u64, old: Option<Opened>, sink: &dyn BlobSink) -> Result<Sent> {
    let (held, size) = {
        let (store, mount) = (store.clone(), mount.clone());
        blocking(move || take(&store, &mount)).await?
    };
    let Some(held) = held else { return Ok(Sent::Skipped(busy(store, mount))) };
    let too_large = || Sent::Skipped(format!("it is larger than {max_size} bytes"));
    if size > max_size {
        return Ok(too_large());
    }
    let (known, old_packs) = match old {
        Some(old) => reusable(old, sink).await?,
        None => Default::default(),
    };
    let (give, mut packs) = mpsc::channel::<Vec<u8>>(1);
    let packing = blocking(move || pack(&held, known, max_size, &give));
    // The channel ends with it, so that who packs does not wait for one that takes nothing any more.
    let sending = async move {
        let mut upload = Upload { sink, sent: 0, packs: Vec::new() };
        while let Some(bytes) = packs.recv().await {
            let pack = upload.blob(PACK, bytes).await?;
            upload.packs.push(pack);
        }
        Ok::<_, Failure>(upload)
    };
    let (packed, uploaded) = tokio::join!(packing, sending);
    let mut upload = uploaded?;
    let Packed::Done { cut, root, left_out } = packed? else { return Ok(too_large()) };
    let (contents, layers) = arrange(cut, root, (&old_packs, &upload.packs));
    let json = serde_json::to_vec(&contents).expect("plain data serialises");
    let json = compress(&json).or_environment(|| "cannot compress the contents of a cache mount".into())?;
    let listed = upload.blob(CONTENTS, json).await?;
    upload.blob(EMPTY, b"{}".to_vec()).await?;
    let exported = ExportedMount { id: shown(&mount.id), size: contents.size, sent: upload.sent, left_out };
    Ok(Sent::Done(exported, manifest(listed, layers)))
}

fn take(store: &Store, mount: &Wanted) -> Result<(Option<CacheMount>, u64)> {
    let mounts = store.cache_mounts();
    let held = mounts.borrow(&mount.name, PATIENCE).map_err(environment)?;
    let size = if held.is_some() { mounts.disk_usage(&mount.key) } else { 0 };
    Ok((held, size))
}

fn busy(store: &Store, mount: &Wanted) -> String {
    let users = super::name_processes(&store.cache_mounts().users(&mount.key));
    match users {
        Some(users) => format!("a step of {users} has it to itself"),
        None => "it is gone".to_owned(),
    }
}

/// Chunks that need not be sent, and the packs they are in.
type Reusable = (HashMap<Digest, Spot>, Vec<(Descriptor, u64)>);

/// What of an earlier export serves again: packs that are still there, are of use for the most part, and are not one of
/// too many small ones.
async fn reusable(old: Opened, sink: &dyn BlobSink) -> Result<Reusable> {
    let mut spots = HashMap::new();
    let mut used = vec![0_u64; old.packs.len()];
    for Chunk(pack, offset, length, digest) in &old.contents.chunks {
        if spots.insert(digest.clone(), Spot { pack: PackNumber::Old(*pack), offset: *offset }).is_none() {
            used[*pack] += length;
        }
    }
    let packs: Vec<_> = old.packs.into_iter().zip(old.contents.packs).collect();
    let keeps_small = packs.iter().filter(|(_, size)| *size < SMALL).count() <= MOST_SMALL;
    let mut serves = Vec::new();
    for ((pack, size), used) in packs.iter().zip(&used) {
        let is_of_use = used * 100 >= size * LEAST_USE && (keeps_small || *size >= SMALL);
        serves.push(is_of_use && sink.has(pack).await.map_err(registry)?);
    }
    spots.retain(|_, spot| matches!(spot.pack, PackNumber::Old(pack) if serves[pack]));
    Ok((spots, packs))
}

/// Reads a mount as steps may be writing to it, and gives away packs, compressed.
fn pack(
    held: &CacheMount,
    known: HashMap<Digest, Spot>,
    max_size: u64,
    give: &mpsc::Sender<Vec<u8>>,
) -> Result<Packed> {
    let doing = || format!("cannot pack the cache mount in `{}`", held.dir().display());
    let root = Root::open_ambient(held.dir()).or_environment(doing)?;
    let metadata = Metadata::of(&root).or_environment(doing)?;
    let look = Look { uid: metadata.uid, gid: metadata.gid, mode: metadata.mode & 0o7777 };
    let mut send = |raw: Vec<u8>| give.blocking_send(compress(&raw)?).map_err(std::io::Error::other);
    let mut chunker = Chunker::new(known, max_size, &mut send);
    let stats = match layer::pack_live(&root, &mut chunker) {
        Err(LayerError::Write { source }) if source.kind() == std::io::ErrorKind::FileTooLarge => {
            return Ok(Packed::TooLarge);
        }
        packed => packed.or_environment(doing)?,
    };
    let cut = chunker.finish().or_environment(doing)?;
    Ok(Packed::Done { cut, root: look, left_out: stats.left_out + stats.skipped_sockets })
}

/// Lists the chunks, and the packs they are in: those of earlier exports first.
fn arrange(cut: Cut, root: Look, (old, new): (&[(Descriptor, u64)], &[Descriptor])) -> (Contents, Vec<Descriptor>) {
    let mut numbers: Vec<PackNumber> = cut.pieces.iter().map(|piece| piece.at.pack).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let pack = |number: &PackNumber| match number {
        PackNumber::Old(at) => old[*at].clone(),
        PackNumber::New(at) => (new[*at].clone(), cut.packs[*at]),
    };
    let (layers, packs) = numbers.iter().map(pack).unzip();
    let chunk = |Piece { at, length, digest }: &Piece| {
        let pack = numbers.binary_search(&at.pack).expect("every pack is listed");
        Chunk(pack, at.offset, *length, digest.clone())
    };
    let chunks = cut.pieces.iter().map(chunk).collect();
    (Contents { root, size: cut.size, packs, chunks }, layers)
}

/// Sends blobs, and counts them.
struct Upload<'a> {
    sink: &'a dyn BlobSink,
    sent: u64,
    packs: Vec<Descriptor>,
}

impl Upload<'_> {
    async fn blob(&mut self, media_type: &str, bytes: Vec<u8>) -> Result<Descriptor> {
        let blobs = MemoryBlobs::new();
        let descriptor = blobs.insert(media_type, bytes);
        if self.sink.push(&descriptor, &blobs).await.map_err(registry)? == Pushed::Written {
            self.sent += descriptor.size;
        }
        Ok(descriptor)
    }
}
