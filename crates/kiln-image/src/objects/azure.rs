//! Containers of Azure's blob storage.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use kiln_oci::Descriptor;
use object_store::azure::{AzureConfigKey, AzureCredentialProvider, MicrosoftAzureBuilder};
use reqwest::header::CONTENT_LENGTH;
use reqwest::{Method, StatusCode, Url};
use tokio::sync::{OnceCell, Semaphore};

use super::blocks::{Target, sized, with_pairs};
use super::s3::Place;
use super::signer::{Azure as Signer, patience};
use super::wire::{Wire, call, escaped, fetch, with_header};
use super::{AzureOptions, ObjectStore, Secret};
use crate::{BlobReader, BlobSource, Error, HttpClient, Pushed, Result};

/// Blobs that are sent at once, and blocks.
const PARALLEL: usize = 4;

/// A container.
pub(super) struct Azure {
    wire: Arc<Wire>,
    options: AzureOptions,
    /// The container's address.
    base: Url,
    slots: Arc<Semaphore>,
    /// Set once it is known to be there.
    is_there: OnceCell<()>,
}

impl Azure {
    pub(super) fn new(options: &AzureOptions, http: &HttpClient) -> Result<Self> {
        let base = base(options)?;
        let signer = Signer { credentials: credentials(options)?, account: options.account.clone() };
        let hidden: Vec<Secret> = options.key.iter().cloned().collect();
        let wire = Arc::new(Wire::new(http.clone(), signer, hidden));
        let (slots, is_there) = (Arc::new(Semaphore::new(PARALLEL)), OnceCell::new());
        Ok(Self { wire, options: options.clone(), base, slots, is_there })
    }

    fn url(&self, key: &str) -> Url {
        let mut url = self.base.clone();
        let path = format!("{}/{}", self.base.path().trim_end_matches('/'), escaped(key));
        url.set_path(&path);
        url
    }

    fn blob_url(&self, blob: &Descriptor) -> Url {
        self.url(&self.options.layout.joined_blob(&blob.digest))
    }

    /// Makes the container, unless it is there.
    async fn see_to_container(&self) -> Result<()> {
        let doing = format!("look for container `{}`", self.options.container);
        let url = with_pairs(&self.base, &[("restype", "container")]);
        let reply = self.wire.send(call(&doing, Method::HEAD, url.clone())).await?;
        match reply.status() {
            StatusCode::NOT_FOUND => {}
            status if status.is_success() => return Ok(()),
            _ => return Err(self.wire.refusal(&doing, reply).await),
        }
        let doing = format!("create container `{}`", self.options.container);
        let reply = self.wire.send(sized(call(&doing, Method::PUT, url), Bytes::new())).await?;
        match reply.status() {
            // Another was faster.
            StatusCode::CONFLICT => Ok(()),
            status if status.is_success() => Ok(()),
            _ => Err(self.wire.refusal(&doing, reply).await),
        }
    }
}

#[async_trait]
impl BlobSource for Azure {
    async fn fetch(&self, descriptor: &Descriptor) -> Result<BlobReader> {
        let at = Place { wire: Arc::clone(&self.wire), url: self.blob_url(descriptor) };
        fetch(self.wire.http(), descriptor, at).await
    }
}

#[async_trait]
impl ObjectStore for Azure {
    fn names(&self) -> Vec<String> {
        self.options.layout.names.clone()
    }

    fn parallel(&self) -> usize {
        PARALLEL
    }

    async fn document(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let doing = format!("read `{name}` of container `{}`", self.options.container);
        let url = self.url(&self.options.layout.joined_document(name));
        self.wire.read(call(doing, Method::GET, url)).await
    }

    async fn write_document(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.is_there.get_or_try_init(|| self.see_to_container()).await?;
        let doing = format!("write `{name}` to container `{}`", self.options.container);
        let put = call(doing, Method::PUT, self.url(&self.options.layout.joined_document(name)));
        self.wire.succeed(sized(with_header(put, "x-ms-blob-type", "BlockBlob"), bytes)).await.map(drop)
    }

    async fn has(&self, blob: &Descriptor) -> Result<bool> {
        let doing = format!("look for blob `{}` in container `{}`", blob.digest, self.options.container);
        let reply = self.wire.send(call(&doing, Method::HEAD, self.blob_url(blob))).await?;
        let size = reply.headers().get(CONTENT_LENGTH).and_then(|size| size.to_str().ok()?.parse::<u64>().ok());
        match reply.status() {
            StatusCode::NOT_FOUND => Ok(false),
            status if status.is_success() => Ok(size == Some(blob.size)),
            _ => Err(self.wire.refusal(&doing, reply).await),
        }
    }

    async fn push(&self, blob: &Descriptor, from: &dyn BlobSource) -> Result<Pushed> {
        self.is_there.get_or_try_init(|| self.see_to_container()).await?;
        if self.has(blob).await? {
            return Ok(Pushed::Existing);
        }
        let doing = format!("write blob `{}` to container `{}`", blob.digest, self.options.container);
        let url = self.blob_url(blob);
        let target = Target { wire: &self.wire, doing: &doing, url: &url, slots: &self.slots };
        target.send(blob, from).await.map(|()| Pushed::Written)
    }
}

fn base(options: &AzureOptions) -> Result<Url> {
    let wrong = |reason: &str| Error::invalid(format!("use container `{}`", options.container), reason);
    let mut url: Url = options.account_url.parse().map_err(|_| wrong("the account's URL is none"))?;
    if !url.has_host() || url.query().is_some() || !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("an account's URL has a host, and no query, user or password"));
    }
    let path = format!("{}/{}", url.path().trim_end_matches('/'), escaped(&options.container));
    url.set_path(&path);
    Ok(url)
}

fn credentials(options: &AzureOptions) -> Result<AzureCredentialProvider> {
    let mut builder =
        MicrosoftAzureBuilder::new().with_account(&options.account).with_container_name(&options.container);
    match &options.key {
        Some(key) => builder = builder.with_access_key(key.expose()),
        None => {
            for (name, value) in &options.environment {
                if let Ok(key) = name.to_ascii_lowercase().parse::<AzureConfigKey>() {
                    builder = builder.with_config(key, value.expose());
                }
            }
        }
    }
    // What is wrong with a key is not told: the key would be in it.
    let wrong = |_| Error::Credentials { host: options.account.clone(), reason: "the key is not base64".into() };
    Ok(Arc::clone(builder.with_retry(patience()).build().map_err(wrong)?.credentials()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::objects::StoreLayout;

    #[test]
    fn a_container_is_below_its_account() {
        let layout = StoreLayout {
            prefix: String::new(),
            blobs_prefix: "blobs".into(),
            manifests_prefix: "manifests".into(),
            names: vec!["buildkit".into()],
        };
        let options = |url: &str| AzureOptions {
            account_url: url.into(),
            account: "a".into(),
            container: "c".into(),
            layout: layout.clone(),
            key: Some(Secret::new("not base64: hush")),
            environment: BTreeMap::new(),
        };
        for (url, expected) in [
            ("https://a.blob.core.windows.net", "https://a.blob.core.windows.net/c"),
            ("http://127.0.0.1:10000/a/", "http://127.0.0.1:10000/a/c"),
        ] {
            assert_eq!(base(&options(url)).unwrap().as_str(), expected);
        }
        for wrong in ["x", "https://a/?sig=hush"] {
            let error = base(&options(wrong)).unwrap_err().to_string();
            assert!(!error.contains("hush"), "{error}");
        }
        let error = credentials(&options("https://a")).unwrap_err().to_string();
        assert!(!error.contains("hush"), "{error}");
    }
}
