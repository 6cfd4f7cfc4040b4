//! Turns: how many steps run at once, and that little room makes builds slow but never stuck.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use kiln_report::Silent;
use kiln_solver::{Room, Solver, Turns};
use tokio::time::sleep;

use crate::fakes::{Endless, Fake, Fakes, edge, in_time, vertex};

/// Room that can be taken away, and that counts who asks.
#[derive(Default)]
struct Tight {
    is_tight: AtomicBool,
    asked: AtomicUsize,
}

impl Room for Tight {
    fn is_enough(&self) -> bool {
        self.asked.fetch_add(1, Ordering::SeqCst);
        !self.is_tight.load(Ordering::SeqCst)
    }
}

fn solver(build: &Fakes, turns: Turns) -> Solver<String> {
    Solver::new(Arc::clone(&build.keys) as _, Arc::clone(&build.results) as _, Arc::new(Silent), turns)
}

/// Steps that take a moment, and the most of them that ran at once.
fn moments(count: usize) -> (Vec<Fake>, Arc<AtomicUsize>) {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let moment = |n| {
        let (now, most) = (Arc::clone(&now), Arc::clone(&most));
        vertex(&format!("v{n}")).on_run(move || {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                sleep(Duration::from_millis(5)).await;
                now.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            }
        })
    };
    ((0..count).map(moment).collect(), most)
}

#[tokio::test]
async fn without_room_steps_run_one_at_a_time_and_all_of_them_do() {
    let (steps, most) = moments(5);
    let build = Fakes::new(steps);
    let room = Arc::new(Tight { is_tight: AtomicBool::new(true), ..Tight::default() });
    let roots: Vec<_> = (0..5).map(|n| edge(&format!("v{n}"))).collect();
    let (solver, plan) = (solver(&build, Turns::new(5).within(room)), build.plan());
    in_time(solver.solve(&plan, &roots)).await.unwrap();
    assert_eq!((most.load(Ordering::SeqCst), build.ran().len()), (1, 5));
}

#[tokio::test]
async fn with_room_as_many_run_as_there_are_turns() {
    let (steps, most) = moments(5);
    let build = Fakes::new(steps);
    let roots: Vec<_> = (0..5).map(|n| edge(&format!("v{n}"))).collect();
    let (solver, plan) = (solver(&build, Turns::new(3).within(Arc::new(Tight::default()))), build.plan());
    in_time(solver.solve(&plan, &roots)).await.unwrap();
    assert_eq!(most.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn who_waits_for_room_starts_when_there_is_some() {
    let endless = Endless::new();
    let build = Fakes::new([vertex("endless").on_run(endless.work()), vertex("next")]);
    let room = Arc::new(Tight { is_tight: AtomicBool::new(true), ..Tight::default() });
    let (solver, plan) = (solver(&build, Turns::new(2).within(Arc::clone(&room) as _)), build.plan());
    let (one, two) = ([edge("endless")], [edge("next")]);
    let first = solver.solve(&plan, &one);
    let second = async {
        endless.begun.notified().await;
        let solved = tokio::time::timeout(Duration::from_millis(250), solver.solve(&plan, &two)).await;
        assert!(solved.is_err(), "it runs beside another although there is no room");
        room.is_tight.store(false, Ordering::SeqCst);
        solver.solve(&plan, &two).await
    };
    tokio::select! {
        _ = first => panic!("it never ends"),
        second = in_time(second) => assert_eq!(second.unwrap(), ["next()"]),
    }
}

#[tokio::test]
async fn what_is_kept_and_what_runs_alone_ask_for_no_room() {
    let build = Fakes::new([vertex("base"), vertex("top").names(["base"])]);
    let room = Arc::new(Tight { is_tight: AtomicBool::new(true), ..Tight::default() });
    let (solver, plan) = (solver(&build, Turns::new(4).within(Arc::clone(&room) as _)), build.plan());
    for _ in 0..2 {
        in_time(solver.solve(&plan, &[edge("top")])).await.unwrap();
    }
    assert_eq!(room.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn with_one_turn_steps_run_while_one_waits_for_another_process() {
    // Another process has `shared`; this one has a single turn, and `own` to do meanwhile.
    let mut build = Fakes::new([vertex("top").names(["shared", "own"]), vertex("own")]);
    let (endless, own) = (Endless::new(), Arc::new(tokio::sync::Notify::new()));
    build.change(vertex("shared").on_run(endless.work()));
    let plan_there = build.plan();
    build.change(vertex("shared"));
    let told = Arc::clone(&own);
    build.change(vertex("own").on_run(move || {
        told.notify_one();
        async { Ok(()) }
    }));
    let (there, here) = (solver(&build, Turns::new(1)), solver(&build, Turns::new(1)));
    let (plan_here, shared, top) = (build.plan(), [edge("shared")], [edge("top")]);
    let mut other = Box::pin(there.solve(&plan_there, &shared));
    tokio::select! {
        _ = &mut other => panic!("it never ends"),
        () = endless.begun.notified() => {}
    }
    let dies_when_own_has_run = async {
        tokio::select! {
            _ = &mut other => panic!("it never ends"),
            () = own.notified() => {}
        }
        drop(other);
    };
    let (solved, ()) = in_time(async { tokio::join!(here.solve(&plan_here, &top), dies_when_own_has_run) }).await;
    assert_eq!(solved.unwrap(), ["top(shared(),own())"]);
    assert!(build.log.count("wait") > 0);
}
