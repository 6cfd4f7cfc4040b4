//! Writing to a registry: blobs by mount or upload, resumed where they broke off; then manifests.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use futures::TryStreamExt as _;
use kiln_oci::{Descriptor, Reference};
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, RANGE};
use reqwest::{Method, Response, StatusCode, Url};
use tokio::io::AsyncReadExt;

use super::auth::Session;
use super::pull::announced_digest;
use super::{Access, RegistryClient, Target, refused};
use crate::http::{
    Call, Patience, Reply, Trust, authority, is_passing, is_worth_retrying, location, network, refuse, same_origin,
    stalled, status_error,
};
use crate::{BlobReader, BlobSource, Error, Pushed, Result};

impl RegistryClient {
    /// Pushes a blob: looks whether it is there, then tries to mount it from `mount_from`, then uploads it.
    pub async fn push_blob(
        &self,
        to: &Reference,
        descriptor: &Descriptor,
        from: &dyn BlobSource,
        mount_from: Option<&str>,
    ) -> Result<Pushed> {
        let doing = format!("push blob `{}` to `{}`", descriptor.digest, to.name());
        if self.has_blob(to, descriptor, &doing).await? {
            return Ok(Pushed::Existing);
        }
        let mut begun = None;
        if let Some(other) = mount_from.filter(|other| *other != to.repository) {
            match self.mount(to, descriptor, other, &doing).await {
                Ok(Opened::Mounted) => return Ok(Pushed::Mounted),
                Ok(Opened::Session(at)) => begun = Some(at),
                // Some registries refuse the token for both repositories, or a repository they do not know, instead of
                // the mount alone.
                Err(Error::Unauthorized { .. } | Error::NotFound { .. } | Error::Status { status: 400..500, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let upload = Upload { client: self, to, descriptor, from, doing };
        upload.run(begun).await
    }

    async fn mount(&self, to: &Reference, descriptor: &Descriptor, other: &str, doing: &str) -> Result<Opened> {
        let target = Target::of(to, Access::Mount(other));
        let mut call = self.request(&target, doing, Method::POST, "blobs/uploads/").await?;
        call.url.query_pairs_mut().append_pair("mount", descriptor.digest.as_str()).append_pair("from", other);
        self.open(&target, call).await
    }

    async fn open(&self, target: &Target<'_>, mut call: Call) -> Result<Opened> {
        call.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        call.body = Some(Bytes::new());
        let (doing, asked) = (call.doing.clone(), call.url.clone());
        let reply = self.send(target, call).await?;
        match reply.status() {
            StatusCode::CREATED => Ok(Opened::Mounted),
            StatusCode::ACCEPTED => {
                let url = session_url(&doing, &asked, &reply.response)?;
                Ok(Opened::Session(Position { url, offset: 0, least: least(reply.headers()) }))
            }
            _ => Err(status_error(&doing, reply).await),
        }
    }

    /// Pushes a manifest or index under a tag or its digest. All it names must be there; what it refers to as its subject
    /// is noted where the registry does not do so itself.
    pub async fn push_manifest(&self, to: &Reference, descriptor: &Descriptor, bytes: &[u8], name: &str) -> Result<()> {
        let answer = self.put_manifest(to, descriptor, bytes, name).await?;
        self.note_subject(to, descriptor, (bytes, &answer)).await
    }

    pub(super) async fn put_manifest(
        &self,
        to: &Reference,
        descriptor: &Descriptor,
        bytes: &[u8],
        name: &str,
    ) -> Result<HeaderMap> {
        let separator = if name.contains(':') { '@' } else { ':' };
        let doing = format!("push manifest `{}{separator}{name}`", to.name());
        crate::verify(&doing, descriptor, bytes)?;
        let target = Target::of(to, Access::Push);
        let mut call = self.request(&target, &doing, Method::PUT, &format!("manifests/{name}")).await?;
        let kind = HeaderValue::from_str(descriptor.media_type.as_str())
            .map_err(|_| Error::invalid(&doing, "its media type is no header value"))?;
        call.headers.insert(CONTENT_TYPE, kind);
        call.body = Some(Bytes::copy_from_slice(bytes));
        let mut patience = Patience::new(&self.http().options().retry);
        let reply = loop {
            let reply = self.send(&target, call.clone()).await?;
            if reply.status().is_success() {
                break reply;
            }
            match status_error(&doing, reply).await {
                error if misses_a_blob(&error) => patience.wait(error).await?,
                error => return Err(error),
            }
        };
        let want = &descriptor.digest;
        let said = announced_digest(reply.headers()).filter(|got| got.algorithm() == want.algorithm());
        match said {
            Some(got) if got != *want => return Err(Error::Digest { doing, got, want: want.clone() }),
            Some(_) => {}
            None if reply.status() == StatusCode::CREATED => {}
            // A proxy that answers for a registry says 200 to everything.
            None if self.has_under(to, name, descriptor).await? => {}
            None => {
                let reason = format!("the registry answered {}, and does not have it", reply.status().as_u16());
                return Err(Error::invalid(doing, reason));
            }
        }
        Ok(reply.headers().clone())
    }
}

/// Whether a registry does not find what it said to have taken: its own parts may be behind one another.
fn misses_a_blob(error: &Error) -> bool {
    let (Error::Status { status: 400..500, message, .. } | Error::NotFound { message, .. }) = error else {
        return false;
    };
    message.contains("BLOB_UNKNOWN")
}

enum Opened {
    Mounted,
    Session(Position),
}

/// The fewest bytes that a part may have, as a registry says (distribution-spec, pushing a blob in chunks); more than
/// are held in memory are not heeded.
fn least(headers: &HeaderMap) -> u64 {
    let said = headers.get("oci-chunk-min-length").and_then(|value| value.to_str().ok()?.trim().parse::<u64>().ok());
    said.unwrap_or_default().min(LARGEST_PART)
}

/// Where an upload continues: on the registry's own host, or elsewhere over TLS.
fn session_url(doing: &str, asked: &Url, response: &Response) -> Result<Url> {
    let mut url = location(response)
        .ok_or_else(|| Error::invalid(doing, "the registry opened an upload and did not say where"))?;
    if asked.scheme() == "https" && url.scheme() == "http" && asked.host_str() == url.host_str() {
        // Registries behind a TLS proxy that do not know about it.
        let port = asked.port();
        if url.set_scheme("https").is_err() || url.set_port(port).is_err() {
            return Err(refuse(doing, &url, "an upload may not continue in plain text"));
        }
    }
    if asked.scheme() == "https" && url.scheme() != "https" {
        return Err(refuse(doing, &url, "an upload may not continue in plain text"));
    }
    Ok(url)
}

struct Upload<'a> {
    client: &'a RegistryClient,
    to: &'a Reference,
    descriptor: &'a Descriptor,
    from: &'a dyn BlobSource,
    doing: String,
}

/// How far an upload is.
struct Position {
    url: Url,
    offset: u64,
    /// The fewest bytes of a part that is not the last.
    least: u64,
}

/// How content is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// With the request that closes the upload: one request less.
    Whole,
    /// Before it, so that a registry keeps what came when it breaks off.
    Stream,
    /// Before it, in requests of so many bytes.
    Parts(u64),
}

/// The sizes of parts that are tried. A part is held in memory; many a proxy takes no more than 1 MiB.
const PARTS: [u64; 2] = [8 << 20, 1 << 20];
/// No part is larger, whatever a registry wants.
const LARGEST_PART: u64 = 64 << 20;

impl Form {
    /// A form of smaller requests.
    fn smaller(self, size: u64) -> Option<Self> {
        let most = if let Self::Parts(part) = self { part } else { size };
        PARTS.into_iter().find(|part| *part < most).map(Self::Parts)
    }
}

/// Content of this size is sent as a stream.
const STREAMED: u64 = 8 << 20;

/// Whether a registry may take it in another form.
fn is_unknown_form(error: &Error) -> bool {
    matches!(error, Error::Status { status: 400 | 405 | 411 | 415 | 416 | 501, .. })
}

/// Whether a registry knows nothing of an upload any more, or something else than we sent.
fn is_lost(error: &Error, at: &Position) -> bool {
    matches!(error, Error::NotFound { .. } | Error::Status { status: 416, .. })
        || (at.offset > 0 && matches!(error, Error::Status { status: 400, .. }))
}

/// How one attempt ended.
enum Attempt {
    Done,
    /// The registry took the rest; the closing PUT is still to be made.
    Sent(Url),
}

impl Upload<'_> {
    fn target(&self) -> Target<'_> {
        Target::of(self.to, Access::Push)
    }

