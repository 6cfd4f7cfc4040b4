//! Gzip members, each compressed on its own, so that threads can share the work.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use libdeflater::{CompressionLvl, Compressor as Deflate};

/// The input of some members: their bytes, and where each ends.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    pub(super) ends: Vec<usize>,
    /// Made at the fastest level, whatever the others are made at.
    pub(super) is_quick: bool,
}

/// Members that are made, and the length of each.
#[derive(Default)]
struct Made {
    bytes: Vec<u8>,
    lengths: Vec<usize>,
}

/// A batch to make, and where its bytes go.
type Job = (Batch, SyncSender<io::Result<Made>>);

/// Has members compressed and writes them in order.
pub(super) struct MemberWriter<W: Write> {
    out: W,
    level: u8,
    lengths: Vec<usize>,
    max_workers: usize,
    jobs: Option<SyncSender<Job>>,
    queue: Arc<Mutex<Receiver<Job>>>,
    workers: Vec<JoinHandle<()>>,
    pending: VecDeque<Receiver<io::Result<Made>>>,
}

impl<W: Write> MemberWriter<W> {
    pub(super) fn new(out: W, level: u8, threads: NonZeroUsize) -> io::Result<Self> {
        Encoder::new(level)?;
        let (jobs, queue) = sync_channel(threads.get());
        Ok(Self {
            out,
            level,
            lengths: Vec::new(),
            max_workers: threads.get(),
            jobs: Some(jobs),
            queue: Arc::new(Mutex::new(queue)),
            workers: Vec::new(),
            pending: VecDeque::new(),
        })
    }

    /// Hands a batch to the workers; waits for the oldest when enough is under way.
    pub(super) fn submit(&mut self, batch: Batch) -> io::Result<()> {
        if self.workers.len() < self.max_workers {
            self.start_worker()?;
        }
        if self.pending.len() >= self.max_workers * 2 {
            self.write_oldest()?;
        }
        let (answer, made) = sync_channel(1);
        let jobs = self.jobs.as_ref().expect("the sender is dropped in finish only");
        jobs.send((batch, answer)).map_err(|_| io::Error::other("all compression threads died"))?;
        self.pending.push_back(made);
        Ok(())
    }

    /// Writes the last batch and all that is under way; gives the length of every member so far.
    pub(super) fn settle(&mut self, last: Batch) -> io::Result<&[usize]> {
        if self.workers.is_empty() {
            // A small stream is not worth a thread.
            let made = Encoder::new(self.level)?.batch(&last)?;
            self.write(made)?;
        } else if !last.ends.is_empty() {
            self.submit(last)?;
        }
        while !self.pending.is_empty() {
            self.write_oldest()?;
        }
        Ok(&self.lengths)
    }

    /// Writes one more member behind what is settled, and then `rest` as it is.
    pub(super) fn append(&mut self, member: &[u8], rest: &[u8]) -> io::Result<()> {
        let member = Encoder::new(self.level)?.member(member, false)?;
        self.out.write_all(&member)?;
        self.out.write_all(rest)
    }

    /// Gives back what was written to. Everything is settled.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.jobs = None;
        for worker in self.workers {
            worker.join().map_err(|_| io::Error::other("a compression thread died"))?;
        }
        Ok(self.out)
    }

    fn write_oldest(&mut self) -> io::Result<()> {
        let Some(made) = self.pending.pop_front() else { return Ok(()) };
        let made = made.recv().map_err(|_| io::Error::other("a compression thread died"))?;
        self.write(made?)
    }

    fn write(&mut self, made: Made) -> io::Result<()> {
        self.lengths.extend(made.lengths);
        self.out.write_all(&made.bytes)
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
                let Ok((batch, answer)) = job else { return };
                let _ = answer.send(encoder.batch(&batch));
            }
        };
        self.workers.push(std::thread::Builder::new().name("kiln-gzip".into()).spawn(work)?);
        Ok(())
    }
}

/// Makes members, one after the other.
struct Encoder {
    real: Deflate,
    quick: Deflate,
    stored: Deflate,
}

impl Encoder {
    fn new(level: u8) -> io::Result<Self> {
        let of = |level: i32| {
            let invalid = || io::Error::new(io::ErrorKind::InvalidInput, format!("`{level}` is not a gzip level"));
            CompressionLvl::new(level).map(Deflate::new).map_err(|_| invalid())
        };
        Ok(Self { real: of(i32::from(level))?, quick: of(1)?, stored: of(0)? })
    }

    fn batch(&mut self, batch: &Batch) -> io::Result<Made> {
        let mut made = Made::default();
        let mut start = 0;
        for end in &batch.ends {
            let member = self.member(&batch.bytes[start..*end], batch.is_quick)?;
            made.lengths.push(member.len());
            if made.bytes.is_empty() {
                made.bytes = member;
            } else {
                made.bytes.extend_from_slice(&member);
            }
            start = *end;
        }
        Ok(made)
    }

    fn member(&mut self, input: &[u8], is_quick: bool) -> io::Result<Vec<u8>> {
        let encoder = match self.shrinks(input)? {
            true if is_quick => &mut self.quick,
            true => &mut self.real,
            false => &mut self.stored,
        };
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
        let mut member = vec![0; self.quick.gzip_compress_bound(SAMPLE)];
        let stride = (input.len() - SAMPLE) / (SAMPLES - 1);
        for sample in 0..SAMPLES {
            let sample = &input[sample * stride..][..SAMPLE];
            let length = self.quick.gzip_compress(sample, &mut member).map_err(io::Error::other)?;
            if length < SAMPLE - SAMPLE / 32 {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
