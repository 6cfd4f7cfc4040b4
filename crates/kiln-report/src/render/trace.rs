//! The state of a build as its events tell it; the common ground of the renderers that show steps.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use kiln_oci::Digest;

use super::quantity::between;
use super::sanitize::one_line;
use crate::{Diagnostic, Event, Excerpt, VertexState};

/// Everything known so far. Vertices are named by their place in `vertices`.
#[derive(Debug, Default)]
pub(super) struct Trace {
    pub(super) vertices: Vec<Vertex>,
    pub(super) warnings: Vec<(Diagnostic, Excerpt)>,
    places: HashMap<Digest, usize>,
}

#[derive(Debug, Default)]
pub(super) struct Vertex {
    pub(super) name: String,
    pub(super) started: Option<SystemTime>,
    pub(super) ended: Option<SystemTime>,
    pub(super) outcome: Option<Outcome>,
    pub(super) reason: Option<String>,
    pub(super) parts: Vec<Part>,
}

/// How a vertex ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    Cached,
    Canceled,
    Failed(String),
}

/// Progress of a part of a vertex.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) id: String,
    pub(super) current: u64,
    pub(super) total: u64,
    pub(super) started: SystemTime,
    pub(super) completed: Option<SystemTime>,
    pub(super) at: SystemTime,
}

impl Trace {
    /// Takes an event and says which vertex it was about. Events about vertices nobody announced are dropped.
    pub(super) fn apply(&mut self, event: &Event) -> Option<usize> {
        match event {
            Event::Vertex { id, name, state, .. } => {
                let place = self.place(id);
                let vertex = &mut self.vertices[place];
                vertex.name = one_line(name);
                vertex.enter(state);
                Some(place)
            }
            Event::Status { vertex, .. } => {
                let place = *self.places.get(vertex)?;
                self.vertices[place].progress(event);
                Some(place)
            }
            Event::Log { vertex, .. } => self.places.get(vertex).copied(),
            Event::Warning { diagnostic, excerpt } => {
                self.warnings.push((diagnostic.clone(), excerpt.clone()));
                None
            }
            Event::Note(_) => None,
        }
    }

    /// Marks what still runs as cancelled, and says which vertices those were.
    pub(super) fn cancel_running(&mut self, now: SystemTime) -> Vec<usize> {
        let running: Vec<usize> = (0..self.vertices.len()).filter(|at| self.vertices[*at].is_running()).collect();
        for at in &running {
            self.vertices[*at].ended = Some(now);
            self.vertices[*at].outcome = Some(Outcome::Canceled);
        }
        running
    }

    fn place(&mut self, id: &Digest) -> usize {
        let next = self.vertices.len();
        let place = *self.places.entry(id.clone()).or_insert(next);
        if place == next {
            self.vertices.push(Vertex::default());
        }
        place
    }
}

impl Vertex {
    pub(super) fn is_running(&self) -> bool {
        self.started.is_some() && self.ended.is_none()
    }

    /// How long it took, or takes so far.
    pub(super) fn elapsed(&self, now: SystemTime) -> Duration {
        self.started.map_or(Duration::ZERO, |started| between(started, self.ended.unwrap_or(now)))
    }

    fn enter(&mut self, state: &VertexState) {
        match state {
            VertexState::Pending => {}
            VertexState::Started { at, reason } => {
                self.started = Some(*at);
                self.reason = reason.as_deref().map(one_line);
                self.ended = None;
                self.outcome = None;
            }
            VertexState::Completed { started, at, cached, error, reason } => {
                self.started = Some(*started);
                self.ended = Some(*at);
                self.reason = reason.as_deref().map(one_line);
                self.outcome = Some(match error {
                    Some(text) if text.ends_with("canceled") || text.ends_with("cancelled") => Outcome::Canceled,
                    Some(text) => Outcome::Failed(one_line(text)),
                    None if *cached => Outcome::Cached,
                    None => Outcome::Done,
                });
            }
        }
    }

    fn progress(&mut self, event: &Event) {
        let Event::Status { id, current, total, started, completed, at, .. } = event else { return };
        let id = one_line(id);
        let part = Part { id, current: *current, total: *total, started: *started, completed: *completed, at: *at };
        match self.parts.iter_mut().find(|known| known.id == part.id) {
            Some(known) => *known = part,
            None => self.parts.push(part),
        }
    }
}
