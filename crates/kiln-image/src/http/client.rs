//! Sends requests: guards the address, follows redirects without credentials, tries again what may pass.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::future::BoxFuture;
use reqwest::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderName, LOCATION};
use reqwest::{Method, Response, StatusCode, Url};

use super::answer::status_error;
use super::guard::{self, GuardedResolver, Reach};
use super::retry::{Patience, Pauses, RetryPolicy, Turn, is_passing, retry_after};
use crate::settings::{Certificates, Link, Settings, SettingsFiles, certificates};
use crate::{Error, Result};

/// What the client is set up with. Nothing here is acted on before the first request.
#[derive(Clone)]
pub struct ClientOptions {
    /// Sent as `User-Agent`.
    pub user_agent: String,
    /// Certificate authorities trusted beside the machine's own, PEM.
    pub extra_roots: Vec<Vec<u8>>,
    /// Registries (`host` or `host:port`) reached without verified TLS, over plain http if need be.
    pub insecure_hosts: Vec<String>,
    /// Where registries are set up.
    pub settings: SettingsFiles,
    /// Token servers (`host` or `host:port`) that may see credentials of registries of another domain.
    pub auth_realms: Vec<String>,
    /// How often and how long requests are tried.
    pub retry: RetryPolicy,
    /// Whether nobody is asked for anything.
    pub is_offline: bool,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            user_agent: concat!("kiln/", env!("CARGO_PKG_VERSION")).to_owned(),
            extra_roots: Vec::new(),
            insecure_hosts: Vec::new(),
            settings: SettingsFiles::default(),
            auth_realms: Vec::new(),
            retry: RetryPolicy::default(),
            is_offline: false,
        }
    }
}

/// The HTTP client. Cheap to make and to clone; TLS and connections come with the first request.
#[derive(Clone)]
pub struct HttpClient(Arc<Inner>);

struct Inner {
    options: ClientOptions,
    settings: OnceLock<Settings>,
    clients: [OnceLock<reqwest::Client>; ROUTES],
    /// Those of registries that have certificates of their own.
    own: Mutex<HashMap<(String, Route), Option<reqwest::Client>>>,
    pauses: Pauses,
}

const ROUTES: usize = 6;

/// Which of the underlying clients carries a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Route {
    trust: Trust,
    path: Path,
}

/// Whether certificates are verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Trust {
    /// Always, but for registries that are loopback or configured as insecure.
    Registry,
    /// Always.
    Everyone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Path {
    /// Past all proxies, to this machine.
    Loopback,
    /// Where the user's reference or URL points.
    Named(Reach),
}

/// A request that can be made more than once.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) doing: String,
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<Bytes>,
    pub(crate) trust: Trust,
}

/// An answer, and how we came by it.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) response: Response,
    /// Whether a redirect led to another origin than was asked.
    pub(crate) crossed: bool,
}

impl Reply {
    pub(crate) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(crate) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }
}

const REDIRECTS: usize = 5;

/// The half of a lent account of S3 that is sent as it is.
pub(crate) const AMAZON_TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");

/// A body that goes slower than this, in bytes a second, does not go.
const SLOWEST: u64 = 64 << 10;

impl HttpClient {
    /// Keeps the options; does nothing else.
    pub fn new(options: ClientOptions) -> Self {
        Self(Arc::new(Inner {
            options,
            settings: OnceLock::new(),
            clients: Default::default(),
            own: Mutex::default(),
            pauses: Pauses::default(),
        }))
    }

    /// The options it was made with.
    pub fn options(&self) -> &ClientOptions {
        &self.0.options
    }

    pub(crate) fn retry(&self) -> &RetryPolicy {
        &self.0.options.retry
    }

    /// What is set up for registries; read when it is first wanted.
    pub(crate) fn settings(&self) -> Result<&Settings> {
        if let Some(known) = self.0.settings.get() {
            return Ok(known);
        }
        let read = self.0.options.settings.read()?;
        Ok(self.0.settings.get_or_init(|| read))
    }

