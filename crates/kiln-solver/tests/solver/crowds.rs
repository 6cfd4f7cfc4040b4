//! Random graphs solved by several at once, who share a store, fail and leave when they like: each who stays gets what
//! naive evaluation gives, and nothing is done twice for two who stay.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use kiln_oci::Digest;
use kiln_report::Silent;
use kiln_solver::{
    CacheKey, CacheMap, MemoryKeys, MemoryResults, Plan, PlanVertex, ResultStore as _, Solver, Step, Turns,
};
use proptest::prelude::*;

use crate::fakes::{Exit, Solved, edge, in_time};
use crate::graphs::{Model, RUNTIME, RandomStep, Round, Spec, World, lasting, specs};

/// One who solves.
#[derive(Debug, Clone)]
struct Actor {
    roots: Vec<usize>,
    /// Which solver; those of one share its turns, as builds of one process do.
    solver: usize,
    fails: Option<usize>,
    /// Leaves when more than so many steps have begun for it.
    drop_after: Option<usize>,
    /// Leaves when it was polled so often.
    polls: Option<usize>,
}

fn actors() -> impl Strategy<Value = Vec<Actor>> {
    let sometimes = |top: usize| prop::option::weighted(0.2, 0..top);
    let roots = prop::collection::vec(0..24usize, 1..3);
    let actor = (roots, 0..2usize, sometimes(24), sometimes(6), sometimes(40));
    let actor =
        actor.prop_map(|(roots, solver, fails, drop_after, polls)| Actor { roots, solver, fails, drop_after, polls });
    prop::collection::vec(actor, 2..=5)
}

/// What runs now, and whether the same ever ran twice at once.
#[derive(Default)]
struct Live {
    now: Mutex<HashMap<CacheKey, usize>>,
    met: Mutex<Vec<CacheKey>>,
}

struct Running<'a>(&'a Live, CacheKey);

impl Live {
    fn enter(&self, key: &CacheKey) -> Running<'_> {
        let mut now = self.now.lock().unwrap();
        let count = now.entry(key.clone()).or_default();
        *count += 1;
        if *count > 1 {
            self.met.lock().unwrap().push(key.clone());
        }
        Running(self, key.clone())
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        *self.0.now.lock().unwrap().get_mut(&self.1).unwrap() -= 1;
    }
}

/// A random step that is watched while it runs, if it is one that only one may run.
struct Watched {
    step: RandomStep,
    key: Option<CacheKey>,
    live: Arc<Live>,
}

#[async_trait]
impl Step<String, Exit> for Watched {
    async fn cache_map(&self) -> Result<CacheMap, Exit> {
        self.step.cache_map().await
    }
    async fn content_digest(&self, input: usize, result: &String) -> Result<Digest, Exit> {
        self.step.content_digest(input, result).await
    }
    async fn run(&self, inputs: Vec<String>) -> Result<Vec<String>, Exit> {
        let _running = self.key.as_ref().map(|key| self.live.enter(key));
        self.step.run(inputs).await
    }
}

/// Which vertices are found when they are kept: lasting, and nothing that their keys name must run.
fn loadable(specs: &[Spec]) -> Vec<bool> {
    let mut found: Vec<bool> = Vec::new();
    for (spec, lasts) in specs.iter().zip(lasting(specs)) {
        let mut named = spec.inputs.iter().filter(|reads| reads.selector.is_none());
        let is_loadable = lasts && !spec.ignored && named.all(|reads| found[reads.vertex]);
        found.push(is_loadable);
    }
    found
}

struct Crowd {
    specs: Vec<Spec>,
    loadable: Vec<bool>,
    model: Model,
    live: Arc<Live>,
    keys: Arc<MemoryKeys>,
    results: Arc<MemoryResults<String>>,
}

impl Crowd {
    fn new(specs: Vec<Spec>) -> Self {
        let (keys, results) = (Arc::<MemoryKeys>::default(), Arc::<MemoryResults<String>>::default());
        let roots = (0..specs.len()).collect();
        let model = Model::new(&specs, &Round { roots, ..Round::default() }, &keys, &results);
        Self { loadable: loadable(&specs), model, live: Arc::default(), keys, results, specs }
    }

    fn solver(&self, jobs: usize) -> Arc<Solver<String>> {
        let (keys, results) = (Arc::clone(&self.keys), Arc::clone(&self.results));
        Arc::new(Solver::new(keys, results, Arc::new(Silent), Turns::new(jobs)))
    }

    fn plan(&self, world: &Arc<World>) -> Plan<String, Exit> {
        let mut plan = Plan::new();
        for (at, (spec, is_lasting)) in self.specs.iter().zip(lasting(&self.specs)).enumerate() {
            let inputs = spec.inputs.iter().map(|reads| edge(&format!("v{}#{}", reads.vertex, reads.output))).collect();
            let step = RandomStep { at, spec: spec.clone(), is_lasting, world: Arc::clone(world) };
            let key = self.loadable[at].then(|| self.model.keys[at].clone());
            let step = Arc::new(Watched { step, key, live: Arc::clone(&self.live) });
            let vertex = PlanVertex { inputs, step, name: format!("v{at}"), ignore_cache: spec.ignored };
            plan.add(edge(&format!("v{at}")).vertex, vertex);
        }
        plan
    }

