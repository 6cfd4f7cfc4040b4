//! A build made of fakes: vertices by name, stores that count, a reporter that remembers.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use kiln_graph::{Edge, VertexId};
use kiln_oci::Digest;
use kiln_report::{Event, Reporter, VertexState};
use kiln_solver::{
    CacheKey, CacheMap, Claim, ContentFact, Files, InputKey, KeyParts, KeyStore, MemoryKeys, MemoryResults, Plan,
    PlanVertex, ResultStore, SolveError, Solver, Step, Turns,
};
use tokio::sync::Notify;

/// How a fake step fails.
#[derive(Debug, thiserror::Error)]
#[error("exit code {0}")]
pub(crate) struct Exit(pub i32);

pub(crate) type Solved = Result<Vec<String>, SolveError<Exit>>;
type Work = Pin<Box<dyn Future<Output = Result<(), Exit>> + Send>>;
type Hook = Arc<dyn Fn() -> Work + Send + Sync>;

/// What was asked of whom, in order: `run base`, `load`, `put fact`.
#[derive(Default)]
pub(crate) struct Log(Mutex<Vec<String>>);

impl Log {
    pub(crate) fn note(&self, what: &str, whom: &str) {
        self.0.lock().unwrap().push(format!("{what} {whom}"));
    }

    pub(crate) fn count(&self, what: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|line| line.starts_with(what)).count()
    }

    /// Whom something was asked of, sorted.
    pub(crate) fn whom(&self, what: &str) -> Vec<String> {
        let lines = self.0.lock().unwrap();
        let mut whom: Vec<String> = lines.iter().filter_map(|line| line.strip_prefix(what)).map(trimmed).collect();
        whom.sort();
        whom
    }
}

fn trimmed(text: &str) -> String {
    text.trim().to_owned()
}

/// A vertex to be: `vertex("run").names("base").sees("ctx", "src")`.
#[derive(Clone)]
pub(crate) struct Fake {
    pub(crate) name: String,
    seed: String,
    pinned: bool,
    ignored: bool,
    inputs: Vec<(Edge, InputKey)>,
    outputs: usize,
    gives: Option<String>,
    parts: KeyParts,
    on_map: Option<Hook>,
    on_digest: Option<Hook>,
    on_run: Option<Hook>,
    mapped: Option<usize>,
    shows: bool,
}

pub(crate) fn vertex(name: &str) -> Fake {
    Fake {
        name: name.to_owned(),
        seed: name.to_owned(),
        pinned: true,
        ignored: false,
        inputs: Vec::new(),
        outputs: 1,
        gives: None,
        parts: KeyParts { identity: format!("app {name}"), ..KeyParts::default() },
        on_map: None,
        on_digest: None,
        on_run: None,
        mapped: None,
        shows: false,
    }
}

/// `name`, or `name#1` for another output than the first.
pub(crate) fn edge(text: &str) -> Edge {
    let (name, output) = text.split_once('#').unwrap_or((text, "0"));
    Edge { vertex: VertexId(Digest::sha256(name)), output: output.parse().unwrap() }
}

fn hook<F: Future<Output = Result<(), Exit>> + Send + 'static>(work: impl Fn() -> F + Send + Sync + 'static) -> Hook {
    Arc::new(move || Box::pin(work()))
}

impl Fake {
    /// Reads inputs that count by who they are.
    pub(crate) fn names<'a>(mut self, inputs: impl IntoIterator<Item = &'a str>) -> Self {
        self.inputs.extend(inputs.into_iter().map(|input| (edge(input), InputKey::Definition)));
        self
    }

    /// Reads an input that counts by its words that begin with `selector`.
    pub(crate) fn sees(mut self, input: &str, selector: &str) -> Self {
        self.inputs.push((edge(input), InputKey::Content { selector: selector.to_owned() }));
        self
    }

    /// Says that its results differ when what it reads does.
    pub(crate) fn shows(mut self) -> Self {
        self.shows = true;
        self
    }

    /// What decides what it does; its name, when not said.
    pub(crate) fn seed(mut self, seed: &str) -> Self {
        self.seed = seed.to_owned();
        self
    }

    /// Gives this whatever it reads.
    pub(crate) fn gives(mut self, value: &str) -> Self {
        self.gives = Some(value.to_owned());
        self
    }

    pub(crate) fn outputs(mut self, outputs: usize) -> Self {
        self.outputs = outputs;
        self
    }

    pub(crate) fn unpinned(mut self) -> Self {
        self.pinned = false;
        self
    }

    pub(crate) fn ignored(mut self) -> Self {
        self.ignored = true;
        self
    }

    pub(crate) fn parts(mut self, change: impl FnOnce(&mut KeyParts)) -> Self {
        change(&mut self.parts);
        self
    }

    /// Says that so many inputs are mapped.
    pub(crate) fn maps(mut self, inputs: usize) -> Self {
        self.mapped = Some(inputs);
        self
    }

    pub(crate) fn on_map<F>(mut self, work: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), Exit>> + Send + 'static,
    {
        self.on_map = Some(hook(work));
        self
    }

    pub(crate) fn on_digest<F>(mut self, work: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), Exit>> + Send + 'static,
    {
        self.on_digest = Some(hook(work));
        self
    }

    pub(crate) fn on_run<F>(mut self, work: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), Exit>> + Send + 'static,
    {
        self.on_run = Some(hook(work));
        self
    }
}

