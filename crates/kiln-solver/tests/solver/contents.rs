//! Inputs that count by what is in them: facts, cut-off, and what is not trusted.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use kiln_oci::Digest;
use kiln_report::Silent;
use kiln_solver::{CacheMap, InputKey, KeyParts, MemoryKeys, MemoryResults, Plan, PlanVertex, Solver, Step, Turns};

use crate::fakes::{Exit, Fakes, edge, in_time, vertex};

/// A context on disk, copied onto a base, and something run upon it.
fn project(context: &str) -> Fakes {
    Fakes::new([
        vertex("context").unpinned().gives(context),
        vertex("base"),
        vertex("copy").names(["base"]).sees("context", "src").gives("tree"),
        vertex("top").names(["copy"]),
    ])
}

#[tokio::test]
async fn content_makes_pinned_again_what_reads_a_context() {
    let build = project("src=1");
    build.solve("top").await;
    assert_eq!(build.kept().await, ["base()", "top(tree)", "tree"]);
}

#[tokio::test]
async fn an_unchanged_context_is_digested_once_and_all_that_follows_hits() {
    let build = project("src=1");
    build.solve("top").await;
    build.solve("top").await;
    assert_eq!(build.ran(), ["context"]);
    assert_eq!(build.log.count("digest "), 1);
    assert_eq!(build.log.whom("load "), ["top(tree)"]);
    assert_eq!(build.log.count("put ") + build.log.count("save "), 0);
}

#[tokio::test]
async fn readers_of_the_same_content_share_one_digest() {
    let build = Fakes::new([
        vertex("context").unpinned().gives("src=1 doc=1"),
        vertex("one").sees("context", "src"),
        vertex("two").sees("context", "src"),
        vertex("three").sees("context", "doc"),
        vertex("top").names(["one", "two", "three"]),
    ]);
    build.solve("top").await;
    assert_eq!(build.log.count("run context"), 1);
    assert_eq!(build.log.count("digest "), 2);
}

#[tokio::test]
async fn a_change_beside_what_is_read_changes_nothing() {
    let mut build = project("src=1 doc=1");
    build.solve("top").await;
    build.change(vertex("context").unpinned().gives("src=1 doc=2"));
    build.solve("top").await;
    assert_eq!(build.ran(), ["context"]);
}

#[tokio::test]
async fn a_change_in_what_is_read_runs_what_follows() {
    let mut build = project("src=1");
    build.solve("top").await;
    build.change(vertex("context").unpinned().gives("src=2"));
    build.change(vertex("copy").names(["base"]).sees("context", "src").gives("new tree"));
    build.solve("top").await;
    assert_eq!(build.ran(), ["context", "copy", "top"]);
    assert_eq!(build.log.whom("load "), ["base()", "nothing", "nothing", "nothing", "nothing"]);
}

#[tokio::test]
async fn facts_about_unpinned_vertices_are_not_kept() {
    let build = project("src=1");
    build.solve("top").await;
    assert_eq!(build.log.count("put fact") + build.log.count("ask fact"), 0);
}

fn two_stages() -> Fakes {
    Fakes::new([vertex("source"), vertex("build").names(["source"]).gives("bin=1"), vertex("top").sees("build", "bin")])
}

#[tokio::test]
async fn a_rerun_that_gives_the_same_content_cuts_off_what_follows() {
    let mut build = two_stages();
    build.solve("top").await;
    build.change(vertex("source").seed("comment changed"));
    build.solve("top").await;
    assert_eq!(build.ran(), ["build", "source"]);
    assert_eq!(build.log.count("digest "), 1);
}

#[tokio::test]
async fn a_fact_serves_when_the_result_is_gone() {
    let build = two_stages();
    build.solve("top").await;
    build.prune("bin=1").await;
    build.prune("source()").await;
    build.solve("top").await;
    assert!(build.ran().is_empty());
    assert_eq!(build.log.count("digest "), 0);
    assert_eq!((build.log.whom("ask fact"), build.loads()), (vec!["bin".to_owned()], 1));
}