    /// Solves for one of them; nothing when it left.
    async fn act(&self, actor: &Actor, solver: &Solver<String>, world: &Arc<World>) -> Option<Solved> {
        let plan = self.plan(world);
        let roots: Vec<_> = actor.roots.iter().map(|at| edge(&format!("v{at}"))).collect();
        let leaves = async {
            for _ in 0..actor.polls.unwrap_or(usize::MAX) {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            solved = in_time(solver.solve(&plan, &roots)) => Some(solved),
            () = world.enough.notified() => None,
            () = leaves => None,
        }
    }

    fn check(&self, actor: &Actor, solved: Option<Solved>, ran: &[usize]) -> Result<bool, TestCaseError> {
        let mut keys: Vec<_> = ran.iter().map(|at| &self.model.keys[*at]).collect();
        keys.sort();
        keys.dedup();
        prop_assert_eq!(keys.len(), ran.len(), "something ran twice in one solve: {:?}", ran);
        match solved {
            Some(Ok(values)) => {
                let expected: Vec<_> = actor.roots.iter().map(|at| self.model.values[*at][0].clone()).collect();
                prop_assert_eq!(values, expected);
                Ok(true)
            }
            Some(Err(error)) => {
                let failed = actor.fails.expect("only what is told to fails");
                prop_assert_eq!(error.vertex, edge(&format!("v{failed}")).vertex);
                Ok(false)
            }
            None => Ok(false),
        }
    }
}

async fn play(crowd: &Crowd, actors: &[Actor], jobs: usize) -> Result<(), TestCaseError> {
    let solvers = [crowd.solver(jobs), crowd.solver(2)];
    let round = |actor: &Actor| Round { fails: actor.fails, drop_after: actor.drop_after, ..Round::default() };
    let worlds: Vec<_> = actors.iter().map(|actor| Arc::new(World::new(&round(actor)))).collect();
    let acts = actors.iter().zip(&worlds).map(|(actor, world)| crowd.act(actor, &solvers[actor.solver], world));
    let solved = futures::future::join_all(acts).await;
    // Nothing of those who left is left, or soon will be.
    in_time(async {
        while worlds.iter().any(|world| Arc::strong_count(world) > 1) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut by_who_stayed = HashMap::new();
    for ((actor, world), solved) in actors.iter().zip(&worlds).zip(solved) {
        let ran = world.ran.lock().unwrap().clone();
        if crowd.check(actor, solved, &ran)? {
            for at in ran.into_iter().filter(|at| crowd.loadable[*at]) {
                *by_who_stayed.entry(&crowd.model.keys[at]).or_insert(0) += 1;
            }
        }
    }
    prop_assert!(by_who_stayed.values().all(|times| *times == 1), "two who stayed ran the same");
    prop_assert!(crowd.live.met.lock().unwrap().is_empty(), "the same ran twice at once");
    prop_assert!(crowd.model.keys.iter().all(|key| crowd.results.try_claim(key).is_some()), "a claim is left");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_crowd_on_one_store_is_as_right_as_one_and_does_nothing_twice(
        specs in specs(), mut actors in actors(), jobs in 1..=4usize,
    ) {
        let count = specs.len();
        for actor in &mut actors {
            actor.roots.iter_mut().for_each(|root| *root %= count);
        }
        let crowd = Crowd::new(specs);
        RUNTIME.block_on(play(&crowd, &actors, jobs))?;
        // Then one in peace: whatever the others left is right, and what lasts is there afterwards.
        let calm = Actor { roots: (0..count).collect(), solver: 0, fails: None, drop_after: None, polls: None };
        RUNTIME.block_on(play(&crowd, std::slice::from_ref(&calm), jobs))?;
        let world = Arc::new(World::new(&Round::default()));
        let solved = RUNTIME.block_on(crowd.act(&calm, &crowd.solver(jobs), &world));
        let ran = world.ran.lock().unwrap().clone();
        prop_assert!(crowd.check(&calm, solved, &ran)?);
        prop_assert!(ran.iter().all(|at| !crowd.loadable[*at]), "something ran that is kept");
    }

    #[test]
    fn a_store_that_is_pruned_all_the_while_costs_work_and_nothing_else(
        specs in specs(), mut actors in actors(), picks in prop::collection::vec(any::<prop::sample::Index>(), 1..40),
    ) {
        let count = specs.len();
        for actor in &mut actors {
            actor.roots.iter_mut().for_each(|root| *root %= count);
            (actor.fails, actor.drop_after, actor.polls) = (None, None, None);
        }
        let crowd = Crowd::new(specs);
        let results = Arc::clone(&crowd.results);
        let prune = async move {
            for pick in picks {
                let mut kept = results.keys();
                kept.sort();
                if !kept.is_empty() {
                    results.remove(&kept[pick.index(kept.len())]);
                }
                tokio::task::yield_now().await;
            }
        };
        let solver = crowd.solver(3);
        let solved = RUNTIME.block_on(async {
            let world = Arc::new(World::new(&Round::default()));
            let acts = futures::future::join_all(actors.iter().map(|actor| crowd.act(actor, &solver, &world)));
            futures::future::join(acts, prune).await.0
        });
        for (actor, solved) in actors.iter().zip(solved) {
            prop_assert!(crowd.check(actor, solved, &[])?);
        }
    }
}
