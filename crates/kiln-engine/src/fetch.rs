//! Content on its way into the store: fetched once, continued where it broke off, read while it comes.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;
use std::time::SystemTime;

use kiln_image::{BlobSource, Chances, ErrorKind, Verifier};
use kiln_oci::Descriptor;
use kiln_report::Failure;

use crate::base::Meter;
use crate::blobs::{StoreBlobs, receive};
use crate::blocking::blocking;
use crate::claim::claim;
use crate::failure::{environment, registry};
use crate::follow::follow;
use crate::job::Result;

/// Brings a blob into the content store, unless it is there, and has it read meanwhile. `work` is done when all of it was
/// read and is what it should be; it may be called anew. What comes wrong is thrown away and fetched again, as often as the
/// source has places to ask.
pub(crate) async fn read_blob<T: Send + 'static>(
    kept: &StoreBlobs,
    source: &Arc<dyn BlobSource>,
    blob: &Descriptor,
    meter: &Arc<Meter>,
    work: impl Fn(&mut (dyn Read + Send)) -> Use<T> + Send + Sync + 'static,
) -> Result<T> {
    let work = Arc::new(work);
    if let Some(done) = read_kept(kept, blob, &work).await? {
        return Ok(done);
    }
    let _claim = claim(&kept.store, &blob.digest).await;
    if let Some(done) = read_kept(kept, blob, &work).await? {
        return Ok(done);
    }
    crate::space::require(&kept.store.root(), blob.size, &format!("layer `{}`", blob.digest))?;
    let arrival = Arrival { kept, source, blob, meter };
    let mut chances = Chances::of(source.as_ref(), blob);
    let mut is_fresh = false;
    loop {
        match arrival.run(Arc::clone(&work)).await {
            // What an earlier process left may have been spoilt since.
            Err(Trouble::SpoiltStart) if !is_fresh => is_fresh = true,
            Err(Trouble::Exchange(error)) => chances.after(error).map_err(registry)?,
            done => return done.map_err(Trouble::into_failure),
        }
    }
}

/// What comes of content that is read.
pub(crate) type Use<T> = std::result::Result<T, Flaw>;

/// Why content is of no use to who reads it.
pub(crate) enum Flaw {
    /// Whoever sent it: nothing more of it is wanted.
    Refused(Failure),
    /// It makes no sense. The rest must come before it is known whether it is wrong or came wrong.
    Senseless(Failure),
}

impl Flaw {
    pub(crate) fn map(self, told: impl FnOnce(Failure) -> Failure) -> Self {
        match self {
            Self::Refused(failure) => Self::Refused(told(failure)),
            Self::Senseless(failure) => Self::Senseless(told(failure)),
        }
    }

    fn into_failure(self) -> Failure {
        match self {
            Self::Refused(failure) | Self::Senseless(failure) => failure,
        }
    }
}

impl From<Failure> for Flaw {
    fn from(failure: Failure) -> Self {
        Self::Refused(failure)
    }
}

/// Reads a blob that is here. One that has rotted is removed, and counts as not here.
async fn read_kept<T: Send + 'static>(
    kept: &StoreBlobs,
    blob: &Descriptor,
    work: &Arc<impl Fn(&mut (dyn Read + Send)) -> Use<T> + Send + Sync + 'static>,
) -> Result<Option<T>> {
    let Some(mut file) = held(kept, blob)? else { return Ok(None) };
    let (content, digest, work) = (kept.store.content(), blob.digest.clone(), Arc::clone(work));
    blocking(move || match work(&mut file) {
        Ok(done) => Ok(Some(done)),
        Err(_) if matches!(content.verify(&digest), Err(kiln_store::Error::DigestMismatch { .. })) => Ok(None),
        Err(flaw) => Err(flaw.into_failure()),
    })
    .await
}

fn held(kept: &StoreBlobs, blob: &Descriptor) -> Result<Option<File>> {
    let content = kept.store.content();
    let is_there = content.len(&blob.digest).map_err(environment)? == Some(blob.size);
    let is_held = is_there && kept.lease.hold_blob(&blob.digest).map_err(environment)?;
    is_held.then(|| content.open(&blob.digest).map_err(environment)).transpose()
}

/// A blob that is not here yet.
struct Arrival<'a> {
    kept: &'a StoreBlobs,
    source: &'a Arc<dyn BlobSource>,
    blob: &'a Descriptor,
    meter: &'a Arc<Meter>,
}

/// Why it did not come.
enum Trouble {
    /// What there was of it is not its beginning, and is gone.
    SpoiltStart,
    Exchange(kiln_image::Error),
    Failure(Failure),
}