#[tokio::test]
async fn an_unknown_fact_is_learned_from_the_kept_result() {
    let mut build = Fakes::new([vertex("base").gives("bin=1 lib=1"), vertex("top").sees("base", "bin")]);
    build.solve("top").await;
    build.change(vertex("top").sees("base", "lib"));
    build.solve("top").await;
    assert_eq!(build.ran(), ["top"]);
    assert_eq!(build.log.whom("put fact"), ["lib"]);
    build.solve("top").await;
    assert_eq!(build.log.count("digest "), 0);
}

#[tokio::test]
async fn the_same_content_found_another_way_hits() {
    let mut build = Fakes::new([vertex("base").gives("bin=1"), vertex("top").sees("base", "bin")]);
    build.solve("top").await;
    build.change(vertex("top").sees("base", "b"));
    build.solve("top").await;
    assert!(build.ran().is_empty());
    assert_eq!(build.log.whom("load "), ["bin=1", "top(bin=1)"]);
}

#[tokio::test]
async fn a_pinned_image_beside_a_changed_context_is_not_pulled_just_to_be_digested() {
    let with = |context: &str, image: &str| {
        [
            vertex("context").unpinned().gives(context),
            vertex("image").seed(image).gives("bin=1"),
            vertex("top").sees("image", "bin").sees("context", "src").gives("app"),
        ]
    };
    let mut build = Fakes::new(with("src=1 doc=1", "image"));
    build.solve("top").await;
    build.vertices = with("src=1 doc=2", "image").into();
    build.solve("top").await;
    assert_eq!((build.ran(), build.loads()), (vec!["context".to_owned()], 1));
    // When both changed by name, both are looked at, and still nothing else runs.
    build.vertices = with("src=1 doc=3", "rebuilt image").into();
    build.solve("top").await;
    assert_eq!(build.ran(), ["context", "image"]);
}

#[tokio::test]
async fn what_sees_the_same_content_of_an_ignored_vertex_hits() {
    let mut build = two_stages();
    build.solve("top").await;
    build.change(vertex("build").names(["source"]).gives("bin=1").ignored());
    build.solve("top").await;
    assert_eq!(build.ran(), ["build"]);
    assert_eq!(build.log.count("ask fact"), 0);
}

#[tokio::test]
async fn a_fact_about_an_ignored_vertex_is_learned_anew() {
    let mut build = two_stages();
    build.solve("top").await;
    build.change(vertex("build").names(["source"]).gives("bin=2").ignored());
    assert_eq!(build.solve("top").await, "top(bin=2)");
    build.change(vertex("build").names(["source"]).gives("bin=2"));
    assert_eq!(build.solve("top").await, "top(bin=2)");
    assert!(build.ran().is_empty());
}

#[tokio::test]
async fn a_rerun_that_gives_other_content_than_recalled_is_not_kept_under_the_recalled_key() {
    let mut build = two_stages();
    build.change(vertex("top").sees("build", "bin"));
    build.change(vertex("last").names(["top"]));
    build.solve("last").await;
    let before = build.results.inner.keys();
    for value in ["bin=1", "top(bin=1)", "last(top(bin=1))"] {
        build.prune(value).await;
    }
    // The step is not reproducible: run again under the same key, it gives something else.
    build.change(vertex("build").names(["source"]).gives("bin=2"));
    assert_eq!(build.solve("last").await, "last(top(bin=2))");
    assert_eq!(build.ran(), ["build", "last", "top"]);
    let after = build.results.inner.keys();
    assert_eq!(
        after.iter().filter(|key| before.contains(key)).count(),
        2,
        "`source` and `build` have the keys they had"
    );
    assert_eq!(after.len(), 4, "`top` and `last` are kept under the keys they truly have");
    // So the next build finds them, and whoever has the old content does not.
    assert_eq!(build.solve("last").await, "last(top(bin=2))");
    assert!(build.ran().is_empty());
}

