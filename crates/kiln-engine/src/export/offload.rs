//! Lets waiting code write to a file, pipe or terminal, whose writes are done on a thread that may block.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use kiln_image::archive::{ArchiveFile, ArchiveOut};
use kiln_sys::passing::Passing;
use tokio::io::AsyncWriteExt as _;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::export::tree::OutFile;
use crate::failure::Context as _;
use crate::job::Result;

/// How much is written at once. As much again is taken while that is under way.
const BATCH: usize = 1 << 20;

/// A file that is written on other threads, batch by batch.
pub(crate) struct Offloaded {
    batch: Vec<u8>,
    state: State,
}

enum State {
    Idle(OutFile),
    Busy(JoinHandle<(OutFile, io::Result<()>)>),
    Broken,
}

impl Offloaded {
    /// Writes to `file`.
    pub(crate) fn new(file: OutFile) -> Self {
        Self { batch: Vec::new(), state: State::Idle(file) }
    }

    /// The file, when all is written to it.
    pub(crate) async fn finish(mut self) -> Result<OutFile> {
        let flushed = self.flush().await;
        let file = match self.state {
            State::Idle(file) => flushed.map(|()| file),
            _ => Err(flushed.err().unwrap_or_else(broken)),
        };
        file.or_environment(|| "cannot write the output".into())
    }

    fn start(&mut self) -> io::Result<()> {
        let State::Idle(mut file) = std::mem::replace(&mut self.state, State::Broken) else { return Err(broken()) };
        let batch = std::mem::take(&mut self.batch);
        self.state = State::Busy(spawn_blocking(move || {
            let written = file.writer.write_all(&batch);
            (file, written)
        }));
        Ok(())
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let State::Busy(task) = &mut self.state else { return Poll::Ready(Ok(())) };
        let ended = ready!(Pin::new(task).poll(cx));
        self.state = State::Broken;
        let (file, written) = ended.map_err(io::Error::other)?;
        written?;
        self.state = State::Idle(file);
        Poll::Ready(Ok(()))
    }
}

impl Offloaded {
    /// Has something else done with the file when all is written to it.
    async fn with<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut OutFile) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        self.flush().await?;
        let State::Idle(mut file) = std::mem::replace(&mut self.state, State::Broken) else { return Err(broken()) };
        let (file, done) = spawn_blocking(move || work(&mut file).map(|done| (file, done))).await??;
        self.state = State::Idle(file);
        Ok(done)
    }
}

#[async_trait]
impl ArchiveOut for Offloaded {
    async fn append(&mut self, from: File, size: u64) -> io::Result<()> {
        self.with(move |file| file.append(from, size)).await
    }
}

#[async_trait]
impl ArchiveFile for Offloaded {
    async fn follow(&mut self, mut content: Box<dyn io::Read + Send>) -> io::Result<u64> {
        self.with(move |file| {
            let mut out = Passing::new(changeable(file)?);
            let (mut chunk, mut size) = (vec![0; BATCH], 0);
            loop {
                let read = content.read(&mut chunk)?;
                if read == 0 {
                    return Ok(size);
                }
                out.write_all(&chunk[..read])?;
                size += read as u64;
            }
        })
        .await
    }

    async fn patch(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let bytes = bytes.to_vec();
        self.with(move |file| changeable(file)?.write_all_at(&bytes, offset)).await
    }

    async fn cut(&mut self, offset: u64) -> io::Result<()> {
        self.with(move |file| {
            let mut file = changeable(file)?;
            file.set_len(offset)?;
            file.seek(SeekFrom::Start(offset)).map(drop)
        })
        .await
    }
}

fn changeable(file: &mut OutFile) -> io::Result<File> {
    file.changeable().unwrap_or_else(|| Err(io::ErrorKind::NotSeekable.into()))
}

fn broken() -> io::Error {
    io::Error::other("an earlier write went wrong")
}

impl tokio::io::AsyncWrite for Offloaded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.batch.len() >= BATCH {
            ready!(self.poll_idle(cx))?;
            self.start()?;
        }
        self.batch.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_idle(cx))?;
            if self.batch.is_empty() {
                return Poll::Ready(Ok(()));
            }
            self.start()?;
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>, usize);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut all = self.0.lock().unwrap();
            if self.1 > 0 && all.len() >= self.1 {
                return Err(io::Error::other("full"));
            }
            all.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn what_is_written_arrives_whole_and_in_order() {
        let sink = Sink::default();
        let mut out = Offloaded::new(OutFile::plain(Box::new(sink.clone())));
        let expected: Vec<u8> = (0..3_000_000_u32).map(|n| (n / 7) as u8).collect();
        for part in expected.chunks(70_001) {
            out.write_all(part).await.unwrap();
        }
        out.finish().await.unwrap();
        assert!(*sink.0.lock().unwrap() == expected);
    }

    #[tokio::test]
    async fn files_are_added_where_they_belong() {
        let dir = tempfile::tempdir().unwrap();
        let (path, blob) = (dir.path().join("out"), dir.path().join("blob"));
        std::fs::write(&blob, vec![7; 300_000]).unwrap();
        let sink = Sink::default();
        for out in [OutFile::replacing(&path).unwrap(), OutFile::plain(Box::new(sink.clone()))] {
            let mut out = Offloaded::new(out);
            out.write_all(b"before").await.unwrap();
            out.append(File::open(&blob).unwrap(), 300_000).await.unwrap();
            out.write_all(b"after").await.unwrap();
            assert!(out.append(File::open(&blob).unwrap(), 300_001).await.is_err(), "it is too short");
        }
        let mut out = Offloaded::new(OutFile::replacing(&path).unwrap());
        out.write_all(b"before").await.unwrap();
        out.append(File::open(&blob).unwrap(), 300_000).await.unwrap();
        out.write_all(b"after").await.unwrap();
        out.finish().await.unwrap().finish().unwrap();
        let expected = [b"before".as_slice(), &[7; 300_000], b"after"].concat();
        assert!(std::fs::read(&path).unwrap() == expected);
        assert!(sink.0.lock().unwrap().starts_with(&expected[..300_006]));
    }

    #[tokio::test]
    async fn a_write_that_goes_wrong_is_told() {
        let mut out = Offloaded::new(OutFile::plain(Box::new(Sink(Arc::default(), 1))));
        for _ in 0..40 {
            if out.write_all(&[0; 100_000]).await.is_err() {
                break;
            }
        }
        let failure = out.finish().await.err().unwrap();
        assert_eq!(failure.message, "cannot write the output");
    }
}