impl Trouble {
    fn into_failure(self) -> Failure {
        match self {
            Self::SpoiltStart => Failure::new(kiln_report::FailureKind::Bug, "what was just begun was spoilt"),
            Self::Exchange(error) => registry(error),
            Self::Failure(failure) => failure,
        }
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl Arrival<'_> {
    async fn run<T, W>(&self, work: Arc<W>) -> std::result::Result<T, Trouble>
    where
        T: Send + 'static,
        W: Fn(&mut (dyn Read + Send)) -> Use<T> + Send + Sync + 'static,
    {
        let (kept, blob) = (self.kept.clone(), self.blob.clone());
        let ingest = blocking(move || kept.store.content().resume(&kept.lease, &blob).map_err(environment)).await?;
        let before = ingest.size();
        let (feed, mut follower) = follow(ingest.reader().map_err(environment)?, before);
        let seen = Verifier::continuing(ingest.hasher(), before);
        let mut reader = match self.source.fetch_rest(self.blob, seen).await {
            Ok(reader) => reader,
            Err(error) if before > 0 && matches!(error.kind(), ErrorKind::Lying | ErrorKind::Refused) => {
                // A source that cannot go on from there can perhaps begin.
                ingest.discard();
                return Err(Trouble::SpoiltStart);
            }
            Err(error) => return Err(Trouble::Exchange(error)),
        };
        let working = tokio::spawn(blocking(move || {
            let done = work(&mut follower);
            if !matches!(done, Err(Flaw::Refused(_))) {
                // What stands behind the end of a packed layer must come, too.
                std::io::copy(&mut follower, &mut std::io::sink()).map_err(environment)?;
            }
            done.map_err(Flaw::into_failure)
        }));
        let (started, doing) = (SystemTime::now(), format!("keep layer `{}`", self.blob.digest));
        let mut told = |done| self.meter.progress(self.blob, done, started);
        let received = receive(&mut reader, ingest, &doing, &mut told, Some(feed.growth())).await;
        let ingest = match received {
            Ok(ingest) => ingest,
            Err(error) => {
                drop(feed);
                return Err(match (working.await, error.kind()) {
                    (_, ErrorKind::Lying) if before > 0 => Trouble::SpoiltStart,
                    // Who reads it had enough of it before it came to its end.
                    (Ok(Err(failure)), ErrorKind::Environment) => Trouble::Failure(failure),
                    _ => Trouble::Exchange(error),
                });
            }
        };
        feed.finish();
        let blob = self.blob.clone();
        let committed = blocking(move || Ok(ingest.commit_as(&blob))).await?;
        let done = working.await.map_err(environment)?;
        match committed {
            Err(kiln_store::Error::DigestMismatch { .. }) if before > 0 => Err(Trouble::SpoiltStart),
            committed => Ok(committed.map_err(environment).and(done)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use async_trait::async_trait;
    use futures::StreamExt as _;
    use kiln_fs::Limits;
    use kiln_image::{BlobReader, Error};
    use kiln_oci::Digest;
    use kiln_report::FailureKind;
    use kiln_store::Store;
    use tokio::io::AsyncReadExt;

    use super::*;

    const PIECE: usize = 100_000;

    /// Gives content in pieces, and breaks off after so many of them; remembers where it was asked to begin.
    struct Shaky {
        content: Vec<u8>,
        pieces: Mutex<usize>,
        /// So often its second piece is something else.
        lies: Mutex<usize>,
        begun: Mutex<Vec<u64>>,
    }

    #[async_trait]
    impl BlobSource for Shaky {
        async fn fetch(&self, blob: &Descriptor) -> kiln_image::Result<BlobReader> {
            let mut content = self.content.clone();
            let mut lies = self.lies.lock().unwrap();
            content[PIECE] ^= u8::from(*lies > 0);
            *lies = lies.saturating_sub(1);
            let pieces: Vec<_> = content.chunks(PIECE).map(|piece| Ok(piece.to_vec().into())).collect();
            let window = Duration::from_secs(1);
            let broken = Error::Stalled { doing: "read".into(), host: "shaky".into(), window };
            let given = *self.pieces.lock().unwrap();
            let end = (given < pieces.len()).then_some(Err(broken));
            let stream = futures::stream::iter(pieces).take(given).chain(futures::stream::iter(end));
            Ok(BlobReader::verified("read", blob, stream))
        }

        async fn fetch_from(&self, blob: &Descriptor, offset: u64) -> kiln_image::Result<BlobReader> {
            let mut reader = self.fetch(blob).await?;
            tokio::io::copy(&mut AsyncReadExt::take(&mut reader, offset), &mut tokio::io::sink()).await.unwrap();
            Ok(reader)
        }

        async fn fetch_rest(&self, blob: &Descriptor, seen: Verifier) -> kiln_image::Result<BlobReader> {
            self.begun.lock().unwrap().push(seen.seen());
            match seen.seen() {
                0 => self.fetch(blob).await,
                offset => self.fetch_from(blob, offset).await,
            }
        }

        fn tries(&self, _: &Descriptor) -> u32 {
            3
        }
    }

    struct Fixture {
        dir: tempfile::TempDir,
        source: Arc<Shaky>,
        blob: Descriptor,
    }

    impl Fixture {
        fn new() -> Self {
            let content: Vec<u8> = (0..1_000_000_u32).map(|n| (n / 7) as u8).collect();
            let blob = Descriptor::of("x", &content);
            let source =
                Arc::new(Shaky { content, pieces: Mutex::new(100), lies: Mutex::default(), begun: Mutex::default() });
            Self { dir: tempfile::tempdir().unwrap(), source, blob }
        }

        /// As another process would.
        async fn read(&self, work: fn(&mut (dyn Read + Send)) -> Use<Vec<u8>>) -> Result<Vec<u8>> {
            let store = Store::open(&self.dir.path().join("state")).unwrap();
            let lease = store.lease().unwrap();
            let meter = Arc::new(Meter {
                reporter: Arc::new(kiln_report::Silent),
                vertex: Digest::sha256("x"),
                limits: Limits::default(),
            });
            let source: Arc<dyn BlobSource> = Arc::clone(&self.source) as Arc<dyn BlobSource>;
            read_blob(&StoreBlobs { store, lease }, &source, &self.blob, &meter, work).await
        }

        fn partial(&self) -> std::path::PathBuf {
            self.dir.path().join("state/ingest").join(self.blob.digest.hex())
        }
    }

    fn all(packed: &mut (dyn Read + Send)) -> Use<Vec<u8>> {
        let mut bytes = Vec::new();
        packed.read_to_end(&mut bytes).map_err(environment)?;
        Ok(bytes)
    }

    #[tokio::test]
    async fn what_broke_off_goes_on_where_it_stopped_and_is_read_whole() {
        let f = Fixture::new();
        *f.source.pieces.lock().unwrap() = 4;
        assert_eq!(f.read(all).await.unwrap_err().kind, FailureKind::Environment);
        *f.source.pieces.lock().unwrap() = 100;
        assert!(f.read(all).await.unwrap() == f.source.content);
        assert!(f.read(all).await.unwrap() == f.source.content, "from the store");
        assert_eq!(*f.source.begun.lock().unwrap(), [0, 4 * PIECE as u64]);
        assert!(!f.partial().exists());
    }

    #[tokio::test]
    async fn a_beginning_that_was_spoilt_is_fetched_again() {
        let f = Fixture::new();
        *f.source.pieces.lock().unwrap() = 4;
        f.read(all).await.unwrap_err();
        std::fs::write(f.partial(), vec![0; 300_000]).unwrap();
        *f.source.pieces.lock().unwrap() = 100;
        assert!(f.read(all).await.unwrap() == f.source.content);
        assert_eq!(*f.source.begun.lock().unwrap(), [0, 300_000, 0]);
    }

    /// Reads it, and finds that what came wrong makes no sense.
    fn sensible(packed: &mut (dyn Read + Send)) -> Use<Vec<u8>> {
        let mut bytes = vec![0; 2 * PIECE];
        packed.read_exact(&mut bytes).map_err(environment)?;
        let is_wrong = bytes[PIECE] != bytes[PIECE + 1];
        if is_wrong {
            return Err(Flaw::Senseless(Failure::new(FailureKind::Build, "that makes no sense")));
        }
        packed.read_to_end(&mut bytes).map_err(environment)?;
        Ok(bytes)
    }

    #[tokio::test]
    async fn what_comes_wrong_is_fetched_again_although_its_reader_noticed_first() {
        let f = Fixture::new();
        *f.source.lies.lock().unwrap() = 2;
        assert!(f.read(sensible).await.unwrap() == f.source.content);
        assert_eq!(*f.source.begun.lock().unwrap(), [0, 0, 0]);
        let f = Fixture::new();
        *f.source.lies.lock().unwrap() = 9;
        let failure = f.read(sensible).await.unwrap_err();
        assert!(failure.message.contains("digest mismatch"), "{failure:?}");
        assert_eq!(f.source.begun.lock().unwrap().len(), 3);
        assert!(!f.partial().exists());
    }

    #[tokio::test]
    async fn what_makes_no_sense_although_it_came_right_is_told_at_once() {
        let f = Fixture::new();
        let senseless =
            |_: &mut (dyn Read + Send)| Err(Flaw::Senseless(Failure::new(FailureKind::Build, "that makes no sense")));
        assert_eq!(f.read(senseless).await.unwrap_err().message, "that makes no sense");
        assert_eq!(*f.source.begun.lock().unwrap(), [0]);
    }

    #[tokio::test]
    async fn what_its_reader_refuses_is_not_kept() {
        let f = Fixture::new();
        let refuse = |packed: &mut (dyn Read + Send)| {
            packed.read_exact(&mut [0; 10]).map_err(environment)?;
            Err(Failure::new(FailureKind::Build, "that is no layer").into())
        };
        let failure = f.read(refuse).await.unwrap_err();
        assert_eq!(failure.message, "that is no layer");
        assert!(!f.partial().exists());
    }
}
