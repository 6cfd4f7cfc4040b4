//! Copies an image, or an index of them, from any source to any sink: blobs in parallel, parents last.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use kiln_oci::{Descriptor, Digest, Document};

use crate::blob::{Chances, Role, fetch_document};
use crate::{BlobReader, BlobSink, BlobSource, Error, Pushed, Result, Verifier, limits};

/// How one blob or document stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Transfer {
    /// What it is.
    pub descriptor: Descriptor,
    /// Bytes read so far; goes back to 0 when a transfer begins again.
    pub done: u64,
    /// Where it is.
    pub state: TransferState,
}

/// Where a transfer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransferState {
    /// Begun, or going on.
    Running,
    /// Over.
    Done(Pushed),
}

/// Hears how transfers go. Called from many tasks at once; must not block.
pub trait Progress: Send + Sync {
    /// Takes one change.
    fn update(&self, transfer: Transfer);
}

impl<F: Fn(Transfer) + Send + Sync> Progress for F {
    fn update(&self, transfer: Transfer) {
        self(transfer);
    }
}

/// How to copy.
#[derive(Clone)]
pub struct CopyOptions {
    /// Blobs on their way at once.
    pub parallel: usize,
    /// Hears how it goes.
    pub progress: Option<Arc<dyn Progress>>,
    /// Whether nothing is copied to a sink where the root stands already. If not, every blob is asked for all the same:
    /// a sink that has lost some is mended.
    pub root_suffices: bool,
}

impl Default for CopyOptions {
    fn default() -> Self {
        Self { parallel: 6, progress: None, root_suffices: false }
    }
}

/// What a copy did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CopyReport {
    /// Blobs that were written, and their bytes.
    pub written: usize,
    /// See `written`.
    pub written_bytes: u64,
    /// Blobs that were there before.
    pub existing: usize,
    /// Blobs taken over from another repository.
    pub mounted: usize,
    /// Layers left where their URLs say, because they may not be redistributed.
    pub foreign: usize,
}

/// Copies everything below `root`, then `root` itself. The sink's name points at it only when all is there.
pub async fn copy_graph(
    from: &dyn BlobSource,
    to: &dyn BlobSink,
    root: &Descriptor,
    options: &CopyOptions,
) -> Result<CopyReport> {
    let plan = Plan::of(from, root).await?;
    if options.root_suffices && to.stands(root).await? {
        let told = Metered { inner: from, progress: options.progress.clone() };
        plan.blobs.iter().for_each(|blob| told.say(blob, blob.size, TransferState::Done(Pushed::Existing)));
        return Ok(CopyReport { existing: plan.blobs.len(), foreign: plan.foreign, ..CopyReport::default() });
    }
    let report = copy_blobs(from, to, &plan.blobs, options).await?;
    for (descriptor, bytes) in &plan.children {
        to.push_document(descriptor, bytes, Role::Child).await?;
    }
    to.push_document(root, &plan.root, Role::Root).await?;
    Ok(CopyReport { foreign: plan.foreign, ..report })
}

async fn copy_blobs(
    from: &dyn BlobSource,
    to: &dyn BlobSink,
    blobs: &[Descriptor],
    options: &CopyOptions,
) -> Result<CopyReport> {
    // Boxed one by one, without closures: the compiler cannot see that those are `Send` for every lifetime.
    let mut copies: Vec<BoxFuture<'_, Result<(u64, Pushed)>>> = Vec::new();
    for blob in blobs {
        copies.push(Box::pin(async move { Ok((blob.size, copy_blob(from, to, blob, options).await?)) }));
    }
    let mut copies = futures::stream::iter(copies).buffer_unordered(options.parallel.max(1));
    let mut report = CopyReport::default();
    while let Some((size, pushed)) = copies.next().await.transpose()? {
        match pushed {
            Pushed::Existing => report.existing += 1,
            Pushed::Mounted => report.mounted += 1,
            Pushed::Written => {
                report.written += 1;
                report.written_bytes += size;
            }
        }
    }
    Ok(report)
}

/// Copies one blob. What arrives wrong is fetched anew as often as the source says: a flipped bit on the way is not a lie.
pub async fn copy_blob(
    from: &dyn BlobSource,
    to: &dyn BlobSink,
    blob: &Descriptor,
    options: &CopyOptions,
) -> Result<Pushed> {
    let metered = Metered { inner: from, progress: options.progress.clone() };
    let mut chances = Chances::of(from, blob);
    loop {
        match to.push(blob, &metered).await {
            Err(error) => chances.after(error)?,
            Ok(pushed) => {
                metered.say(blob, blob.size, TransferState::Done(pushed));
                return Ok(pushed);
            }
        }
    }
}

/// Everything there is to copy, documents read and checked.
pub(crate) struct Plan {
    /// Configs and layers, each once.
    pub(crate) blobs: Vec<Descriptor>,
    /// Documents below the root, children before parents.
    pub(crate) children: Vec<(Descriptor, Vec<u8>)>,
    /// The root document.
    pub(crate) root: Vec<u8>,
    /// Layers that are not ours to copy.
    foreign: usize,
}