    /// Whether a registry may be spoken to without verified TLS. Settings that cannot be read allow nothing.
    pub(crate) fn is_insecure(&self, authority: &str) -> bool {
        let host = host_of(authority);
        let is_known = || self.0.options.insecure_hosts.iter().any(|h| h == authority || h == host);
        let link = self.link(authority);
        // Who names certificates for a registry of this machine means TLS.
        let is_loose = guard::is_loopback(host) && link.roots.is_empty() && link.identities.is_empty();
        is_loose || is_known() || link.is_insecure || link.is_plain
    }

    /// Whether a registry is spoken to in plain http only.
    pub(crate) fn is_plain(&self, authority: &str) -> bool {
        self.link(authority).is_plain
    }

    fn link(&self, authority: &str) -> Link {
        self.settings().map(|settings| settings.link(authority)).unwrap_or_default()
    }

    /// Sends, follows, and tries again. Gives back any answer but those that may pass.
    pub(crate) fn send<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Result<Reply>> {
        Box::pin(async move {
            let mut patience = Patience::new(self.retry());
            loop {
                let host = authority(&call.url);
                let turn = self.turn(&host).await;
                let reply = match self.follow(call).await {
                    Ok(reply) => reply,
                    Err(error) if is_worth_retrying(&error) => {
                        patience.wait(error).await?;
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                if !is_passing(reply.status()) {
                    self.served(&host, turn);
                    return Ok(reply);
                }
                self.wait_out(&call.doing, &call.url, reply, &mut patience).await?;
            }
        })
    }

    /// Waits until a host that asked for a pause may be called.
    pub(crate) async fn turn(&self, host: &str) -> Turn {
        self.0.pauses.turn(host).await
    }

    /// Says that the host has answered whoever had this turn.
    pub(crate) fn served(&self, host: &str, turn: Turn) {
        self.0.pauses.served(host, turn);
    }

    /// Waits as an answer like 429 or 503 asks for; an error when that is too long or too often.
    pub(crate) async fn wait_out(&self, doing: &str, asked: &Url, reply: Reply, patience: &mut Patience) -> Result<()> {
        let status = reply.status();
        let host = authority(reply.response.url());
        let Some(after) = retry_after(reply.headers(), SystemTime::now()) else {
            return patience.wait(status_error(doing, reply).await).await;
        };
        if after > self.retry().longest_asked {
            return Err(Error::TryLater { doing: doing.into(), host, status: status.as_u16(), after });
        }
        self.0.pauses.set(&authority(asked), after);
        patience.wait_as_asked(after, status_error(doing, reply).await).await
    }

    pub(crate) async fn follow(&self, call: &Call) -> Result<Reply> {
        let mut call = call.clone();
        let origin = call.url.clone();
        let mut crossed = false;
        for _ in 0..=REDIRECTS {
            let reach = if crossed && !is_local(&origin) { Reach::Redirected } else { Reach::Named };
            let response = self.once(&call, reach).await?;
            let follows = matches!(call.method, Method::GET | Method::HEAD) && response.status().is_redirection();
            let Some(next) = follows.then(|| location(&response)).flatten() else {
                return Ok(Reply { response, crossed });
            };
            if call.url.scheme() == "https" && next.scheme() != "https" {
                return Err(refuse(&call.doing, &next, "a redirect may not lead from https to plain text"));
            }
            if !same_origin(&call.url, &next) {
                crossed = true;
                call.headers.remove(AUTHORIZATION);
                call.headers.remove(COOKIE);
                call.headers.remove(AMAZON_TOKEN);
            }
            call.url = next;
        }
        Err(refuse(&call.doing, &call.url, "more than 5 redirects"))
    }

    async fn once(&self, call: &Call, reach: Reach) -> Result<Response> {
        let client = self.client(call, reach)?;
        let mut request = client.request(call.method.clone(), call.url.clone()).headers(call.headers.clone());
        if let Some(body) = &call.body {
            request = request.body(body.clone());
        }
        let size = call.body.as_ref().map_or(0, |body| body.len() as u64);
        let window = self.retry().answer + Duration::from_secs(size / SLOWEST);
        let answer = tokio::time::timeout(window, request.send()).await;
        let answer = answer.map_err(|_| stalled(&call.doing, &call.url, window))?;
        answer.map_err(|error| network(&call.doing, &call.url, error))
    }

    /// The client for a request, after a look at where it goes.
    pub(crate) fn client_for(&self, doing: &str, url: &Url, trust: Trust) -> Result<reqwest::Client> {
        self.checked(doing, url, trust, Reach::Named)
    }

    fn client(&self, call: &Call, reach: Reach) -> Result<reqwest::Client> {
        self.checked(&call.doing, &call.url, call.trust, reach)
    }

    fn checked(&self, doing: &str, url: &Url, trust: Trust, reach: Reach) -> Result<reqwest::Client> {
        if self.0.options.is_offline {
            return Err(Error::NotAsked { doing: doing.into(), host: authority(url) });
        }
        if let Some(reason) = guard::forbidden_url(url, reach) {
            return Err(refuse(doing, url, reason));
        }
        let host = authority(url);
        let path = if is_local(url) { Path::Loopback } else { Path::Named(reach) };
        if trust == Trust::Everyone {
            return self.built(Route { trust, path });
        }
        // Settings that cannot be read are told before anybody is called.
        self.settings()?;
        let trust = if self.is_insecure(&host) { Trust::Registry } else { Trust::Everyone };
        let route = Route { trust, path };
        let own = if url.scheme() == "https" { self.own(host, route)? } else { None };
        own.map_or_else(|| self.built(route), Ok)
    }

    /// The client for a registry that has certificates of its own.
    fn own(&self, host: String, route: Route) -> Result<Option<reqwest::Client>> {
        let lock = || self.0.own.lock().expect("no thread panics while it holds this");
        if let Some(known) = lock().get(&(host.clone(), route)) {
            return Ok(known.clone());
        }
        let link = self.link(&host);
        let certificates = certificates(&host, &link, &self.0.options.settings.certificates)?;
        // Where an authority is named for it, even a loopback registry is held to it.
        let trust = if link.is_insecure || certificates.roots.is_empty() { route.trust } else { Trust::Everyone };
        let is_set_up = !certificates.is_empty();
        let built = || build(&self.0.options, Route { trust, ..route }, &certificates);
        let client = is_set_up.then(built).transpose()?;
        lock().insert((host, route), client.clone());
        Ok(client)
    }

    fn built(&self, route: Route) -> Result<reqwest::Client> {
        let path = match route.path {
            Path::Loopback => 0,
            Path::Named(Reach::Named) => 1,
            Path::Named(Reach::Redirected) => 2,
        };
        let slot = &self.0.clients[path * 2 + usize::from(route.trust == Trust::Registry)];
        if let Some(client) = slot.get() {
            return Ok(client.clone());
        }
        let client = build(&self.0.options, route, &Certificates::default())?;
        Ok(slot.get_or_init(|| client).clone())
    }
}

fn build(options: &ClientOptions, route: Route, certificates: &Certificates) -> Result<reqwest::Client> {
    let reach = match route.path {
        Path::Loopback => Reach::Named,
        Path::Named(reach) => reach,
    };
    let mut builder = reqwest::Client::builder()
        .user_agent(&options.user_agent)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .dns_resolver(GuardedResolver(reach))
        .connect_timeout(Duration::from_secs(15))
        .pool_idle_timeout(Duration::from_secs(60))
        .http2_initial_stream_window_size(4 << 20)
        .http2_initial_connection_window_size(16 << 20)
        .http2_max_header_list_size(256 << 10)
        .tls_version_min(reqwest::tls::Version::TLS_1_2);
    if matches!(route.path, Path::Loopback) {
        builder = builder.no_proxy();
    }
    if let Some(pem) = &certificates.identity {
        builder = builder.identity(reqwest::Identity::from_pem(pem).map_err(setup)?);
    }
    if route.trust == Trust::Registry {
        return builder.tls_danger_accept_invalid_certs(true).build().map_err(setup);
    }
    for pem in options.extra_roots.iter().chain(&certificates.roots) {
        let roots = reqwest::Certificate::from_pem_bundle(pem).map_err(setup)?;
        builder = builder.tls_certs_merge(roots);
    }
    builder.build().map_err(setup)
}

fn setup(error: reqwest::Error) -> Error {
    Error::Setup { source: error.into() }
}

/// `host` or `host:port`, as errors name it and credentials are kept for it.
pub(crate) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// The host of `host[:port]`.
pub(crate) fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !host.is_empty() => host,
        _ => authority,
    }
}

