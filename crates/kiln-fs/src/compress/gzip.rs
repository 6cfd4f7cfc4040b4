//! Gzip in members of one MiB, each compressed on its own, so that threads can share the work.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use libdeflater::{CompressionLvl, Compressor as Deflate};

/// Bytes of input per member. Part of what a digest depends on.
const MEMBER: usize = 1 << 20;

/// One member to make, and where its bytes go.
type Job = (Vec<u8>, SyncSender<io::Result<Vec<u8>>>);

/// Collects members, has them compressed, writes them in order.
pub(super) struct GzipWriter<W: Write> {
    out: W,
    level: u8,
    buffer: Vec<u8>,
    written_any: bool,
    max_workers: usize,
    jobs: Option<SyncSender<Job>>,
    queue: Arc<Mutex<Receiver<Job>>>,
    workers: Vec<JoinHandle<()>>,
    pending: VecDeque<Receiver<io::Result<Vec<u8>>>>,
}

impl<W: Write> GzipWriter<W> {
    pub(super) fn new(out: W, level: u8, threads: NonZeroUsize) -> io::Result<Self> {
        Encoder::new(level)?;
        let (jobs, queue) = sync_channel(threads.get());
        Ok(Self {
            out,
            level,
            buffer: Vec::new(),
            written_any: false,
            max_workers: threads.get(),
            jobs: Some(jobs),
            queue: Arc::new(Mutex::new(queue)),
            workers: Vec::new(),
            pending: VecDeque::new(),
        })
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        let last = std::mem::take(&mut self.buffer);
        if self.workers.is_empty() {
            // A small stream is not worth a thread. Even an empty one is a member.
            if !last.is_empty() || !self.written_any {
                self.out.write_all(&Encoder::new(self.level)?.member(&last)?)?;
            }
            return Ok(self.out);
        }
        if !last.is_empty() {
            self.submit(last)?;
        }
        self.jobs = None;
        while !self.pending.is_empty() {
            self.write_oldest()?;
        }
        for worker in self.workers {
            worker.join().map_err(|_| io::Error::other("a compression thread died"))?;
        }
        Ok(self.out)
    }

    /// Hands one member's input to the workers; waits for the oldest when enough is under way.
    fn submit(&mut self, input: Vec<u8>) -> io::Result<()> {
        self.written_any = true;
        if self.workers.len() < self.max_workers {
            self.start_worker()?;
        }
        if self.pending.len() >= self.max_workers * 2 {
            self.write_oldest()?;
        }
        let (answer, member) = sync_channel(1);
        let jobs = self.jobs.as_ref().expect("the sender is dropped in finish only");
        jobs.send((input, answer)).map_err(|_| io::Error::other("all compression threads died"))?;
        self.pending.push_back(member);
        Ok(())
    }

    fn write_oldest(&mut self) -> io::Result<()> {
        let Some(member) = self.pending.pop_front() else { return Ok(()) };
        let member = member.recv().map_err(|_| io::Error::other("a compression thread died"))?;
        self.out.write_all(&member?)
    }

    fn start_worker(&mut self) -> io::Result<()> {
        let queue = Arc::clone(&self.queue);
        let mut encoder = Encoder::new(self.level)?;
        let work = move || {
            loop {
                let job = match queue.lock() {
                    Ok(queue) => queue.recv(),
                    Err(_) => return,
                };
                // The writer hung up: either it is done, or nobody wants the rest.
                let Ok((input, answer)) = job else { return };
                let _ = answer.send(encoder.member(&input));
            }
        };
        self.workers.push(std::thread::Builder::new().name("kiln-gzip".into()).spawn(work)?);
        Ok(())
    }
}

impl<W: Write> Write for GzipWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.capacity() == 0 {
            self.buffer.reserve_exact(MEMBER);
        }
        let taken = bytes.len().min(MEMBER - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        if self.buffer.len() == MEMBER {
            let full = std::mem::take(&mut self.buffer);
            self.submit(full)?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes members, one after the other.
struct Encoder {
    real: Deflate,
    trial: Deflate,
    stored: Deflate,
}

impl Encoder {
    fn new(level: u8) -> io::Result<Self> {
        let of = |level: i32| {
            let invalid = || io::Error::new(io::ErrorKind::InvalidInput, format!("`{level}` is not a gzip level"));
            CompressionLvl::new(level).map(Deflate::new).map_err(|_| invalid())
        };
        Ok(Self { real: of(i32::from(level))?, trial: of(1)?, stored: of(0)? })
    }

    fn member(&mut self, input: &[u8]) -> io::Result<Vec<u8>> {
        let shrinks = self.shrinks(input)?;
        let encoder = if shrinks { &mut self.real } else { &mut self.stored };
        let mut member = vec![0; encoder.gzip_compress_bound(input.len())];
        let length = encoder.gzip_compress(input, &mut member).map_err(io::Error::other)?;
        member.truncate(length);
        Ok(member)
    }

    /// Tries a few samples at the cheapest level: media and archives are then stored instead of tried in earnest.
    fn shrinks(&mut self, input: &[u8]) -> io::Result<bool> {
        const SAMPLE: usize = 8 << 10;
        const SAMPLES: usize = 6;
        if input.len() < SAMPLE * SAMPLES * 2 {
            return Ok(true);
        }
        let mut member = vec![0; self.trial.gzip_compress_bound(SAMPLE)];
        let stride = (input.len() - SAMPLE) / (SAMPLES - 1);
        for sample in 0..SAMPLES {
            let sample = &input[sample * stride..][..SAMPLE];
            let length = self.trial.gzip_compress(sample, &mut member).map_err(io::Error::other)?;
            if length < SAMPLE - SAMPLE / 32 {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
