//! How much runs at once, how deep it goes, and how little a cached build costs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Barrier;

use crate::fakes::{Exit, Fake, Fakes, edge, in_time, vertex};

/// Goes on only when so many have come: a solve that does them one after the other hangs.
fn meeting(size: usize) -> impl Fn() -> futures::future::BoxFuture<'static, Result<(), Exit>> + Clone + Send + Sync {
    let barrier = Arc::new(Barrier::new(size));
    move || {
        let barrier = Arc::clone(&barrier);
        Box::pin(async move {
            barrier.wait().await;
            Ok(())
        })
    }
}

#[tokio::test]
async fn inputs_are_asked_and_run_at_once() {
    let (maps, runs) = (meeting(3), meeting(3));
    let input = |name: &str| vertex(name).on_map(maps.clone()).on_run(runs.clone());
    let build = Fakes::new([input("a"), input("b"), input("c"), vertex("top").names(["a", "b", "c"])]);
    assert_eq!(build.solve("top").await, "top(a(),b(),c())");
}

#[tokio::test]
async fn contents_are_digested_at_once() {
    let meet = meeting(2);
    let build = Fakes::new([
        vertex("a").unpinned(),
        vertex("b").unpinned(),
        vertex("top").sees("a", "").sees("b", "").on_digest(meet),
    ]);
    assert_eq!(build.solve("top").await, "top(a(),b())");
}

/// Two stages: one that others read by content, one that is built upon.
fn stages(
    meet: impl Fn() -> futures::future::BoxFuture<'static, Result<(), Exit>> + Clone + Send + Sync + 'static,
) -> [Fake; 5] {
    [
        vertex("compile").on_run(meet.clone()),
        vertex("base"),
        vertex("install").names(["base"]).on_run(meet),
        vertex("copy").names(["install"]).sees("compile", ""),
        vertex("top").names(["copy"]),
    ]
}

#[tokio::test]
async fn a_stage_to_build_upon_does_not_wait_for_one_to_copy_from() {
    let build = Fakes::new(stages(meeting(2)));
    assert_eq!(build.solve("top").await, "top(copy(install(base()),compile()))");
}

#[tokio::test]
async fn nor_when_they_meet_only_further_up() {
    let [compile, base, install, ..] = stages(meeting(2));
    let layer = vertex("layer").sees("compile", "");
    let build = Fakes::new([compile, base, install, layer, vertex("merge").names(["install", "layer"])]);
    assert_eq!(build.solve("merge").await, "merge(install(base()),layer(compile()))");
}

#[tokio::test]
async fn nor_when_both_were_built_before_and_have_changed() {
    let mut build = Fakes::new(stages(|| Box::pin(async { Ok(()) })));
    build.solve("top").await;
    let [compile, _, install, ..] = stages(meeting(2));
    build.change(compile.seed("new compile"));
    build.change(install.seed("new install"));
    assert_eq!(build.solve("top").await, "top(copy(new install(base()),new compile()))");
}

#[tokio::test]
async fn what_may_still_hit_waits_before_anything_below_it_runs() {
    let build = Fakes::new(stages(|| Box::pin(async { Ok(()) })));
    build.solve("top").await;
    build.prune("install(base())").await;
    build.prune("base()").await;
    // Now the content of `compile` must be looked at again; that it is the same spares `install`.
    let mut build = build;
    build.change(vertex("compile").seed("comment").gives("compile()"));
    build.solve("top").await;
    assert_eq!(build.ran(), ["compile"]);
}

