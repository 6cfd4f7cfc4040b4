//! A step's output: forwarded whole as it comes, its last lines kept for the error message.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use kiln_exec::ProcessIo;
use kiln_oci::Digest;
use kiln_report::{Event, LogStream, Reporter};
use rustix::pipe::PipeFlags;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;

use crate::failure::{Context as _, environment};
use crate::job::Result;
use crate::redact::Redactor;

/// How many of the last lines an error message shows.
const LAST_LINES: usize = 20;
/// A line longer than this is cut in error messages; logs have all of it.
const LAST_LINE_BYTES: usize = 4096;
/// How much is read at once.
const CHUNK: usize = 64 << 10;
/// How long a reader waits before it asks for room again.
const CROWDED: Duration = Duration::from_millis(2);

/// Where a step's output goes.
pub(crate) struct Output {
    reporter: Arc<dyn Reporter>,
    vertex: Digest,
    redactor: Redactor,
    last: Mutex<Last>,
}

/// The two ends of a step's output.
pub(crate) struct Pipes {
    pub(crate) container: ProcessIo,
    pub(crate) ours: [(LogStream, OwnedFd); 2],
}

#[derive(Default)]
struct Last {
    lines: VecDeque<Vec<u8>>,
    is_mid_line: bool,
}

impl Output {
    /// Forwards to `reporter` as output of `vertex`, without the values that `redactor` knows.
    pub(crate) fn new(reporter: Arc<dyn Reporter>, vertex: Digest, redactor: Redactor) -> Self {
        Self { reporter, vertex, redactor, last: Mutex::default() }
    }

    /// Makes the pipes.
    pub(crate) fn pipes(&self) -> Result<Pipes> {
        let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC).or_environment(|| "cannot make a pipe".into());
        let ((out, stdout), (err, stderr)) = (pipe()?, pipe()?);
        for end in [&out, &err] {
            rustix::io::ioctl_fionbio(end, true).map_err(environment)?;
        }
        let container = ProcessIo { stdin: None, stdout, stderr };
        Ok(Pipes { container, ours: [(LogStream::Stdout, out), (LogStream::Stderr, err)] })
    }

    /// Reads both streams to their ends.
    pub(crate) async fn forward(&self, [out, err]: [(LogStream, OwnedFd); 2]) {
        tokio::join!(self.forward_one(out), self.forward_one(err));
    }

    async fn forward_one(&self, (stream, fd): (LogStream, OwnedFd)) {
        let Ok(mut pipe) = Receiver::from_owned_fd(fd) else { return };
        let mut buffer = vec![0; CHUNK];
        let mut redactor = self.redactor.clone();
        while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
            self.show(stream, redactor.push(buffer[..count].to_vec()));
            // The step then waits for its pipe, as it would for a terminal.
            while !self.reporter.has_room() {
                tokio::time::sleep(CROWDED).await;
            }
        }
        self.show(stream, redactor.finish());
    }

    fn show(&self, stream: LogStream, data: Vec<u8>) {
        if data.is_empty() {
            return;
        }
        self.last.lock().unwrap_or_else(PoisonError::into_inner).push(&data);
        self.reporter.report(Event::Log { vertex: self.vertex.clone(), stream, data, at: SystemTime::now() });
    }

    /// The last lines.
    pub(crate) fn last_lines(&self) -> Vec<String> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.lines.iter().map(|line| String::from_utf8_lossy(line).trim_end().to_owned()).collect()
    }
}

impl Last {
    fn push(&mut self, data: &[u8]) {
        // Only the tail can matter, and splitting megabytes for twenty lines would cost.
        let data = &data[data.len().saturating_sub(LAST_LINES * LAST_LINE_BYTES)..];
        for line in data.split_inclusive(|byte| *byte == b'\n') {
            if !self.is_mid_line || self.lines.is_empty() {
                self.lines.push_back(Vec::new());
            }
            let current = self.lines.back_mut().expect("one was just pushed");
            let room = LAST_LINE_BYTES.saturating_sub(current.len());
            current.extend_from_slice(&line[..line.len().min(room)]);
            self.is_mid_line = !line.ends_with(b"\n");
            if self.lines.len() > LAST_LINES {
                self.lines.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_however_the_output_is_cut() {
        let mut last = Last::default();
        for part in ["a\nb", "c", "\n", "d\n"] {
            last.push(part.as_bytes());
        }
        let lines: Vec<_> = last.lines.iter().map(|l| String::from_utf8_lossy(l).into_owned()).collect();
        assert_eq!(lines, ["a\n", "bc\n", "d\n"]);
        (0..1000).for_each(|n| last.push(format!("{n}\n").as_bytes()));
        assert_eq!((last.lines.len(), last.lines.back().unwrap().as_slice()), (LAST_LINES, b"999\n".as_slice()));
    }
}
