//! What is kept, what is found again, and what is never even asked for.

use crate::fakes::{Fakes, edge, vertex};

fn chain() -> Fakes {
    Fakes::new([vertex("base"), vertex("mid").names(["base"]), vertex("top").names(["mid"])])
}

#[tokio::test]
async fn a_first_build_runs_everything_once() {
    let build = chain();
    assert_eq!(build.solve("top").await, "top(mid(base()))");
    assert_eq!(build.ran(), ["base", "mid", "top"]);
    assert_eq!(build.kept().await, ["base()", "mid(base())", "top(mid(base()))"]);
}

#[tokio::test]
async fn an_unchanged_build_is_one_load() {
    let build = chain();
    build.solve("top").await;
    assert_eq!(build.solve("top").await, "top(mid(base()))");
    assert!(build.ran().is_empty());
    assert_eq!(build.log.whom("load "), ["top(mid(base()))"]);
    assert_eq!(build.log.count("map "), 3);
    assert_eq!(build.log.count("put ") + build.log.count("ask ") + build.log.count("save "), 0);
}

#[tokio::test]
async fn whoever_may_be_kept_is_identified_also_below_a_cached_top() {
    let build = chain();
    build.solve("top").await;
    let first = build.log.whom("identified ");
    assert_eq!(first.len(), 3);
    build.solve("top").await;
    assert!(build.ran().is_empty());
    assert_eq!(build.log.whom("identified "), first);
}

#[tokio::test]
async fn a_cached_top_never_pulls_its_base() {
    let build = chain();
    build.solve("top").await;
    build.prune("base()").await;
    build.prune("mid(base())").await;
    build.solve("top").await;
    assert!(build.ran().is_empty());
    assert_eq!(build.loads(), 1);
}

#[tokio::test]
async fn a_changed_top_loads_what_it_reads_and_no_more() {
    let mut build = chain();
    build.solve("top").await;
    build.change(vertex("top").seed("new").names(["mid"]));
    assert_eq!(build.solve("top").await, "new(mid(base()))");
    assert_eq!(build.ran(), ["top"]);
    // Once before it is claimed, once after.
    assert_eq!(build.log.whom("load "), ["mid(base())", "nothing", "nothing"]);
}

#[tokio::test]
async fn a_changed_base_changes_all_that_names_it() {
    let mut build = chain();
    build.solve("top").await;
    build.change(vertex("base").seed("new"));
    assert_eq!(build.solve("top").await, "top(mid(new()))");
    assert_eq!(build.ran(), ["base", "mid", "top"]);
}

#[tokio::test]
async fn going_back_finds_what_was_kept_before() {
    let mut build = chain();
    build.solve("top").await;
    build.change(vertex("base").seed("new"));
    build.solve("top").await;
    build.change(vertex("base"));
    build.solve("top").await;
    assert!(build.ran().is_empty());
}

#[tokio::test]
async fn a_pruned_top_is_run_again_on_what_is_kept() {
    let build = chain();
    build.solve("top").await;
    build.prune("top(mid(base()))").await;
    build.solve("top").await;
    assert_eq!(build.ran(), ["top"]);
}

#[tokio::test]
async fn when_nothing_can_be_loaded_everything_runs() {
    let build = chain();
    build.solve("top").await;
    for key in build.results.inner.keys() {
        build.results.inner.remove(&key);
    }
    assert_eq!(build.solve("top").await, "top(mid(base()))");
    assert_eq!(build.ran(), ["base", "mid", "top"]);
}

#[tokio::test]
async fn two_names_for_one_thing_run_once() {
    let build = Fakes::new([
        vertex("latest").seed("image"),
        vertex("pinned").seed("image"),
        vertex("top").names(["latest", "pinned"]),
    ]);
    assert_eq!(build.solve("top").await, "top(image(),image())");
    assert_eq!(build.log.count("run latest") + build.log.count("run pinned"), 1);
    assert_eq!(build.log.count("save image()"), 1);
}

#[tokio::test]
async fn two_names_for_one_thing_are_looked_up_once() {
    let mut build = Fakes::new([
        vertex("latest").seed("image"),
        vertex("pinned").seed("image"),
        vertex("top").names(["latest", "pinned"]),
    ]);
    build.solve("top").await;
    build.change(vertex("top").seed("new").names(["latest", "pinned"]));
    build.solve("top").await;
    assert_eq!(build.log.whom("load "), ["image()", "nothing", "nothing"]);
}

#[tokio::test]
async fn equal_chains_are_merged_at_every_level() {
    let build = Fakes::new([
        vertex("a0").seed("zero"),
        vertex("b0").seed("zero"),
        vertex("a1").seed("one").names(["a0"]),
        vertex("b1").seed("one").names(["b0"]),
        vertex("top").names(["a1", "b1", "a0"]),
    ]);
    assert_eq!(build.solve("top").await, "top(one(zero()),one(zero()),zero())");
    assert_eq!(build.log.count("run "), 3);
}

#[tokio::test]
async fn different_outputs_of_merged_vertices_wait_for_no_circle() {
    for _ in 0..20 {
        let twin = |name: &str| vertex(name).seed("twin").names(["three", "four"]).outputs(3);
        let build = Fakes::new([
            vertex("three"),
            vertex("four"),
            twin("a"),
            twin("b"),
            twin("c"),
            vertex("top").names(["b", "a", "c#1", "a#1", "a#2", "b#2"]),
        ]);
        let twin = "twin(three(),four())";
        let expected = format!("top({twin},{twin},{twin}#1,{twin}#1,{twin}#2,{twin}#2)");
        assert_eq!(build.solve("top").await, expected);
        assert_eq!(build.log.count("run "), 4);
    }
}