struct FakeStep {
    fake: Fake,
    log: Arc<Log>,
}

/// The words of a value that begin with a selector.
pub(crate) fn select(value: &str, selector: &str) -> String {
    value.split(' ').filter(|word| word.starts_with(selector)).collect::<Vec<_>>().join(" ")
}

#[async_trait]
impl Step<String, Exit> for FakeStep {
    async fn cache_map(&self) -> Result<CacheMap, Exit> {
        self.log.note("map", &self.fake.name);
        if let Some(hook) = &self.fake.on_map {
            hook().await?;
        }
        let mut inputs: Vec<InputKey> = self.fake.inputs.iter().map(|(_, how)| how.clone()).collect();
        inputs.truncate(self.fake.mapped.unwrap_or(usize::MAX));
        let digest = Digest::sha256(&self.fake.seed);
        Ok(CacheMap { digest, parts: self.fake.parts.clone(), pinned: self.fake.pinned, inputs })
    }

    async fn content_digest(&self, input: usize, result: &String) -> Result<Digest, Exit> {
        self.log.note("digest", &format!("{} {input}", self.fake.name));
        if let Some(hook) = &self.fake.on_digest {
            hook().await?;
        }
        let InputKey::Content { selector } = &self.fake.inputs[input].1 else { panic!("it counts by definition") };
        Ok(Digest::sha256(select(result, selector)))
    }

    async fn listing(&self, input: usize, result: &String) -> Files {
        self.log.note("list", &format!("{} {input}", self.fake.name));
        let print = |value: &str| value.bytes().fold(7, |print: u64, byte| print.wrapping_mul(31) + u64::from(byte));
        result.split(' ').filter_map(|w| w.split_once('=')).map(|(k, v)| (k.to_owned(), print(v))).collect()
    }

    fn shows(&self, _: usize) -> bool {
        self.fake.shows
    }

    async fn at_hand(&self) -> Option<Vec<String>> {
        self.fake.gives.clone().filter(|_| !self.fake.pinned).map(|value| vec![value])
    }

    async fn run(&self, inputs: Vec<String>) -> Result<Vec<String>, Exit> {
        self.log.note("run", &self.fake.name);
        if let Some(hook) = &self.fake.on_run {
            hook().await?;
        }
        let value = self.fake.gives.clone().unwrap_or_else(|| format!("{}({})", self.fake.seed, inputs.join(",")));
        let name = |output| if output == 0 { value.clone() } else { format!("{value}#{output}") };
        Ok((0..self.fake.outputs).map(name).collect())
    }
}

/// Stores that note every call.
pub(crate) struct Counted<T> {
    pub(crate) inner: T,
    log: Arc<Log>,
}

