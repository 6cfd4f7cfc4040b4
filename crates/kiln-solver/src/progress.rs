//! Tells the reporter what becomes of each vertex, in an order that makes sense to a reader.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use kiln_oci::Digest;
use kiln_report::{Event, LogStream, Reporter, VertexState};

use crate::account::Fate;
use crate::explain::MissReason;
use crate::graph::Graph;

/// The error a vertex completes with when it was running and is no longer wanted.
pub const CANCELED: &str = "canceled";

/// Said of a step that ran and gave what it gave before.
const SAME: &str = "; same result as before";

/// Why a step ran, and how people are told.
#[derive(Debug, Clone)]
pub(crate) struct Why {
    pub(crate) reason: MissReason,
    pub(crate) text: String,
}

/// What became of a vertex.
#[derive(Debug, Clone)]
pub(crate) struct End {
    pub(crate) fate: Fate,
    pub(crate) time: Duration,
    pub(crate) reason: Option<MissReason>,
    pub(crate) is_same: bool,
}

/// The state of every vertex, as it was last told.
pub(crate) struct Progress {
    reporter: Arc<dyn Reporter>,
    names: Vec<(Digest, String, Vec<Digest>)>,
    inputs: Vec<Vec<usize>>,
    /// Held while telling, so that nobody hears of a step's start before the end of what it waited for.
    told: Mutex<Told>,
}

struct Told {
    states: Vec<State>,
    ends: Vec<End>,
    /// Why each one runs, since its start.
    whys: Vec<Option<Why>>,
    /// Readers of each vertex that may still ask for its result.
    readers: Vec<usize>,
    is_over: bool,
}

#[derive(Clone, Copy)]
enum State {
    Pending,
    Started(SystemTime),
    Ran,
    Cached,
    Failed,
}

impl End {
    const UNREACHED: Self = Self { fate: Fate::NotReached, time: Duration::ZERO, reason: None, is_same: false };
}

impl State {
    fn is_settled(self) -> bool {
        !matches!(self, Self::Pending | Self::Started(_))
    }
}

impl Progress {
    pub(crate) fn new<R, E>(reporter: Arc<dyn Reporter>, graph: &Graph<R, E>) -> Self {
        let name = |node: &crate::graph::Node<R, E>| {
            let mut inputs: Vec<Digest> = Vec::with_capacity(node.inputs.len());
            for input in &node.inputs {
                let id = &graph.nodes[input.node].id.0;
                if !inputs.contains(id) {
                    inputs.push(id.clone());
                }
            }
            (node.id.0.clone(), node.name.clone(), inputs)
        };
        let told = Told {
            states: vec![State::Pending; graph.nodes.len()],
            ends: vec![End::UNREACHED; graph.nodes.len()],
            whys: vec![None; graph.nodes.len()],
            readers: graph.nodes.iter().map(|node| node.readers).collect(),
            is_over: false,
        };
        Self {
            reporter,
            names: graph.nodes.iter().map(name).collect(),
            inputs: graph.nodes.iter().map(|node| node.inputs.iter().map(|input| input.node).collect()).collect(),
            told: Mutex::new(told),
        }
    }

    /// All that may come, inputs first.
    pub(crate) fn announce(&self) {
        (0..self.names.len()).for_each(|node| self.tell(node, VertexState::Pending));
    }

    /// Its step begins to run, and why.
    pub(crate) fn start(&self, node: usize, why: Option<Why>) {
        let mut told = self.told();
        if told.is_over {
            return;
        }
        let at = SystemTime::now();
        told.states[node] = State::Started(at);
        let reason = why.as_ref().map(|why| why.text.clone());
        told.whys[node] = why;
        self.tell(node, VertexState::Started { at, reason });
    }

