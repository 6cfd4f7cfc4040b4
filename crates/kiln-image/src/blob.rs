//! Blobs in motion: a verified reader, and the two traits everything that holds images implements.

use std::pin::Pin;
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _, TryStreamExt};
use kiln_oci::{Descriptor, Document};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use crate::verify::Verifier;
use crate::{Error, ErrorKind, Result, limits};

/// A stream of content that ends in an error unless every byte of it was right.
///
/// It is a `Stream` of chunks and an `AsyncRead` at once; errors read through the latter come back with
/// [`Error::from_io`].
pub struct BlobReader {
    stream: BoxStream<'static, Result<Bytes>>,
    rest: Bytes,
}

impl BlobReader {
    /// Trusts the stream to verify itself.
    pub(crate) fn trusted(stream: impl Stream<Item = Result<Bytes>> + Send + 'static) -> Self {
        Self { stream: stream.boxed(), rest: Bytes::new() }
    }

    /// Checks a stream against a descriptor: the last chunk is given out only when size and digest match.
    pub fn verified(
        doing: impl Into<String>,
        descriptor: &Descriptor,
        stream: impl Stream<Item = Result<Bytes>> + Send + 'static,
    ) -> Self {
        let check = Check {
            doing: doing.into(),
            want: descriptor.clone(),
            verifier: Some(Verifier::new(&descriptor.digest)),
            stream: stream.boxed(),
        };
        Self::trusted(futures::stream::try_unfold(check, |mut check| async move {
            Ok(check.next().await?.map(|chunk| (chunk, check)))
        }))
    }

    /// Checks what an `AsyncRead` gives against a descriptor.
    pub fn from_read(doing: impl Into<String>, descriptor: &Descriptor, read: impl AsyncRead + Send + 'static) -> Self {
        let doing = doing.into();
        let stream = tokio_util::io::ReaderStream::with_capacity(read, CHUNK);
        let label = doing.clone();
        let stream = stream.map(move |chunk| chunk.map_err(|error| Error::from_io(label.clone(), error)));
        Self::verified(doing, descriptor, stream)
    }

    /// Checks bytes held in memory.
    pub fn from_bytes(doing: impl Into<String>, descriptor: &Descriptor, mut bytes: Bytes) -> Self {
        // In pieces, so that progress can be seen.
        let pieces = std::iter::from_fn(move || {
            let piece = bytes.split_to(bytes.len().min(CHUNK));
            (!piece.is_empty()).then_some(Ok(piece))
        });
        Self::verified(doing, descriptor, futures::stream::iter(pieces))
    }

    /// Calls `seen` with the size of each chunk as it passes.
    #[must_use]
    pub fn metered(self, mut seen: impl FnMut(u64) + Send + 'static) -> Self {
        Self::trusted(self.inspect(move |chunk| {
            if let Ok(chunk) = chunk {
                seen(chunk.len() as u64);
            }
        }))
    }

    /// Has the error it ends in, if it does, told otherwise.
    #[must_use]
    pub fn explained(self, tell: impl FnMut(Error) -> Error + Send + 'static) -> Self {
        Self::trusted(TryStreamExt::map_err(self, tell))
    }

    /// The next chunk; never empty.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        self.next().await.transpose()
    }

    /// Reads it all into memory, never more than `limit` bytes.
    pub async fn bytes(mut self, doing: &str, limit: u64) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            if all.len() as u64 + chunk.len() as u64 > limit {
                return Err(Error::TooLarge {
                    doing: doing.into(),
                    what: "the content".into(),
                    limit: format!("{limit} bytes"),
                });
            }
            all.extend_from_slice(&chunk);
        }
        Ok(all)
    }

    /// Reads and drops the first `count` bytes.
    pub(crate) async fn skip(mut self, doing: &str, count: u64) -> Result<Self> {
        let mut sink = tokio::io::sink();
        let skipped = tokio::io::copy(&mut AsyncReadExt::take(&mut self, count), &mut sink).await;
        skipped.map_err(|error| Error::from_io(doing, error))?;
        Ok(self)
    }
}