fn is_local(url: &Url) -> bool {
    url.host_str().is_some_and(guard::is_loopback)
}

pub(crate) fn same_origin(a: &Url, b: &Url) -> bool {
    (a.scheme(), a.host_str(), a.port_or_known_default()) == (b.scheme(), b.host_str(), b.port_or_known_default())
}

/// Where an answer points, relative to where it came from.
pub(crate) fn location(response: &Response) -> Option<Url> {
    let target = response.headers().get(LOCATION)?.to_str().ok()?;
    let mut url = response.url().join(target).ok()?;
    // A name and password in a redirect are not ours to send.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    Some(url)
}

/// A URL for messages: no user, no password, no query (where signatures and tokens live).
pub(crate) fn plain_url(url: &Url) -> String {
    let mut url = url.clone();
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

pub(crate) fn refuse(doing: &str, url: &Url, reason: &'static str) -> Error {
    Error::Forbidden { doing: doing.into(), url: plain_url(url), reason }
}

pub(crate) fn stalled(doing: &str, url: &Url, window: Duration) -> Error {
    Error::Stalled { doing: doing.into(), host: authority(url), window }
}

pub(crate) fn network(doing: &str, url: &Url, error: reqwest::Error) -> Error {
    Error::Network { doing: doing.into(), host: authority(url), source: error.without_url().into() }
}

/// All causes of an error in one line, for those who look for one of them.
pub(crate) fn cause_chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |e| e.source()).map(ToString::to_string);
    causes.collect::<Vec<_>>().join(": ")
}