fn counting(now: &Arc<AtomicUsize>, most: &Arc<AtomicUsize>, name: String) -> Fake {
    let (now, most) = (Arc::clone(now), Arc::clone(most));
    vertex(&name).on_run(move || {
        let (now, most) = (Arc::clone(&now), Arc::clone(&most));
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
            now.fetch_sub(1, Ordering::SeqCst);
            Ok(())
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn at_most_so_many_run_at_once_even_in_two_solves() {
    for jobs in [0, 1, 3] {
        let (now, most) = (Arc::default(), Arc::default());
        let names: Vec<String> = (0..12).map(|n| format!("v{n}")).collect();
        let mut build = Fakes::new(names.iter().map(|name| counting(&now, &most, name.clone())));
        build.change(vertex("one").names(names[..8].iter().map(String::as_str)));
        build.change(vertex("two").names(names[4..].iter().map(String::as_str)));
        build.jobs = jobs;
        let (solver, plan) = (build.solver(), build.plan());
        let (one, two) = ([edge("one")], [edge("two")]);
        let (one, two) = in_time(async { tokio::join!(solver.solve(&plan, &one), solver.solve(&plan, &two)) }).await;
        assert!(one.is_ok() && two.is_ok());
        assert!(most.load(Ordering::SeqCst) <= jobs.max(1), "{} ran at once", most.load(Ordering::SeqCst));
    }
}

#[tokio::test]
async fn one_job_is_enough_for_any_shape() {
    let mut build = Fakes::new([
        vertex("context").unpinned(),
        vertex("base"),
        vertex("left").names(["base"]).sees("context", ""),
        vertex("right").names(["base"]).sees("left", ""),
        vertex("top").names(["left", "right"]).sees("base", ""),
    ]);
    build.jobs = 1;
    let expected = "top(left(base(),context()),right(base(),left(base(),context())),base())";
    assert_eq!(build.solve("top").await, expected);
}

#[tokio::test]
async fn only_running_is_limited() {
    let meet = meeting(2);
    let asked = |name: &str| vertex(name).on_map(meet.clone());
    let mut build = Fakes::new([asked("a"), asked("b"), vertex("top").names(["a", "b"])]);
    build.jobs = 1;
    build.solve("top").await;
}

fn long_chain(length: usize) -> Fakes {
    let name = |n: usize| format!("v{n}");
    let link = |n: usize| match n {
        0 => vertex("v0"),
        // Every tenth link counts by content, so that keys wait for results all the way up.
        n if n % 10 == 0 => vertex(&name(n)).sees(&name(n - 1), "").gives("link"),
        n => vertex(&name(n)).names([name(n - 1).as_str()]).gives("link"),
    };
    Fakes::new((0..length).map(link))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_of_ten_thousand_is_not_too_deep() {
    let build = long_chain(10_000);
    assert_eq!(build.solve("v9999").await, "link");
    assert_eq!(build.log.count("run "), 10_000);
    assert_eq!(build.heard.lines().len(), 30_000);
    build.solve("v9999").await;
    assert_eq!((build.log.count("run "), build.loads()), (0, 1));
    assert_eq!(build.heard.lines().len(), 20_000);
}

#[tokio::test]
async fn a_chain_of_ten_thousand_can_be_dropped_at_any_depth() {
    let mut build = long_chain(10_000);
    build.change(vertex("v0").on_run(std::future::pending));
    let (solver, plan) = (build.solver(), build.plan());
    let roots = [edge("v9999")];
    let mut solve = Box::pin(solver.solve(&plan, &roots));
    for _ in 0..3 {
        assert!(futures::poll!(&mut solve).is_pending());
        tokio::task::yield_now().await;
    }
    drop(solve);
}

#[tokio::test]
async fn a_thousand_cached_vertices_are_one_load_and_no_writes() {
    let names: Vec<String> = (0..1000).map(|n| format!("v{n}")).collect();
    let link = |n: usize| match n {
        0 => vertex("v0"),
        n => vertex(&names[n]).names([names[n - 1].as_str(), names[n / 2].as_str()]).gives("link"),
    };
    let build = Fakes::new((0..1000).map(link));
    build.solve("v999").await;
    build.solve("v999").await;
    assert_eq!((build.log.count("map "), build.loads(), build.log.count("run ")), (1000, 1, 0));
    assert_eq!(build.log.count("put ") + build.log.count("save ") + build.log.count("digest "), 0);
}
