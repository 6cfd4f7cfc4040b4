//! Caches in stores of objects: S3, Azure's, and that of GitHub's actions. There are no manifests there, so that the
//! cache's config describes each layer itself.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::future::{BoxFuture, join_all};
use kiln_image::objects::{self, ObjectOptions, ObjectSink, ObjectStore};
use kiln_image::{BlobSource, CopyOptions, ErrorKind, copy_blob};
use kiln_oci::{Descriptor, Digest, Platform};
use kiln_report::Failure;

use crate::export::meter;
use crate::failure::{Context as _, exchange};
use crate::job::Result;
use crate::progress::Work;
use crate::registry::Registry;
use crate::remote::format::{CREATED, CacheConfig, DIFF_ID, LayerAnnotations};
use crate::remote::manifest::no_cache;
use crate::remote::records::{NO_TIME, Packed};
use crate::remote::{CacheSink, CacheSource, Found};

/// A store of objects, to read a cache from or to write one to.
pub(super) struct Place {
    registry: Arc<Registry>,
    options: ObjectOptions,
}

impl Place {
    /// Opens nothing yet.
    pub(super) fn new(registry: Arc<Registry>, options: ObjectOptions) -> Self {
        Self { registry, options }
    }

    fn open(&self) -> Result<Arc<dyn ObjectStore>> {
        objects::open(&self.options, self.registry.http()).map_err(failure)
    }
}

#[async_trait]
impl CacheSource for Place {
    fn name(&self) -> String {
        self.options.label()
    }

    async fn read(&self, _: &[Platform]) -> Result<Found> {
        let store = self.open()?;
        let names = store.names();
        let read = join_all(names.iter().map(|name| store.document(name))).await;
        let mut caches = Vec::new();
        for document in read {
            if let Some(bytes) = document.map_err(failure)? {
                caches.push(parse(&bytes)?);
            }
        }
        if caches.is_empty() {
            let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
            return Err(no_cache(&format!("nothing is called {}", names.join(" or "))));
        }
        Ok(Found { caches, blobs: store })
    }
}

#[async_trait]
impl CacheSink for Place {
    fn title(&self) -> String {
        format!("exporting cache to {}", self.options.label())
    }

    async fn write(&self, mut cache: Packed, blobs: &dyn BlobSource, work: &Work) -> Result<()> {
        let store = self.open()?;
        let names = store.own_names();
        let sink = ObjectSink::new(Arc::clone(&store), String::new());
        let options = CopyOptions { progress: Some(meter(work)), ..CopyOptions::default() };
        // Boxed one by one, without closures: the compiler cannot see that those are `Send` for every lifetime.
        let mut copies: Vec<BoxFuture<'_, kiln_image::Result<kiln_image::Pushed>>> = Vec::new();
        for layer in &cache.layers {
            copies.push(Box::pin(copy_blob(blobs, &sink, layer, &options)));
        }
        let mut copies = futures::stream::iter(copies).buffer_unordered(store.parallel());
        while let Some(copied) = copies.next().await {
            copied.map_err(failure)?;
        }
        drop(copies);
        describe(&mut cache);
        let config = serde_json::to_vec(&cache.config).expect("plain data serialises");
        for name in names {
            work.part(format!("writing cache manifest {name}"));
            store.write_document(&name, config.clone().into()).await.map_err(failure)?;
        }
        Ok(())
    }
}

/// A cache, and the layers it describes.
fn parse(bytes: &[u8]) -> Result<(CacheConfig, Vec<Descriptor>)> {
    let config: CacheConfig = serde_json::from_slice(bytes).or_build(|| "the cache is not valid".into())?;
    let described = config.layers.iter().filter_map(|layer| {
        let known = layer.annotations.as_ref()?;
        let mut blob = Descriptor::new(known.media_type.clone(), layer.blob.clone(), known.size);
        blob.annotations.insert(DIFF_ID.into(), known.diff_id.to_string());
        if known.created_at != NO_TIME {
            blob.annotations.insert(CREATED.into(), known.created_at.clone());
        }
        Some(blob)
    });
    let described = described.collect();
    Ok((config, described))
}

/// Says of each layer what a manifest would.
fn describe(cache: &mut Packed) {
    let layers: HashMap<&Digest, &Descriptor> = cache.layers.iter().map(|layer| (&layer.digest, layer)).collect();
    for layer in &mut cache.config.layers {
        let Some(blob) = layers.get(&layer.blob) else { continue };
        let Some(diff_id) = blob.annotations.get(DIFF_ID).and_then(|diff_id| diff_id.parse().ok()) else { continue };
        layer.annotations = Some(LayerAnnotations {
            media_type: blob.media_type.clone(),
            diff_id,
            size: blob.size,
            created_at: blob.annotations.get(CREATED).cloned().unwrap_or_else(|| NO_TIME.to_owned()),
        });
    }
}

/// A failure of the exchange with a store, with the way out that fits its kind.
pub(crate) fn failure(error: kiln_image::Error) -> Failure {
    exchange(&error, |kind| match kind {
        _ if matches!(error, kiln_image::Error::Credentials { .. }) => {
            Some("give the store's credentials as attributes or in variables")
        }
        ErrorKind::Unauthorized => Some("check the credentials, and what they may do with the store"),
        ErrorKind::NotFound => Some("check the names of the bucket or container and of the server"),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_that_is_described_is_read_as_it_was() {
        let mut layer = Descriptor::of("application/vnd.oci.image.layer.v1.tar+gzip", b"layer");
        layer.annotations.insert(DIFF_ID.into(), Digest::sha256("tar").to_string());
        layer.annotations.insert(CREATED.into(), "2026-01-02T03:04:05Z".into());
        let mut cache = Packed::of_image(std::slice::from_ref(&layer));
        describe(&mut cache);
        let json = serde_json::to_string(&cache.config).unwrap();
        let expected = format!(
            r#"{{"layers":[{{"blob":"{}","parent":-1,"annotations":{{"mediaType":"{}","diffID":"{}","size":5,"createdAt":"2026-01-02T03:04:05Z"}}}}]}}"#,
            layer.digest,
            layer.media_type,
            Digest::sha256("tar"),
        );
        assert_eq!(json, expected);
        assert_eq!(parse(json.as_bytes()).unwrap(), (cache.config, vec![layer]));
        assert!(parse(b"{").is_err());
    }
}
