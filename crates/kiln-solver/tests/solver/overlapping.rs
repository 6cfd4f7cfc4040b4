//! Solves that overlap in all they share: different plans, waiters, those who leave, and what is left when all are gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use kiln_oci::Digest;
use kiln_report::Silent;
use kiln_solver::{
    CacheMap, KeyParts, MemoryKeys, MemoryResults, Plan, PlanVertex, ResultStore as _, Solver, Step, Turns,
};
use tokio::time::{sleep, timeout};

use crate::fakes::{Endless, Exit, Fake, Fakes, edge, in_time, vertex};

async fn moment() -> Result<(), Exit> {
    sleep(Duration::from_millis(10)).await;
    Ok(())
}

fn slow(name: &str) -> Fake {
    vertex(name).on_run(moment)
}

#[tokio::test]
async fn two_plans_with_a_step_in_common_run_it_once() {
    let mut build = Fakes::new([slow("base"), vertex("mine").names(["base"])]);
    let mine = build.plan();
    build.change(slow("ours").seed("base"));
    build.change(vertex("yours").names(["ours"]));
    let (yours, solvers) = (build.plan(), [build.solver(), build.solver()]);
    let (one, two) = ([edge("mine")], [edge("yours")]);
    let solved = async { tokio::join!(solvers[0].solve(&mine, &one), solvers[1].solve(&yours, &two)) };
    let (mine, yours) = in_time(solved).await;
    assert_eq!((mine.unwrap(), yours.unwrap()), (vec!["mine(base())".to_owned()], vec!["yours(base())".to_owned()]));
    assert_eq!(build.log.count("run base") + build.log.count("run ours"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_who_wait_for_a_dropped_worker_one_takes_over() {
    for _ in 0..10 {
        let (endless, tries) = (Endless::new(), Arc::new(AtomicUsize::new(0)));
        let (work, count) = (endless.work(), Arc::clone(&tries));
        let build = Fakes::new([vertex("slow").on_run(move || {
            let is_first = count.fetch_add(1, Ordering::SeqCst) == 0;
            if is_first { work() } else { Box::pin(moment()) }
        })]);
        let (solver, plan, root) = (build.solver(), build.plan(), [edge("slow")]);
        let mut worker = Box::pin(solver.solve(&plan, &root));
        tokio::select! {
            _ = &mut worker => panic!("it never ends"),
            () = endless.begun.notified() => {}
        }
        let waiters = futures::future::join_all((0..8).map(|_| solver.solve(&plan, &root)));
        let leaves = async {
            let left = timeout(Duration::from_millis(5), &mut worker).await.is_err();
            drop(worker);
            left
        };
        let (waited, left) = in_time(futures::future::join(waiters, leaves)).await;
        assert!(left && waited.into_iter().all(|solved| solved.unwrap() == ["slow()"]));
        assert_eq!(tries.load(Ordering::SeqCst), 2);
    }
}

#[tokio::test]
async fn who_leaves_while_it_waits_takes_nothing_along() {
    let build = Fakes::new([vertex("slow").on_run(|| async {
        sleep(Duration::from_millis(40)).await;
        Ok(())
    })]);
    let (solver, plan, root) = (build.solver(), build.plan(), [edge("slow")]);
    let waiter = async {
        sleep(Duration::from_millis(5)).await;
        timeout(Duration::from_millis(10), solver.solve(&plan, &root)).await
    };
    let (worker, waiter) = in_time(futures::future::join(solver.solve(&plan, &root), waiter)).await;
    assert!(waiter.is_err());
    assert_eq!(worker.unwrap(), ["slow()"]);
    assert_eq!(solver.solve(&plan, &root).await.unwrap(), ["slow()"]);
    assert_eq!(build.ran(), ["slow"]);
}

#[tokio::test]
async fn who_leaves_before_its_turn_leaves_the_turn_to_others() {
    let endless = Endless::new();
    let mut build = Fakes::new([vertex("endless").on_run(endless.work()), vertex("queued"), vertex("last")]);
    build.jobs = 1;
    let (solver, plan) = (build.solver(), build.plan());
    let roots = [[edge("endless")], [edge("queued")], [edge("last")]];
    let mut first = Box::pin(solver.solve(&plan, &roots[0]));
    tokio::select! {
        _ = &mut first => panic!("it never ends"),
        () = endless.begun.notified() => {}
    }
    assert!(timeout(Duration::from_millis(10), solver.solve(&plan, &roots[1])).await.is_err());
    drop(first);
    assert_eq!(in_time(solver.solve(&plan, &roots[2])).await.unwrap(), ["last()"]);
    assert_eq!(build.ran(), ["endless", "last"]);
}

#[tokio::test]
async fn a_failure_is_each_solves_own_and_nothing_is_kept_of_it() {
    let build = Fakes::new([vertex("bad").on_run(|| async {
        sleep(Duration::from_millis(2)).await;
        Err(Exit(3))
    })]);
    let (solver, plan, root) = (build.solver(), build.plan(), [edge("bad")]);
    let solved = in_time(futures::future::join_all((0..3).map(|_| solver.solve(&plan, &root)))).await;
    assert!(solved.into_iter().all(|solved| solved.unwrap_err().step_error().is_some_and(|exit| exit.0 == 3)));
    assert_eq!((build.log.count("run "), build.kept().await.len()), (3, 0));
}

#[tokio::test]
async fn a_waiter_that_wants_more_outputs_than_were_made_runs_the_step() {
    let few = Fakes::new([slow("pair").outputs(1)]);
    let many = vertex("pair").outputs(2);
    let plan_few = few.plan();
    let mut build = few;
    build.change(many);
    let (solver, plan_many) = (build.solver(), build.plan());
    let (first, second) = ([edge("pair")], [edge("pair#1")]);
    let solved = async { tokio::join!(solver.solve(&plan_few, &first), solver.solve(&plan_many, &second)) };
    let (few, many) = in_time(solved).await;
    assert_eq!((few.unwrap(), many.unwrap()), (vec!["pair()".to_owned()], vec!["pair()#1".to_owned()]));
}

#[tokio::test]
async fn who_waited_for_a_step_that_gave_the_same_as_before_follows_the_older_result() {
    let mut build = Fakes::new([vertex("mid").gives("v@1"), vertex("top").names(["mid"])]);
    build.solve("top").await;
    build.change(slow("mid").seed("changed").gives("v@2"));
    let (solver, plan, root) = (build.solver(), build.plan(), [edge("top")]);
    let runs_before = build.log.count("run ");
    let (one, two) = in_time(futures::future::join(solver.solve(&plan, &root), solver.solve(&plan, &root))).await;
    assert_eq!((one.unwrap(), two.unwrap()), (vec!["top(v@1)".to_owned()], vec!["top(v@1)".to_owned()]));
    assert_eq!(build.log.count("run ") - runs_before, 1, "only `mid` ran, and once");
}

#[tokio::test]
async fn a_step_starts_as_soon_as_its_own_inputs_are_there() {
    // `late` ends only when what follows `early` has begun.
    let begun = Arc::new(tokio::sync::Notify::new());
    let (waits, tells) = (Arc::clone(&begun), Arc::clone(&begun));
    let build = Fakes::new([
        vertex("early"),
        vertex("late").on_run(move || {
            let begun = Arc::clone(&waits);
            async move {
                begun.notified().await;
                Ok(())
            }
        }),
        vertex("next").names(["early"]).on_run(move || {
            tells.notify_one();
            async { Ok(()) }
        }),
        vertex("top").names(["next", "late"]),
    ]);
    assert_eq!(build.solve("top").await, "top(next(early()),late())");
}

#[tokio::test]
async fn after_the_first_failure_nothing_that_queues_is_begun() {
    let mut build = Fakes::new((0..20).map(|n| vertex(&format!("v{n}"))));
    build.change(vertex("bad").on_run(|| async { Err(Exit(1)) }));
    build.jobs = 1;
    let names: Vec<String> = std::iter::once("bad".to_owned()).chain((0..20).map(|n| format!("v{n}"))).collect();
    assert!(build.try_solve(names.iter().map(String::as_str)).await.is_err());
    assert_eq!(build.ran(), ["bad"]);
}

#[tokio::test]
async fn a_solver_serves_again_after_a_failure_and_keeps_what_was_done() {
    let mut build = Fakes::new([
        vertex("good"),
        vertex("bad").names(["good"]).on_run(|| async { Err(Exit(1)) }),
        vertex("top").names(["bad"]),
    ]);
    assert!(build.try_solve(["top"]).await.is_err());
    build.change(vertex("bad").names(["good"]));
    assert_eq!(build.solve("top").await, "top(bad(good()))");
    assert_eq!(build.ran(), ["bad", "top"]);
}

#[tokio::test]
async fn what_looks_at_the_whole_by_two_names_of_a_part_has_one_key() {
    // Two selectors, the same words behind them.
    let mut build = Fakes::new([vertex("tree").gives("a=1 b=2"), vertex("copy").sees("tree", "a")]);
    build.solve("copy").await;
    build.change(vertex("copy").sees("tree", "a=1"));
    build.solve("copy").await;
    assert_eq!(build.ran(), [] as [&str; 0]);
    build.change(vertex("copy").sees("tree", "b"));
    build.solve("copy").await;
    assert_eq!(build.ran(), ["copy"]);
}

#[tokio::test]
async fn a_top_that_is_slow_to_say_who_it_is_costs_no_more_work() {
    let top = |name| {
        vertex(name).sees("mid", "").on_map(|| async {
            sleep(Duration::from_millis(20)).await;
            Ok(())
        })
    };
    let build = Fakes::new([vertex("base"), vertex("mid").names(["base"]), top("top")]);
    build.solve("top").await;
    build.solve("top").await;
    assert_eq!((build.ran().len(), build.loads(), build.log.count("digest")), (0, 1, 0));
}

#[tokio::test]
async fn a_result_that_cannot_be_loaded_is_made_of_inputs_that_can() {
    let build = Fakes::new([vertex("base"), vertex("mid").names(["base"]), vertex("top").names(["mid"])]);
    build.solve("top").await;
    build.prune("top(mid(base()))").await;
    build.prune("base()").await;
    assert_eq!(build.solve("top").await, "top(mid(base()))");
    assert_eq!(build.ran(), ["top"]);
}

/// Gives a result that knows who has it.
struct Giver(Arc<()>, bool);

#[async_trait]
impl Step<Arc<()>, Exit> for Giver {
    async fn cache_map(&self) -> Result<CacheMap, Exit> {
        let digest = Digest::sha256(if self.1 { "good" } else { "bad" });
        let inputs = if self.1 { vec![] } else { vec![kiln_solver::InputKey::Content { selector: String::new() }] };
        Ok(CacheMap { digest, parts: KeyParts::default(), pinned: false, inputs })
    }
    async fn content_digest(&self, _input: usize, _result: &Arc<()>) -> Result<Digest, Exit> {
        Err(Exit(9))
    }
    async fn run(&self, _inputs: Vec<Arc<()>>) -> Result<Vec<Arc<()>>, Exit> {
        Ok(vec![Arc::clone(&self.0)])
    }
}

#[tokio::test]
async fn a_solve_lets_go_of_every_result_when_it_is_over() {
    let result = Arc::new(());
    let (keys, results) = (Arc::new(MemoryKeys::default()), Arc::new(MemoryResults::<Arc<()>>::default()));
    let solver = Solver::new(keys, Arc::clone(&results) as _, Arc::new(Silent), Turns::new(2));
    let mut plan = Plan::new();
    let give = |inputs, is_good| PlanVertex {
        inputs,
        step: Arc::new(Giver(Arc::clone(&result), is_good)) as Arc<dyn Step<_, _>>,
        name: String::new(),
        ignore_cache: false,
    };
    plan.add(edge("good").vertex, give(vec![], true));
    plan.add(edge("bad").vertex, give(vec![edge("good")], false));
    let planned = Arc::strong_count(&result);
    let got = solver.solve(&plan, &[edge("good")]).await.unwrap();
    assert_eq!(Arc::strong_count(&result), planned + got.len());
    drop(got);
    assert!(solver.solve(&plan, &[edge("bad")]).await.is_err());
    assert_eq!(Arc::strong_count(&result), planned);
    assert!(results.load(&kiln_solver::CacheKey(Digest::sha256("good"))).await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_web_of_two_thousand_vertices_runs_each_once_and_then_is_one_load() {
    // Each reads three earlier ones, picked by a fixed rule that leaves nobody out.
    let name = |n: usize| format!("v{n}");
    let reads = |n: usize| [n.saturating_sub(1), n / 2, n * 7 % n.max(1)].map(name);
    let build = Fakes::new((0..2000).map(|n| {
        let inputs = if n == 0 { Vec::new() } else { reads(n).to_vec() };
        vertex(&name(n)).names(inputs.iter().map(String::as_str)).gives(&name(n))
    }));
    assert_eq!(build.solve("v1999").await, "v1999");
    let ran = build.ran();
    assert_eq!(ran.len(), 2000);
    build.solve("v1999").await;
    assert_eq!((build.ran().len(), build.loads()), (0, 1));
}
