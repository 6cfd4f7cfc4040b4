//! Random graphs, solved again and again while things change: the same as naive evaluation, nothing twice, nothing
//! that is kept.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use async_trait::async_trait;
use kiln_oci::{Digest, Hasher};
use kiln_report::Reporter;
use kiln_solver::{
    CacheKey, CacheMap, ContentFact, InputKey, KeyParts, KeyStore, MemoryKeys, MemoryResults, Part, Plan, PlanVertex,
    Solver, Step, Turns,
};
use proptest::prelude::*;
use tokio::runtime::Runtime;
use tokio::sync::Notify;

use crate::fakes::{Exit, Heard, edge, in_time, select};

pub(crate) static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().expect("a runtime")
});

/// A vertex of a random graph. Equal seeds make twins where the inputs agree.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    seed: u8,
    pinned: bool,
    pub(crate) ignored: bool,
    outputs: usize,
    pub(crate) inputs: Vec<Reads>,
}

/// Reads an output of an earlier vertex: all of it, or the words that begin with a letter.
#[derive(Debug, Clone)]
pub(crate) struct Reads {
    pub(crate) vertex: usize,
    pub(crate) output: usize,
    pub(crate) selector: Option<&'static str>,
}

/// What happens before and during one of several solves.
#[derive(Debug, Clone, Default)]
pub(crate) struct Round {
    pub(crate) edit: Option<(usize, u8)>,
    pub(crate) ignore: Option<usize>,
    pub(crate) epoch: u8,
    pub(crate) prune: u64,
    pub(crate) jobs: usize,
    pub(crate) roots: Vec<usize>,
    pub(crate) fails: Option<usize>,
    pub(crate) drop_after: Option<usize>,
}

pub(crate) fn specs() -> impl Strategy<Value = Vec<Spec>> {
    let reads = (any::<prop::sample::Index>(), 0..2usize, prop::sample::select(vec![None, Some("a"), Some("b")]));
    let spec = (0..6u8, prop::bool::weighted(0.8), prop::bool::weighted(0.05), prop::collection::vec(reads, 0..4));
    prop::collection::vec(spec, 1..=24).prop_map(|drafts| {
        let mut specs: Vec<Spec> = Vec::new();
        for (at, (seed, pinned, ignored, reads)) in drafts.into_iter().enumerate() {
            let inputs = reads.into_iter().filter(|_| at > 0).map(|(index, output, selector)| {
                let vertex = index.index(at);
                Reads { vertex, output: output.min(specs[vertex].outputs - 1), selector }
            });
            let inputs = inputs.collect();
            specs.push(Spec { seed, pinned, ignored, outputs: 1 + usize::from(seed % 2), inputs });
        }
        specs
    })
}

fn rounds() -> impl Strategy<Value = Vec<Round>> {
    let sometimes = |top: usize| prop::option::weighted(0.25, 0..top);
    let changes = (prop::option::weighted(0.5, (0..24usize, 0..3u8)), sometimes(24), 0..2u8, any::<u64>());
    let manner = (1..=4usize, prop::collection::vec(0..24usize, 1..3), sometimes(24), sometimes(8));
    let round = (changes, manner).prop_map(|((edit, ignore, epoch, prune), (jobs, roots, fails, drop_after))| Round {
        edit,
        ignore,
        epoch,
        prune,
        jobs,
        roots,
        fails,
        drop_after,
    });
    prop::collection::vec(round, 1..=5)
}

impl Spec {
    /// What decides it, its inputs aside.
    fn digest(&self) -> Digest {
        Digest::sha256(format!("{} {}", self.seed, self.pinned))
    }

