//! Errors, panics and dropping: what ends a solve, and that nothing goes on after it.

use std::sync::Arc;

use async_trait::async_trait;
use kiln_report::Silent;
use kiln_solver::{CacheKey, Cause, MemoryKeys, ResultStore, SolveError, Solver, Turns};
use tokio::sync::Notify;

use crate::fakes::{Endless, Exit, Fake, Fakes, edge, in_time, vertex};

fn failing(name: &str) -> Fake {
    vertex(name).on_run(|| async { Err(Exit(7)) })
}

#[tokio::test]
async fn an_error_names_the_vertex_and_keeps_what_the_step_said() {
    let build = Fakes::new([failing("bad"), vertex("top").names(["bad"])]);
    let error = build.try_solve(["top"]).await.unwrap_err();
    assert_eq!((error.name.as_str(), error.vertex.clone()), ("bad", edge("bad").vertex));
    assert_eq!(error.to_string(), "cannot do `bad`");
    assert_eq!(error.step_error().map(|exit| exit.0), Some(7));
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "exit code 7");
    assert_eq!(build.ran(), ["bad"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_failure_is_met_once_however_many_wait_for_it() {
    for _ in 0..20 {
        let build = Fakes::new([
            failing("bad"),
            failing("twin").seed("bad"),
            vertex("one").names(["bad"]),
            vertex("two").names(["twin"]),
            vertex("three").sees("bad", ""),
            vertex("top").names(["one", "two", "three"]),
        ]);
        assert!(build.try_solve(["top", "one", "bad"]).await.is_err());
        assert_eq!(build.log.count("run "), 1);
    }
}

/// Fails as soon as something else has begun.
fn fails_after(name: &str, begun: &Arc<Notify>) -> Fake {
    let begun = Arc::clone(begun);
    vertex(name).on_run(move || {
        let begun = Arc::clone(&begun);
        async move {
            begun.notified().await;
            Err(Exit(1))
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_first_error_drops_the_rest_before_the_solve_returns() {
    for _ in 0..50 {
        let endless = Endless::new();
        let build = Fakes::new([
            vertex("endless").on_run(endless.work()),
            fails_after("bad", &endless.begun),
            vertex("top").names(["endless", "bad"]),
        ]);
        let error = build.try_solve(["top"]).await.unwrap_err();
        assert_eq!((error.name.as_str(), endless.running()), ("bad", 0));
        assert_eq!(build.ran(), ["bad", "endless"]);
    }
}

#[tokio::test]
async fn digests_and_maps_are_dropped_too() {
    let (digest, map) = (Endless::new(), Endless::new());
    let build = Fakes::new([
        vertex("context").unpinned(),
        vertex("copy").sees("context", "").on_digest(digest.work()),
        vertex("slow").on_map(map.work()),
        fails_after("bad", &digest.begun),
    ]);
    assert!(build.try_solve(["copy", "slow", "bad"]).await.is_err());
    assert_eq!((digest.running(), map.running()), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn dropping_the_solve_stops_its_steps() {
    for _ in 0..50 {
        let endless = Endless::new();
        let build = Fakes::new([vertex("endless").on_run(endless.work()), vertex("top").names(["endless"])]);
        let (solver, plan) = (build.solver(), build.plan());
        let roots = [edge("top")];
        tokio::select! {
            _ = solver.solve(&plan, &roots) => panic!("it never ends"),
            () = endless.begun.notified() => {}
        }
        in_time(endless.ended.notified()).await;
        assert_eq!(endless.running(), 0);
        assert_eq!(build.ran(), ["endless"]);
    }
}

#[tokio::test]
async fn dropping_one_solve_leaves_another_alone() {
    let endless = Endless::new();
    let mut build = Fakes::new([vertex("endless").on_run(endless.work()), vertex("other")]);
    build.jobs = 2;
    let (solver, plan) = (build.solver(), build.plan());
    let (one, two) = ([edge("endless")], [edge("other")]);
    tokio::select! {
        _ = solver.solve(&plan, &one) => panic!("it never ends"),
        () = endless.begun.notified() => {}
    }
    assert_eq!(in_time(solver.solve(&plan, &two)).await.unwrap(), ["other()"]);
}

#[tokio::test]
async fn a_job_slot_comes_back_whatever_became_of_the_step() {
    let endless = Endless::new();
    let mut build = Fakes::new([
        failing("bad"),
        vertex("panics").on_run(|| async { panic!("oh") }),
        vertex("endless").on_run(endless.work()),
        vertex("good"),
    ]);
    build.jobs = 1;
    let (solver, plan) = (build.solver(), build.plan());
    assert!(in_time(solver.solve(&plan, &[edge("bad")])).await.is_err());
    assert!(in_time(solver.solve(&plan, &[edge("panics")])).await.is_err());
    let roots = [edge("endless")];
    tokio::select! {
        _ = solver.solve(&plan, &roots) => panic!("it never ends"),
        () = endless.begun.notified() => {}
    }
    assert!(in_time(solver.solve(&plan, &[edge("good")])).await.is_ok());
}

#[tokio::test]
async fn a_content_that_cannot_be_digested_is_the_readers_failure() {
    let build = Fakes::new([
        vertex("context").unpinned(),
        vertex("copy").sees("context", "").on_digest(|| async { Err(Exit(2)) }),
    ]);
    let error = build.try_solve(["copy"]).await.unwrap_err();
    assert_eq!((error.name.as_str(), build.ran()), ("copy", vec!["context".to_owned()]));
}

#[tokio::test]
async fn a_vertex_that_cannot_say_who_it_is_fails_before_anything_above_it_runs() {
    let build = Fakes::new([vertex("base").on_map(|| async { Err(Exit(3)) }), vertex("top").names(["base"])]);
    let error = build.try_solve(["top"]).await.unwrap_err();
    assert_eq!((error.name.as_str(), build.ran().len()), ("base", 0));
}

fn panic_text(error: &SolveError<Exit>) -> &str {
    match &error.source {
        Cause::Panicked { message } => message,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_is_an_error_and_not_a_hang() {
    let cases = [
        vertex("top").names(["base"]).on_run(|| async { panic!("in run") }),
        vertex("top").names(["base"]).on_map(|| async { panic!("in map") }),
        vertex("top").sees("base", "").on_digest(|| async { panic!("in digest") }),
    ];
    for (top, text) in cases.into_iter().zip(["in run", "in map", "in digest"]) {
        let build = Fakes::new([vertex("base"), top, vertex("last").names(["top"])]);
        let error = build.try_solve(["last"]).await.unwrap_err();
        assert_eq!((error.name.as_str(), panic_text(&error)), ("top", text));
    }
}

struct BrokenStore;

#[async_trait]
impl ResultStore<String> for BrokenStore {
    async fn load(&self, key: &CacheKey) -> Option<Vec<String>> {
        panic!("cannot load {key}")
    }
    async fn save(&self, _key: &CacheKey, _outputs: &[String], _step: &str) {}
}

#[tokio::test]
async fn a_panic_in_a_store_is_an_error_too() {
    let solver = Solver::new(Arc::new(MemoryKeys::default()), Arc::new(BrokenStore), Arc::new(Silent), Turns::new(1));
    let plan = Fakes::new([vertex("top")]).plan();
    let error = in_time(solver.solve(&plan, &[edge("top")])).await.unwrap_err();
    assert!(panic_text(&error).starts_with("cannot load sha256:"));
}

#[tokio::test]
async fn plans_that_make_no_sense_are_refused() {
    let refused = async |build: &Fakes, root: &str| build.try_solve([root]).await.unwrap_err();
    let build = Fakes::new([vertex("top").names(["nobody"]), vertex("a").names(["b"]), vertex("b").names(["a"])]);
    let error = refused(&build, "top").await;
    assert!(matches!(error.source, Cause::Unknown) && error.vertex == edge("nobody").vertex);
    let error = refused(&build, "a").await;
    assert!(matches!(error.source, Cause::Cycle) && error.name == "a");
    let build = Fakes::new([vertex("itself").names(["itself"])]);
    assert!(matches!(refused(&build, "itself").await.source, Cause::Cycle));
    let build = Fakes::new([vertex("base"), vertex("top").names(["base"]).maps(0)]);
    let error = refused(&build, "top").await;
    assert!(matches!(error.source, Cause::InputCount { mapped: 0, inputs: 1 }) && error.name == "top");
    let build = Fakes::new([vertex("one"), vertex("top").names(["one#2"])]);
    let error = refused(&build, "top").await;
    assert!(matches!(error.source, Cause::MissingOutput { given: 1, wanted: 3 }) && error.name == "one");
    assert!(build.kept().await.is_empty());
}
