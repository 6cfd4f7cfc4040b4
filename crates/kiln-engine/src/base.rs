//! Base images: what is known before anything is pulled, and how their layers come into the store.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use futures::{StreamExt as _, TryStreamExt as _};
use kiln_fs::{Limits, compress, layer};
use kiln_image::{BlobSource, Verifier};
use kiln_oci::{Descriptor, Digest, Hasher, ImageConfig};
use kiln_report::{Event, Failure, FailureKind, Reporter};
use kiln_store::{Holds, Lease, Snapshot, Store};

use crate::blobs::StoreBlobs;
use crate::blocking::blocking;
use crate::failure::{Context as _, environment};
use crate::fetch::{Flaw, Use, read_blob};
use crate::job::Result;
use crate::scratch::{Scratch, open_dir};

/// How many layers are fetched and unpacked at once.
const PARALLEL_LAYERS: usize = 4;
/// The way out when a stranger's archive asks for too much.
pub(crate) const MORE: &str = "if it is to be trusted, allow more with `--max-layer-size`";

/// An image that steps can start from.
pub(crate) struct BaseImage {
    /// What people call it.
    pub(crate) name: String,
    /// Its config.
    pub(crate) config: ImageConfig,
    /// Its layers as blobs, base first; empty when it is only known to the store.
    pub(crate) blobs: Vec<Descriptor>,
    /// What was read to know all this, as far as it is to be kept with the layers.
    pub(crate) documents: Vec<Digest>,
    /// Where the blobs are.
    pub(crate) source: Option<Arc<dyn BlobSource>>,
    /// Its files, when the store has them all.
    pub(crate) snapshot: Option<Snapshot>,
}

/// Where unpacking says how far it is.
pub(crate) struct Meter {
    pub(crate) reporter: Arc<dyn Reporter>,
    pub(crate) vertex: Digest,
    /// How much a layer may ask for.
    pub(crate) limits: Limits,
}

impl BaseImage {
    /// Brings all layers into the store; those that are there cost a look-up.
    pub(crate) async fn unpack(self: &Arc<Self>, store: &Store, lease: &Lease, meter: &Arc<Meter>) -> Result<Snapshot> {
        if let Some(snapshot) = &self.snapshot {
            return Ok(snapshot.clone());
        }
        let diff_ids = self.config.rootfs.diff_ids.clone();
        let layers = futures::stream::iter(diff_ids.into_iter().enumerate()).map(|(index, diff_id)| {
            let (image, meter) = (Arc::clone(self), Arc::clone(meter));
            let kept = StoreBlobs { store: store.clone(), lease: lease.clone() };
            async move { image.layer(index, diff_id, kept, meter).await }
        });
        let layers: Vec<Unpacked> = layers.buffered(PARALLEL_LAYERS).try_collect().await?;
        let store = store.clone();
        blocking(move || adopt_implied(&store, &layers)).await
    }

    /// Has its documents kept as long as its layers: a build that asks nobody needs both. Without them it costs a request.
    pub(crate) fn keep_documents(&self, store: &Store, snapshot: &Snapshot) {
        if self.documents.is_empty() {
            return;
        }
        let mut hasher = Hasher::new();
        hasher.field(b"documents of an image");
        self.documents.iter().for_each(|digest| hasher.field(digest.as_str().as_bytes()));
        let (key, holds) = (hasher.finish(), Holds { blobs: self.documents.clone(), ..Holds::snapshots([snapshot]) });
        if !store.records().has_result(&key).unwrap_or(true) {
            let _ = store.records().put_result(&key, b"", &holds);
        }
    }

    /// Its layers, when all of them are in the store.
    pub(crate) fn unpacked(&self, store: &Store) -> Option<Snapshot> {
        let layer = |diff_id| store.find_layer_by_diff_id(diff_id).ok().flatten();
        let layers: Option<Vec<_>> = self.config.rootfs.diff_ids.iter().map(layer).collect();
        layers.map(Snapshot::new)
    }

