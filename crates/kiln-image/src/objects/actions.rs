//! The cache of GitHub's actions, by the second version of its service: entries are reserved, sent to an address that is
//! signed, and closed. An entry never changes, so that a document is a row of entries whose newest counts.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use kiln_oci::{Descriptor, Digest};
use reqwest::{Method, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::blocks::Target;
use super::signer::{Bearer, Unsigned};
use super::wire::{Locate, Wire, call, fetch, said, with_body, with_header};
use super::{ActionsOptions, ObjectStore};
use crate::{BlobReader, BlobSource, ClientOptions, Error, HttpClient, MemoryBlobs, Pushed, Result, RetryPolicy};

const SERVICE: &str = "twirp/github.actions.results.api.v1.CacheService";

/// What tells entries of one key apart that were made by different programs; BuildKit's.
const VERSION: &str = "|go-actionscache-1.0";

/// Blobs that are sent at once.
const PARALLEL: usize = 4;

/// How long an entry of a document may be reserved by somebody else before it is taken for abandoned.
const PATIENCE: Duration = Duration::from_secs(15);

/// The cache of one repository.
pub(super) struct Actions {
    service: Arc<Service>,
    scope: String,
    scopes: Vec<Scope>,
    slots: Arc<Semaphore>,
}

/// The service as its clients see it.
struct Service {
    wire: Wire,
    /// For addresses that need no more than they have.
    signed: Arc<Wire>,
    base: String,
    version: String,
}

/// A branch whose caches may be used.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Scope {
    scope: String,
    permission: u32,
}

const WRITE: u32 = 2;

#[derive(Deserialize)]
struct Claims {
    /// JSON within JSON.
    ac: String,
    exp: Option<f64>,
}

#[derive(Deserialize)]
struct Reserved {
    #[serde(default)]
    ok: bool,
    #[serde(default)]
    signed_upload_url: String,
}

#[derive(Deserialize)]
struct Closed {
    #[serde(default)]
    ok: bool,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    ok: bool,
    #[serde(default)]
    signed_download_url: String,
    #[serde(default)]
    matched_key: String,
}

/// What became of a wish for an entry.
enum Reservation {
    At(Url),
    Taken,
}

impl Actions {
    pub(super) fn new(options: &ActionsOptions, http: &HttpClient) -> Result<Self> {
        const DOING: &str = "use the cache of GitHub's actions";
        let wrong = |reason: &str| Error::invalid(DOING, reason);
        let url = options.url.as_ref().ok_or_else(|| wrong("there is no `url_v2`, nor `ACTIONS_RESULTS_URL`"))?;
        let token = options.token.as_ref().ok_or_else(|| wrong("there is no `token`, nor `ACTIONS_RUNTIME_TOKEN`"))?;
        let parsed: Url = url.parse().map_err(|_| wrong("its address is no URL"))?;
        if parsed.query().is_some() || !parsed.username().is_empty() || parsed.password().is_some() {
            return Err(wrong("its address has no query, user or password"));
        }
        let scopes = scopes(token.expose()).map_err(wrong)?;
        let client = http.options().clone();
        let retry = RetryPolicy { budget: options.timeout, ..client.retry };
        let http = HttpClient::new(ClientOptions { retry, ..client });
        let service = Service {
            wire: Wire::new(http.clone(), Bearer(token.clone()), vec![token.clone()]),
            signed: Arc::new(Wire::new(http, Unsigned, vec![token.clone()])),
            base: format!("{}/{SERVICE}", url.trim_end_matches('/')),
            version: Digest::sha256(VERSION).hex().to_owned(),
        };
        let (scope, slots) = (options.scope.clone(), Arc::new(Semaphore::new(PARALLEL)));
        Ok(Self { service: Arc::new(service), scope, scopes, slots })
    }

    /// The document of a branch.
    fn index(&self, branch: &str) -> String {
        format!("index-{}-1-{}", self.scope, &Digest::sha256(branch).hex()[..8])
    }

    async fn save(&self, doing: &str, url: &Url, blob: &Descriptor, from: &dyn BlobSource) -> Result<()> {
        let target = Target { wire: &self.service.signed, doing, url, slots: &self.slots };
        target.send(blob, from).await
    }

