//! Buckets of S3, or of what speaks like it.

use std::num::NonZero;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt as _;
use kiln_oci::Descriptor;
use object_store::StaticCredentialProvider;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsCredential, AwsCredentialProvider};
use reqwest::header::{CONTENT_LENGTH, DATE, ETAG, HeaderMap, HeaderName, LAST_MODIFIED};
use reqwest::{Method, StatusCode, Url};
use tokio::sync::Semaphore;

use super::blocks::{PART, parts};
use super::signer::{Aws, patience};
use super::wire::{Locate, Wire, call, element, escaped, fetch, said, with_body, with_header};
use super::{ObjectStore, S3Options, Secret};
use crate::http::{Reply, parse_date};
use crate::{BlobReader, BlobSource, ClientOptions, Error, HttpClient, Pushed, Result, RetryPolicy};

/// A larger object cannot be copied onto itself in one request.
const LARGEST_COPY: u64 = 5 << 30;

/// An upload has no more parts.
const MOST_PARTS: u64 = 10_000;

/// A bucket.
pub(super) struct S3 {
    wire: Arc<Wire>,
    options: S3Options,
    base: Url,
    slots: Arc<Semaphore>,
}

/// An object, as its head describes it.
struct Head {
    size: Option<u64>,
    age: Duration,
}

impl S3 {
    pub(super) fn new(options: &S3Options, http: &HttpClient) -> Result<Self> {
        let base = base(options)?;
        let credentials = credentials(options)?;
        let token = options.keys.iter().filter_map(|keys| keys.token.clone());
        let secret = options.keys.iter().map(|keys| keys.secret.clone());
        let hidden: Vec<Secret> = token.chain(secret).collect();
        let signer = Aws { credentials, region: options.region.clone() };
        let wire = Arc::new(Wire::new(with_attempts(http, options.attempts), signer, hidden));
        let slots = Arc::new(Semaphore::new(options.upload_parallelism.get()));
        Ok(Self { wire, options: options.clone(), base, slots })
    }

    fn url(&self, key: &str) -> Url {
        let mut url = self.base.clone();
        let path = format!("{}/{}", self.base.path().trim_end_matches('/'), escaped(key));
        url.set_path(&path);
        url
    }

    fn blob_url(&self, blob: &Descriptor) -> Url {
        self.url(&self.options.layout.blob(&blob.digest))
    }

    async fn head(&self, blob: &Descriptor) -> Result<Option<Head>> {
        let doing = format!("look for blob `{}` in bucket `{}`", blob.digest, self.options.bucket);
        let reply = self.wire.send(call(&doing, Method::HEAD, self.blob_url(blob))).await?;
        match reply.status() {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => Ok(Some(head_of(reply.headers()))),
            _ => Err(self.wire.refusal(&doing, reply).await),
        }
    }

    /// Copies an object onto itself, so that what clears a bucket of old objects takes it for new.
    async fn touch(&self, blob: &Descriptor) -> Result<()> {
        let doing = format!("touch blob `{}` in bucket `{}`", blob.digest, self.options.bucket);
        let source = format!("{}/{}", self.options.bucket, self.options.layout.blob(&blob.digest));
        let put = call(&doing, Method::PUT, self.blob_url(blob));
        let put = with_header(put, "x-amz-copy-source", &escaped(&source));
        let put = with_header(put, "x-amz-metadata-directive", "REPLACE");
        let now = jiff::Timestamp::now().to_string();
        let put = with_body(with_header(put, "x-amz-meta-updated-at", &now), Bytes::new());
        self.answered(&doing, self.wire.succeed(put).await?).await.map(drop)
    }

