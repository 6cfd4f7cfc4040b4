//! The image of a build: its config is written, and the local store gets to know it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kiln_image::{BlobSource as _, MemoryBlobs};
use kiln_oci::{Descriptor, Digest, ImageConfig, Index, MediaType, Platform, Raw, Reference};
use kiln_report::{Failure, FailureKind};
use kiln_store::{ImageRecord, Lease, Snapshot, Store};

use crate::answer::BuildResult;
use crate::blobs::StoreBlobs;
use crate::blocking::blocking;
use crate::config::{LayerFacts, assemble};
use crate::export::archive::documents;
use crate::export::push;
use crate::failure::{Context as _, environment, registry};
use crate::finish::Finished;
use crate::job::{Job, Result};
use crate::packing::Packing;
use crate::progress::Work;
use crate::request::{ImageOptions, Naming};
use crate::target::Solved;

/// Nobody wonders at less than this.
const NOTICED: Duration = Duration::from_secs(1);

/// An image that is made: its config and its layers.
pub(crate) struct Made {
    /// What it was asked for to run on.
    pub(crate) platform: Platform,
    pub(crate) config: Raw<ImageConfig>,
    pub(crate) snapshot: Snapshot,
    pub(crate) layers: Vec<Finished>,
}

/// Finishes the layers of all results, packed if an output wants them so, and writes their configs.
pub(crate) async fn make_all(job: &Arc<Job>, solved: &[Solved], packing: Option<Packing>) -> Result<Vec<Made>> {
    let mut made = Vec::with_capacity(solved.len());
    for result in solved {
        made.push(make(job, result, packing).await?);
    }
    Ok(made)
}

async fn make(
    job: &Arc<Job>,
    Solved { platform, config, snapshot, epoch }: &Solved,
    packing: Option<Packing>,
) -> Result<Made> {
    let layers = told(job, job.finisher.finish(snapshot, packing)).await?;
    let mut facts = Vec::with_capacity(layers.len());
    for (id, layer) in snapshot.layers().iter().zip(&layers) {
        let info = job.store.layer(id).map_err(environment)?;
        facts.push(LayerFacts { diff_id: layer.diff_id.clone(), created: Some(time(info.created)?) });
    }
    let epoch = (*epoch).map(time).transpose()?;
    let config = assemble(config.clone(), &facts, epoch, &Timestamp::now().to_string());
    let config = Raw::new(config);
    let (size, limit) = (config.bytes().len() as u64, kiln_image::limits::CONFIG);
    if size > limit {
        let message = format!("the image's config has {size} bytes, and nobody reads more than {limit}");
        return Err(
            Failure::new(FailureKind::Build, message).hint("put large values into files instead of `ENV` or `LABEL`")
        );
    }
    Ok(Made { platform: platform.clone(), config, snapshot: snapshot.clone(), layers })
}

/// Says that layers are still being packed, when somebody has to wait for it.
pub(crate) async fn told<T>(job: &Job, packed: impl Future<Output = Result<T>>) -> Result<T> {
    let mut packed = std::pin::pin!(packed);
    if let Ok(ended) = tokio::time::timeout(NOTICED, &mut packed).await {
        return ended;
    }
    let work = Work::start(&job.reporter, "exporting layers");
    work.end(packed.await)
}

/// What images are called in the local store: one by its config, several by the digest of the list of their configs,
/// which is there before anything is packed. None without images.
pub(crate) fn id_of(made: &[Made]) -> Option<Digest> {
    match made {
        [] => None,
        [only] => Some(only.config.digest()),
        several => Some(id_of_index(several.iter().map(|made| (made.platform.clone(), &made.config)))),
    }
}

fn id_of_index<'a>(configs: impl Iterator<Item = (Platform, &'a Raw<ImageConfig>)>) -> Digest {
    let entries = configs.map(|(platform, config)| (platform, Descriptor::of(MediaType::OCI_CONFIG, config.bytes())));
    super::index(entries.collect(), true, Default::default()).digest()
}

/// RFC 3339 of seconds since 1970.
fn time(seconds: i64) -> Result<String> {
    Ok(Timestamp::from_second(seconds).or_build(|| format!("{seconds} is no time"))?.to_string())
}