/// Connections that broke or were never made; not certificates, which will be as wrong the next time.
pub(crate) fn is_worth_retrying(error: &Error) -> bool {
    let Error::Network { source, .. } = error else {
        return matches!(error, Error::BrokenOff { .. } | Error::Stalled { .. });
    };
    let text = cause_chain(source.as_ref());
    !["certificate", "UnknownIssuer", "never asked", "this machine", "InvalidContentType", "corrupt message"]
        .iter()
        .any(|lasting| text.contains(lasting))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_client_has_set_nothing_up() {
        let begun = std::time::Instant::now();
        let client = HttpClient::new(ClientOptions::default());
        assert!(begun.elapsed() < Duration::from_millis(1));
        assert!(client.0.clients.iter().all(|slot| slot.get().is_none()));
    }

    #[test]
    fn only_loopback_and_configured_registries_are_insecure() {
        let options = ClientOptions {
            insecure_hosts: vec!["registry.lan:5000".into(), "old.example.com".into()],
            ..ClientOptions::default()
        };
        let client = HttpClient::new(options);
        for (authority, insecure) in [
            ("127.0.0.1:5000", true),
            ("127.9.9.9", true),
            ("localhost:80", true),
            ("[::1]:5000", true),
            ("registry.lan:5000", true),
            ("registry.lan:5001", false),
            ("registry.lan", false),
            ("old.example.com:8443", true),
            ("127.0.0.1.example.com", false),
            ("localhost.example.com", false),
        ] {
            assert_eq!(client.is_insecure(authority), insecure, "{authority}");
        }
    }

    #[test]
    fn urls_in_messages_carry_no_secret() {
        let url = "https://u:p@h.example/x?sig=secret#frag".parse().unwrap();
        assert_eq!(plain_url(&url), "https://h.example/x");
    }
}