/// How much is read from a file at once.
const CHUNK: usize = 256 << 10;

struct Check {
    doing: String,
    want: Descriptor,
    verifier: Option<Verifier>,
    stream: BoxStream<'static, Result<Bytes>>,
}

impl Check {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        let Some(verifier) = &mut self.verifier else { return Ok(None) };
        loop {
            let Some(chunk) = self.stream.next().await.transpose()? else { break };
            if chunk.is_empty() {
                continue;
            }
            verifier.update(&chunk);
            let seen = verifier.seen();
            if seen > self.want.size {
                return Err(self.wrong_size(format!("more than {}", self.want.size)));
            }
            if seen < self.want.size {
                return Ok(Some(chunk));
            }
            let verifier = self.verifier.take().expect("it is there until the last byte");
            verifier.finish(&self.doing, &self.want.digest)?;
            return self.expect_end().await.map(|()| Some(chunk));
        }
        let verifier = self.verifier.take().expect("it is there until the last byte");
        if verifier.seen() != self.want.size {
            return Err(self.wrong_size(verifier.seen().to_string()));
        }
        verifier.finish(&self.doing, &self.want.digest).map(|()| None)
    }

    async fn expect_end(&mut self) -> Result<()> {
        while let Some(chunk) = self.stream.next().await.transpose()? {
            if !chunk.is_empty() {
                return Err(self.wrong_size(format!("more than {}", self.want.size)));
            }
        }
        Ok(())
    }

    fn wrong_size(&self, got: String) -> Error {
        Error::Size { doing: self.doing.clone(), got, want: self.want.size }
    }
}

impl Stream for BlobReader {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.rest))));
        }
        self.stream.poll_next_unpin(cx)
    }
}

impl AsyncRead for BlobReader {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        while self.rest.is_empty() {
            match self.stream.poll_next_unpin(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error.into())),
                Poll::Ready(Some(Ok(chunk))) => self.rest = chunk,
            }
        }
        let count = self.rest.len().min(buf.remaining());
        buf.put_slice(&self.rest.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl std::fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BlobReader")
    }
}

/// Gives content by descriptor. What it gives is verified: see [`BlobReader`].
#[async_trait]
pub trait BlobSource: Send + Sync {
    /// Opens a blob, manifest or index.
    async fn fetch(&self, descriptor: &Descriptor) -> Result<BlobReader>;

    /// Opens it at an offset; used to continue a transfer that broke off.
    async fn fetch_from(&self, descriptor: &Descriptor, offset: u64) -> Result<BlobReader> {
        let reader = self.fetch(descriptor).await?;
        reader.skip("read a blob again", offset).await
    }

    /// The content as a file that need not be verified, since this process wrote it: the kernel may copy it.
    async fn file(&self, _descriptor: &Descriptor) -> Option<std::fs::File> {
        None
    }

    /// Opens it after the bytes that `seen` has taken, to go on with what an earlier process began. Where a source can,
    /// it verifies all of it, the earlier part included.
    async fn fetch_rest(&self, descriptor: &Descriptor, seen: Verifier) -> Result<BlobReader> {
        match seen.seen() {
            0 => self.fetch(descriptor).await,
            offset => self.fetch_from(descriptor, offset).await,
        }
    }

    /// How often it makes sense to open content that proves wrong: more than once where bits can flip on the way, or where
    /// there are other places to ask.
    fn tries(&self, _descriptor: &Descriptor) -> u32 {
        1
    }
}

/// How often content that proved wrong is asked for again.
pub struct Chances {
    left: u32,
    lie: Option<Error>,
}

impl Chances {
    /// As many as the source has for this content.
    pub fn of(source: &dyn BlobSource, descriptor: &Descriptor) -> Self {
        Self::new(source.tries(descriptor))
    }

    pub(crate) fn new(tries: u32) -> Self {
        Self { left: tries, lie: None }
    }

