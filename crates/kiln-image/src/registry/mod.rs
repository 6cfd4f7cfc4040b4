//! The registry client: resolve, pull, push, over the distribution protocol.

mod auth;
mod ends;
mod host;
mod mirrors;
mod pull;
mod push;
mod referrers;
mod token;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use kiln_oci::{Descriptor, Digest, Document, Platform, Reference};
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode, Url};

use crate::error::Login;
use crate::http::{Call, ClientOptions, HttpClient, Reply};
use crate::login::Verified;
use crate::settings::Place;
use crate::{Credential, Credentials, Error, NoCredentials, Result, pick_platform};
use auth::Authorization;
use host::Host;
use mirrors::PassedOver;

pub use ends::{RegistrySink, RegistrySource};
pub(crate) use host::api_host;

/// What a registry client is made of.
#[derive(Clone)]
pub struct RegistryOptions {
    /// Options of its HTTP client.
    pub client: ClientOptions,
    /// Whom to ask for credentials.
    pub credentials: Arc<dyn Credentials>,
}

impl Default for RegistryOptions {
    fn default() -> Self {
        Self { client: ClientOptions::default(), credentials: Arc::new(NoCredentials) }
    }
}

/// Talks to registries. Cheap to make and to clone; nothing happens before the first request.
#[derive(Clone)]
pub struct RegistryClient(Arc<Inner>);

struct Inner {
    http: HttpClient,
    credentials: Arc<dyn Credentials>,
    hosts: Mutex<HashMap<String, Arc<Host>>>,
    lies: Mutex<Lies>,
    passed_over: PassedOver,
}

/// How often a place gave something else for a digest.
type Lies = HashMap<(Place, Digest), u32>;

/// How often a mirror is asked for content that proves wrong.
const MIRROR_TRIES: u32 = 2;
/// How often the registry itself is.
const TRIES: u32 = 3;

/// What a reference points at.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// The reference as asked.
    pub reference: Reference,
    /// The document's descriptor; its digest was computed here, from the bytes.
    pub descriptor: Descriptor,
    /// The document.
    pub document: Document,
}

impl Resolved {
    /// The descriptor of the image for a platform: an index's entry, or the manifest itself.
    pub fn for_platform(&self, platform: &Platform) -> Result<Descriptor> {
        match &self.document {
            Document::Manifest(_) => Ok(self.descriptor.clone()),
            Document::Index(index) => pick_platform(&self.reference.familiar(), index.value(), platform),
        }
    }
}

/// What a request may do with repositories; the scopes of its token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access<'a> {
    /// Read.
    Pull,
    /// Read and write.
    Push,
    /// Read and write, and read another repository to mount from.
    Mount(&'a str),
}

/// A repository on a registry, and what is wanted of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) registry: &'a str,
    pub(crate) repository: &'a str,
    pub(crate) access: Access<'a>,
    /// The registry that a mirror stands for.
    pub(crate) origin: Option<&'a str>,
}

impl Place {
    fn target<'a>(&'a self, access: Access<'a>) -> Target<'a> {
        let origin = self.origin.as_deref();
        Target { registry: &self.registry, repository: &self.repository, access, origin }
    }
}

impl<'a> Target<'a> {
    pub(crate) fn of(reference: &'a Reference, access: Access<'a>) -> Self {
        Self { registry: &reference.registry, repository: &reference.repository, access, origin: None }
    }
}

impl RegistryClient {
    /// Keeps the options; does nothing else.
    pub fn new(options: RegistryOptions) -> Self {
        Self::with_http(HttpClient::new(options.client), options.credentials)
    }

    /// Shares an HTTP client.
    pub fn with_http(http: HttpClient, credentials: Arc<dyn Credentials>) -> Self {
        Self(Arc::new(Inner {
            http,
            credentials,
            hosts: Mutex::default(),
            lies: Mutex::default(),
            passed_over: PassedOver::default(),
        }))
    }

    /// A client that speaks to this registry in plain http, or without knowing who answers, if it must.
    #[must_use]
    pub fn allowing_insecure(&self, registry: &str) -> Self {
        let mut options = self.0.http.options().clone();
        options.insecure_hosts.push(api_host(registry).to_owned());
        Self::with_http(HttpClient::new(options), Arc::clone(&self.0.credentials))
    }

    /// The HTTP client, for plain downloads.
    pub fn http(&self) -> &HttpClient {
        &self.0.http
    }

    /// A source that reads from the repository of `reference`.
    pub fn source(&self, reference: &Reference) -> RegistrySource {
        RegistrySource::new(self.clone(), reference.clone())
    }

    /// A sink that writes to the repository of `reference` and points its tag at the root.
    pub fn sink(&self, reference: &Reference) -> RegistrySink {
        RegistrySink::new(self.clone(), reference.clone())
    }

