//! What a solve would do, told without doing it.

use crate::fakes::{Fakes, edge, vertex};

/// What is told of each vertex, in a line.
async fn told(build: &Fakes, root: &str) -> Vec<String> {
    let before = ["run", "save", "put content", "put shape", "put parts"].map(|call| build.log.count(call));
    let forecast = build.solver().forecast(&build.plan(), &[edge(root)]).await.unwrap();
    let after = ["run", "save", "put content", "put shape", "put parts"].map(|call| build.log.count(call));
    assert_eq!(before, after, "nothing runs, and nothing is kept");
    let line = |vertex: &kiln_solver::Forecast| {
        let text = vertex.text.as_ref().map(|text| format!(": {text}")).unwrap_or_default();
        format!("{} {:?}{text}", vertex.name, vertex.verdict)
    };
    forecast.iter().map(line).collect()
}

fn project(files: &str) -> Fakes {
    Fakes::new([
        vertex("base"),
        vertex("context").unpinned().gives(files),
        vertex("copy").names(["base"]).sees("context", ""),
        vertex("make").names(["copy"]),
        vertex("take").names(["base"]).sees("make", ""),
        vertex("top").names(["take"]),
    ])
}

#[tokio::test]
async fn a_first_build_would_run_everything() {
    let lines = told(&project("a=1"), "top").await;
    let first = ["base WouldRun: first build", "context AtHand", "copy WouldRun: first build"];
    assert_eq!(lines[..3], first);
    assert_eq!(lines[5], "top WouldRun: first build");
}

#[tokio::test]
async fn what_is_kept_is_cached_and_nothing_below_it_is_needed() {
    let build = project("a=1");
    build.solve("top").await;
    assert_eq!(
        told(&build, "top").await,
        ["base NotNeeded", "context NotNeeded", "copy NotNeeded", "make NotNeeded", "take NotNeeded", "top Cached"]
    );
}

#[tokio::test]
async fn a_change_is_named_what_is_sure_to_follow_follows_and_what_depends_on_a_result_says_so() {
    let mut build = project("a=1");
    build.solve("top").await;
    build.change(vertex("context").unpinned().gives("a=2"));
    assert_eq!(
        told(&build, "top").await,
        [
            "base Cached",
            "context AtHand",
            "copy WouldRun: a changed",
            "make WouldRun: follows copy",
            "take MayHit: depends on what make makes",
            "top MayHit: depends on what make makes",
        ]
    );
    build.change(vertex("top").names(["take"]).seed("other"));
    let lines = told(&build, "top").await;
    assert_eq!(lines[5], "top WouldRun: step changed", "no result was ever kept for such a step");
}

#[tokio::test]
async fn steps_that_must_run_say_so_and_what_sees_them_may_hit() {
    let mut build = project("a=1");
    build.solve("top").await;
    build.change(vertex("make").names(["copy"]).ignored());
    let lines = told(&build, "top").await;
    assert_eq!(
        lines[2..5],
        [
            "copy Cached".to_owned(),
            "make WouldRun: no cache asked for".to_owned(),
            "take MayHit: depends on what make makes".to_owned(),
        ]
    );
}

#[tokio::test]
async fn a_result_that_is_kept_is_looked_at_when_nothing_is_known_of_what_is_read() {
    let mut build = project("a=1");
    build.solve("make").await;
    build.change(vertex("take").names(["base"]).sees("make", "m"));
    let lines = told(&build, "take").await;
    assert_eq!(lines[3..], ["make Cached", "take WouldRun: first build"]);
    build.solve("take").await;
    assert_eq!(told(&build, "take").await.last().unwrap(), "take Cached");
}