    async fn upload(&self, blob: &Descriptor, from: &dyn BlobSource) -> Result<()> {
        let doing = format!("write blob `{}` to bucket `{}`", blob.digest, self.options.bucket);
        let url = self.blob_url(blob);
        let reader = from.fetch(blob).await?;
        if blob.size <= PART {
            let _slot = self.slots.acquire().await.expect("nobody closes it");
            let bytes = reader.bytes(&doing, PART).await?;
            return self.wire.succeed(with_body(call(doing, Method::PUT, url), bytes.into())).await.map(drop);
        }
        let upload = self.begin(&doing, &url).await?;
        let sent = self.send_parts(&doing, (&url, &upload), blob, reader).await;
        if sent.is_err() {
            // What is left of an upload costs its owner money; that it cannot be taken back is no further error.
            let _ = self.wire.send(call(doing, Method::DELETE, with_query(&url, &[("uploadId", &upload)]))).await;
        }
        sent
    }

    /// Opens an upload of several parts.
    async fn begin(&self, doing: &str, url: &Url) -> Result<String> {
        let mut url = url.clone();
        url.set_query(Some("uploads="));
        let reply = self.wire.succeed(with_body(call(doing, Method::POST, url), Bytes::new())).await?;
        let answer = self.answered(doing, reply).await?;
        let upload = std::str::from_utf8(&answer).ok().and_then(|xml| element(xml, "UploadId"));
        upload.ok_or_else(|| Error::invalid(doing, "the store began an upload and did not name it"))
    }

    async fn send_parts(
        &self,
        doing: &str,
        (url, upload): (&Url, &str),
        blob: &Descriptor,
        reader: BlobReader,
    ) -> Result<()> {
        let size = PART.max(blob.size.div_ceil(MOST_PARTS));
        let sent = parts(reader, size, &self.slots).map_ok(|(number, bytes, slot)| async move {
            let url = with_query(url, &[("partNumber", &(number + 1).to_string()), ("uploadId", upload)]);
            let reply = self.wire.succeed(with_body(call(doing, Method::PUT, url), bytes)).await?;
            drop(slot);
            let tag = reply.headers().get(ETAG).and_then(|tag| tag.to_str().ok()).map(str::to_owned);
            tag.map(|tag| (number + 1, tag)).ok_or_else(|| Error::invalid(doing, "the store gave a part no tag"))
        });
        let mut tags: Vec<(u64, String)> =
            sent.try_buffer_unordered(self.options.upload_parallelism.get()).try_collect().await?;
        tags.sort_unstable();
        let escape = |tag: &str| tag.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
        let part = |(number, tag): &(u64, String)| {
            format!("<Part><PartNumber>{number}</PartNumber><ETag>{}</ETag></Part>", escape(tag))
        };
        let list: String = tags.iter().map(part).collect();
        let list = format!("<CompleteMultipartUpload>{list}</CompleteMultipartUpload>");
        let done = call(doing, Method::POST, with_query(url, &[("uploadId", upload)]));
        let reply = self.wire.succeed(with_body(done, list.into())).await?;
        self.answered(doing, reply).await.map(drop)
    }

    /// Some requests are answered before they are done: an answer that begins well may hold an error.
    async fn answered(&self, doing: &str, reply: Reply) -> Result<Vec<u8>> {
        let answer = self.wire.body(doing, reply).await?;
        let is_error = std::str::from_utf8(&answer).is_ok_and(|xml| xml.contains("<Error>"));
        match is_error {
            true => {
                let said = said(&answer).unwrap_or_else(|| "the store says no more".into());
                Err(self.wire.hide(Error::invalid(doing, said)))
            }
            false => Ok(answer),
        }
    }
}

#[async_trait]
impl BlobSource for S3 {
    async fn fetch(&self, descriptor: &Descriptor) -> Result<BlobReader> {
        let at = Place { wire: Arc::clone(&self.wire), url: self.blob_url(descriptor) };
        fetch(self.wire.http(), descriptor, at).await
    }
}

#[async_trait]
impl ObjectStore for S3 {
    fn names(&self) -> Vec<String> {
        self.options.layout.names.clone()
    }

    fn parallel(&self) -> usize {
        self.options.upload_parallelism.get()
    }