    /// Its outputs: two words that often agree by chance, so that contents do, and one that never does.
    fn outputs(&self, epoch: u8, run: usize, inputs: &[String]) -> Vec<String> {
        let mut hasher = Hasher::new();
        hasher.field(self.digest().as_str().as_bytes());
        hasher.field(if self.pinned { &[] } else { std::slice::from_ref(&epoch) });
        hasher.field(&run.to_le_bytes());
        for (reads, input) in self.inputs.iter().zip(inputs) {
            hasher.field(reads.selector.map_or_else(|| input.clone(), |letter| select(input, letter)).as_bytes());
        }
        let whole = hasher.finish();
        let output = |n| {
            let digest = Digest::sha256(format!("{whole} {n}"));
            let bytes = digest.hex().as_bytes();
            format!("a={} b={} #{}", bytes[0] % 3, bytes[1] % 3, digest.short())
        };
        (0..self.outputs).map(output).collect()
    }
}

/// What all steps of a round share.
pub(crate) struct World {
    epoch: u8,
    fails: Option<usize>,
    pub(crate) ran: Mutex<Vec<usize>>,
    begun: AtomicUsize,
    drop_after: usize,
    pub(crate) enough: Notify,
    /// Counts the runs of steps, if those that are kept never give the same twice.
    unrepeatable: Option<Arc<AtomicUsize>>,
    /// What was made of what.
    made: Mutex<Vec<Run>>,
}

impl World {
    /// What a round says of it.
    pub(crate) fn new(round: &Round) -> Self {
        Self {
            epoch: round.epoch,
            fails: round.fails,
            ran: Mutex::default(),
            begun: AtomicUsize::new(0),
            drop_after: round.drop_after.unwrap_or(usize::MAX),
            enough: Notify::new(),
            unrepeatable: None,
            made: Mutex::default(),
        }
    }
}

/// One run of a vertex.
struct Run {
    at: usize,
    inputs: Vec<String>,
    outputs: Vec<String>,
}

pub(crate) struct RandomStep {
    pub(crate) at: usize,
    pub(crate) spec: Spec,
    pub(crate) is_lasting: bool,
    pub(crate) world: Arc<World>,
}

#[async_trait]
impl Step<String, Exit> for RandomStep {
    async fn cache_map(&self) -> Result<CacheMap, Exit> {
        let how = |reads: &Reads| match reads.selector {
            None => InputKey::Definition,
            Some(letter) => InputKey::Content { selector: letter.to_owned() },
        };
        let inputs = self.spec.inputs.iter().map(how).collect();
        let parts = KeyParts { identity: format!("v{}", self.at), ..KeyParts::default() };
        Ok(CacheMap { digest: self.spec.digest(), parts, pinned: self.spec.pinned, inputs })
    }

    async fn content_digest(&self, input: usize, result: &String) -> Result<Digest, Exit> {
        tokio::task::yield_now().await;
        Ok(Digest::sha256(select(result, self.spec.inputs[input].selector.expect("it counts by content"))))
    }

    async fn run(&self, inputs: Vec<String>) -> Result<Vec<String>, Exit> {
        self.world.ran.lock().unwrap().push(self.at);
        if self.world.begun.fetch_add(1, Ordering::SeqCst) >= self.world.drop_after {
            self.world.enough.notify_one();
        }
        for _ in 0..self.at % 4 {
            tokio::task::yield_now().await;
        }
        if self.world.fails == Some(self.at) {
            return Err(Exit(1));
        }
        let runs = self.world.unrepeatable.as_ref().filter(|_| self.is_lasting);
        let run = runs.map_or(0, |runs| runs.fetch_add(1, Ordering::SeqCst));
        let outputs = self.spec.outputs(self.world.epoch, run, &inputs);
        self.world.made.lock().unwrap().push(Run { at: self.at, inputs, outputs: outputs.clone() });
        Ok(outputs)
    }
}

/// What a solve should come to, found by evaluating everything.
pub(crate) struct Model {
    pub(crate) values: Vec<Vec<String>>,
    pub(crate) keys: Vec<CacheKey>,
    /// Keys of what may run: not kept, and needed for a result or to see a content.
    may_run: HashSet<CacheKey>,
    reachable: BTreeSet<usize>,
}

