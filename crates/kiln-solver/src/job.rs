//! One solve: the two questions, who are you and give me your result, each answered once.
//!
//! Errors do not travel through the questions. Whoever meets one sends it to the solve and never returns; the solve
//! then drops everything. So a failure is met once, however many wait for it.

mod run;

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use futures::future::join_all;
use kiln_oci::Digest;
use kiln_report::Reporter;
use tokio::sync::{OnceCell, SetOnce, mpsc};
use tokio::task::JoinSet;

use crate::account::Account;
use crate::error::{Cause, SolveError};
use crate::graph::{Graph, Input, Node};
use crate::key::{CacheKey, CacheMap, InputKey, Outline, Part};
use crate::progress::{End, Progress};
use crate::store::{ContentFact, KeyStore, ResultStore};
use crate::turns::Turns;

/// What all solves of a solver share.
pub(crate) struct Shared<R> {
    pub(crate) keys: Arc<dyn KeyStore>,
    pub(crate) results: Arc<dyn ResultStore<R>>,
    pub(crate) turns: Turns,
}

/// One solve.
pub(crate) struct Job<R, E: std::error::Error + 'static> {
    shared: Arc<Shared<R>>,
    graph: Graph<R, E>,
    answers: Vec<Answers<R>>,
    entries: Cells<CacheKey, Entry<R>>,
    contents: Cells<(usize, usize, String), OnceCell<Digest>>,
    progress: Progress,
    failures: mpsc::UnboundedSender<SolveError<E>>,
    /// Set before anything is dropped: what is still to be dropped must not take a dropped one's turn and run.
    is_over: AtomicBool,
    /// Gone when the solve is over: nothing starts any more.
    tasks: Mutex<Option<JoinSet<()>>>,
}

type Cells<K, V> = Mutex<HashMap<K, Arc<V>>>;

type Outputs<R> = Arc<[R]>;

/// What is known of a vertex.
struct Answers<R> {
    is_asked: AtomicBool,
    outline: SetOnce<Outline>,
    key: SetOnce<Keyed>,
    result: SetOnce<Settled<R>>,
}

/// A vertex's key and what it was made of.
struct Keyed {
    key: CacheKey,
    map: CacheMap,
    parts: Vec<Sourced>,
}

/// A part of a key, and whether it was recalled instead of seen.
struct Sourced {
    part: Part,
    is_recalled: bool,
}

/// A vertex's result, and the key it truly has. That key differs from the vertex's own when a recalled content turned
/// out to be another, here or below, or when what ran gave what an older key has.
struct Settled<R> {
    key: CacheKey,
    outputs: Outputs<R>,
    /// Whether the vertex's own key names what it was made of too.
    is_own: bool,
}

/// What a step needs to run.
struct Work<'a, R> {
    key: &'a CacheKey,
    parts: Vec<Part>,
    inputs: Vec<R>,
}

/// What is known of a key, whichever vertices have it.
struct Entry<R> {
    loaded: OnceCell<Option<Outputs<R>>>,
    ran: OnceCell<Ran<R>>,
}

/// What came of running, and the oldest key it is known to be the same as.
struct Ran<R> {
    key: CacheKey,
    outputs: Outputs<R>,
}

impl<R> Default for Entry<R> {
    fn default() -> Self {
        Self { loaded: OnceCell::new(), ran: OnceCell::new() }
    }
}