    async fn document(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let doing = format!("read `{name}` of bucket `{}`", self.options.bucket);
        let reply = self.wire.send(call(&doing, Method::GET, self.url(&self.options.layout.document(name)))).await?;
        match reply.status() {
            status if status.is_success() => self.wire.body(&doing, reply).await.map(Some),
            StatusCode::NOT_FOUND => {
                let body = self.wire.body(&doing, reply).await.unwrap_or_default();
                match said(&body).is_some_and(|said| said.contains("NoSuchBucket")) {
                    true => Err(Error::invalid(&doing, "there is no such bucket")),
                    false => Ok(None),
                }
            }
            _ => Err(self.wire.refusal(&doing, reply).await),
        }
    }

    async fn write_document(&self, name: &str, bytes: Bytes) -> Result<()> {
        let doing = format!("write `{name}` to bucket `{}`", self.options.bucket);
        let put = call(doing, Method::PUT, self.url(&self.options.layout.document(name)));
        self.wire.succeed(with_body(put, bytes)).await.map(drop)
    }

    async fn has(&self, blob: &Descriptor) -> Result<bool> {
        Ok(self.head(blob).await?.is_some_and(|head| head.size == Some(blob.size)))
    }

    async fn push(&self, blob: &Descriptor, from: &dyn BlobSource) -> Result<Pushed> {
        let head = self.head(blob).await?.filter(|head| head.size == Some(blob.size));
        match head {
            Some(head) if head.age < self.options.touch_refresh => Ok(Pushed::Existing),
            Some(_) if blob.size < LARGEST_COPY => self.touch(blob).await.map(|()| Pushed::Existing),
            _ => self.upload(blob, from).await.map(|()| Pushed::Written),
        }
    }
}

/// A fixed address.
pub(super) struct Place {
    pub(super) wire: Arc<Wire>,
    pub(super) url: Url,
}

#[async_trait]
impl Locate for Place {
    async fn locate(&self) -> Result<(Arc<Wire>, Url)> {
        Ok((Arc::clone(&self.wire), self.url.clone()))
    }
}

/// Where the bucket is: within the host's name, or within the path.
fn base(options: &S3Options) -> Result<Url> {
    let (bucket, region) = (&options.bucket, &options.region);
    let wrong = |reason: &str| Error::invalid(format!("use bucket `{bucket}`"), reason);
    let Some(endpoint) = &options.endpoint else {
        let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        // A certificate for `*.s3…` does not hold for names with more dots.
        let address = match bucket.contains('.') {
            true => format!("https://s3.{region}.{domain}/{}", escaped(bucket)),
            false => format!("https://{bucket}.s3.{region}.{domain}/"),
        };
        return address.parse().map_err(|_| wrong("its name or region is part of no address"));
    };
    let mut url: Url = endpoint.parse().map_err(|_| wrong("its endpoint is no URL"))?;
    if url.query().is_some() || !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("an endpoint has no query, user or password"));
    }
    if !url.has_host() {
        return Err(wrong("its endpoint names no host"));
    }
    // An address of digits has no names below it.
    match url.domain().filter(|_| !options.use_path_style).map(|host| format!("{bucket}.{host}")) {
        Some(host) => url.set_host(Some(&host)).map_err(|_| wrong("its name is part of no address"))?,
        None => {
            let path = format!("{}/{}", url.path().trim_end_matches('/'), escaped(bucket));
            url.set_path(&path);
        }
    }
    Ok(url)
}

fn credentials(options: &S3Options) -> Result<AwsCredentialProvider> {
    if let Some(keys) = &options.keys {
        let token = keys.token.as_ref().map(|token| token.expose().to_owned());
        let credential = AwsCredential { key_id: keys.id.clone(), secret_key: keys.secret.expose().to_owned(), token };
        return Ok(Arc::new(StaticCredentialProvider::new(credential)));
    }
    let mut builder = AmazonS3Builder::new().with_bucket_name(&options.bucket).with_region(&options.region);
    for (name, value) in &options.environment {
        if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
            builder = builder.with_config(key, value.expose());
        }
    }
    let built = builder.with_retry(patience()).build();
    let store = built.map_err(|error| Error::invalid(format!("use bucket `{}`", options.bucket), error.to_string()))?;
    Ok(Arc::clone(store.credentials()))
}

