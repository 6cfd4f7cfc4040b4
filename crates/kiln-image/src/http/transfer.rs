//! One download as a stream that survives broken connections: it continues by Range where it stopped.

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;
use reqwest::StatusCode;
use reqwest::header::{ACCEPT_RANGES, CONTENT_RANGE, ETAG, HeaderMap};
use tokio::time::Instant;

use super::client::{Reply, authority, is_worth_retrying, stalled};
use super::retry::{Patience, RetryPolicy};
use crate::verify::Verifier;
use crate::{Error, ErrorKind, Result};
use kiln_oci::Digest;

/// Opens a download at an offset: `Range: bytes=offset-` when it is not 0, and `If-Range` when a validator is known.
#[async_trait]
pub(crate) trait Opener: Send + Sync {
    async fn open(&self, offset: u64, validator: Option<&str>) -> Result<Reply>;

    /// Hears that what came is not what it should be; says who sent it.
    fn lied(&self, error: Error) -> Error {
        error
    }

    /// Hears that an answer broke off too often. Whether somebody else will be asked for the rest.
    fn has_another(&self, _error: &Error) -> bool {
        false
    }
}

/// A download and what is known about it.
pub(crate) struct Transfer {
    doing: String,
    policy: RetryPolicy,
    opener: Box<dyn Opener>,
    size: Option<u64>,
    limit: u64,
    digest: Option<Digest>,
    verifier: Verifier,
    validator: Option<String>,
    current: Option<Current>,
    pending: Option<Error>,
    failed_at: u64,
    patience: Patience,
    over: bool,
}

/// An open answer, positioned at the transfer's offset once `skip` bytes are dropped.
struct Current {
    reply: Reply,
    skip: u64,
}

/// Progress that buys new patience.
const PROGRESS: u64 = 1 << 20;

impl Transfer {
    pub(crate) fn new(doing: String, policy: RetryPolicy, opener: Box<dyn Opener>) -> Self {
        Self {
            doing,
            patience: Patience::new(&policy),
            policy,
            opener,
            size: None,
            limit: u64::MAX,
            digest: None,
            verifier: Verifier::new(&Digest::sha256("")),
            validator: None,
            current: None,
            pending: None,
            failed_at: 0,
            over: false,
        }
    }

    /// The content must have exactly this many bytes.
    pub(crate) fn of_size(self, size: u64) -> Self {
        Self { size: Some(size), ..self }
    }

    /// The content must not be larger.
    pub(crate) fn at_most(self, limit: u64) -> Self {
        Self { limit, ..self }
    }

    /// The content must have this digest.
    pub(crate) fn of_digest(self, digest: &Digest) -> Self {
        Self { verifier: Verifier::new(digest), digest: Some(digest.clone()), ..self }
    }

    /// Begins where another transfer, whose bytes `verifier` has seen, stopped.
    pub(crate) fn after(self, verifier: Verifier) -> Self {
        Self { failed_at: verifier.seen(), verifier, ..self }
    }

    /// Takes an answer that is open already.
    pub(crate) fn begun(mut self, reply: Reply) -> Result<Self> {
        match self.accept(reply) {
            Ok(()) => Ok(self),
            Err(error) => Err(self.told(error)),
        }
    }