    async fn run(&self, begun: Option<Position>) -> Result<Pushed> {
        let mut patience = Patience::new(&self.client.http().options().retry);
        let mut at = match begun {
            Some(at) => at,
            None => self.begin().await?,
        };
        let (mut furthest, mut in_vain) = (0, 0);
        let size = self.descriptor.size;
        let mut form = if size < STREAMED { Form::Whole } else { Form::Stream };
        let mut takes_patches = true;
        loop {
            let error = match self.attempt(&at, form).await {
                Ok(()) => return Ok(Pushed::Written),
                Err(error) => error,
            };
            let is_too_large = matches!(error, Error::Status { status: 413, .. });
            let is_unknown = form != Form::Whole && at.offset == 0 && is_unknown_form(&error);
            takes_patches &= !is_unknown;
            let smaller = form.smaller(size).filter(|_| takes_patches);
            if let Some(other) = if is_unknown { Some(Form::Whole) } else { smaller.filter(|_| is_too_large) } {
                form = other;
                at = self.begin().await?;
                continue;
            }
            if !is_lost(&error, &at) && !is_worth_retrying(&error) {
                return Err(error);
            }
            in_vain += 1;
            if at.offset >= furthest + (1 << 20) {
                (furthest, in_vain) = (at.offset, 0);
                patience.refresh();
            }
            if in_vain == 2 {
                // Who hangs up may mean that it is too much, and less is lost.
                form = smaller.unwrap_or(form);
            }
            let is_lost = is_lost(&error, &at);
            patience.wait(error).await?;
            if self.client.has_blob(self.to, self.descriptor, &self.doing).await? {
                return Ok(Pushed::Written);
            }
            at = match self.status(&at).await.filter(|_| !is_lost) {
                Some(position) => position,
                None => self.begin().await?,
            };
        }
    }