impl KeyStore for Counted<MemoryKeys> {
    fn content(&self, fact: &ContentFact) -> Option<Digest> {
        self.log.note("ask fact", &fact.selector);
        self.inner.content(fact)
    }
    fn put_content(&self, fact: &ContentFact, digest: &Digest) {
        self.log.note("put fact", &fact.selector);
        self.inner.put_content(fact, digest);
    }
    fn has_shape(&self, shape: &Digest) -> bool {
        self.log.note("ask shape", "");
        self.inner.has_shape(shape)
    }
    fn put_shape(&self, shape: &Digest) {
        self.log.note("put shape", "");
        self.inner.put_shape(shape);
    }
    fn same_as(&self, key: &CacheKey) -> Option<CacheKey> {
        self.inner.same_as(key)
    }
    fn put_same_as(&self, key: &CacheKey, older: &CacheKey) {
        self.inner.put_same_as(key, older);
    }
    fn parts(&self, identity: &str) -> Vec<KeyParts> {
        self.log.note("ask parts", identity);
        self.inner.parts(identity)
    }
    fn put_parts(&self, identity: &str, sets: Vec<KeyParts>) {
        self.log.note("put parts", identity);
        self.inner.put_parts(identity, sets);
    }
    fn occupant(&self, place: &str) -> Option<String> {
        self.inner.occupant(place)
    }
    fn put_occupant(&self, place: &str, identity: &str) {
        self.inner.put_occupant(place, identity);
    }
    fn identified(&self, _vertex: &VertexId, key: &CacheKey, _shape: &Digest) {
        self.log.note("identified", &key.to_string());
    }
}

#[async_trait]
impl ResultStore<String> for Counted<MemoryResults<String>> {
    async fn load(&self, key: &CacheKey) -> Option<Vec<String>> {
        let outputs = self.inner.load(key).await;
        self.log.note("load", outputs.as_ref().map_or("nothing", |outputs| &outputs[0]));
        outputs
    }
    async fn save(&self, key: &CacheKey, outputs: &[String], step: &str) {
        self.log.note("save", &outputs[0]);
        self.inner.save(key, outputs, step).await;
    }
    /// Values are the same that differ only in the digits behind `@`: when they were made.
    async fn same(&self, older: &CacheKey, outputs: &[String]) -> Option<Vec<String>> {
        let content = |output: &String| {
            let (first, rest) = output.split_once('@').unwrap_or((output, ""));
            let timeless = rest.split('@').map(|part| part.trim_start_matches(|c: char| c.is_ascii_digit()));
            format!("{first}@{}", timeless.collect::<Vec<_>>().join("@"))
        };
        let kept = self.inner.load(older).await?;
        kept.iter().map(content).eq(outputs.iter().map(content)).then_some(kept)
    }
    fn try_claim(&self, key: &CacheKey) -> Option<Claim> {
        self.inner.try_claim(key)
    }
    async fn unclaimed(&self, key: &CacheKey, told: &(dyn for<'a> Fn(&'a str) + Send + Sync)) {
        self.log.note("wait", "");
        self.inner.unclaimed(key, told).await;
    }
}

/// Remembers events as lines: `run: started`, `base: cached`, `run: done, first build`, `run: failed, exit code 1`.
#[derive(Default)]
pub(crate) struct Heard(Mutex<Vec<String>>, Mutex<Vec<String>>);

impl Heard {
    /// Why steps run, as it was said when they started.
    pub(crate) fn whys(&self) -> Vec<String> {
        self.1.lock().unwrap().clone()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// The lines but those that announce.
    pub(crate) fn news(&self) -> Vec<String> {
        self.lines().into_iter().filter(|line| !line.ends_with(": pending")).collect()
    }
}

impl Reporter for Heard {
    fn report(&self, event: Event) {
        let (name, state) = match event {
            Event::Vertex { name, state, .. } => (name, state),
            Event::Log { data, .. } => {
                return self.0.lock().unwrap().push(String::from_utf8(data).unwrap().trim_end().to_owned());
            }
            other => panic!("nobody tells of {other:?}"),
        };
        let state = match state {
            VertexState::Pending => "pending".to_owned(),
            VertexState::Started { reason, .. } => {
                self.1.lock().unwrap().extend(reason.map(|reason| format!("{name}: {reason}")));
                "started".to_owned()
            }
            VertexState::Completed { cached: true, error: None, reason: None, started, at } => {
                assert_eq!(started, at);
                "cached".to_owned()
            }
            VertexState::Completed { cached: true, .. } => panic!("a hit has no error and no reason"),
            VertexState::Completed { error: Some(error), .. } => format!("failed, {error}"),
            VertexState::Completed { reason: Some(reason), .. } => format!("done, {reason}"),
            VertexState::Completed { .. } => "done".to_owned(),
        };
        self.0.lock().unwrap().push(format!("{name}: {state}"));
    }
}

/// A project: its vertices, and the stores that its solves share.
pub(crate) struct Fakes {
    pub(crate) vertices: Vec<Fake>,
    pub(crate) log: Arc<Log>,
    pub(crate) heard: Arc<Heard>,
    pub(crate) keys: Arc<Counted<MemoryKeys>>,
    pub(crate) results: Arc<Counted<MemoryResults<String>>>,
    pub(crate) jobs: usize,
}

impl Fakes {
    pub(crate) fn new(vertices: impl IntoIterator<Item = Fake>) -> Self {
        let log = Arc::new(Log::default());
        Self {
            vertices: vertices.into_iter().collect(),
            heard: Arc::default(),
            keys: Arc::new(Counted { inner: MemoryKeys::default(), log: Arc::clone(&log) }),
            results: Arc::new(Counted { inner: MemoryResults::default(), log: Arc::clone(&log) }),
            log,
            jobs: 4,
        }
    }