#[tokio::test]
async fn a_diamond_runs_its_base_once() {
    let build = Fakes::new([
        vertex("base"),
        vertex("left").names(["base"]),
        vertex("right").names(["base"]),
        vertex("top").names(["left", "right"]),
    ]);
    assert_eq!(build.solve("top").await, "top(left(base()),right(base()))");
    assert_eq!(build.ran(), ["base", "left", "right", "top"]);
}

#[tokio::test]
async fn each_reader_gets_its_own_output() {
    let build = Fakes::new([vertex("two").outputs(2), vertex("top").names(["two#1", "two"])]);
    assert_eq!(build.solve("top").await, "top(two()#1,two())");
    assert_eq!(build.ran(), ["top", "two"]);
}

#[tokio::test]
async fn another_output_is_another_key() {
    let mut build = Fakes::new([vertex("two").outputs(2), vertex("top").names(["two"])]);
    build.solve("top").await;
    build.change(vertex("top").names(["two#1"]));
    assert_eq!(build.solve("top").await, "top(two()#1)");
    assert_eq!(build.ran(), ["top"]);
}

#[tokio::test]
async fn several_roots_share_what_they_have_in_common() {
    let build = Fakes::new([vertex("base").outputs(2), vertex("one").names(["base"]), vertex("two").names(["base#1"])]);
    let results = build.try_solve(["one", "two", "base#1", "one"]).await.unwrap();
    assert_eq!(results, ["one(base())", "two(base()#1)", "base()#1", "one(base())"]);
    assert_eq!(build.ran(), ["base", "one", "two"]);
}

#[tokio::test]
async fn nothing_asked_is_nothing_done() {
    let build = chain();
    assert!(build.try_solve([]).await.unwrap().is_empty());
    assert!(build.heard.lines().is_empty());
}

#[tokio::test]
async fn what_no_root_needs_is_not_even_asked_who_it_is() {
    let build = chain();
    build.solve("base").await;
    assert_eq!(build.log.whom("map "), ["base"]);
}

#[tokio::test]
async fn results_of_unpinned_vertices_are_not_kept() {
    let build = Fakes::new([vertex("context").unpinned()]);
    build.solve("context").await;
    assert!(build.kept().await.is_empty());
    build.solve("context").await;
    assert_eq!(build.ran(), ["context"]);
    assert_eq!(build.loads(), 0);
}

#[tokio::test]
async fn what_names_an_unpinned_vertex_is_not_kept_either() {
    let build =
        Fakes::new([vertex("context").unpinned(), vertex("mid").names(["context"]), vertex("top").names(["mid"])]);
    build.solve("top").await;
    assert!(build.kept().await.is_empty());
    build.solve("top").await;
    assert_eq!(build.ran(), ["context", "mid", "top"]);
}

#[tokio::test]
async fn to_ignore_the_cache_is_to_run_and_keep_anew() {
    let mut build = chain();
    build.solve("top").await;
    for name in ["base", "mid", "top"] {
        let fake = build.vertices.iter().find(|v| v.name == name).unwrap().clone();
        build.change(fake.gives(&format!("new {name}")).ignored());
    }
    assert_eq!(build.solve("top").await, "new top");
    assert_eq!(build.ran(), ["base", "mid", "top"]);
    assert_eq!(build.loads(), 0);
    assert_eq!(chain().kept().await.len(), 0);
    assert_eq!(build.kept().await, ["new base", "new mid", "new top"]);
    build.vertices = chain().vertices;
    assert_eq!(build.solve("top").await, "new top");
    assert!(build.ran().is_empty());
}

#[tokio::test]
async fn what_names_an_ignored_vertex_runs_too() {
    let mut build = chain();
    build.solve("top").await;
    build.change(vertex("mid").names(["base"]).gives("fresh").ignored());
    assert_eq!(build.solve("top").await, "top(fresh)");
    assert_eq!(build.ran(), ["mid", "top"]);
    assert_eq!(build.log.whom("load "), ["base()"]);
}

#[tokio::test]
async fn an_ignored_vertex_runs_once_for_all_its_readers() {
    let build = Fakes::new([
        vertex("base").ignored(),
        vertex("twin").seed("base").ignored(),
        vertex("left").names(["base"]),
        vertex("right").names(["twin"]),
        vertex("top").names(["left", "right", "base"]),
    ]);
    build.solve("top").await;
    assert_eq!(build.log.count("run base") + build.log.count("run twin"), 1);
}

#[tokio::test]
async fn a_kept_result_with_too_few_outputs_is_none() {
    let mut build = Fakes::new([vertex("two")]);
    build.solve("two").await;
    build.change(vertex("two").outputs(2));
    assert_eq!(build.try_solve(["two#1"]).await.unwrap(), ["two()#1"]);
    assert_eq!(build.ran(), ["two"]);
}

#[tokio::test]
async fn what_failed_is_not_kept() {
    let mut build = chain();
    build.change(vertex("top").names(["mid"]).on_run(|| async { Err(crate::fakes::Exit(1)) }));
    assert!(build.try_solve(["top"]).await.is_err());
    assert_eq!(build.kept().await, ["base()", "mid(base())"]);
    build.change(vertex("top").names(["mid"]));
    build.solve("top").await;
    assert_eq!(build.ran(), ["top"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn overlapping_solves_do_not_disturb_each_other() {
    let build = chain();
    let (solver, plan) = (build.solver(), build.plan());
    let roots = [edge("top")];
    let solves = (0..8).map(|_| solver.solve(&plan, &roots));
    for solved in crate::fakes::in_time(futures::future::join_all(solves)).await {
        assert_eq!(solved.unwrap(), ["top(mid(base()))"]);
    }
    build.solve("top").await;
    assert!(build.ran().is_empty());
}
