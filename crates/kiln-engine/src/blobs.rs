//! The content store as a place that images come from and go to.

use std::io::Write as _;
use std::sync::Arc;

use async_trait::async_trait;
use kiln_image::{BlobReader, BlobSink, BlobSource, Error, ErrorKind, Pushed, Role};
use kiln_oci::{Descriptor, Digest};
use kiln_store::{ContentStore, Ingest, Lease, Store};

use crate::follow::Growth;

type Result<T> = kiln_image::Result<T>;

/// Chunks that wait to be written; the network goes on meanwhile.
const AHEAD: usize = 8;

/// Writes what arrives into the content store, on a thread that may block. `seen` hears of all bytes so far, and `growth`
/// of those that can be read.
///
/// What broke off may be continued, if the ingest is of that kind; what is refused is thrown away.
pub(crate) async fn receive(
    reader: &mut BlobReader,
    ingest: Ingest,
    doing: &str,
    seen: &mut (dyn FnMut(u64) + Send),
    growth: Option<Arc<Growth>>,
) -> Result<Ingest> {
    let mut done = ingest.size();
    let (sender, chunks) = tokio::sync::mpsc::channel(AHEAD);
    let writer = tokio::task::spawn_blocking(move || write(ingest, chunks, growth.as_deref()));
    let read = loop {
        match reader.chunk().await {
            Ok(Some(chunk)) => {
                let count = chunk.len() as u64;
                if sender.send(chunk).await.is_err() {
                    break Ok(());
                }
                done += count;
                seen(done);
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    drop(sender);
    let (ingest, written) = writer.await.map_err(|stopped| Error::from_io(doing, std::io::Error::other(stopped)))?;
    match read.and(written.map_err(|error| Error::from_io(doing, error))) {
        Ok(()) => Ok(ingest),
        Err(error) => {
            if !matches!(error.kind(), ErrorKind::Network | ErrorKind::RateLimited) {
                ingest.discard();
            }
            Err(error)
        }
    }
}

fn write(
    mut ingest: Ingest,
    mut chunks: tokio::sync::mpsc::Receiver<impl AsRef<[u8]>>,
    growth: Option<&Growth>,
) -> (Ingest, std::io::Result<()>) {
    let mut all = || {
        while let Some(chunk) = chunks.blocking_recv() {
            ingest.write_all(chunk.as_ref())?;
            if let Some(growth) = growth.filter(|_| chunks.is_empty()) {
                ingest.flush()?;
                growth.reached(ingest.size())?;
            }
        }
        ingest.flush()?;
        growth.map_or(Ok(()), |growth| growth.reached(ingest.size()))
    };
    let written = all();
    (ingest, written)
}

/// What enters is held by the lease.
#[derive(Clone)]
pub(crate) struct StoreBlobs {
    pub(crate) store: Store,
    pub(crate) lease: Lease,
}

fn store_error(doing: String) -> impl FnOnce(kiln_store::Error) -> Error {
    move |error| Error::from_io(doing, std::io::Error::other(error))
}

/// Throws out what has rotted, so that it is made or fetched anew.
fn rotten(doing: &str, content: &ContentStore, digest: &Digest) -> Error {
    let (why, way_out) = match content.verify(digest) {
        Err(kiln_store::Error::DigestMismatch { .. }) => ("was thrown out", "run the command again"),
        _ => ("cannot be thrown out", "run `kiln fsck --repair`"),
    };
    let text = format!("it has changed on the disk and {why}: {way_out} to have it made or fetched anew");
    Error::from_io(doing, std::io::Error::other(text))
}

#[async_trait]
impl BlobSource for StoreBlobs {
    async fn fetch(&self, descriptor: &Descriptor) -> Result<BlobReader> {
        let doing = format!("read `{}` from the store", descriptor.digest);
        let file = self.store.content().open(&descriptor.digest).map_err(store_error(doing.clone()))?;
        let reader = BlobReader::from_read(doing.clone(), descriptor, tokio::fs::File::from_std(file));
        let (content, digest) = (self.store.content(), descriptor.digest.clone());
        Ok(reader.explained(move |error| match error.kind() {
            ErrorKind::Lying => rotten(&doing, &content, &digest),
            _ => error,
        }))
    }

    async fn file(&self, descriptor: &Descriptor) -> Option<std::fs::File> {
        self.store.content().open_written(&descriptor.digest)
    }
}

#[async_trait]
impl BlobSink for StoreBlobs {
    async fn has(&self, descriptor: &Descriptor) -> Result<bool> {
        let doing = format!("look for `{}` in the store", descriptor.digest);
        self.lease.hold_blob(&descriptor.digest).map_err(store_error(doing.clone()))?;
        self.store.content().has(&descriptor.digest).map_err(store_error(doing))
    }

    async fn push(&self, descriptor: &Descriptor, from: &dyn BlobSource) -> Result<Pushed> {
        if self.has(descriptor).await? {
            return Ok(Pushed::Existing);
        }
        let doing = format!("keep `{}` in the store", descriptor.digest);
        let mut reader = from.fetch(descriptor).await?;
        let ingest = self.store.content().ingest(&self.lease).map_err(store_error(doing.clone()))?;
        let ingest = receive(&mut reader, ingest, &doing, &mut |_| {}, None).await?;
        let wanted = descriptor.clone();
        let committed = tokio::task::spawn_blocking(move || ingest.commit_as(&wanted)).await;
        let committed = committed.map_err(|e| Error::from_io(doing.clone(), std::io::Error::other(e)))?;
        committed.map_err(store_error(doing))?;
        Ok(Pushed::Written)
    }

    async fn push_document(&self, descriptor: &Descriptor, bytes: &[u8], _role: Role) -> Result<()> {
        let doing = format!("keep manifest `{}` in the store", descriptor.digest);
        let put = self.store.content().put(&self.lease, descriptor.media_type.clone(), bytes);
        put.map(drop).map_err(store_error(doing))
    }
}