    async fn begin(&self) -> Result<Position> {
        let target = self.target();
        let call = self.client.request(&target, &self.doing, Method::POST, "blobs/uploads/").await?;
        match self.client.open(&target, call).await? {
            Opened::Session(at) => Ok(at),
            Opened::Mounted => Err(Error::invalid(&self.doing, "the registry says 201 to an upload not yet made")),
        }
    }

    /// Asks how much of an upload has arrived; `None` when it has to begin anew.
    async fn status(&self, at: &Position) -> Option<Position> {
        let target = self.target();
        let mut call = self.client.request(&target, &self.doing, Method::GET, "blobs/uploads/").await.ok()?;
        if !same_origin(&call.url, &at.url) {
            return None;
        }
        call.url = at.url.clone();
        let reply = self.client.send(&target, call).await.ok()?;
        if reply.status() != StatusCode::NO_CONTENT {
            return None;
        }
        let last: u64 = reply.headers().get(RANGE)?.to_str().ok()?.rsplit_once('-')?.1.trim().parse().ok()?;
        let url = location(&reply.response).filter(|url| same_origin(url, &at.url)).unwrap_or_else(|| at.url.clone());
        // `0-0` is said of an empty upload as well as of one byte.
        let offset = if last == 0 { 0 } else { last + 1 };
        (offset <= self.descriptor.size).then_some(Position { url, offset, least: at.least })
    }