    /// The chunks. The last one is given out only when size and digest are right.
    pub(crate) fn into_stream(self) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
        futures::stream::try_unfold(self, |mut transfer| async move {
            let next = transfer.next().await.map_err(|error| transfer.told(error))?;
            Ok(next.map(|chunk| (chunk, transfer)))
        })
    }

    fn offset(&self) -> u64 {
        self.verifier.seen()
    }

    fn told(&self, error: Error) -> Error {
        if error.kind() == ErrorKind::Lying { self.opener.lied(error) } else { error }
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        if self.over {
            return Ok(None);
        }
        loop {
            if self.size == Some(self.offset()) && self.current.is_none() && self.offset() > 0 {
                return self.finish().map(|()| None);
            }
            if self.current.is_none() {
                // The opener has its own patience; when that is over, so is ours.
                let reply = self.opener.open(self.offset(), self.validator.as_deref()).await?;
                self.accept(reply)?;
            }
            match self.attempt().await {
                Ok(chunk) => return Ok(chunk),
                Err(error) if is_worth_retrying(&error) => self.recover(error).await?,
                Err(error) => return Err(error),
            }
        }
    }

    async fn recover(&mut self, error: Error) -> Result<()> {
        self.current = None;
        if self.offset() >= self.failed_at + PROGRESS {
            self.patience.refresh();
        }
        self.failed_at = self.offset();
        match self.patience.wait(error).await {
            Err(error) if self.opener.has_another(&error) => {
                self.patience = Patience::new(&self.policy);
                Ok(())
            }
            waited => waited,
        }
    }

    async fn attempt(&mut self) -> Result<Option<Bytes>> {
        let Some(chunk) = self.read().await? else {
            return self.ended();
        };
        let end = self.offset() + chunk.len() as u64;
        let want = self.size.unwrap_or(u64::MAX);
        if end > want {
            return Err(self.wrong_size(format!("more than {want}"), want));
        }
        if end > self.limit {
            return Err(self.too_large());
        }
        self.verifier.update(&chunk);
        if end < want {
            return Ok(Some(chunk));
        }
        self.expect_end(want).await?;
        self.finish()?;
        Ok(Some(chunk))
    }

    /// Checks that an answer continues exactly where we are, and is as long as it must be.
    fn accept(&mut self, reply: Reply) -> Result<()> {
        let offset = self.offset();
        let length = reply.response.content_length();
        let skip = match reply.status() {
            StatusCode::PARTIAL_CONTENT => {
                let range = content_range(reply.headers());
                if range
                    .is_none_or(|(start, total)| start != offset || self.size.is_some_and(|size| total != Some(size)))
                {
                    return Err(Error::invalid(&self.doing, "the answer is not the range that was asked for"));
                }
                0
            }
            _ => offset,
        };
        let rest = length.map(|length| length + offset - skip);
        if let (Some(whole), Some(size)) = (rest, self.size)
            && whole != size
        {
            return Err(self.wrong_size(whole.to_string(), size));
        }
        if rest.is_some_and(|whole| whole > self.limit) {
            return Err(self.too_large());
        }
        if self.size.is_none() && offset == 0 {
            self.size = length;
        }
        let etag = reply.headers().get(ETAG).and_then(|v| v.to_str().ok()).filter(|etag| !etag.starts_with("W/"));
        let ranges = reply.headers().get(ACCEPT_RANGES).is_none_or(|value| value != "none");
        self.validator = etag.filter(|_| ranges).map(str::to_owned);
        self.current = Some(Current { reply, skip });
        Ok(())
    }

    /// The next bytes from where we are; fails when too few came for too long. Trickles are gathered, so that the
    /// deadline bounds the rate and not only the silence; what was gathered before a failure is not lost.
    async fn read(&mut self) -> Result<Option<Bytes>> {
        if let Some(error) = self.pending.take() {
            return Err(error);
        }
        let deadline = Instant::now() + self.policy.stall;
        let mut gathered = Vec::new();
        loop {
            match self.read_once(deadline).await {
                Ok(Some(chunk)) if gathered.is_empty() && self.is_enough(chunk.len()) => return Ok(Some(chunk)),
                Ok(Some(chunk)) => gathered.extend_from_slice(&chunk),
                Ok(None) => return Ok((!gathered.is_empty()).then(|| gathered.into())),
                Err(error) if gathered.is_empty() => return Err(error),
                Err(error) => {
                    self.pending = Some(error);
                    return Ok(Some(gathered.into()));
                }
            }
            if self.is_enough(gathered.len()) {
                return Ok(Some(gathered.into()));
            }
        }
    }

    fn is_enough(&self, count: usize) -> bool {
        let complete = self.size.is_some_and(|size| self.offset() + count as u64 >= size);
        count as u64 >= self.policy.stall_bytes || (complete && count > 0)
    }

    async fn read_once(&mut self, deadline: Instant) -> Result<Option<Bytes>> {
        let (received, total) = (self.offset(), self.size);
        let current = self.current.as_mut().expect("opened just before");
        let next = tokio::time::timeout_at(deadline, current.reply.response.chunk()).await;
        let url = current.reply.response.url();
        let chunk = next.map_err(|_| stalled(&self.doing, url, self.policy.stall))?;
        let broken = |error: reqwest::Error| Error::BrokenOff {
            doing: self.doing.clone(),
            host: authority(url),
            received,
            total,
            source: Some(error.without_url().into()),
        };
        let Some(mut chunk) = chunk.map_err(broken)? else { return Ok(None) };
        let dropped = current.skip.min(chunk.len() as u64);
        current.skip -= dropped;
        Ok(Some(chunk.split_off(dropped as usize)))
    }

    /// The answer is at its end: is the content?
    fn ended(&mut self) -> Result<Option<Bytes>> {
        let url = self.current.as_ref().map(|current| current.reply.response.url().clone());
        match self.size {
            Some(size) if size != self.offset() => Err(Error::BrokenOff {
                doing: self.doing.clone(),
                host: url.as_ref().map(authority).unwrap_or_default(),
                received: self.offset(),
                total: Some(size),
                source: None,
            }),
            _ => self.finish().map(|()| None),
        }
    }

    /// An answer that did not say how long it is must end where the content ends.
    async fn expect_end(&mut self, want: u64) -> Result<()> {
        let current = self.current.as_mut().expect("the last chunk came from it");
        if current.reply.response.content_length().is_some() {
            return Ok(());
        }
        let more = tokio::time::timeout(self.policy.stall, current.reply.response.chunk()).await;
        match more {
            Ok(Ok(Some(chunk))) if !chunk.is_empty() => Err(self.wrong_size(format!("more than {want}"), want)),
            _ => Ok(()),
        }
    }

    fn finish(&mut self) -> Result<()> {
        self.over = true;
        self.current = None;
        match &self.digest {
            Some(digest) => self.verifier.clone().finish(&self.doing, digest),
            None => Ok(()),
        }
    }

    fn wrong_size(&self, got: String, want: u64) -> Error {
        Error::Size { doing: self.doing.clone(), got, want }
    }

    fn too_large(&self) -> Error {
        Error::TooLarge { doing: self.doing.clone(), what: "the file".into(), limit: format!("{} bytes", self.limit) }
    }
}

/// `bytes 3-9/10` is (3, 10); the total may be `*`.
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let value = headers.get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?;
    let (range, total) = value.split_once('/')?;
    let start = range.split_once('-')?.0.trim().parse().ok()?;
    Some((start, total.trim().parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read() {
        for (text, expected) in [
            ("bytes 3-9/10", Some((3, Some(10)))),
            ("bytes 0-0/*", Some((0, None))),
            ("bytes */10", None),
            ("items 1-2/3", None),
            ("bytes 1", None),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_RANGE, text.parse().unwrap())]);
            assert_eq!(content_range(&headers), expected, "{text}");
        }
    }
}
