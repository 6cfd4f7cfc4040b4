//! Files from the web: `ADD https://…`. Asked for again each build, fetched again only when they changed.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use kiln_graph::llb::SourceOp;
use kiln_image::{DownloadRequest, Fetched};
use kiln_oci::Digest;
use kiln_report::{Failure, FailureKind};
use kiln_solver::{CacheMap, KeyParts, Step};
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;

use crate::arrival::shown;
use crate::artifact::Artifact;
use crate::blobs::receive;
use crate::blocking::blocking;
use crate::failure::{Context as _, build, environment, registry};
use crate::job::Result;
use crate::offline::not_here;
use crate::scratch::{Scratch, open_dir};
use crate::session::text_secret;
use crate::step::Place;
use crate::worker::Purpose;

/// Facts about URLs are kept under this kind, by their digests.
const FACT: &str = "http";

/// One URL.
pub(super) struct HttpStep {
    place: Place,
    url: String,
    checksum: Option<String>,
    file_name: String,
    mode: u32,
    /// The secret with a whole header, if the op names one.
    header_secret: Option<String>,
    fetched: OnceCell<Arc<Remote>>,
}

/// What a URL was when it was last asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Remote {
    digest: Digest,
    etag: Option<String>,
    last_modified: Option<String>,
    /// Seconds since 1970.
    modified: Option<i64>,
}

impl HttpStep {
    pub(super) fn new(place: Place, op: SourceOp) -> Self {
        let mut attrs = op.attrs;
        let mode = attrs.get("http.perm").and_then(|text| u32::from_str_radix(text.trim_start_matches("0o"), 8).ok());
        let path = op.identifier.split(['?', '#']).next().unwrap_or_default();
        let last = path.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("download").to_owned();
        Self {
            place,
            checksum: attrs.remove("http.checksum"),
            file_name: attrs.remove("http.filename").unwrap_or(last),
            mode: mode.unwrap_or(0o600),
            header_secret: attrs.remove("http.authheadersecret"),
            url: op.identifier,
            fetched: OnceCell::new(),
        }
    }

    /// The name of what is remembered of it. URLs hold passwords, and words that open what they lead to.
    fn fact(&self) -> String {
        Digest::sha256(&self.url).hex().to_owned()
    }

    async fn remote(&self) -> Result<&Arc<Remote>> {
        let remote = self.fetched.get_or_try_init(|| self.fetch()).await;
        remote.map_err(|failure| self.place.blame(failure))
    }

    /// What it is now.
    pub(super) async fn pin(&self) -> Result<String> {
        Ok(self.remote().await?.digest.to_string())
    }

    /// What it must be: by itself, or by a lock.
    fn checksum(&self) -> Result<Option<Digest>> {
        let own = self.checksum.as_deref().map(str::parse::<Digest>).transpose();
        match own.or_build(|| format!("cannot check `{}`", shown(&self.url)))? {
            Some(own) => Ok(Some(own)),
            None => self.place.job.pins.download(&shown(&self.url)),
        }
    }

    /// Fails when it is not known what it is, and nobody can be asked.
    pub(super) async fn known(&self) -> Result<()> {
        match self.checksum()? {
            Some(_) => Ok(()),
            None => self.remote().await.map(drop),
        }
    }

    /// Fails when it would have to be fetched, and cannot be.
    pub(super) async fn lacks(&self) -> Result<()> {
        self.remote().await.map(drop)
    }

    async fn fetch(&self) -> Result<Arc<Remote>> {
        let job = &self.place.job;
        let checksum = self.checksum()?;
        let known = self.kept(checksum.as_ref())?;
        if let (Some(remote), Some(_)) = (&known, &checksum) {
            return Ok(Arc::new(remote.clone()));
        }
        if job.registry.is_offline() {
            return known.map(Arc::new).ok_or_else(|| not_here(&format!("`{}`", shown(&self.url))));
        }
        let request = DownloadRequest {
            url: self.url.clone(),
            checksum: checksum.clone(),
            etag: known.as_ref().and_then(|remote| remote.etag.clone()),
            last_modified: known.as_ref().and_then(|remote| remote.last_modified.clone()),
            authorization: self.authorization().await?,
            ..DownloadRequest::default()
        };
        match (job.registry.http().download(&request).await.map_err(|error| self.refused(error))?, known) {
            (Fetched::NotModified, Some(known)) => Ok(Arc::new(known)),
            (Fetched::NotModified, None) => Err(Failure::new(
                FailureKind::Build,
                format!("`{}` says it did not change, but it is new here", shown(&self.url)),
            )),
            // What nobody has fetched is known by nothing that is kept.
            (Fetched::File(_), _) if job.purpose == Purpose::Forecast => Ok(Arc::new(Remote {
                digest: Digest::sha256("not fetched"),
                etag: None,
                last_modified: None,
                modified: None,
            })),
            (Fetched::File(download), _) => self.keep(*download).await,
        }
    }