    async fn attempt(&self, at: &Position, form: Form) -> Result<()> {
        let mut url = at.url.clone();
        let last = match form {
            Form::Whole if at.offset == 0 => Body::open(self.from, self.descriptor, 0).await?,
            Form::Whole | Form::Stream if at.offset < self.descriptor.size => {
                let body = Body::open(self.from, self.descriptor, at.offset).await?;
                match self.send_body(Method::PATCH, url, body).await? {
                    Attempt::Sent(next) => url = next,
                    Attempt::Done => return Ok(()),
                }
                Body::nothing()
            }
            Form::Whole | Form::Stream => Body::nothing(),
            Form::Parts(most) => match self.send_parts(url, at.offset, most.max(at.least)).await? {
                Attempt::Sent(next) => {
                    url = next;
                    Body::nothing()
                }
                Attempt::Done => return Ok(()),
            },
        };
        let digest = self.descriptor.digest.as_str();
        url.query_pairs_mut().append_pair("digest", digest);
        self.send_body(Method::PUT, url, last).await.map(|_| ())
    }

    async fn send_parts(&self, mut url: Url, mut offset: u64, most: u64) -> Result<Attempt> {
        let mut reader = open(self.from, self.descriptor, offset).await?;
        while offset < self.descriptor.size {
            let mut part = Vec::new();
            let read = AsyncReadExt::take(&mut reader, most).read_to_end(&mut part).await;
            read.map_err(|error| Error::from_io(&self.doing, error))?;
            let body = Body::part(part, offset);
            offset += body.len;
            match self.send_body(Method::PATCH, url, body).await? {
                Attempt::Sent(next) => url = next,
                Attempt::Done => return Ok(Attempt::Done),
            }
        }
        Ok(Attempt::Sent(url))
    }

    /// Sends a piece of the blob. An upload's answer is waited for as long as it moves.
    async fn send_body(&self, method: Method, url: Url, body: Body) -> Result<Attempt> {
        let http = self.client.http();
        let (total, offset, target) = (body.len, body.offset, self.target());
        let host = self.client.host(&self.to.registry);
        let own = same_origin(&url, &host.base(http).await.parse::<Url>().unwrap_or_else(|_| url.clone()));
        let session = Session { client: self.client, host: &host, target: &target, doing: &self.doing };
        let known = session.known().await?;
        let mut headers = HeaderMap::new();
        if own {
            known.apply(&mut headers);
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(total));
        if method == Method::PATCH && total > 0 && (offset > 0 || total < self.descriptor.size) {
            let range = format!("{offset}-{}", offset + total - 1);
            headers.insert(CONTENT_RANGE, HeaderValue::from_str(&range).expect("digits are text"));
        }
        let at = authority(&url);
        let turn = http.turn(&at).await;
        let client = http.client_for(&self.doing, &url, Trust::Registry)?;
        let request = client.request(method.clone(), url.clone()).headers(headers).body(body.stream);
        let sent = self.watch(request.send(), &body.sent, total, &url).await;
        if let Some(error) = body.broken.lock().expect("no thread panics while it holds this").take() {
            return Err(error);
        }
        let reply = Reply { response: sent?, crossed: !own };
        if reply.status() == StatusCode::UNAUTHORIZED && own {
            // The token ran out; the next attempt brings another.
            let fresh = session.answer(reply.headers(), &known).await?;
            let reply = refused(&self.doing, reply, &known).await;
            return match (fresh, reply) {
                (Some(_), Err(error)) => Err(Error::BrokenOff {
                    doing: self.doing.clone(),
                    host: host.authority.clone(),
                    received: offset,
                    total: Some(self.descriptor.size),
                    source: Some(error.into()),
                }),
                (_, reply) => Err(status_error(&self.doing, reply?).await),
            };
        }
        let reply = refused(&self.doing, reply, &known).await?;
        if !is_passing(reply.status()) {
            http.served(&at, turn);
        }
        match reply.status() {
            StatusCode::ACCEPTED | StatusCode::NO_CONTENT if method == Method::PATCH => {
                session_url(&self.doing, &url, &reply.response).map(Attempt::Sent)
            }
            status if status.is_success() => Ok(Attempt::Done),
            status if is_passing(status) => self.pause(reply, &url).await,
            _ => Err(status_error(&self.doing, reply).await),
        }
    }