impl<R, E> Job<R, E>
where
    R: Clone + Send + Sync + 'static,
    E: std::error::Error + Send + Sync + 'static,
{
    /// A job that has not begun, and where its failures arrive.
    pub(crate) fn new(
        shared: Arc<Shared<R>>,
        reporter: Arc<dyn Reporter>,
        graph: Graph<R, E>,
    ) -> (Arc<Self>, mpsc::UnboundedReceiver<SolveError<E>>) {
        let (failures, receiver) = mpsc::unbounded_channel();
        let answers = || Answers {
            is_asked: AtomicBool::new(false),
            outline: SetOnce::new(),
            key: SetOnce::new(),
            result: SetOnce::new(),
        };
        let job = Self {
            shared,
            answers: graph.nodes.iter().map(|_| answers()).collect(),
            entries: Mutex::default(),
            contents: Mutex::default(),
            progress: Progress::new(reporter, &graph),
            graph,
            failures,
            is_over: AtomicBool::new(false),
            tasks: Mutex::new(Some(JoinSet::new())),
        };
        (Arc::new(job), receiver)
    }

    /// Answers both questions until the roots have their results.
    ///
    /// Keys need no tasks: all of them are wanted, they wait much more than they work, and a build that finds
    /// everything is made of nothing else.
    pub(crate) async fn drive(self: &Arc<Self>) -> Vec<R> {
        self.progress.announce();
        let keys = (0..self.graph.nodes.len()).map(|node| self.guard(node, self.key_of(node)));
        let (_, results) = tokio::join!(join_all(keys), self.results_of(&self.graph.roots));
        results
    }

    /// Stops all that runs, and returns when it has stopped.
    pub(crate) async fn stop(&self) {
        let tasks = lock(&self.tasks).take();
        if let Some(mut tasks) = tasks {
            tasks.shutdown().await;
        }
    }

    /// Stops all that runs without waiting for it, and lets nothing more be said.
    pub(crate) fn abandon(&self) {
        self.is_over.store(true, Ordering::SeqCst);
        drop(lock(&self.tasks).take());
        self.progress.close();
    }

    /// What became of every vertex.
    pub(crate) fn accounts(&self) -> Vec<Account> {
        let ends = self.progress.ends().into_iter();
        let account = |(node, end): (usize, End)| {
            let (vertex, answers) = (&self.graph.nodes[node], &self.answers[node]);
            let parts = answers.outline.get().zip(answers.key.get()).and_then(|(outline, keyed)| {
                self.whole_parts(vertex, outline, keyed, keyed.parts.iter().map(|sourced| &sourced.part))
            });
            Account {
                id: vertex.id.clone(),
                name: vertex.name.clone(),
                inputs: vertex.inputs.iter().map(|input| input.node).collect(),
                fate: end.fate,
                time: end.time,
                reason: end.reason,
                is_same: end.is_same,
                parts,
            }
        };
        ends.enumerate().map(account).collect()
    }

    /// Who are you? Waits for the inputs' keys, and for their results only where nothing else tells their content.
    async fn key_of(self: &Arc<Self>, node: usize) {
        let vertex = &self.graph.nodes[node];
        let map = self.ask(node, vertex.step.cache_map()).await;
        let (mapped, inputs) = (map.inputs.len(), vertex.inputs.len());
        if mapped != inputs {
            return self.fail(node, Cause::InputCount { mapped, inputs }).await;
        }
        let outline = self.outline_of(vertex, &map).await;
        set(&self.answers[node].outline, outline);
        let parts = join_all((0..inputs).map(|index| self.part_of(node, index, &map.inputs[index]))).await;
        let key = CacheKey::new(&map.digest, parts.iter().map(|sourced| &sourced.part));
        self.identified(node, &key).await;
        set(&self.answers[node].key, Keyed { key, map, parts });
    }

    async fn identified(&self, node: usize, key: &CacheKey) {
        let outline = self.answers[node].outline.wait().await;
        if outline.is_lasting {
            self.shared.keys.identified(&self.graph.nodes[node].id, key, &outline.shape);
        }
    }

    async fn outline_of(&self, vertex: &Node<R, E>, map: &CacheMap) -> Outline {
        let mut inputs = Vec::with_capacity(map.inputs.len());
        for (input, how) in vertex.inputs.iter().zip(&map.inputs) {
            inputs.push(match how {
                InputKey::Definition => Some((self.answers[input.node].outline.wait().await, input.output)),
                InputKey::Content { .. } => None,
            });
        }
        Outline::new(map, vertex.ignore_cache, &inputs)
    }

    async fn part_of(self: &Arc<Self>, node: usize, index: usize, how: &InputKey) -> Sourced {
        let input = self.graph.nodes[node].inputs[index];
        let seen = |part| Sourced { part, is_recalled: false };
        let answers = &self.answers[input.node];
        let key = answers.key.wait().await.key.clone();
        let InputKey::Content { selector } = how else {
            return seen(Part::Definition { key, output: input.output });
        };
        let fact = ContentFact { input: key, output: input.output, selector: selector.clone() };
        if answers.outline.wait().await.may_load()
            && let Some(digest) = self.shared.keys.content(&fact)
        {
            return Sourced { part: Part::Content(digest), is_recalled: true };
        }
        seen(Part::Content(self.content_of(node, index, selector).await))
    }

    /// The digest of what is read of an input, seen with own eyes.
    async fn content_of(self: &Arc<Self>, node: usize, index: usize, selector: &str) -> Digest {
        let vertex = &self.graph.nodes[node];
        let input = vertex.inputs[index];
        let settled = self.settled(input.node).await;
        let cell = shared_cell(&self.contents, &(input.node, input.output, selector.to_owned()));
        let see = || async {
            let result = &settled.outputs[input.output];
            let digest = self.ask(node, vertex.step.content_digest(index, result)).await;
            if self.answers[input.node].outline.wait().await.is_lasting {
                let own = self.answers[input.node].key.wait().await;
                let other_name = (settled.is_own && own.key != settled.key).then_some(&own.key);
                for name in std::iter::once(&settled.key).chain(other_name) {
                    let fact = ContentFact { input: name.clone(), output: input.output, selector: selector.to_owned() };
                    self.shared.keys.put_content(&fact, &digest);
                }
            }
            digest
        };
        cell.get_or_init(see).await.clone()
    }

    /// Gives a vertex's result a task to come from, unless it has one.
    fn ask_for(self: &Arc<Self>, node: usize) {
        if self.answers[node].is_asked.swap(true, Ordering::Relaxed) {
            return;
        }
        if let Some(tasks) = lock(&self.tasks).as_mut() {
            let job = Arc::clone(self);
            tasks.spawn(async move { job.guard(node, job.resolve(node)).await });
        }
    }

    /// Asks for a result and waits for it.
    async fn settled(self: &Arc<Self>, node: usize) -> &Settled<R> {
        self.ask_for(node);
        self.answers[node].result.wait().await
    }

    /// Asks for several outputs at once and waits for all.
    async fn results_of(self: &Arc<Self>, inputs: &[Input]) -> Vec<R> {
        inputs.iter().for_each(|input| self.ask_for(input.node));
        let mut results = Vec::with_capacity(inputs.len());
        for input in inputs {
            results.push(self.settled(input.node).await.outputs[input.output].clone());
        }
        results
    }

    /// Give me your result: from the store, else by running. Waits go along the graph's edges only, never from one
    /// vertex to another that happens to have the same key; so they cannot close a circle.
    async fn resolve(self: &Arc<Self>, node: usize) {
        let (vertex, answers) = (&self.graph.nodes[node], &self.answers[node]);
        let outline = answers.outline.wait().await;
        if self.must_run(answers, outline) {
            // Its inputs will be needed whatever its key turns out to be; they need not wait for one another. They
            // are waited for before anything else, so that a late hit leaves none of them running for nobody.
            self.results_of(&vertex.inputs).await;
        }
        let keyed = answers.key.wait().await;
        if let Some(outputs) = self.kept(node, outline, &keyed.key).await {
            return set(&answers.result, Settled { key: keyed.key.clone(), outputs, is_own: true });
        }
        let inputs = self.results_of(&vertex.inputs).await;
        let (parts, is_own) = self.seen_parts(node, keyed).await;
        let key = CacheKey::new(&keyed.map.digest, &parts);
        let found = if key == keyed.key {
            None
        } else {
            self.identified(node, &key).await;
            self.kept(node, outline, &key).await
        };
        let settled = match found {
            Some(outputs) => Settled { key: key.clone(), outputs, is_own },
            None => {
                let entry = shared_cell(&self.entries, &key);
                let ran = entry.ran.get_or_init(|| self.run(node, Work { key: &key, parts, inputs })).await;
                self.check_outputs(node, &ran.outputs).await;
                // Says nothing if it was this vertex that ran; its twin got the result for nothing.
                self.progress.hit(node);
                Settled { key: ran.key.clone(), outputs: Arc::clone(&ran.outputs), is_own }
            }
        };
        if is_own && key != keyed.key && outline.may_load() {
            // Below it, something ran and gave what it gave before. The next build finds this at once.
            self.shared.results.save(&keyed.key, &settled.outputs, &self.graph.nodes[node].name).await;
        }
        set(&answers.result, settled);
    }

    /// A result that is kept under this key and may be used. Who has it is told as cached.
    async fn kept(&self, node: usize, outline: &Outline, key: &CacheKey) -> Option<Outputs<R>> {
        if !outline.may_load() {
            return None;
        }
        let load = || async { self.shared.results.load(key).await.map(Outputs::from) };
        let entry = shared_cell(&self.entries, key);
        let outputs = entry.loaded.get_or_init(load).await.clone()?;
        if outputs.len() < self.graph.nodes[node].wanted {
            return None;
        }
        self.progress.hit(node);
        Some(outputs)
    }

    /// The parts of a key as they are now that all inputs are there. A recalled content may have been another run's:
    /// a result must not be kept under a key that names what it was not made of. Also says whether the key as it was
    /// made before names what is there.
    async fn seen_parts(self: &Arc<Self>, node: usize, keyed: &Keyed) -> (Vec<Part>, bool) {
        let mut parts = Vec::with_capacity(keyed.parts.len());
        let mut is_own = true;
        for (index, Sourced { part, is_recalled }) in keyed.parts.iter().enumerate() {
            let input = self.graph.nodes[node].inputs[index];
            parts.push(match (part, &keyed.map.inputs[index]) {
                (Part::Definition { output, .. }, _) => {
                    let settled = self.settled(input.node).await;
                    is_own &= settled.is_own;
                    Part::Definition { key: settled.key.clone(), output: *output }
                }
                (Part::Content(recalled), InputKey::Content { selector }) if *is_recalled => {
                    let seen = self.content_of(node, index, selector).await;
                    is_own &= seen == *recalled;
                    Part::Content(seen)
                }
                (Part::Content(_), _) => part.clone(),
            });
        }
        (parts, is_own)
    }

    /// Whether no kept result can serve, as far as can be told before the contents of inputs are known.
    fn must_run(&self, answers: &Answers<R>, outline: &Outline) -> bool {
        !outline.may_load() || (answers.key.get().is_none() && !self.shared.keys.has_shape(&outline.shape))
    }

    async fn check_outputs(&self, node: usize, outputs: &[R]) {
        let (given, wanted) = (outputs.len(), self.graph.nodes[node].wanted);
        if given < wanted {
            self.fail(node, Cause::MissingOutput { given, wanted }).await
        }
    }

    /// Asks a step something it may not be able to answer.
    async fn ask<T>(&self, node: usize, question: impl Future<Output = Result<T, E>>) -> T {
        match answer(question).await {
            Ok(answer) => answer,
            Err(cause) => self.fail(node, cause).await,
        }
    }

    /// Turns a panic of a vertex's own work into its failure.
    async fn guard(&self, node: usize, work: impl Future<Output = ()>) {
        if let Err(cause) = answer(work.map(Ok)).await {
            self.fail(node, cause).await
        }
    }

    /// Ends the solve. Never returns: whoever waits here is dropped with all the rest.
    async fn fail<T>(&self, node: usize, cause: Cause<E>) -> T {
        self.is_over.store(true, Ordering::SeqCst);
        let vertex = &self.graph.nodes[node];
        self.progress.fail(node, whole_text(&cause));
        let error = SolveError { vertex: vertex.id.clone(), name: vertex.name.clone(), source: cause };
        // Nobody listens any more when the solve is already over.
        self.failures.send(error).ok();
        std::future::pending().await
    }
}

/// Waits for foreign code that may fail or panic.
async fn answer<T, E: std::error::Error + 'static>(work: impl Future<Output = Result<T, E>>) -> Result<T, Cause<E>> {
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(answer) => answer.map_err(Cause::Step),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(ToString::to_string);
            let message = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            Err(Cause::Panicked { message })
        }
    }
}

/// An error with all of its sources, outermost first.
fn whole_text(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// The one cell for a name; made when first asked for.
fn shared_cell<K: Clone + Eq + Hash, V: Default>(cells: &Cells<K, V>, name: &K) -> Arc<V> {
    let mut cells = lock(cells);
    if let Some(cell) = cells.get(name) {
        return Arc::clone(cell);
    }
    let cell = Arc::<V>::default();
    cells.insert(name.clone(), Arc::clone(&cell));
    cell
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that can panic runs under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn set<T>(cell: &SetOnce<T>, value: T) {
    let is_first = cell.set(value).is_ok();
    debug_assert!(is_first, "each answer is given by one future");
}