    /// Reserves the entry after the newest of a document. One that somebody else writes is waited for, for a while.
    async fn next(&self, doing: &str, name: &str) -> Result<(String, Url)> {
        let given_up = Instant::now() + PATIENCE;
        let mut skipped = 0;
        loop {
            let newest = self.service.find(doing, &format!("{name}#")).await?;
            let number = |entry: Entry| entry.matched_key.strip_prefix(name)?.strip_prefix('#')?.parse::<u64>().ok();
            let number = match newest {
                Some(entry) => number(entry).ok_or_else(|| Error::invalid(doing, "its newest entry has no number"))?,
                None => 0,
            };
            let key = format!("{name}#{}", number.saturating_add(1 + skipped));
            match self.service.reserve(doing, &key).await? {
                Reservation::At(url) => return Ok((key, url)),
                Reservation::Taken if Instant::now() < given_up => tokio::time::sleep(Duration::from_secs(2)).await,
                Reservation::Taken => skipped += 1,
            }
        }
    }
}

impl Service {
    async fn ask<T: DeserializeOwned>(&self, doing: &str, method: &str, body: serde_json::Value) -> Result<T> {
        let reply = self.wire.succeed(self.request(doing, method, &body)?).await?;
        let answer = self.wire.body(doing, reply).await?;
        serde_json::from_slice(&answer).map_err(|_| Error::invalid(doing, "the answer of the service is not valid"))
    }

    fn request(&self, doing: &str, method: &str, body: &serde_json::Value) -> Result<crate::http::Call> {
        let url = format!("{}/{method}", self.base).parse();
        let url = url.map_err(|_| Error::invalid(doing, "the address of the service is no URL"))?;
        let post = with_header(call(doing, Method::POST, url), "content-type", "application/json");
        Ok(with_body(post, body.to_string().into()))
    }

    /// The newest entry whose key begins so.
    async fn find(&self, doing: &str, key: &str) -> Result<Option<Entry>> {
        let body = json!({ "key": key, "restore_keys": [key], "version": self.version });
        let entry: Entry = self.ask(doing, "GetCacheEntryDownloadURL", body).await?;
        Ok(Some(entry).filter(|entry| entry.ok))
    }

    async fn reserve(&self, doing: &str, key: &str) -> Result<Reservation> {
        let body = json!({ "key": key, "version": self.version });
        let reply = self.wire.send(self.request(doing, "CreateCacheEntry", &body)?).await?;
        if !reply.status().is_success() {
            let error = self.wire.refusal(doing, reply).await;
            return if error.to_string().contains("already_exists") { Ok(Reservation::Taken) } else { Err(error) };
        }
        let answer = self.wire.body(doing, reply).await?;
        let invalid = || Error::invalid(doing, "the answer of the service is not valid");
        let reserved: Reserved = serde_json::from_slice(&answer).map_err(|_| invalid())?;
        if !reserved.ok {
            let why = said(&answer).unwrap_or_else(|| "the service reserves no entry".into());
            return Err(self.wire.hide(Error::invalid(doing, why)));
        }
        reserved.signed_upload_url.parse().map(Reservation::At).map_err(|_| invalid())
    }

    async fn close(&self, doing: &str, key: &str, size: u64) -> Result<()> {
        let body = json!({ "key": key, "size_bytes": size, "version": self.version });
        let closed: Closed = self.ask(doing, "FinalizeCacheEntryUpload", body).await?;
        if closed.ok { Ok(()) } else { Err(Error::invalid(doing, "the service does not close the entry")) }
    }
}

/// A blob's entry: its address holds for a while, and is asked for anew each time.
struct Place {
    service: Arc<Service>,
    doing: String,
    key: String,
}

#[async_trait]
impl Locate for Place {
    async fn locate(&self) -> Result<(Arc<Wire>, Url)> {
        let Some(entry) = self.service.find(&self.doing, &self.key).await? else {
            return Err(Error::NotFound {
                doing: self.doing.clone(),
                host: self.service.host(),
                message: String::new(),
            });
        };
        let url = entry.signed_download_url.parse();
        let url = url.map_err(|_| Error::invalid(&self.doing, "the service gave an address that is no URL"))?;
        Ok((Arc::clone(&self.service.signed), url))
    }
}