    /// Waits once as asked, then lets the caller try again.
    async fn pause(&self, reply: Reply, url: &Url) -> Result<Attempt> {
        let status = reply.status();
        let host = authority(reply.response.url());
        let mut once = Patience::new(&self.client.http().options().retry);
        self.client.http().wait_out(&self.doing, url, reply, &mut once).await?;
        Err(Error::BrokenOff {
            doing: self.doing.clone(),
            host,
            received: 0,
            total: Some(self.descriptor.size),
            source: Some(format!("it answered {status}").into()),
        })
    }

    async fn watch(
        &self,
        send: impl Future<Output = Result<Response, reqwest::Error>>,
        sent: &AtomicU64,
        total: u64,
        url: &Url,
    ) -> Result<Response> {
        let policy = &self.client.http().options().retry;
        let mut send = std::pin::pin!(send);
        let (mut mark, mut moved) = (0, Instant::now());
        loop {
            match tokio::time::timeout(policy.stall / 10, &mut send).await {
                Ok(Ok(answer)) => return Ok(answer),
                // The kernel may give up on a peer that reads nothing before we do.
                Ok(Err(_)) if moved.elapsed() >= policy.stall => {
                    return Err(stalled(&self.doing, url, moved.elapsed()));
                }
                Ok(Err(error)) => return Err(network(&self.doing, url, error)),
                Err(_) => {}
            }
            let now = sent.load(Ordering::Relaxed);
            if now >= mark + policy.stall_bytes.min(total - mark) && now > mark {
                (mark, moved) = (now, Instant::now());
            }
            let window = if mark == total { policy.commit } else { policy.stall };
            if moved.elapsed() >= window {
                return Err(stalled(&self.doing, url, window));
            }
        }
    }
}

async fn open(from: &dyn BlobSource, descriptor: &Descriptor, offset: u64) -> Result<BlobReader> {
    match offset {
        0 => from.fetch(descriptor).await,
        _ => from.fetch_from(descriptor, offset).await,
    }
}

/// Bytes in memory are handed over in pieces, so that it is seen how they move.
const PIECE: usize = 64 << 10;

/// A piece of a blob as the body of a request; one read from a source remembers how far it got and why the source failed.
struct Body {
    offset: u64,
    len: u64,
    stream: reqwest::Body,
    sent: Arc<AtomicU64>,
    broken: Arc<Mutex<Option<Error>>>,
}

impl Body {
    fn nothing() -> Self {
        Self { offset: 0, len: 0, stream: Bytes::new().into(), sent: Arc::default(), broken: Arc::default() }
    }

    fn part(bytes: Vec<u8>, offset: u64) -> Self {
        let (len, sent) = (bytes.len() as u64, Arc::new(AtomicU64::new(0)));
        let count = sent.clone();
        let pieces = Bytes::from(bytes);
        let pieces = (0..pieces.len()).step_by(PIECE).map(move |at| {
            let piece = pieces.slice(at..pieces.len().min(at + PIECE));
            count.fetch_add(piece.len() as u64, Ordering::Relaxed);
            Ok::<_, std::io::Error>(piece)
        });
        let stream = reqwest::Body::wrap_stream(futures::stream::iter(pieces));
        Self { offset, len, stream, sent, broken: Arc::default() }
    }

    /// All from `offset` on.
    async fn open(from: &dyn BlobSource, descriptor: &Descriptor, offset: u64) -> Result<Self> {
        let len = descriptor.size - offset;
        if len == 0 {
            return Ok(Self::nothing());
        }
        let (sent, broken) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(None)));
        let reader = open(from, descriptor, offset).await?;
        let (count, slot) = (sent.clone(), broken.clone());
        let reader = reader.metered(move |bytes| {
            count.fetch_add(bytes, Ordering::Relaxed);
        });
        let stream = reqwest::Body::wrap_stream(reader.map_err(move |error| {
            let text = error.to_string();
            *slot.lock().expect("no thread panics while it holds this") = Some(error);
            std::io::Error::other(text)
        }));
        Ok(Self { offset, len, stream, sent, broken })
    }
}