    pub(crate) async fn verify_login(&self, registry: &str, credential: &Credential) -> Result<Verified> {
        auth::verify_login(self, registry, credential).await
    }

    fn host(&self, registry: &str) -> Arc<Host> {
        let mut hosts = self.0.hosts.lock().expect("no thread panics while it holds this");
        hosts.entry(registry.to_owned()).or_insert_with(|| Arc::new(Host::new(registry))).clone()
    }

    /// The URL of `/v2/<repository>/<path>`.
    async fn url(&self, target: &Target<'_>, path: &str) -> Result<Url> {
        let host = self.host(target.registry);
        let base = host.base(&self.0.http).await;
        let text = format!("{base}/v2/{}/{path}", target.repository);
        let wrong = |_| Error::invalid(format!("reach `{}`", target.registry), "its name makes no URL");
        let mut url: Url = text.parse().map_err(wrong)?;
        if let Some(origin) = target.origin {
            url.query_pairs_mut().append_pair("ns", origin);
        }
        Ok(url)
    }

    /// Sends with whatever authorization the host is known to want; learns it from a 401 and sends again, once.
    async fn send(&self, target: &Target<'_>, mut call: Call) -> Result<Reply> {
        if target.access != Access::Pull && !self.0.http.settings()?.permits(target.registry, target.repository) {
            return Err(blocked(&call.doing, &format!("{}/{}", target.registry, target.repository)));
        }
        let host = self.host(target.registry);
        let session = auth::Session { client: self, host: &host, target, doing: &call.doing.clone() };
        let known = session.known().await?;
        known.apply(&mut call.headers);
        let reply = self.0.http.send(&call).await?;
        if reply.status() != StatusCode::UNAUTHORIZED || reply.crossed {
            return refused(&call.doing, reply, &known).await;
        }
        let Some(found) = session.answer(reply.headers(), &known).await? else {
            return refused(&call.doing, reply, &known).await;
        };
        found.apply(&mut call.headers);
        let reply = self.0.http.send(&call).await?;
        refused(&call.doing, reply, &found).await
    }

    /// Where to read a repository from: its mirrors, but for those that were out of reach or gave something else for this
    /// digest before, and the registry itself.
    fn places(&self, reference: &Reference, digest: Option<&Digest>, doing: &str) -> Result<std::vec::IntoIter<Place>> {
        let settings = self.0.http.settings()?;
        let found = settings.places(&reference.registry, &reference.repository, digest.is_some());
        let mut places = found.map_err(|_| blocked(doing, &reference.name()))?;
        let own = places.pop();
        let lies = self.lies();
        let is_trusted = |place: &Place| {
            let known = digest.and_then(|digest| lies.get(&(place.clone(), digest.clone())));
            known.is_none_or(|times| *times < MIRROR_TRIES)
        };
        places.retain(|place| self.host(&place.registry).is_reachable() && is_trusted(place));
        places.extend(own);
        Ok(places.into_iter())
    }

    /// How often content of a repository is asked for, at most, before it counts as wrong.
    pub(crate) fn tries(&self, reference: &Reference) -> u32 {
        let settings = self.0.http.settings().ok();
        let places = settings.and_then(|known| known.places(&reference.registry, &reference.repository, true).ok());
        TRIES + MIRROR_TRIES * places.map_or(0, |places| places.len() as u32 - 1)
    }

    fn note_lie(&self, place: &Place, digest: &Digest) {
        *self.lies().entry((place.clone(), digest.clone())).or_default() += 1;
    }

    fn lies(&self) -> std::sync::MutexGuard<'_, Lies> {
        self.0.lies.lock().expect("no thread panics while it holds this")
    }

    async fn request(&self, target: &Target<'_>, doing: &str, method: Method, path: &str) -> Result<Call> {
        Ok(Call {
            doing: doing.to_owned(),
            method,
            url: self.url(target, path).await?,
            headers: HeaderMap::new(),
            body: None,
            trust: crate::http::Trust::Registry,
        })
    }
}

fn blocked(doing: &str, name: &str) -> Error {
    Error::Forbidden { doing: doing.into(), url: name.into(), reason: "the settings of registries block it" }
}

/// Turns 401 and 403 into errors; everything else passes.
async fn refused(doing: &str, reply: Reply, sent: &Authorization) -> Result<Reply> {
    let status = reply.status();
    if !matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        return Ok(reply);
    }
    let tried = if reply.crossed { Login::Anonymous } else { sent.login.clone() };
    Err(Error::Unauthorized {
        doing: doing.to_owned(),
        host: crate::http::authority(reply.response.url()),
        status: status.as_u16(),
        tried,
        message: crate::http::words(reply.response).await,
    })
}
