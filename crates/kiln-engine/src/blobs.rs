//! The content store as a place that images come from and go to.

use async_trait::async_trait;
use kiln_image::{BlobReader, BlobSink, BlobSource, Error, Pushed, Role};
use kiln_oci::Descriptor;
use kiln_store::{Lease, Store};

type Result<T> = kiln_image::Result<T>;

/// What enters is held by the lease.
#[derive(Clone)]
pub(crate) struct StoreBlobs {
    pub(crate) store: Store,
    pub(crate) lease: Lease,
}

fn store_error(doing: String) -> impl FnOnce(kiln_store::Error) -> Error {
    move |error| Error::from_io(doing, std::io::Error::other(error))
}

#[async_trait]
impl BlobSource for StoreBlobs {
    async fn fetch(&self, descriptor: &Descriptor) -> Result<BlobReader> {
        let doing = format!("read `{}` from the store", descriptor.digest);
        let file = self.store.content().open(&descriptor.digest).map_err(store_error(doing.clone()))?;
        Ok(BlobReader::from_read(doing, descriptor, tokio::fs::File::from_std(file)))
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
        let mut ingest = self.store.content().ingest(&self.lease).map_err(store_error(doing.clone()))?;
        while let Some(chunk) = reader.chunk().await? {
            let written =
                tokio::task::spawn_blocking(move || std::io::Write::write_all(&mut ingest, &chunk).map(|()| ingest));
            let written = written.await.map_err(|e| Error::from_io(doing.clone(), std::io::Error::other(e)))?;
            ingest = written.map_err(|error| Error::from_io(doing.clone(), error))?;
        }
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