    /// What the client lends for this host, a token or all of a header; a token goes before.
    async fn authorization(&self) -> Result<Option<String>> {
        let (job, named, host) =
            (Arc::clone(&self.place.job), self.header_secret.clone(), host_of(&self.url).to_owned());
        blocking(move || {
            let session = job.session.as_ref();
            if let Some(id) = named {
                let missing = || Failure::new(FailureKind::Build, format!("secret `{id}` was not given"));
                return text_secret(session, &id)?.ok_or_else(missing).map(Some);
            }
            match text_secret(session, &format!("HTTP_AUTH_TOKEN_{host}"))? {
                Some(token) => Ok(Some(format!("Bearer {token}"))),
                None => text_secret(session, &format!("HTTP_AUTH_HEADER_{host}")),
            }
        })
        .await
    }

    fn refused(&self, error: kiln_image::Error) -> Failure {
        match error.kind() {
            kiln_image::ErrorKind::Unauthorized => {
                let hint = format!("lend a token with `--secret id=HTTP_AUTH_TOKEN_{},env=NAME`", host_of(&self.url));
                build(error).hint(hint)
            }
            kiln_image::ErrorKind::NotFound => build(error).hint("check the spelling of the URL"),
            _ => registry(error),
        }
    }

    async fn keep(&self, mut download: kiln_image::Download) -> Result<Arc<Remote>> {
        let job = Arc::clone(&self.place.job);
        let ingest = job.store.content().ingest(&job.lease).map_err(environment)?;
        let doing = format!("keep `{}`", shown(&self.url));
        let ingest = receive(&mut download.body, ingest, &doing, &mut |_| {}, None).await.map_err(registry)?;
        let since_1970 = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).ok();
        let modified = download.modified.and_then(since_1970).map(|d| d.as_secs() as i64);
        let (etag, last_modified, url) = (download.etag, download.last_modified, self.fact());
        blocking(move || {
            let descriptor = ingest.commit(None, "application/octet-stream").map_err(environment)?;
            let remote = Remote { digest: descriptor.digest, etag, last_modified, modified };
            let text = serde_json::to_vec(&remote).expect("plain data serialises");
            job.store.records().put_fact(FACT, &url, &text);
            Ok(Arc::new(remote))
        })
        .await
    }

    /// What was fetched before and is still here.
    fn kept(&self, checksum: Option<&Digest>) -> Result<Option<Remote>> {
        let job = &self.place.job;
        let fact = job.store.records().get_fact(FACT, &self.fact()).map_err(environment)?;
        let known = fact.and_then(|bytes| serde_json::from_slice::<Remote>(&bytes).ok());
        let Some(known) = known.filter(|known| checksum.is_none_or(|wanted| known.digest == *wanted)) else {
            return Ok(None);
        };
        Ok(job.lease.hold_blob(&known.digest).map_err(environment)?.then_some(known))
    }
}

#[async_trait]
impl Step<Artifact, Failure> for HttpStep {
    async fn cache_map(&self) -> Result<CacheMap> {
        let mut hasher = self.place.hasher("http");
        match self.checksum().map_err(|failure| self.place.blame(failure))? {
            Some(checksum) => hasher.field(checksum.as_str().as_bytes()),
            None => hasher.field(self.remote().await?.digest.as_str().as_bytes()),
        }
        hasher.field(self.file_name.as_bytes());
        hasher.field(&self.mode.to_le_bytes());
        Ok(self.place.cache_map(hasher.finish(), Vec::new(), KeyParts::default()))
    }

    async fn content_digest(&self, _input: usize, _result: &Artifact) -> Result<Digest> {
        Err(super::no_inputs())
    }

    async fn run(&self, _inputs: Vec<Artifact>) -> Result<Vec<Artifact>> {
        let remote = Arc::clone(self.remote().await?);
        let (job, name, mode) = (Arc::clone(&self.place.job), self.file_name.clone(), self.mode);
        blocking(move || {
            let tree = Scratch::upon(&job.store, None, &job.lease)?;
            let root = open_dir(&tree.upper_dir())?;
            let doing = || format!("cannot keep `{name}`");
            let mut from = job.store.content().open(&remote.digest).or_environment(doing)?;
            let mut to = root.create_file(&name, mode).or_environment(doing)?;
            std::io::copy(&mut from, &mut to).or_environment(doing)?;
            kiln_sys::root::set_mode(&to, mode).or_environment(doing)?;
            // Equal files must make equal layers, so what the server does not date is of 1970, as with BuildKit.
            let time = kiln_sys::metadata::Timestamp { secs: remote.modified.unwrap_or_default(), nanos: 0 };
            kiln_sys::root::set_times(&to, time).or_environment(doing)?;
            Ok(vec![Artifact::Snapshot(tree.commit()?)])
        })
        .await
    }
}

/// The host of a URL, without user and port.
fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split(':').next().unwrap_or(host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_for_a_host_whatever_its_port() {
        for (url, host) in [
            ("https://h.example/x", "h.example"),
            ("http://u:p@h:8080?x", "h"),
            ("https://[::1]:80/x", "::1"),
            ("https://h", "h"),
        ] {
            assert_eq!(host_of(url), host);
        }
    }
}