impl Service {
    fn host(&self) -> String {
        self.base.parse().map(|url| crate::http::authority(&url)).unwrap_or_default()
    }
}

fn blob_key(digest: &Digest) -> String {
    format!("buildkit-blob-1-{digest}")
}

#[async_trait]
impl BlobSource for Actions {
    async fn fetch(&self, descriptor: &Descriptor) -> Result<BlobReader> {
        let place = Place {
            service: Arc::clone(&self.service),
            doing: format!("read blob `{}`", descriptor.digest),
            key: blob_key(&descriptor.digest),
        };
        fetch(self.service.signed.http(), descriptor, place).await
    }
}

#[async_trait]
impl ObjectStore for Actions {
    fn names(&self) -> Vec<String> {
        self.scopes.iter().map(|scope| self.index(&scope.scope)).collect()
    }

    fn own_names(&self) -> Vec<String> {
        let own = self.scopes.iter().rfind(|scope| scope.permission & WRITE != 0);
        vec![self.index(own.map_or("", |scope| scope.scope.as_str()))]
    }

    fn parallel(&self) -> usize {
        PARALLEL
    }

    async fn document(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let doing = format!("read `{name}`");
        let Some(entry) = self.service.find(&doing, &format!("{name}#")).await? else { return Ok(None) };
        let url = entry.signed_download_url.parse();
        let url = url.map_err(|_| Error::invalid(&doing, "the service gave an address that is no URL"))?;
        self.service.signed.read(call(doing, Method::GET, url)).await
    }

    async fn write_document(&self, name: &str, bytes: Bytes) -> Result<()> {
        let doing = format!("write `{name}`");
        let (key, url) = self.next(&doing, name).await?;
        let size = bytes.len() as u64;
        let memory = MemoryBlobs::new();
        let document = memory.insert("application/json", bytes);
        self.save(&doing, &url, &document, &memory).await?;
        self.service.close(&doing, &key, size).await
    }

    async fn has(&self, blob: &Descriptor) -> Result<bool> {
        let doing = format!("look for blob `{}`", blob.digest);
        Ok(self.service.find(&doing, &blob_key(&blob.digest)).await?.is_some())
    }

    async fn push(&self, blob: &Descriptor, from: &dyn BlobSource) -> Result<Pushed> {
        if self.has(blob).await? {
            return Ok(Pushed::Existing);
        }
        let doing = format!("write blob `{}`", blob.digest);
        let key = blob_key(&blob.digest);
        let url = match self.service.reserve(&doing, &key).await? {
            Reservation::At(url) => url,
            Reservation::Taken => return Ok(Pushed::Existing),
        };
        self.save(&doing, &url, blob, from).await?;
        self.service.close(&doing, &key, blob.size).await?;
        Ok(Pushed::Written)
    }
}

/// Whose caches a token lets one use. That the token is right is the service's to say.
fn scopes(token: &str) -> Result<Vec<Scope>, &'static str> {
    const WRONG: &str = "its token says not whose caches may be used";
    let payload = token.split('.').nth(1).ok_or(WRONG)?;
    let claims = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).map_err(|_| WRONG)?;
    let claims: Claims = serde_json::from_slice(&claims).map_err(|_| WRONG)?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    if claims.exp.is_some_and(|exp| exp < now) {
        return Err("its token has expired");
    }
    serde_json::from_str(&claims.ac).map_err(|_| WRONG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_whose_caches_may_be_used() {
        let token = |claims: &str| format!("x.{}.y", URL_SAFE_NO_PAD.encode(claims));
        let good = token(r#"{"ac":"[{\"Scope\":\"refs/heads/main\",\"Permission\":3}]","exp":99999999999}"#);
        let scopes_of = scopes(&good).unwrap();
        assert_eq!((scopes_of[0].scope.as_str(), scopes_of[0].permission), ("refs/heads/main", 3));
        for wrong in ["", "x", "x.!.y", &token("{}"), &token(r#"{"ac":"x"}"#), &token(r#"{"ac":"[]","exp":1}"#)] {
            assert!(scopes(wrong).is_err(), "{wrong}");
        }
    }
}