/// A client that tries as often as is wanted.
fn with_attempts(http: &HttpClient, attempts: Option<NonZero<u32>>) -> HttpClient {
    let Some(attempts) = attempts else { return http.clone() };
    let options = http.options().clone();
    HttpClient::new(ClientOptions { retry: RetryPolicy { tries: attempts.get(), ..options.retry }, ..options })
}

fn with_query(url: &Url, pairs: &[(&str, &str)]) -> Url {
    let mut url = url.clone();
    // As it is signed: escaped strictly, where a form would have `+` for a space.
    let pairs: Vec<String> =
        pairs.iter().map(|(key, value)| format!("{key}={}", escaped(value).replace('/', "%2F"))).collect();
    url.set_query(Some(&pairs.join("&")));
    url
}

/// Both times are the server's, so that it does not matter what ours is.
fn head_of(headers: &HeaderMap) -> Head {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let modified = text(LAST_MODIFIED).and_then(parse_date);
    let now = text(DATE).and_then(parse_date).unwrap_or_else(SystemTime::now);
    let age = modified.and_then(|modified| now.duration_since(modified).ok()).unwrap_or_default();
    Head { size: text(CONTENT_LENGTH).and_then(|size| size.parse().ok()), age }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::objects::StoreLayout;

    fn options(bucket: &str, endpoint: Option<&str>, use_path_style: bool) -> S3Options {
        let layout = StoreLayout {
            prefix: String::new(),
            blobs_prefix: "blobs/".into(),
            manifests_prefix: "manifests/".into(),
            names: vec!["buildkit".into()],
        };
        S3Options {
            bucket: bucket.into(),
            region: "eu-west-1".into(),
            endpoint: endpoint.map(str::to_owned),
            use_path_style,
            layout,
            touch_refresh: Duration::from_secs(86_400),
            upload_parallelism: NonZero::new(4).unwrap(),
            attempts: None,
            keys: None,
            environment: BTreeMap::new(),
        }
    }

    #[test]
    fn buckets_are_where_servers_have_them() {
        for (bucket, endpoint, path_style, expected) in [
            ("b", None, false, "https://b.s3.eu-west-1.amazonaws.com/"),
            ("b.c", None, false, "https://s3.eu-west-1.amazonaws.com/b.c"),
            ("b", Some("https://minio.lan:9000"), true, "https://minio.lan:9000/b"),
            ("b", Some("https://minio.lan:9000/"), false, "https://b.minio.lan:9000/"),
            ("b", Some("http://127.0.0.1:9000"), false, "http://127.0.0.1:9000/b"),
            ("b", Some("http://h/sub/"), true, "http://h/sub/b"),
        ] {
            assert_eq!(base(&options(bucket, endpoint, path_style)).unwrap().as_str(), expected);
        }
        for wrong in ["nonsense", "https://u:p@h/", "https://h/?token=hush", "data:x"] {
            let error = base(&options("b", Some(wrong), true)).unwrap_err().to_string();
            assert!(!error.contains("hush"), "{error}");
        }
    }

    #[test]
    fn an_object_is_as_old_as_its_server_says() {
        let pairs = [(DATE, "Sun, 06 Nov 1994 08:49:37 GMT"), (LAST_MODIFIED, "Sun, 06 Nov 1994 08:48:37 GMT")];
        let headers = HeaderMap::from_iter(pairs.map(|(name, value)| (name, value.parse().unwrap())));
        assert_eq!(head_of(&headers).age, Duration::from_secs(60));
    }
}
