//! Several solves that share one store: whatever they want, one of them does it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::sleep;

use crate::fakes::{Exit, Fakes, edge, in_time, vertex};

#[tokio::test]
async fn of_many_solves_at_once_one_runs_each_step() {
    let slow = || async {
        sleep(Duration::from_millis(5)).await;
        Ok(())
    };
    let build = Fakes::new([
        vertex("base").on_run(slow),
        vertex("a").names(["base"]).on_run(slow),
        vertex("b").names(["base"]).on_run(slow),
        vertex("top").names(["a", "b"]).on_run(slow),
    ]);
    let (solver, plan) = (build.solver(), build.plan());
    let root = [edge("top")];
    let all = futures::future::join_all((0..64).map(|_| solver.solve(&plan, &root)));
    let results = in_time(all).await;
    assert!(results.into_iter().all(|result| result.unwrap() == ["top(a(base()),b(base()))"]));
    assert_eq!(build.ran(), ["a", "b", "base", "top"]);
}

#[tokio::test]
async fn who_waits_does_not_keep_others_from_running() {
    // One job only, and the first solve is in the middle of `slow`: the second waits for it without a turn of its own.
    let mut build = Fakes::new([
        vertex("slow").on_run(|| async {
            sleep(Duration::from_millis(20)).await;
            Ok(())
        }),
        vertex("top").names(["slow"]),
    ]);
    build.jobs = 1;
    let solvers = [build.solver(), build.solver()];
    let plan = build.plan();
    let root = [edge("top")];
    let (one, other) =
        in_time(futures::future::join(solvers[0].solve(&plan, &root), solvers[1].solve(&plan, &root))).await;
    assert_eq!((one.unwrap(), other.unwrap()), (vec!["top(slow())".to_owned()], vec!["top(slow())".to_owned()]));
    assert_eq!(build.ran(), ["slow", "top"]);
}

#[tokio::test]
async fn who_waits_for_a_step_that_fails_tries_it() {
    let tries = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&tries);
    let build = Fakes::new([vertex("flaky").on_run(move || {
        let count = Arc::clone(&count);
        async move {
            sleep(Duration::from_millis(5)).await;
            if count.fetch_add(1, Ordering::SeqCst) == 0 { Err(Exit(1)) } else { Ok(()) }
        }
    })]);
    let (solver, plan) = (build.solver(), build.plan());
    let root = [edge("flaky")];
    let (one, other) = in_time(futures::future::join(solver.solve(&plan, &root), solver.solve(&plan, &root))).await;
    assert_eq!([one.is_ok(), other.is_ok()].iter().filter(|is_ok| **is_ok).count(), 1);
    assert_eq!(tries.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn who_waits_takes_over_from_a_solve_that_is_dropped() {
    let tries = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&tries);
    let build = Fakes::new([vertex("slow").on_run(move || {
        let first = count.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            if first {
                std::future::pending::<()>().await;
            }
            Ok(())
        }
    })]);
    let (solver, plan) = (build.solver(), build.plan());
    let root = [edge("slow")];
    let first = tokio::time::timeout(Duration::from_millis(30), solver.solve(&plan, &root));
    let second = async {
        sleep(Duration::from_millis(10)).await;
        solver.solve(&plan, &root).await
    };
    let (first, second) = in_time(futures::future::join(first, second)).await;
    assert!(first.is_err());
    assert_eq!(second.unwrap(), ["slow()"]);
    assert!(build.heard.lines().iter().any(|line| line.starts_with("waiting for another build")));
}

#[tokio::test]
async fn what_must_run_anew_is_not_shared() {
    let build = Fakes::new([vertex("fresh").ignored().on_run(|| async {
        sleep(Duration::from_millis(5)).await;
        Ok(())
    })]);
    let (solver, plan) = (build.solver(), build.plan());
    let root = [edge("fresh")];
    let (one, other) = in_time(futures::future::join(solver.solve(&plan, &root), solver.solve(&plan, &root))).await;
    assert!(one.is_ok() && other.is_ok());
    assert_eq!(build.ran(), ["fresh", "fresh"]);
}
