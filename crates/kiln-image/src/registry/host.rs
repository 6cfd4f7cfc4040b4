//! One registry: its API's address, the scheme it speaks, and what it wants for authorization.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use reqwest::Method;
use reqwest::header::HeaderMap;
use tokio::sync::OnceCell;

use super::auth::{Challenge, Token};
use crate::http::{Call, HttpClient, Reply, Trust, is_loopback};
use crate::{Error, ErrorKind};

/// What is known about a registry.
pub(crate) struct Host {
    /// `host[:port]` of its API.
    pub(crate) authority: String,
    scheme: OnceCell<&'static str>,
    is_out: AtomicBool,
    /// What a 401 taught us. A tokio lock, because tokens are fetched under it: once for all who need one.
    pub(crate) known: tokio::sync::Mutex<Known>,
}

/// What a registry wants, and what it gave for it.
#[derive(Default)]
pub(crate) struct Known {
    pub(crate) challenge: Option<Challenge>,
    pub(crate) tokens: HashMap<String, Token>,
}

/// The host of a registry's API. Docker Hub's has another address than its references.
pub(crate) fn api_host(registry: &str) -> &str {
    if registry == "docker.io" { "registry-1.docker.io" } else { registry }
}

const PROBE: Duration = Duration::from_secs(5);

impl Host {
    pub(crate) fn new(registry: &str) -> Self {
        Self {
            authority: api_host(registry).to_owned(),
            scheme: OnceCell::new(),
            is_out: AtomicBool::new(false),
            known: tokio::sync::Mutex::default(),
        }
    }

    /// Whether it was never out of reach.
    pub(crate) fn is_reachable(&self) -> bool {
        !self.is_out.load(Ordering::Relaxed)
    }

    /// Notes why something could not be had from it.
    pub(crate) fn note(&self, error: &Error) {
        if error.kind() == ErrorKind::Network {
            self.is_out.store(true, Ordering::Relaxed);
        }
    }

    /// `https://host`; or `http://host` for a registry that may be insecure and is.
    pub(crate) async fn base(&self, http: &HttpClient) -> String {
        let scheme = match http.is_insecure(&self.authority) {
            false => "https",
            true if http.is_plain(&self.authority) => "http",
            true => self.scheme.get_or_init(|| self.probe(http)).await,
        };
        format!("{scheme}://{}", self.authority)
    }

    /// Loopback speaks plain http nearly always, and nobody listens there; others are tried with TLS first.
    async fn probe(&self, http: &HttpClient) -> &'static str {
        let host = crate::http::host_of(&self.authority);
        let order = if is_loopback(host) { ["http", "https"] } else { ["https", "http"] };
        for scheme in order {
            if let Some(reply) = self.ping(http, scheme).await {
                self.learn(reply.headers()).await;
                return scheme;
            }
        }
        order[0]
    }

    async fn ping(&self, http: &HttpClient, scheme: &str) -> Option<Reply> {
        let url = format!("{scheme}://{}/v2/", self.authority).parse().ok()?;
        let call = Call {
            doing: format!("reach `{}`", self.authority),
            method: Method::GET,
            url,
            headers: HeaderMap::new(),
            body: None,
            trust: Trust::Registry,
        };
        let reply = tokio::time::timeout(PROBE, http.follow(&call)).await.ok()?.ok()?;
        // A TLS port answers plain text with 400, if at all.
        (scheme == "https" || reply.status() != reqwest::StatusCode::BAD_REQUEST).then_some(reply)
    }

    async fn learn(&self, headers: &HeaderMap) {
        if let Some(challenge) = Challenge::find(headers) {
            self.known.lock().await.challenge = Some(challenge);
        }
    }
}

impl Known {
    /// A token for these scopes that will last a little longer.
    pub(crate) fn token(&self, scopes: &str) -> Option<&Token> {
        self.tokens.get(scopes).filter(|token| token.until > Instant::now())
    }
}