impl Model {
    pub(crate) fn new(specs: &[Spec], round: &Round, keys: &MemoryKeys, results: &MemoryResults<String>) -> Self {
        let mut model =
            Self { values: Vec::new(), keys: Vec::new(), may_run: HashSet::new(), reachable: BTreeSet::new() };
        let (mut may_load, mut lasts): (Vec<bool>, Vec<bool>) = (Vec::new(), Vec::new());
        for spec in specs {
            let inputs: Vec<String> = spec.inputs.iter().map(|r| model.values[r.vertex][r.output].clone()).collect();
            let parts = spec.inputs.iter().zip(&inputs).map(|(reads, input)| match reads.selector {
                None => Part::Definition { key: model.keys[reads.vertex].clone(), output: reads.output },
                Some(letter) => Part::Content(Digest::sha256(select(input, letter))),
            });
            let parts: Vec<Part> = parts.collect();
            let named = || spec.inputs.iter().filter(|reads| reads.selector.is_none()).map(|reads| reads.vertex);
            lasts.push(spec.pinned && named().all(|input| lasts[input]));
            may_load.push(spec.pinned && !spec.ignored && named().all(|input| may_load[input]));
            model.values.push(spec.outputs(round.epoch, 0, &inputs));
            model.keys.push(CacheKey::new(&spec.digest(), &parts));
        }
        let kept: HashSet<CacheKey> = results.keys().into_iter().collect();
        let mut reach: Vec<usize> = round.roots.clone();
        let mut needed = round.roots.clone();
        while let Some(at) = reach.pop() {
            if !model.reachable.insert(at) {
                continue;
            }
            for reads in &specs[at].inputs {
                reach.push(reads.vertex);
                let Some(letter) = reads.selector else { continue };
                let input = model.keys[reads.vertex].clone();
                let fact = ContentFact { input, output: reads.output, selector: letter.to_owned() };
                if !may_load[reads.vertex] || keys.content(&fact).is_none() {
                    needed.push(reads.vertex);
                }
            }
        }
        let mut done = HashSet::new();
        while let Some(at) = needed.pop() {
            let is_hit = may_load[at] && kept.contains(&model.keys[at]);
            if !is_hit && done.insert(at) {
                model.may_run.insert(model.keys[at].clone());
                needed.extend(specs[at].inputs.iter().map(|reads| reads.vertex));
            }
        }
        model
    }

    fn has_twins(&self) -> bool {
        let distinct: HashSet<_> = self.reachable.iter().map(|at| &self.keys[*at]).collect();
        distinct.len() < self.reachable.len()
    }
}

fn plan(specs: &[Spec], world: &Arc<World>) -> Plan<String, Exit> {
    let mut plan = Plan::new();
    for (at, (spec, is_lasting)) in specs.iter().zip(lasting(specs)).enumerate() {
        let inputs = spec.inputs.iter().map(|reads| edge(&format!("v{}#{}", reads.vertex, reads.output))).collect();
        let step = Arc::new(RandomStep { at, spec: spec.clone(), is_lasting, world: Arc::clone(world) });
        let vertex = PlanVertex { inputs, step, name: format!("v{at}"), ignore_cache: spec.ignored };
        plan.add(edge(&format!("v{at}")).vertex, vertex);
    }
    plan
}

struct Stores {
    keys: Arc<MemoryKeys>,
    results: Arc<MemoryResults<String>>,
}

