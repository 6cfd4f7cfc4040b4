//! A file that is read while it is still being written: unpacking does not wait for the end of a download, nor an archive
//! for that of packing.

use std::fs::File;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use kiln_sys::passing::Passing;

/// How far a file is written.
#[derive(Debug)]
pub(crate) struct Growth {
    state: Mutex<State>,
    changed: Condvar,
    is_left: AtomicBool,
}

#[derive(Debug)]
struct State {
    len: u64,
    end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    Whole,
    Broken,
}

/// The writer's promise to say how it ends. Dropped, it ends badly.
#[derive(Debug)]
pub(crate) struct Feed(Arc<Growth>);

/// Reads a file to where it is written, waits for more, and ends when the writer says that it is whole.
#[derive(Debug)]
pub(crate) struct Follower {
    /// At its beginning when it came.
    file: Passing,
    at: u64,
    growth: Arc<Growth>,
}

/// Follows a file, opened for this, of which so many bytes are written.
pub(crate) fn follow(file: File, len: u64) -> (Feed, Follower) {
    let state = Mutex::new(State { len, end: End::Open });
    let growth = Arc::new(Growth { state, changed: Condvar::new(), is_left: AtomicBool::new(false) });
    (Feed(Arc::clone(&growth)), Follower { file: Passing::new(file), at: 0, growth })
}

impl Feed {
    /// Where to say how far the file is written.
    pub(crate) fn growth(&self) -> Arc<Growth> {
        Arc::clone(&self.0)
    }

    /// All is written, and it is what it should be.
    pub(crate) fn finish(self) {
        self.0.end(End::Whole);
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.0.end(End::Broken);
    }
}

impl Growth {
    /// So many bytes can be read now. An error when nobody reads any more.
    pub(crate) fn reached(&self, len: u64) -> io::Result<()> {
        if self.is_left.load(Ordering::Acquire) {
            return Err(io::Error::other("what reads it has ended"));
        }
        self.state.lock().expect("no thread panics while it holds this").len = len;
        self.changed.notify_all();
        Ok(())
    }

    fn end(&self, end: End) {
        let mut state = self.state.lock().expect("no thread panics while it holds this");
        if state.end == End::Open {
            state.end = end;
        }
        self.changed.notify_all();
    }

    /// Waits for bytes behind `at`; how many there are.
    fn wait(&self, at: u64) -> io::Result<u64> {
        let mut state = self.state.lock().expect("no thread panics while it holds this");
        loop {
            match (state.len - at, state.end) {
                (_, End::Broken) => return Err(io::Error::other("whoever writes it has given up")),
                (0, End::Open) => state = self.changed.wait(state).expect("no thread panics while it holds this"),
                (more, _) => return Ok(more),
            }
        }
    }
}

impl Read for Follower {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let more = self.growth.wait(self.at)?;
        let wanted = buffer.len().min(usize::try_from(more).unwrap_or(usize::MAX));
        let read = self.file.read(&mut buffer[..wanted])?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.growth.is_left.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn file(content: &[u8]) -> (File, File) {
        let mut written = tempfile::NamedTempFile::new().unwrap();
        written.write_all(content).unwrap();
        let read = written.reopen().unwrap();
        (written.into_file(), read)
    }

    #[test]
    fn a_reader_waits_for_what_is_written_and_ends_with_it() {
        let (mut out, file) = file(b"one ");
        let (feed, mut follower) = follow(file, 4);
        let reader = std::thread::spawn(move || {
            let mut all = String::new();
            follower.read_to_string(&mut all).map(|_| all)
        });
        for word in ["two ", "three"] {
            out.write_all(word.as_bytes()).unwrap();
            feed.growth().reached(out.metadata().unwrap().len()).unwrap();
        }
        feed.finish();
        assert_eq!(reader.join().unwrap().unwrap(), "one two three");
    }

    #[test]
    fn each_side_hears_when_the_other_gives_up() {
        let (_out, file) = file(b"half");
        let (feed, mut follower) = follow(file.try_clone().unwrap(), 4);
        drop(feed);
        assert!(follower.read(&mut [0; 9]).is_err());
        let (feed, follower) = follow(file, 4);
        drop(follower);
        assert!(feed.growth().reached(5).is_err());
    }
}
