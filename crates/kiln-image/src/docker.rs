//! A docker daemon, or whatever speaks its interface: looks images up there, loads them, names them.

use std::time::Duration;

use kiln_oci::{Digest, Reference};
use reqwest::{Client, Method, Response, StatusCode, Url};
use serde::Deserialize;
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;

use crate::http::network;
use crate::{Error, Result};

/// How long a daemon may take to say that it is there.
const GREETING: Duration = Duration::from_secs(3);
/// The longest line of an answer that is looked at.
const LINE: usize = 1 << 20;

/// A docker daemon.
#[derive(Debug, Clone)]
pub struct Docker {
    client: Client,
    base: Url,
    place: String,
}

/// A line of what a daemon says while it loads.
#[derive(Deserialize)]
struct Said {
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    message: Option<String>,
}

impl Docker {
    /// The daemon that `DOCKER_HOST` names: `unix:///path` or `tcp://host:port`.
    pub fn at(place: &str) -> Result<Self> {
        let unreachable = |why: &str| Error::from_io(format!("reach docker at `{place}`"), std::io::Error::other(why));
        // Nothing is encrypted here, and a client that trusts nobody needs no certificates.
        let builder = Client::builder().no_proxy().tls_danger_accept_invalid_certs(true);
        let (builder, base) = if let Some(path) = place.strip_prefix("unix://") {
            (builder.unix_socket(path), "http://docker/".to_owned())
        } else if let Some(address) = place.strip_prefix("tcp://").or_else(|| place.strip_prefix("http://")) {
            (builder, format!("http://{address}/"))
        } else {
            return Err(unreachable("only `unix://` and `tcp://` are spoken"));
        };
        let client = builder.build().map_err(|error| Error::Setup { source: error.into() })?;
        let base = base.parse().map_err(|_| unreachable("it is no address"))?;
        Ok(Self { client, base, place: place.to_owned() })
    }

    /// Where it is.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Whether it answers.
    pub async fn is_there(&self) -> bool {
        let asked = self.call(Method::GET, "_ping", &[]).timeout(GREETING).send().await;
        asked.is_ok_and(|answer| answer.status().is_success())
    }

    /// Whether it has the image with this id.
    pub async fn has(&self, id: &Digest) -> Result<bool> {
        let doing = format!("ask docker for image `{id}`");
        let asked = self.call(Method::GET, &format!("images/{id}/json"), &[]).send().await;
        let answer = asked.map_err(|error| network(&doing, &self.base, error))?;
        match answer.status() {
            StatusCode::NOT_FOUND => Ok(false),
            _ => self.succeeded(&doing, answer).await.map(|_| true),
        }
    }

    /// Gives an image it has a name.
    pub async fn name(&self, id: &Digest, name: &Reference) -> Result<()> {
        let doing = format!("name image `{id}` in docker");
        let tag = name.tag.as_deref().unwrap_or("latest");
        let query = [("repo", name.name()), ("tag", tag.to_owned())];
        let asked = self.call(Method::POST, &format!("images/{id}/tag"), &query).send().await;
        let answer = asked.map_err(|error| network(&doing, &self.base, error))?;
        self.succeeded(&doing, answer).await.map(drop)
    }

    /// Has it read images from an archive.
    pub async fn load(&self, archive: impl AsyncRead + Send + 'static) -> Result<()> {
        let doing = "load the image into docker".to_owned();
        let body = reqwest::Body::wrap_stream(ReaderStream::with_capacity(archive, 256 << 10));
        let call = self.call(Method::POST, "images/load", &[("quiet", "1".to_owned())]);
        let asked = call.header(reqwest::header::CONTENT_TYPE, "application/x-tar").body(body).send().await;
        let answer = asked.map_err(|error| network(&doing, &self.base, error))?;
        let mut answer = self.succeeded(&doing, answer).await?;
        // It has said yes before it began: what goes wrong later is in a line of the body.
        let mut text = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| network(&doing, &self.base, error))? {
            text.extend_from_slice(&chunk);
            text.truncate(LINE);
        }
        let lines = text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Said>(line).ok());
        match lines.filter_map(|line| line.error).next() {
            Some(error) => Err(Error::from_io(doing, std::io::Error::other(format!("docker says: {error}")))),
            None => Ok(()),
        }
    }

    fn call(&self, method: Method, path: &str, query: &[(&str, String)]) -> reqwest::RequestBuilder {
        let mut url = self.base.clone();
        url.set_path(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.client.request(method, url)
    }

    async fn succeeded(&self, doing: &str, answer: Response) -> Result<Response> {
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let text = answer.bytes().await.unwrap_or_default();
        let said = serde_json::from_slice::<Said>(&text).ok().and_then(|said| said.message);
        let message = said.map(|said| format!(": {said}")).unwrap_or_default();
        Err(Error::Status { doing: doing.to_owned(), host: self.place.clone(), status: status.as_u16(), message })
    }
}