    /// Whether nothing of it would have to be fetched.
    pub(crate) fn is_here(&self, store: &Store) -> Result<bool> {
        if self.snapshot.is_some() {
            return Ok(true);
        }
        for (index, diff_id) in self.config.rootfs.diff_ids.iter().enumerate() {
            let is_unpacked = store.find_layer_by_diff_id(diff_id).map_err(environment)?.is_some();
            let is_kept = |blob: &Descriptor| store.content().has(&blob.digest).map_err(environment);
            if !is_unpacked && !self.blobs.get(index).map_or(Ok(false), is_kept)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn layer(&self, index: usize, diff_id: Digest, kept: StoreBlobs, meter: Arc<Meter>) -> Result<Unpacked> {
        let StoreBlobs { store, lease } = kept;
        let stack = stack_of(&self.config.rootfs.diff_ids[..index]);
        if is_shared_with(&store, &diff_id, &stack)
            && let Some(snapshot) = held_layer(&store, &lease, &diff_id)?
        {
            return Ok(Unpacked { snapshot, implied: Vec::new(), settles: None });
        }
        let (Some(source), Some(blob)) = (&self.source, self.blobs.get(index)) else {
            let message = format!("layer {} of image `{}` is no longer in the store", diff_id.short(), self.name);
            return Err(Failure::new(FailureKind::Environment, message)
                .hint(format!("run `kiln pull {}` to fetch it again", self.name)));
        };
        let (message, kept) = (format!("cannot unpack image `{}`", self.name), StoreBlobs { store, lease });
        let limits = meter.limits.clone();
        let place = Place { kept: kept.clone(), blob: blob.clone(), diff_id, stack, limits };
        let unpack = move |packed: &mut (dyn Read + Send)| {
            unpack_layer(&place, packed)
                .map_err(|flaw| flaw.map(|failure| Failure { message: message.clone(), ..nest(failure) }))
        };
        read_blob(&kept, source, blob, &meter, unpack).await
    }
}

/// Puts a failure's message first among its causes, to make room for another.
fn nest(mut failure: Failure) -> Failure {
    failure.causes.insert(0, std::mem::take(&mut failure.message));
    failure
}

/// The layer of this content, if the store has it; held from now on.
pub(crate) fn held_layer(store: &Store, lease: &Lease, diff_id: &Digest) -> Result<Option<Snapshot>> {
    let Some(id) = store.find_layer_by_diff_id(diff_id).map_err(environment)? else { return Ok(None) };
    let snapshot = Snapshot::new([id]);
    Ok(lease.hold_snapshot(&snapshot).map_err(environment)?.then_some(snapshot))
}

impl Meter {
    pub(crate) fn progress(&self, blob: &Descriptor, current: u64, started: SystemTime) {
        let at = SystemTime::now();
        self.reporter.report(Event::Status {
            vertex: self.vertex.clone(),
            id: blob.digest.to_string(),
            current,
            total: blob.size,
            started,
            completed: (current >= blob.size).then_some(at),
            at,
        });
    }
}

/// A layer that is in the store.
struct Unpacked {
    snapshot: Snapshot,
    /// Directories it only passes through, parents first. They must look as the layers below have them.
    implied: Vec<Vec<u8>>,
    /// The fact to write when they do: the layer's digest, and the stack it fits.
    settles: Option<(Digest, String)>,
}

/// Facts about layers that pass through directories they do not describe: the stack below, whose looks they took.
const IMPLIED: &str = "implied directories";

/// A name for the layers below a layer.
fn stack_of(below: &[Digest]) -> String {
    let mut hasher = Hasher::new();
    below.iter().for_each(|diff_id| hasher.field(diff_id.as_str().as_bytes()));
    hasher.finish().hex().to_owned()
}

/// Whether the layer of this digest may stand on this stack. Most may stand on any.
fn is_shared_with(store: &Store, diff_id: &Digest, stack: &str) -> bool {
    let fact = store.records().get_fact(IMPLIED, diff_id.hex()).ok().flatten();
    fact.is_none_or(|settled| settled == stack.as_bytes())
}

/// Stacks layers, and gives directories that a layer only passes through the looks of those below.
fn adopt_implied(store: &Store, layers: &[Unpacked]) -> Result<Snapshot> {
    let mut stacked = Snapshot::scratch();
    for layer in layers {
        if let (Some(id), false) = (layer.snapshot.layers().first(), layer.implied.is_empty()) {
            let below = stacked.layers().iter().rev().map(|id| open_dir(&store.layer_dir(id)));
            let (tree, below) = (open_dir(&store.layer_dir(id))?, below.collect::<Result<Vec<_>>>()?);
            // What is a link below stays a directory here, as in containerd.
            layer::inherit_implied(&tree, &layer.implied, &below)
                .or_environment(|| format!("cannot unpack layer `{id}`"))?;
            store.unsettle(id).map_err(environment)?;
            if let Some((diff_id, stack)) = &layer.settles {
                store.records().put_fact(IMPLIED, diff_id.hex(), stack.as_bytes());
            }
        }
        stacked = stacked.stacked(&layer.snapshot);
    }
    Ok(stacked)
}

/// A layer to be unpacked.
struct Place {
    kept: StoreBlobs,
    /// Its packed form.
    blob: Descriptor,
    /// The digest of its tar, as the config has it.
    diff_id: Digest,
    /// The layers below it.
    stack: String,
    limits: Limits,
}

/// Unpacks a layer into a directory of its own, checking that it is the one the config names.
fn unpack_layer(place: &Place, packed: &mut (dyn Read + Send)) -> Use<Unpacked> {
    let Place { kept: StoreBlobs { store, lease }, blob, diff_id, stack, .. } = place;
    let doing = || format!("cannot unpack layer {}", blob.digest);
    let is_shared =
        is_shared_with(store, diff_id, stack) || store.find_layer_by_diff_id(diff_id).or_environment(doing)?.is_none();
    let (id, stats) = if is_shared {
        let tree = Scratch::layer(store, lease)?;
        let stats = unpack(packed, place, &tree.tree())?;
        if !stats.implied.is_empty() {
            // Until it took the looks of what is below it, it fits no stack.
            store.records().put_fact(IMPLIED, diff_id.hex(), b"unsettled");
            // Written before the layer can be found: who finds it after this process was killed must know.
            store.flush().or_environment(doing)?;
        }
        let unpacked = kiln_store::Unpacked { diff_id, size: stats.bytes, blob: Some(blob) };
        (store.commit_layer(tree.take(), &unpacked).or_environment(doing)?, stats)
    } else {
        let tree = Scratch::upon(store, None, lease)?;
        let stats = unpack(packed, place, &tree.upper_dir())?;
        let layers = tree.commit()?;
        let id = layers.layers().last().cloned().expect("it was just made");
        // Its digest last: from then on it is found.
        store.add_blob(&id, blob).or_environment(doing)?;
        store.set_diff_id(&id, diff_id, stats.bytes).or_environment(doing)?;
        (id, stats)
    };
    let settles = (is_shared && !stats.implied.is_empty()).then(|| (diff_id.clone(), stack.clone()));
    Ok(Unpacked { snapshot: Snapshot::new([id]), implied: stats.implied, settles })
}

fn unpack(packed: &mut (dyn Read + Send), place: &Place, into: &Path) -> Use<layer::ApplyStats> {
    let doing = || format!("cannot unpack layer {}", place.blob.digest);
    let reader = compress::decompressor(packed, &place.limits).or_build(doing).map_err(Flaw::Senseless)?;
    let mut reader = Checked { inner: reader, verifier: Verifier::new(&place.diff_id) };
    let stats = layer::apply(&mut reader, &open_dir(into)?, &place.limits).map_err(|error| {
        let is_size = error.is_too_much();
        let failure = Err::<(), _>(error).or_build(doing).expect_err("it is an error");
        if is_size { Flaw::Refused(failure.hint(MORE)) } else { Flaw::Senseless(failure) }
    })?;
    // What follows the end of the archive is part of the digest too.
    std::io::copy(&mut reader, &mut std::io::sink()).or_build(doing).map_err(Flaw::Senseless)?;
    reader.verifier.finish("unpack the layer", &place.diff_id).or_build(doing)?;
    Ok(stats)
}

struct Checked<R> {
    inner: R,
    verifier: Verifier,
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.verifier.update(&buffer[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use kiln_image::MemoryBlobs;
    use kiln_oci::MediaType;

    use super::*;

    /// One entry of a tar: a directory, or an empty file.
    fn entry(name: &str, mode: u32) -> Vec<u8> {
        let mut header = vec![0_u8; 512];
        let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        put(0, name);
        put(100, &format!("{mode:07o}"));
        put(108, &format!("{uid:07o}"));
        put(116, &format!("{gid:07o}"));
        put(124, "00000000000");
        put(136, "00000000000");
        put(148, "        ");
        put(156, if name.ends_with('/') { "5" } else { "0" });
        put(257, "ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        header
    }

    #[tokio::test]
    async fn a_layer_that_expands_to_more_than_it_may_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state")).unwrap();
        let lease = store.lease().unwrap();
        let unpack = async |bytes: u64| {
            let limits = Limits { bytes, ..Limits::default() };
            let reporter = Arc::new(kiln_report::Silent);
            let meter = Arc::new(Meter { reporter, vertex: Digest::sha256("x"), limits });
            image(&[entry("tmp/", 0o755)]).unpack(&store, &lease, &meter).await
        };
        let failure = unpack(1000).await.unwrap_err();
        assert!(failure.hints.iter().any(|hint| hint.contains("--max-layer-size")), "{failure:?}");
        unpack(1 << 20).await.unwrap();
    }

    fn image(layers: &[Vec<u8>]) -> Arc<BaseImage> {
        let (blobs, mut config) = (MemoryBlobs::new(), ImageConfig::default());
        let tars = layers.iter().map(|layer| [layer.as_slice(), &[0; 1024]].concat());
        let added = tars.map(|tar| {
            config.rootfs.diff_ids.push(Digest::sha256(&tar));
            blobs.insert(MediaType::OCI_LAYER, tar)
        });
        let added = added.collect();
        let source: Option<Arc<dyn BlobSource>> = Some(Arc::new(blobs));
        Arc::new(BaseImage { name: "x".into(), config, blobs: added, documents: Vec::new(), source, snapshot: None })
    }

    #[tokio::test]
    async fn a_layer_takes_the_looks_of_each_stack_it_stands_on() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state")).unwrap();
        let lease = store.lease().unwrap();
        let meter = Arc::new(Meter {
            reporter: Arc::new(kiln_report::Silent),
            vertex: Digest::sha256("x"),
            limits: Limits::default(),
        });
        let top = || entry("tmp/file", 0o644);
        let (open, closed) = (image(&[entry("tmp/", 0o1777), top()]), image(&[entry("tmp/", 0o700), top()]));
        let mut seen = Vec::new();
        for image in [&open, &closed, &open] {
            let snapshot = image.unpack(&store, &lease, &meter).await.unwrap();
            seen.push(snapshot.layers()[1].clone());
        }
        let mode = |layer| std::fs::metadata(store.layer_dir(layer).join("tmp")).unwrap().mode() & 0o7777;
        assert_eq!([mode(&seen[0]), mode(&seen[1]), mode(&seen[2])], [0o1777, 0o700, 0o1777]);
        assert_eq!(seen[0], seen[2], "what fits is shared");
    }
}
