//! Events: what a build says while it runs. They flow up one channel to a [`Reporter`].

use std::time::SystemTime;

use kiln_oci::Digest;

use crate::{Diagnostic, Excerpt};

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// A vertex is part of this build, or its state changed. Sent again at each change; the last one counts.
    Vertex {
        /// Identity, the same in every event about it.
        id: Digest,
        /// What people see: `[build 2/4] RUN go build`.
        name: String,
        /// The vertices it reads.
        inputs: Vec<Digest>,
        /// Its state from now on.
        state: VertexState,
    },
    /// Progress of one part of a vertex, such as the download of a layer.
    Status {
        /// The vertex.
        vertex: Digest,
        /// Identity of the part within the vertex, and its name.
        id: String,
        /// Bytes or items done.
        current: u64,
        /// Bytes or items in all; 0 when not known.
        total: u64,
        /// When it began.
        started: SystemTime,
        /// When it ended.
        completed: Option<SystemTime>,
        /// Now.
        at: SystemTime,
    },
    /// Output of a step, in the order it came; whole, never clipped.
    Log {
        /// The vertex.
        vertex: Digest,
        /// Which of its streams.
        stream: LogStream,
        /// Raw bytes, cut anywhere.
        data: Vec<u8>,
        /// When.
        at: SystemTime,
    },
    /// A finding about the Dockerfile that does not stop the build.
    Warning {
        /// The finding.
        diagnostic: Diagnostic,
        /// Where it is.
        excerpt: Excerpt,
    },
    /// A line about the build as a whole that is nobody's log.
    Note(String),
}

/// Where a vertex is in its life.
#[derive(Debug, Clone, PartialEq)]
pub enum VertexState {
    /// Known, not begun.
    Pending,
    /// Running since.
    Started {
        /// When.
        at: SystemTime,
        /// Why it runs although steps are cached: `base moved`, `main.go changed`.
        reason: Option<String>,
    },
    /// Over.
    Completed {
        /// When it began.
        started: SystemTime,
        /// When it ended.
        at: SystemTime,
        /// Whether its result was already there.
        cached: bool,
        /// Why it could not be done.
        error: Option<String>,
        /// Why it ran, as it was said at its start, and what is known only now.
        reason: Option<String>,
    },
}

/// A stream of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogStream {
    /// File descriptor 1.
    Stdout,
    /// File descriptor 2.
    Stderr,
}

/// Takes events, from any thread, in the order they happen.
pub trait Reporter: Send + Sync {
    /// Takes one event. Must not block for long.
    fn report(&self, event: Event);

    /// Whether there is room for more output of steps. Who reads it waits while there is not: what nobody has taken yet
    /// must not fill the memory.
    fn has_room(&self) -> bool {
        true
    }
}

/// Says nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Reporter for Silent {
    fn report(&self, _event: Event) {}
}
