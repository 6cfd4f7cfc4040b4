//! Writing behind whoever makes what is written: on a thread of its own, as soon as there is much.

use std::io::{self, Write};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

/// What is handed over at once. Less in all is written without a thread.
const BATCH: usize = 1 << 20;
/// Batches that wait.
const WAITING: usize = 2;

/// A writer that does not make others wait for it.
pub(crate) struct Behind<W> {
    batch: Vec<u8>,
    place: Place<W>,
}

enum Place<W> {
    Here(W),
    There(Thread<W>),
    Broken,
}

/// Where batches go, and who writes them.
type Thread<W> = (SyncSender<Vec<u8>>, JoinHandle<io::Result<W>>);

impl<W: Write + Send + 'static> Behind<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { batch: Vec::new(), place: Place::Here(out) }
    }

    /// The writer, when all is written to it.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        match std::mem::replace(&mut self.place, Place::Broken) {
            Place::Here(mut out) => out.write_all(&self.batch).map(|()| out),
            Place::There((sender, thread)) => {
                let _ = sender.send(self.batch);
                drop(sender);
                joined(thread)
            }
            Place::Broken => Err(broken()),
        }
    }

    fn hand_over(&mut self) -> io::Result<()> {
        let (sender, thread) = match std::mem::replace(&mut self.place, Place::Broken) {
            Place::Here(out) => start(out)?,
            Place::There(thread) => thread,
            Place::Broken => return Err(broken()),
        };
        match sender.send(std::mem::take(&mut self.batch)) {
            Ok(()) => {
                self.place = Place::There((sender, thread));
                Ok(())
            }
            // It has stopped, and knows why.
            Err(_) => Err(joined(thread).err().unwrap_or_else(broken)),
        }
    }
}

fn start<W: Write + Send + 'static>(mut out: W) -> io::Result<Thread<W>> {
    let (sender, batches) = sync_channel::<Vec<u8>>(WAITING);
    let write = move || {
        batches.into_iter().try_for_each(|batch| out.write_all(&batch))?;
        Ok(out)
    };
    Ok((sender, std::thread::Builder::new().name("kiln-write".into()).spawn(write)?))
}

fn joined<W>(thread: JoinHandle<io::Result<W>>) -> io::Result<W> {
    thread.join().unwrap_or_else(|_| Err(broken()))
}

fn broken() -> io::Error {
    io::Error::other("an earlier write went wrong")
}

impl<W: Write + Send + 'static> Write for Behind<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.batch.extend_from_slice(bytes);
        if self.batch.len() >= BATCH {
            self.hand_over()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Small(Vec<u8>, usize);

    impl Write for Small {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0.len() + bytes.len() > self.1 {
                return Err(io::Error::other("full"));
            }
            self.0.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn all_arrives_in_order_and_what_goes_wrong_is_told() {
        for size in [0, 10, BATCH, 5 * BATCH + 3] {
            let expected: Vec<u8> = (0..size).map(|n| (n / 7) as u8).collect();
            let mut out = Behind::new(Vec::new());
            expected.chunks(100_000).for_each(|part| out.write_all(part).unwrap());
            assert!(out.finish().unwrap() == expected, "{size}");
            let mut out = Behind::new(Small(Vec::new(), size / 2));
            let written = expected.chunks(100_000).try_for_each(|part| out.write_all(part));
            let error = written.and_then(|()| out.finish().map(drop)).err().map(|error| error.to_string());
            assert_eq!(error.as_deref(), (size > 0).then_some("full"), "{size}");
        }
    }
}