/// Images for the local store or a registry, and all that is asked of them.
pub(crate) struct Writing<'a> {
    pub(crate) made: &'a [Made],
    /// As the local store has them, if it is to.
    pub(crate) stored: Option<&'a [Made]>,
    pub(crate) names: &'a [Reference],
    pub(crate) options: &'a ImageOptions,
    pub(crate) naming: &'a Naming,
    pub(crate) push: bool,
}

impl Writing<'_> {
    /// Does all that.
    pub(crate) async fn write(&self, job: &Arc<Job>, result: &mut BuildResult) -> Result<()> {
        // Who wants no tag there wants none here.
        let local = if self.naming.by_digest { &[] } else { self.names };
        keep(job, (self.made, self.stored), local, result).await?;
        if !(self.push || self.naming.has_digest() || self.options.has_wishes()) {
            return Ok(());
        }
        let (documents, root) = documents(self.made, self.options)?;
        let dangling = self.dangling(&root)?;
        if self.push {
            let wanted = self.names.iter().map(|name| match self.naming.by_digest {
                true => Reference { tag: None, ..name.with_digest(root.digest.clone()) },
                false => name.clone(),
            });
            let wanted: Vec<_> = wanted.chain(dangling.clone()).collect();
            push::all(job, (&documents, &root), &wanted, self.options.may_be_insecure).await?;
        }
        let known = self.names.iter().filter(|_| self.push || self.naming.canonical);
        let known: Vec<_> = known.chain(&dangling).cloned().collect();
        let stored = self.stored.and_then(id_of).filter(|id| Some(id) == id_of(self.made).as_ref());
        if let Some(id) = stored {
            let blobs = StoreBlobs { store: job.store.clone(), lease: job.lease.clone() };
            note_pushed(&blobs, &id, (&documents, &root), &known).await?;
        }
        if self.naming.by_digest {
            result.names.extend(self.names.iter().map(Reference::name));
        }
        result.names.extend(dangling.iter().map(ToString::to_string));
        result.descriptor = Some(root);
        Ok(())
    }

    /// The name that images without another have.
    fn dangling(&self, root: &Descriptor) -> Result<Option<Reference>> {
        let Some(prefix) = &self.naming.dangling_prefix else { return Ok(None) };
        if self.naming.dangling_when_nameless && !self.names.is_empty() {
            return Ok(None);
        }
        let name: Reference = prefix.parse().map_err(|error| Failure::from_error(FailureKind::Usage, &error))?;
        Ok(Some(Reference { tag: None, ..name.with_digest(root.digest.clone()) }))
    }
}

/// Says what the images are, and gives them their names where they are to be stored.
pub(crate) async fn keep(
    job: &Arc<Job>,
    (made, stored): (&[Made], Option<&[Made]>),
    names: &[Reference],
    result: &mut BuildResult,
) -> Result<()> {
    let work = Work::start(&job.reporter, "exporting to image");
    made.iter().for_each(|made| work.part(format!("writing image {}", made.config.digest())));
    if let Some(stored) = stored {
        let stored = store(&job.store, &job.lease, stored, names, None).await;
        if stored.is_err() {
            return work.end(stored);
        }
    }
    names.iter().for_each(|name| work.part(format!("naming to {name}")));
    result.name(names);
    work.end(Ok(()))
}

/// Where an image comes from: its manifest or index there, and what it is called there.
#[derive(Default)]
pub(crate) struct Provenance {
    /// The index of several.
    pub(crate) root: Option<Descriptor>,
    /// The manifests of the images, in their order.
    pub(crate) manifests: Vec<Option<Descriptor>>,
    pub(crate) repo_digests: Vec<String>,
}

/// Puts images into the local store: one, or several that their names stand for together.
pub(crate) async fn store(
    store: &Store,
    lease: &Lease,
    made: &[Made],
    names: &[Reference],
    origin: Option<Provenance>,
) -> Result<()> {
    let Some(id) = id_of(made) else { return Ok(()) };
    let Provenance { root, manifests, repo_digests } = origin.map_or_else(|| known_origin(store, lease, &id), Ok)?;
    let mut images = Vec::with_capacity(made.len());
    for (at, made) in made.iter().enumerate() {
        images.push(record(store, made, manifests.get(at).cloned().flatten())?);
    }
    let mut record = if images.len() == 1 { images.remove(0) } else { index_record(id, images, root) };
    record.repo_digests = repo_digests;
    let configs: Vec<Vec<u8>> = made.iter().map(|made| made.config.bytes().to_vec()).collect();
    let (store, lease, names) = (store.clone(), lease.clone(), names.to_vec());
    blocking(move || {
        for config in configs {
            store.content().put(&lease, MediaType::OCI_CONFIG, &config).map_err(environment)?;
        }
        store.images().put(&record, &names).map_err(environment)
    })
    .await
}