async fn play(specs: &[Spec], round: &Round, stores: &Stores) -> Result<(), TestCaseError> {
    let mut kept = stores.results.keys();
    kept.sort();
    for (_, key) in kept.iter().enumerate().filter(|(n, _)| round.prune >> (n % 64) & 1 == 1) {
        stores.results.remove(key).expect("it is kept");
    }
    let model = Model::new(specs, round, &stores.keys, &stores.results);
    let heard = Arc::new(Heard::default());
    let world = Arc::new(World::new(round));
    let solved = {
        let plan = plan(specs, &world);
        let (keys, results) = (Arc::clone(&stores.keys), Arc::clone(&stores.results));
        let solver = Solver::new(keys, results, Arc::clone(&heard) as Arc<dyn Reporter>, Turns::new(round.jobs));
        let roots: Vec<_> = round.roots.iter().map(|at| edge(&format!("v{at}"))).collect();
        tokio::select! {
            solved = in_time(solver.solve(&plan, &roots)) => Some(solved),
            () = world.enough.notified() => None,
        }
    };
    // Nothing of the solve is left, or soon will be.
    in_time(async {
        while Arc::strong_count(&world) > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;

    let ran = world.ran.lock().unwrap().clone();
    let keys: HashSet<&CacheKey> = ran.iter().map(|at| &model.keys[*at]).collect();
    prop_assert_eq!(keys.len(), ran.len(), "something ran twice: {:?}", ran);
    prop_assert!(keys.iter().all(|key| model.may_run.contains(*key)), "something ran for nothing: {:?}", ran);
    match solved {
        Some(Ok(values)) => {
            let expected: Vec<String> = round.roots.iter().map(|at| model.values[*at][0].clone()).collect();
            prop_assert_eq!(values, expected);
            prop_assert!(model.has_twins() || keys.len() == model.may_run.len(), "something ran too little");
            check_events(&heard, &model, &ran)?;
        }
        Some(Err(error)) => {
            let failed = round.fails.expect("only what is told to fails");
            prop_assert_eq!(error.vertex, edge(&format!("v{failed}")).vertex);
            prop_assert!(ran.contains(&failed));
        }
        None => {}
    }
    Ok(())
}

/// Everyone is announced, then completes once: as run if it ran, else as cached.
fn check_events(heard: &Heard, model: &Model, ran: &[usize]) -> Result<(), TestCaseError> {
    let lines = heard.lines();
    let (announced, news) = lines.split_at(model.reachable.len());
    prop_assert!(announced.iter().all(|line| line.ends_with(": pending")));
    for at in &model.reachable {
        let prefix = format!("v{at}: ");
        let told: Vec<&str> = news.iter().filter_map(|line| line.strip_prefix(&prefix)).collect();
        if ran.contains(at) {
            prop_assert!(told.len() == 2 && told[0] == "started" && told[1].starts_with("done"), "v{}: {:?}", at, told);
        } else {
            prop_assert_eq!(told, ["cached"], "v{}", at);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_graph_solves_as_if_evaluated_and_works_no_more_than_it_must(mut specs in specs(), rounds in rounds()) {
        let stores = Stores { keys: Arc::default(), results: Arc::default() };
        let count = specs.len();
        for mut round in rounds {
            round.roots.iter_mut().for_each(|root| *root %= count);
            if let Some((at, seed)) = round.edit {
                // The number of outputs stays, or readers would want what is not there.
                specs[at % count].seed = specs[at % count].seed % 2 + seed * 2;
            }
            let mut specs = specs.clone();
            if let Some(at) = round.ignore {
                specs[at % count].ignored = true;
            }
            RUNTIME.block_on(play(&specs, &round, &stores))?;
        }
    }
    #[test]
    fn a_kept_result_was_made_of_what_its_key_names(mut specs in specs(), rounds in rounds()) {
        let stores = Stores { keys: Arc::default(), results: Arc::default() };
        let runs = Arc::new(AtomicUsize::new(1));
        let (mut made, mut kept_as) = (HashMap::new(), HashMap::new());
        let count = specs.len();
        for mut round in rounds {
            round.roots.iter_mut().for_each(|root| *root %= count);
            if let Some((at, seed)) = round.edit {
                specs[at % count].seed = specs[at % count].seed % 2 + seed * 2;
            }
            // Each time some more of what was recalled may turn out to be of another run; then all is found.
            for again in 0.. {
                prop_assert!(again <= count + 1, "it never settles");
                let world = RUNTIME.block_on(play_unrepeatable(&specs, &round, &stores, &runs, again > 0));
                let mut has_settled = true;
                for Run { at, inputs, outputs } in world.made.lock().unwrap().drain(..) {
                    has_settled &= !lasting(&specs)[at];
                    let owner = outputs[0].clone();
                    made.extend(outputs.into_iter().enumerate().map(|(n, text)| (text, (owner.clone(), n))));
                    kept_as.entry(owner).or_insert((specs[at].clone(), inputs, None));
                }
                note_kept(&stores, &mut kept_as);
                check_kept(&kept_as, &made)?;
                if has_settled {
                    break;
                }
            }
        }
    }
}

/// How a result was made, and under which key it is kept.
type Made = (Spec, Vec<String>, Option<CacheKey>);

/// Which vertices' results may be kept.
pub(crate) fn lasting(specs: &[Spec]) -> Vec<bool> {
    let mut lasts: Vec<bool> = Vec::new();
    for spec in specs {
        let mut named = spec.inputs.iter().filter(|reads| reads.selector.is_none());
        let is_lasting = spec.pinned && named.all(|reads| lasts[reads.vertex]);
        lasts.push(is_lasting);
    }
    lasts
}

/// Solves with steps that, when they are kept, never give the same twice; nobody is told to ignore the cache, to fail or to stop.
async fn play_unrepeatable(
    specs: &[Spec],
    round: &Round,
    stores: &Stores,
    runs: &Arc<AtomicUsize>,
    is_again: bool,
) -> Arc<World> {
    let mut kept = stores.results.keys();
    kept.sort();
    for (_, key) in kept.iter().enumerate().filter(|(n, _)| !is_again && round.prune >> (n % 64) & 1 == 1) {
        stores.results.remove(key).expect("it is kept");
    }
    let round_of_all = Round { fails: None, drop_after: None, ..round.clone() };
    let world = Arc::new(World { unrepeatable: Some(Arc::clone(runs)), ..World::new(&round_of_all) });
    let specs: Vec<Spec> = specs.iter().map(|spec| Spec { ignored: false, ..spec.clone() }).collect();
    let (keys, results) = (Arc::clone(&stores.keys), Arc::clone(&stores.results));
    let solver = Solver::new(keys, results, Arc::new(kiln_report::Silent), Turns::new(round.jobs));
    let roots: Vec<_> = round.roots.iter().map(|at| edge(&format!("v{at}"))).collect();
    in_time(solver.solve(&plan(&specs, &world), &roots)).await.expect("nothing fails");
    world
}

fn note_kept(stores: &Stores, kept_as: &mut HashMap<String, Made>) {
    for key in stores.results.keys() {
        let outputs = stores.results.remove(&key).expect("it is kept");
        RUNTIME.block_on(kiln_solver::ResultStore::save(&*stores.results, &key, &outputs, ""));
        kept_as.get_mut(&outputs[0]).expect("it was made").2 = Some(key);
    }
}

/// The key of each kept result, made again from what it was really made of.
fn check_kept(kept_as: &HashMap<String, Made>, made: &HashMap<String, (String, usize)>) -> Result<(), TestCaseError> {
    for (spec, inputs, key) in kept_as.values() {
        let Some(key) = key else { continue };
        let mut parts = Vec::new();
        for (reads, input) in spec.inputs.iter().zip(inputs) {
            parts.push(match reads.selector {
                Some(letter) => Part::Content(Digest::sha256(select(input, letter))),
                None => {
                    let (owner, output) = made[input].clone();
                    let key = kept_as[&owner].2.clone().expect("what a kept result names is kept, or was");
                    Part::Definition { key, output }
                }
            });
        }
        prop_assert_eq!(key, &CacheKey::new(&spec.digest(), &parts));
    }
    Ok(())
}