    /// Its step waits, and for what.
    pub(crate) fn note(&self, node: usize, text: &str) {
        if self.told().is_over {
            return;
        }
        let (vertex, data) = (self.names[node].0.clone(), format!("{text}\n").into_bytes());
        self.reporter.report(Event::Log { vertex, stream: LogStream::Stderr, data, at: SystemTime::now() });
    }

    /// Its step ran to its end, maybe giving what it gave before.
    pub(crate) fn finish(&self, node: usize, is_same: bool) {
        self.complete(node, State::Ran, End { fate: Fate::Ran, is_same, ..End::UNREACHED }, None);
    }

    /// Its result was already there.
    pub(crate) fn hit(&self, node: usize) {
        self.complete(node, State::Cached, End { fate: Fate::Cached, ..End::UNREACHED }, None);
    }

    /// It could not be done.
    pub(crate) fn fail(&self, node: usize, error: String) {
        self.complete(node, State::Failed, End { fate: Fate::Failed, ..End::UNREACHED }, Some(error));
    }

    /// What became of every vertex so far.
    pub(crate) fn ends(&self) -> Vec<End> {
        self.told().ends.clone()
    }

    /// Whether it ran in this solve.
    pub(crate) fn ran(&self, node: usize) -> bool {
        matches!(self.told().states[node], State::Ran)
    }

    /// No more will come: what was running was canceled. What never started stays pending.
    pub(crate) fn close(&self) {
        let mut told = self.told();
        for node in 0..self.names.len() {
            if let State::Started(started) = told.states[node]
                && !told.is_over
            {
                let time = started.elapsed().unwrap_or_default();
                let (reason, text) = told.whys[node].clone().map(|why| (why.reason, why.text)).unzip();
                told.ends[node] = End { fate: Fate::Canceled, time, reason, ..End::UNREACHED };
                self.tell(node, completed(started, false, Some(CANCELED.to_owned()), text));
            }
        }
        told.is_over = true;
    }

    fn complete(&self, node: usize, state: State, end: End, error: Option<String>) {
        let mut told = self.told();
        if told.is_over || told.states[node].is_settled() {
            return;
        }
        let started = match told.states[node] {
            State::Started(at) => at,
            _ => SystemTime::now(),
        };
        // Ancestors come first, as they would have if they had been asked for.
        let is_failed = matches!(state, State::Failed);
        told.states[node] = state;
        let (reason, mut text) = told.whys[node].clone().map(|why| (why.reason, why.text)).unzip();
        if end.is_same {
            text = text.map(|text| format!("{text}{SAME}"));
        }
        told.ends[node] = End { time: started.elapsed().unwrap_or_default(), reason, ..end };
        if !is_failed {
            self.settle_inputs(&mut told, node);
        }
        self.tell(node, completed(started, matches!(state, State::Cached), error, text));
    }

    /// A vertex whose readers are all settled will not be asked for any more: what it would give is contained in what
    /// they have. People see it as cached.
    fn settle_inputs(&self, told: &mut Told, node: usize) {
        let mut spared = Vec::new();
        let mut stack = vec![node];
        while let Some(settled) = stack.pop() {
            for &input in &self.inputs[settled] {
                told.readers[input] -= 1;
                if told.readers[input] == 0 && !told.states[input].is_settled() {
                    told.states[input] = State::Cached;
                    told.ends[input].fate = Fate::NotNeeded;
                    spared.push(input);
                    stack.push(input);
                }
            }
        }
        spared.sort_unstable();
        let now = SystemTime::now();
        spared.into_iter().for_each(|input| self.tell(input, completed(now, true, None, None)));
    }

    fn tell(&self, node: usize, state: VertexState) {
        let (id, name, inputs) = self.names[node].clone();
        self.reporter.report(Event::Vertex { id, name, inputs, state });
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn completed(started: SystemTime, cached: bool, error: Option<String>, reason: Option<String>) -> VertexState {
    let at = if cached { started } else { SystemTime::now() };
    VertexState::Completed { started, at, cached, error, reason }
}