fn record(store: &Store, made: &Made, manifest: Option<Descriptor>) -> Result<ImageRecord> {
    let config = made.config.value();
    let mut size = 0;
    for layer in made.snapshot.layers() {
        size += store.layer(layer).map_err(environment)?.size.unwrap_or_default();
    }
    Ok(ImageRecord {
        id: made.config.digest(),
        blobs: std::iter::once(made.config.digest()).chain(manifest.iter().map(|m| m.digest.clone())).collect(),
        manifest,
        snapshot: Some(made.snapshot.clone()),
        repo_digests: Vec::new(),
        platform: config.platform.clone(),
        created: config.created.clone(),
        size,
        members: Vec::new(),
    })
}

fn index_record(id: Digest, members: Vec<ImageRecord>, manifest: Option<Descriptor>) -> ImageRecord {
    let created = members.iter().filter_map(|member| member.created.clone()).max();
    let platform = members.first().map(|member| member.platform.clone()).unwrap_or_default();
    ImageRecord {
        id,
        blobs: manifest.iter().map(|index| index.digest.clone()).collect(),
        manifest,
        snapshot: None,
        repo_digests: Vec::new(),
        platform,
        created,
        size: members.iter().map(|member| member.size).sum(),
        members,
    }
}

/// An image that is built again stays the one that was pulled or pushed.
fn known_origin(store: &Store, lease: &Lease, id: &Digest) -> Result<Provenance> {
    let Some(image) = store.images().get(id).map_err(environment)? else { return Ok(Provenance::default()) };
    let held = |manifest: &Option<Descriptor>| -> Result<Option<Descriptor>> {
        let Some(manifest) = manifest else { return Ok(None) };
        Ok(lease.hold_blob(&manifest.digest).map_err(environment)?.then(|| manifest.clone()))
    };
    let manifests = image.record.images().iter().map(|image| held(&image.manifest)).collect::<Result<_>>()?;
    Ok(Provenance { root: held(&image.record.manifest)?, manifests, repo_digests: Vec::new() })
}

/// Notes in the record of a stored image what it was pushed as, and where to.
pub(crate) async fn note_pushed(
    blobs: &StoreBlobs,
    id: &Digest,
    (documents, root): (&MemoryBlobs, &Descriptor),
    names: &[Reference],
) -> Result<()> {
    let images = blobs.store.images();
    let Some(mut record) = images.get(id).map_err(environment)?.map(|image| image.record) else { return Ok(()) };
    record.repo_digests = names.iter().map(|name| format!("{}@{}", name.name(), root.digest)).collect();
    if !keep_document(blobs, (documents, root)).await? {
        // It went as it had come.
        return images.put(&record, &[]).map_err(environment);
    }
    if record.is_index() {
        let bytes = blobs.store.content().read(&root.digest, kiln_image::limits::DOCUMENT).map_err(environment)?;
        let index: Raw<Index> = Raw::parse(bytes).map_err(environment)?;
        for (member, manifest) in record.members.iter_mut().zip(&index.value().manifests) {
            keep_document(blobs, (documents, manifest)).await?;
            member.manifest = Some(manifest.clone());
            member.blobs = vec![member.id.clone(), manifest.digest.clone()];
        }
        record.blobs = vec![root.digest.clone()];
    } else {
        record.blobs = vec![id.clone(), root.digest.clone()];
    }
    record.manifest = Some(root.clone());
    images.put(&record, &[]).map_err(environment)
}

/// Keeps a document if it is among these; says whether it is.
async fn keep_document(
    StoreBlobs { store, lease }: &StoreBlobs,
    (from, what): (&MemoryBlobs, &Descriptor),
) -> Result<bool> {
    let Ok(document) = from.fetch(what).await else { return Ok(false) };
    let bytes = document.bytes("keep the manifest", what.size).await.map_err(registry)?;
    store.content().put(lease, what.media_type.clone(), &bytes).map_err(environment)?;
    Ok(true)
}