impl Plan {
    pub(crate) async fn of(from: &dyn BlobSource, root: &Descriptor) -> Result<Self> {
        let mut walk = Walk { from, seen: HashSet::new(), blobs: Vec::new(), documents: Vec::new(), foreign: 0 };
        walk.visit(root.clone()).await?;
        let (_, root) = walk.documents.pop().expect("the root is visited last");
        Ok(Self { blobs: walk.blobs, children: walk.documents, root, foreign: walk.foreign })
    }
}

struct Walk<'a> {
    from: &'a dyn BlobSource,
    seen: HashSet<Digest>,
    blobs: Vec<Descriptor>,
    /// Children before parents.
    documents: Vec<(Descriptor, Vec<u8>)>,
    foreign: usize,
}

enum Visit {
    Enter(Descriptor, usize),
    Leave(Descriptor, Vec<u8>),
}

impl Walk<'_> {
    async fn visit(&mut self, root: Descriptor) -> Result<()> {
        let mut todo = vec![Visit::Enter(root, 0)];
        while let Some(visit) = todo.pop() {
            let (descriptor, depth) = match visit {
                Visit::Enter(descriptor, depth) => (descriptor, depth),
                Visit::Leave(descriptor, bytes) => {
                    self.documents.push((descriptor, bytes));
                    continue;
                }
            };
            if !self.seen.insert(descriptor.digest.clone()) {
                continue;
            }
            check_shape(depth, self.seen.len() - self.blobs.len())?;
            match fetch_document(self.from, &descriptor).await? {
                Document::Manifest(manifest) => {
                    let (bytes, manifest) = manifest.into_parts();
                    self.blobs_of(manifest.layers.into_iter().chain([manifest.config]));
                    self.documents.push((descriptor, bytes));
                }
                Document::Index(index) => {
                    let (bytes, index) = index.into_parts();
                    todo.push(Visit::Leave(descriptor, bytes));
                    self.entries_of(index.manifests, depth, &mut todo);
                }
            }
        }
        Ok(())
    }

    fn entries_of(&mut self, entries: Vec<Descriptor>, depth: usize, todo: &mut Vec<Visit>) {
        for entry in entries.into_iter().rev() {
            if entry.media_type.is_manifest() || entry.media_type.is_index() {
                todo.push(Visit::Enter(entry, depth + 1));
            } else {
                self.blobs_of([entry]);
            }
        }
    }

    fn blobs_of(&mut self, blobs: impl IntoIterator<Item = Descriptor>) {
        for blob in blobs {
            if is_foreign(&blob) {
                self.foreign += 1;
            } else if self.seen.insert(blob.digest.clone()) {
                self.blobs.push(blob);
            }
        }
    }
}

fn check_shape(depth: usize, documents: usize) -> Result<()> {
    let too =
        |what: String, limit: usize| Error::TooLarge { doing: "use the index".into(), what, limit: limit.to_string() };
    if depth > limits::DEPTH {
        return Err(too("the nesting of indexes".into(), limits::DEPTH));
    }
    if documents > limits::MANIFESTS {
        return Err(too("the number of manifests".into(), limits::MANIFESTS));
    }
    Ok(())
}

/// Layers that may not be redistributed stay where their URLs say; those are never followed.
pub(crate) fn is_foreign(blob: &Descriptor) -> bool {
    let kind = blob.media_type.as_str();
    !blob.urls.is_empty() && (kind.contains(".nondistributable.") || kind.contains(".foreign."))
}

/// A source that tells what is read from it.
struct Metered<'a> {
    inner: &'a dyn BlobSource,
    progress: Option<Arc<dyn Progress>>,
}

impl Metered<'_> {
    fn say(&self, descriptor: &Descriptor, done: u64, state: TransferState) {
        if let Some(progress) = &self.progress {
            progress.update(Transfer { descriptor: descriptor.clone(), done, state });
        }
    }

    fn watch(&self, reader: BlobReader, descriptor: &Descriptor, offset: u64) -> BlobReader {
        let Some(progress) = self.progress.clone() else { return reader };
        let (descriptor, mut done) = (descriptor.clone(), offset);
        self.say(&descriptor, done, TransferState::Running);
        reader.metered(move |count| {
            done += count;
            progress.update(Transfer { descriptor: descriptor.clone(), done, state: TransferState::Running });
        })
    }
}

#[async_trait]
impl BlobSource for Metered<'_> {
    async fn fetch(&self, descriptor: &Descriptor) -> Result<BlobReader> {
        let reader = self.inner.fetch(descriptor).await?;
        Ok(self.watch(reader, descriptor, 0))
    }

    async fn fetch_from(&self, descriptor: &Descriptor, offset: u64) -> Result<BlobReader> {
        let reader = self.inner.fetch_from(descriptor, offset).await?;
        Ok(self.watch(reader, descriptor, offset))
    }

    async fn fetch_rest(&self, descriptor: &Descriptor, seen: Verifier) -> Result<BlobReader> {
        let offset = seen.seen();
        let reader = self.inner.fetch_rest(descriptor, seen).await?;
        Ok(self.watch(reader, descriptor, offset))
    }

    fn tries(&self, descriptor: &Descriptor) -> u32 {
        self.inner.tries(descriptor)
    }
}