#[tokio::test]
async fn a_rerun_that_gives_what_another_build_knows_hits_after_all() {
    let mut build = two_stages();
    build.solve("top").await;
    build.change(vertex("build").seed("other").names(["source"]).gives("bin=2"));
    build.solve("top").await;
    build.prune("bin=1").await;
    build.prune("top(bin=1)").await;
    // Recalled as `bin=1`, whose reader is gone; run, it gives `bin=2`, whose reader is kept.
    build.change(vertex("build").names(["source"]).gives("bin=2"));
    assert_eq!(build.solve("top").await, "top(bin=2)");
    assert_eq!(build.ran(), ["build"]);
}

#[tokio::test]
async fn facts_are_about_the_key_that_a_result_truly_has() {
    let mut build = two_stages();
    build.change(vertex("mid").sees("build", "bin"));
    build.change(vertex("top").sees("mid", "mid"));
    build.solve("top").await;
    for value in ["bin=1", "mid(bin=1)", "top(mid(bin=1))"] {
        build.prune(value).await;
    }
    build.change(vertex("build").names(["source"]).gives("bin=2"));
    assert_eq!(build.solve("top").await, "top(mid(bin=2))");
    assert_eq!(build.solve("top").await, "top(mid(bin=2))");
    assert_eq!((build.ran().len(), build.log.count("digest "), build.loads()), (0, 0, 1));
}

/// Copies its only input, whatever it is: done twice, the second time is equal to the first.
struct Again {
    runs: Arc<AtomicUsize>,
}

#[async_trait]
impl Step<String, Exit> for Again {
    async fn cache_map(&self) -> Result<CacheMap, Exit> {
        let inputs = vec![InputKey::Content { selector: "all".to_owned() }];
        Ok(CacheMap { digest: Digest::sha256("again"), parts: KeyParts::default(), pinned: true, inputs })
    }
    async fn content_digest(&self, _input: usize, result: &String) -> Result<Digest, Exit> {
        Ok(Digest::sha256(result))
    }
    async fn run(&self, inputs: Vec<String>) -> Result<Vec<String>, Exit> {
        self.runs.fetch_add(1, Ordering::Relaxed);
        Ok(inputs)
    }
}

struct Source(Arc<Mutex<String>>);

#[async_trait]
impl Step<String, Exit> for Source {
    async fn cache_map(&self) -> Result<CacheMap, Exit> {
        Ok(CacheMap { digest: Digest::sha256("source"), parts: KeyParts::default(), pinned: true, inputs: vec![] })
    }
    async fn content_digest(&self, _input: usize, _result: &String) -> Result<Digest, Exit> {
        unreachable!("it reads nothing")
    }
    async fn run(&self, _inputs: Vec<String>) -> Result<Vec<String>, Exit> {
        Ok(vec![self.0.lock().unwrap().clone()])
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_vertex_with_the_key_of_its_own_ancestor_does_not_wait_for_itself() {
    let (runs, text) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new("x".to_owned())));
    let mut plan = Plan::new();
    let mut add = |name: &str, inputs, step| {
        plan.add(edge(name).vertex, PlanVertex { inputs, step, name: name.to_owned(), ignore_cache: false });
    };
    add("source", vec![], Arc::new(Source(text)) as Arc<dyn Step<String, Exit>>);
    for (name, input) in [("once", "source"), ("twice", "once"), ("thrice", "twice")] {
        add(name, vec![edge(input)], Arc::new(Again { runs: Arc::clone(&runs) }));
    }
    let (keys, results) = (Arc::new(MemoryKeys::default()), Arc::new(MemoryResults::default()));
    let solver = Solver::new(Arc::clone(&keys) as _, Arc::clone(&results) as _, Arc::new(Silent), Turns::new(1));
    for _ in 0..2 {
        let solved = in_time(solver.solve(&plan, &[edge("thrice")])).await.unwrap();
        assert_eq!((solved, runs.load(Ordering::Relaxed)), (vec!["x".to_owned()], 1));
    }
    // With all facts known, all three are the same key before any of them has run.
    results.keys().iter().for_each(|key| drop(results.remove(key)));
    in_time(solver.solve(&plan, &[edge("thrice")])).await.unwrap();
    assert_eq!(runs.load(Ordering::Relaxed), 2);
}