    /// Takes the error of one try, and gives it back when there is no reason for another. What proved wrong is told rather
    /// than that nobody else has it.
    pub fn after(&mut self, error: Error) -> Result<()> {
        if error.kind() != ErrorKind::Lying {
            return Err(self.lie.take().unwrap_or(error));
        }
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            return Err(error);
        }
        self.lie = Some(error);
        Ok(())
    }
}

/// How content came to be in a sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pushed {
    /// It was there before.
    Existing,
    /// The registry took it over from another of its repositories.
    Mounted,
    /// It was written.
    Written,
}

/// Takes content. What it takes is verified before it is visible.
#[async_trait]
pub trait BlobSink: Send + Sync {
    /// Whether this very content is there.
    async fn has(&self, descriptor: &Descriptor) -> Result<bool>;

    /// Takes a blob; may open it more than once.
    async fn push(&self, descriptor: &Descriptor, from: &dyn BlobSource) -> Result<Pushed>;

    /// Whether what a root is called here is this very document already.
    async fn stands(&self, _root: &Descriptor) -> Result<bool> {
        Ok(false)
    }

    /// Takes a manifest or index whose content is all there already.
    async fn push_document(&self, descriptor: &Descriptor, bytes: &[u8], role: Role) -> Result<()>;
}

/// Where a document stands in what is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Below an index.
    Child,
    /// The one that was asked for: the sink's name will point at it.
    Root,
}

/// Reads and checks a manifest or index of at most [`limits::DOCUMENT`] bytes.
pub async fn fetch_document(from: &dyn BlobSource, descriptor: &Descriptor) -> Result<Document> {
    let doing = format!("read manifest `{}`", descriptor.digest);
    limits::check_size(&doing, "the manifest", descriptor.size, limits::DOCUMENT)?;
    let bytes = from.fetch(descriptor).await?.bytes(&doing, limits::DOCUMENT).await?;
    let document =
        Document::parse(&descriptor.media_type, bytes).map_err(|source| Error::Document { doing, source })?;
    limits::validate(&document)?;
    Ok(document)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(parts: &[&'static str]) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
        futures::stream::iter(parts.iter().map(|part| Ok(Bytes::from_static(part.as_bytes()))).collect::<Vec<_>>())
    }

    #[tokio::test]
    async fn the_last_chunk_is_withheld_until_all_is_right() {
        let good = Descriptor::of("x", b"hello");
        let all = BlobReader::verified("read", &good, chunks(&["he", "", "llo"])).bytes("read", 10).await;
        assert_eq!(all.unwrap(), b"hello");
        for (parts, expected) in [
            (&["he", "llx"][..], "digest mismatch"),
            (&["he"], "got 2, want 5"),
            (&["hello", "!"], "more than 5"),
            (&["hel", "lo!"], "more than 5"),
        ] {
            let mut reader = BlobReader::verified("read", &good, chunks(parts));
            let mut seen = 0;
            let error = loop {
                match reader.chunk().await {
                    Ok(Some(chunk)) => seen += chunk.len(),
                    Ok(None) => panic!("{parts:?} was accepted"),
                    Err(error) => break error.to_string(),
                }
            };
            assert!(error.contains(expected) && seen < 5, "{parts:?}: {error}");
        }
    }

    #[tokio::test]
    async fn reading_and_streaming_can_be_mixed() {
        let descriptor = Descriptor::of("x", b"hello world");
        let mut reader = BlobReader::verified("read", &descriptor, chunks(&["hello", " world"]));
        let mut first = [0; 2];
        reader.read_exact(&mut first).await.unwrap();
        assert_eq!(reader.chunk().await.unwrap().unwrap(), "llo");
        let mut rest = String::new();
        reader.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, " world");
    }

    #[tokio::test]
    async fn an_empty_blob_is_a_blob() {
        let descriptor = Descriptor::of("x", b"");
        assert!(BlobReader::verified("read", &descriptor, chunks(&[])).bytes("read", 0).await.unwrap().is_empty());
        assert!(BlobReader::verified("read", &descriptor, chunks(&["a"])).bytes("read", 1).await.is_err());
    }
}