    /// Replaces a vertex, or adds it.
    pub(crate) fn change(&mut self, vertex: Fake) {
        self.vertices.retain(|known| known.name != vertex.name);
        self.vertices.push(vertex);
    }

    pub(crate) fn plan(&self) -> Plan<String, Exit> {
        let mut plan = Plan::new();
        for fake in &self.vertices {
            let vertex = PlanVertex {
                inputs: fake.inputs.iter().map(|(edge, _)| edge.clone()).collect(),
                step: Arc::new(FakeStep { fake: fake.clone(), log: Arc::clone(&self.log) }),
                name: fake.name.clone(),
                ignore_cache: fake.ignored,
            };
            plan.add(edge(&fake.name).vertex, vertex);
        }
        plan
    }

    pub(crate) fn solver(&self) -> Solver<String> {
        let (keys, results) = (Arc::clone(&self.keys), Arc::clone(&self.results));
        Solver::new(keys, results, Arc::clone(&self.heard) as Arc<dyn Reporter>, Turns::new(self.jobs))
    }

    /// Solves for some roots, with fresh counts. A solve that hangs fails the test.
    pub(crate) async fn try_solve<'a>(&self, roots: impl IntoIterator<Item = &'a str>) -> Solved {
        self.log.0.lock().unwrap().clear();
        self.heard.0.lock().unwrap().clear();
        self.heard.1.lock().unwrap().clear();
        let roots: Vec<Edge> = roots.into_iter().map(edge).collect();
        let (solver, plan) = (self.solver(), self.plan());
        in_time(solver.solve(&plan, &roots)).await
    }

    pub(crate) async fn solve(&self, root: &str) -> String {
        self.try_solve([root]).await.expect("it builds").remove(0)
    }

    /// The names of what ran, sorted.
    pub(crate) fn ran(&self) -> Vec<String> {
        self.log.whom("run ")
    }

    pub(crate) fn loads(&self) -> usize {
        self.log.count("load ")
    }

    /// Forgets the kept result that is this.
    pub(crate) async fn prune(&self, value: &str) {
        for key in self.results.inner.keys() {
            let outputs = self.results.inner.load(&key).await.unwrap();
            if outputs[0] == value {
                self.results.inner.remove(&key);
            }
        }
    }

    /// First outputs of all that is kept, sorted.
    pub(crate) async fn kept(&self) -> Vec<String> {
        let mut kept = Vec::new();
        for key in self.results.inner.keys() {
            kept.extend(self.results.inner.load(&key).await.unwrap().into_iter().next());
        }
        kept.sort();
        kept
    }
}

/// Runs until it is dropped, and tells both.
pub(crate) struct Endless {
    pub(crate) begun: Arc<Notify>,
    running: Arc<AtomicUsize>,
    pub(crate) ended: Arc<Notify>,
}

struct Running(Arc<AtomicUsize>, Arc<Notify>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
        self.1.notify_one();
    }
}

impl Endless {
    pub(crate) fn new() -> Self {
        Self { begun: Arc::default(), running: Arc::default(), ended: Arc::default() }
    }

    pub(crate) fn work(
        &self,
    ) -> impl Fn() -> futures::future::BoxFuture<'static, Result<(), Exit>> + Send + Sync + 'static {
        let (begun, running, ended) = (Arc::clone(&self.begun), Arc::clone(&self.running), Arc::clone(&self.ended));
        move || {
            let (begun, running, ended) = (Arc::clone(&begun), Arc::clone(&running), Arc::clone(&ended));
            Box::pin(async move {
                running.fetch_add(1, Ordering::SeqCst);
                let _running = Running(running, ended);
                begun.notify_one();
                std::future::pending().await
            })
        }
    }

    pub(crate) fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }
}

/// Waits, but not for ever.
pub(crate) async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), work).await.expect("it hangs")
}
