//! What people are told, in which order, and why a step ran.

use std::collections::BTreeSet;
use std::sync::Arc;

use kiln_oci::Digest;
use kiln_solver::{Account, Base, CANCELED, Fate, KeyParts, KeyStore, MissReason};
use tokio::sync::Notify;

use crate::fakes::{Endless, Exit, Fake, Fakes, edge, vertex};

fn chain() -> [Fake; 3] {
    [vertex("base"), vertex("mid").names(["base"]), vertex("top").names(["mid"])]
}

#[tokio::test]
async fn everything_that_may_come_is_announced_first_and_inputs_before_their_readers() {
    let build = Fakes::new([
        vertex("base"),
        vertex("right").names(["base"]),
        vertex("left").names(["base"]),
        vertex("top").names(["left", "right", "left"]),
        vertex("other"),
    ]);
    build.solve("top").await;
    let lines = build.heard.lines();
    assert_eq!(lines[..4], ["base: pending", "left: pending", "right: pending", "top: pending"]);
    assert_eq!(lines.len(), 12);
}

#[tokio::test]
async fn a_step_that_runs_starts_and_ends_and_its_inputs_end_before_it_starts() {
    let build = Fakes::new(chain());
    build.solve("top").await;
    let expected = [
        "base: started",
        "base: done, first build",
        "mid: started",
        "mid: done, first build",
        "top: started",
        "top: done, first build",
    ];
    assert_eq!(build.heard.news(), expected);
}

#[tokio::test]
async fn a_fully_cached_build_shows_every_step_cached_base_first() {
    let build = Fakes::new(chain());
    build.solve("top").await;
    build.solve("top").await;
    assert_eq!(build.heard.news(), ["base: cached", "mid: cached", "top: cached"]);
}

#[tokio::test]
async fn ancestors_of_a_hit_are_told_before_what_builds_upon_it_starts() {
    let mut build = Fakes::new(chain());
    build.solve("top").await;
    build.change(vertex("top").names(["mid"]).seed("new"));
    build.solve("top").await;
    let expected = ["base: cached", "mid: cached", "top: started", "top: done, step changed"];
    assert_eq!(build.heard.news(), expected);
}

#[tokio::test]
async fn what_a_hit_does_not_need_may_still_be_needed_by_another() {
    let mut build = Fakes::new([
        vertex("base"),
        vertex("hit").names(["base"]),
        vertex("miss").names(["base"]),
        vertex("top").names(["hit", "miss"]),
    ]);
    build.solve("hit").await;
    build.prune("base()").await;
    build.solve("top").await;
    let news = build.heard.news();
    assert!(news.contains(&"hit: cached".to_owned()) && news.contains(&"base: done, result pruned".to_owned()));
    assert_eq!(news.iter().filter(|line| line.starts_with("base")).count(), 2);
    build.change(vertex("miss").names(["base"]).seed("again"));
    build.solve("top").await;
    assert_eq!(build.heard.news().iter().filter(|line| **line == "base: cached").count(), 1);
}

#[tokio::test]
async fn of_twins_one_runs_and_the_other_is_cached() {
    let build = Fakes::new([vertex("a").seed("x"), vertex("b").seed("x"), vertex("top").names(["a", "b"])]);
    build.solve("top").await;
    let news = build.heard.news();
    assert_eq!(news.iter().filter(|line| line.ends_with("started")).count(), 2);
    assert_eq!(news.iter().filter(|line| line.ends_with("cached")).count(), 1);
}

#[tokio::test]
async fn a_failure_is_told_with_its_cause_and_the_rest_as_canceled_or_not_at_all() {
    let begun = Arc::new(Notify::new());
    let (begins, waits) = (Arc::clone(&begun), Arc::clone(&begun));
    let build = Fakes::new([
        vertex("endless").on_run(move || {
            begins.notify_one();
            std::future::pending()
        }),
        vertex("bad").on_run(move || {
            let waits = Arc::clone(&waits);
            async move {
                waits.notified().await;
                Err(Exit(1))
            }
        }),
        vertex("top").names(["endless", "bad"]),
    ]);
    assert!(build.try_solve(["top"]).await.is_err());
    let news = build.heard.news();
    assert_eq!(news[2..], ["bad: failed, exit code 1".to_owned(), format!("endless: failed, {CANCELED}")]);
    assert!(!news.iter().any(|line| line.starts_with("top")));
}

#[tokio::test]
async fn a_dropped_solve_says_what_it_canceled_and_then_nothing() {
    let begun = Arc::new(Notify::new());
    let begins = Arc::clone(&begun);
    let build = Fakes::new([vertex("endless").on_run(move || {
        begins.notify_one();
        std::future::pending()
    })]);
    let (solver, plan) = (build.solver(), build.plan());
    let roots = [edge("endless")];
    tokio::select! {
        _ = solver.solve(&plan, &roots) => panic!("it never ends"),
        () = begun.notified() => {}
    }
    assert_eq!(build.heard.news(), ["endless: started".to_owned(), format!("endless: failed, {CANCELED}")]);
}

/// What was said of a step that ran.
fn reason(build: &Fakes, name: &str) -> String {
    let prefix = format!("{name}: done");
    let line = build.heard.news().into_iter().find_map(|line| line.strip_prefix(&prefix).map(str::to_owned));
    line.expect("it ran").trim_start_matches(", ").to_owned()
}

#[tokio::test]
async fn what_changed_is_named_and_what_follows_is_folded() {
    let step = |name: &str, input: &str, command: &str| {
        let text = command.to_owned();
        vertex(name).names([input]).seed(command).parts(|parts| parts.command = Some(text))
    };
    let mut build = Fakes::new([
        vertex("[1/4] FROM base"),
        step("[2/4] RUN a", "[1/4] FROM base", "RUN a"),
        step("[3/4] RUN b", "[2/4] RUN a", "RUN b"),
    ]);
    build.solve("[3/4] RUN b").await;
    assert_eq!(reason(&build, "[3/4] RUN b"), "first build");
    build.change(step("[2/4] RUN a", "[1/4] FROM base", "RUN aa"));
    build.solve("[3/4] RUN b").await;
    assert_eq!(reason(&build, "[2/4] RUN a"), "command changed");
    assert_eq!(reason(&build, "[3/4] RUN b"), "follows [2/4]");
}

/// A line of instructions, each standing on the one above.
fn line(commands: &[&str]) -> Vec<Fake> {
    let around: Arc<BTreeSet<String>> = Arc::new(commands.iter().map(|command| format!("app {command}")).collect());
    let mut above = "[0] FROM base".to_owned();
    let mut vertices = vec![vertex(&above)];
    for (at, command) in commands.iter().enumerate() {
        let name = format!("[{}] {command}", at + 1);
        let (text, around) = (Some((*command).to_owned()), Arc::clone(&around));
        let about = |parts: &mut KeyParts| {
            (parts.identity, parts.place) = (format!("app {command}"), format!("app {at}"));
            (parts.command, parts.around) = (text, around);
        };
        vertices.push(vertex(&name).names([above.as_str()]).seed(command).parts(about));
        above = name;
    }
    vertices
}

#[tokio::test]
async fn an_instruction_that_is_put_between_others_is_new_and_makes_none_of_them_another() {
    let mut build = Fakes::new(line(&["RUN a", "RUN b", "RUN c"]));
    build.solve("[3] RUN c").await;
    build.vertices = line(&["RUN a", "RUN new", "RUN b", "RUN c"]);
    build.solve("[4] RUN c").await;
    let news = |build: &Fakes, names: &[&str]| names.iter().map(|name| reason(build, name)).collect::<Vec<_>>();
    let wanted = ["first build (new instruction)", "follows [2]", "follows [3]"];
    assert_eq!(news(&build, &["[2] RUN new", "[3] RUN b", "[4] RUN c"]), wanted);
    build.vertices = line(&["RUN a", "RUN other", "RUN b", "RUN c", "RUN d"]);
    build.solve("[5] RUN d").await;
    let wanted = ["command changed", "follows [2]", "follows [3]", "first build"];
    assert_eq!(news(&build, &["[2] RUN other", "[3] RUN b", "[4] RUN c", "[5] RUN d"]), wanted);
    build.vertices = line(&["RUN a", "RUN c", "RUN d"]);
    build.solve("[3] RUN d").await;
    assert_eq!(news(&build, &["[2] RUN c", "[3] RUN d"]), ["input changed: [1]", "follows [2]"]);
}

#[tokio::test]
async fn an_input_that_changed_without_running_is_not_followed_but_named() {
    let mut build = Fakes::new([vertex("[1/2] FROM old"), vertex("[1/2] FROM new")]);
    let top = vertex("top").parts(|_| ());
    build.change(top.clone().names(["[1/2] FROM old"]));
    build.try_solve(["top", "[1/2] FROM new"]).await.unwrap();
    build.change(top.names(["[1/2] FROM new"]));
    build.solve("top").await;
    assert_eq!(reason(&build, "top"), "input changed: [1/2]");
}

#[tokio::test]
async fn changed_files_are_named() {
    let mut build = Fakes::new([
        vertex("context").unpinned().gives("main.go=1 go.mod=1"),
        vertex("copy").sees("context", ""),
        vertex("run").names(["copy"]),
    ]);
    build.solve("run").await;
    assert_eq!(reason(&build, "context"), "");
    build.change(vertex("context").unpinned().gives("main.go=2 go.mod=1"));
    build.solve("run").await;
    assert_eq!(reason(&build, "copy"), "main.go changed");
    assert_eq!(reason(&build, "run"), "follows copy");
    build.change(vertex("context").unpinned().gives("main.go=2 go.sum=1"));
    build.solve("run").await;
    assert_eq!(reason(&build, "copy"), "go.mod is gone (2 files in all)");
}

#[tokio::test]
async fn the_reason_is_told_when_a_step_starts_and_files_are_listed_for_it_only_if_they_changed() {
    let copy = || vertex("copy").sees("context", "").parts(|_| ());
    let mut build = Fakes::new([vertex("context").unpinned().gives("a=1 b=1"), copy(), vertex("run").names(["copy"])]);
    build.solve("run").await;
    assert_eq!(build.heard.whys(), ["copy: first build", "run: first build"]);
    assert_eq!(build.log.count("list"), 1, "for the next time");
    build.change(vertex("context").unpinned().gives("a=1 b=2"));
    build.solve("run").await;
    assert_eq!(build.heard.whys(), ["copy: b changed", "run: follows copy"]);
    build.change(copy().seed("other"));
    build.solve("run").await;
    assert_eq!(build.heard.whys(), ["copy: step changed", "run: follows copy"]);
    assert_eq!(build.log.count("list"), 1);
    build.change(copy().seed("bad").on_run(|| async { Err(Exit(1)) }));
    assert!(build.try_solve(["run"]).await.is_err());
    assert_eq!(build.heard.whys(), ["copy: step changed"]);
}

#[tokio::test]
async fn a_moved_base_is_told_where_it_is_fetched() {
    let from = |digest: &str| {
        let base = Base { reference: "busybox".to_owned(), digest: Digest::sha256(digest) };
        vertex("from").seed(digest).parts(|parts| parts.base = Some(base))
    };
    let mut build = Fakes::new([from("1"), vertex("run").names(["from"])]);
    build.solve("run").await;
    build.change(from("2"));
    build.solve("run").await;
    assert_eq!(reason(&build, "from"), "base moved: busybox 6b86b273ff34 → d4735e3a265e");
    assert_eq!(reason(&build, "run"), "follows from");
}

#[tokio::test]
async fn pruned_ignored_and_unpinned_are_told_apart() {
    let mut build = Fakes::new(chain());
    build.solve("top").await;
    build.prune("mid(base())").await;
    build.prune("top(mid(base()))").await;
    build.solve("top").await;
    assert_eq!((reason(&build, "mid"), reason(&build, "top")), ("result pruned".into(), "result pruned".into()));
    build.change(vertex("mid").names(["base"]).ignored());
    build.solve("top").await;
    assert_eq!((reason(&build, "mid"), reason(&build, "top")), ("no cache asked for".into(), "follows mid".into()));
    build.change(vertex("base").unpinned().ignored());
    build.change(vertex("mid").names(["base"]));
    build.solve("top").await;
    let reasons = ["base", "mid", "top"].map(|name| reason(&build, name));
    assert_eq!(reasons, ["", "follows base", "follows mid"]);
}

#[tokio::test]
async fn a_step_without_identity_is_neither_kept_nor_explained() {
    let build = Fakes::new([vertex("internal").parts(|parts| parts.identity.clear())]);
    build.solve("internal").await;
    assert_eq!(reason(&build, "internal"), "");
    assert_eq!(build.log.count("put parts") + build.log.count("ask parts"), 0);
}

#[tokio::test]
async fn ingredients_are_kept_when_a_step_ran_to_its_end_and_only_then() {
    let mut build = Fakes::new(chain());
    let top = |build: &Fakes| build.keys.inner.parts("app top");
    build.change(vertex("top").names(["mid"]).on_run(|| async { Err(Exit(1)) }));
    assert!(build.try_solve(["top"]).await.is_err());
    assert_eq!(build.log.whom("put parts"), ["app base", "app mid"]);
    assert!(build.heard.news().contains(&"top: failed, exit code 1".to_owned()));
    assert!(top(&build).is_empty());
    build.change(vertex("top").names(["mid"]));
    build.solve("top").await;
    assert_eq!(build.log.whom("put parts"), ["app top"]);
    let parts = top(&build).remove(0);
    assert_eq!((parts.digest, parts.inputs.len()), (Some(Digest::sha256("top")), 1));
    build.solve("top").await;
    assert_eq!(build.log.count("put parts"), 0);
}

#[tokio::test]
async fn what_alternates_between_a_few_is_compared_with_its_like() {
    let files = |text: &str| vertex("context").unpinned().gives(text);
    let mut build = Fakes::new([files("a=1 b=1 c=1"), vertex("copy").sees("context", "")]);
    build.solve("copy").await;
    build.change(files("a=2 b=2 c=2"));
    build.solve("copy").await;
    assert_eq!(reason(&build, "copy"), "a changed (3 files in all)");
    build.change(files("a=1 b=1 c=3"));
    build.solve("copy").await;
    assert_eq!(reason(&build, "copy"), "c changed");
}

/// What became of vertices, and why.
fn told(vertices: &[Account]) -> Vec<(String, Fate, Option<MissReason>)> {
    vertices.iter().map(|account| (account.name.clone(), account.fate, account.reason.clone())).collect()
}

#[tokio::test]
async fn a_solve_that_is_dropped_accounts_for_what_was_done_canceled_and_not_reached() {
    let endless = Endless::new();
    let build = Fakes::new([
        vertex("base"),
        vertex("endless").names(["base"]).on_run(endless.work()),
        vertex("top").names(["endless"]),
    ]);
    let (solver, plan, roots) = (build.solver(), build.plan(), [edge("top")]);
    let mut vertices = Vec::new();
    tokio::select! {
        _ = solver.solve_with_accounts(&plan, &roots, |accounts| vertices = accounts) => panic!("it never ends"),
        () = endless.begun.notified() => {}
    }
    let first = Some(MissReason::FirstBuild);
    let wanted =
        [("base", Fate::Ran, first.clone()), ("endless", Fate::Canceled, first), ("top", Fate::NotReached, None)];
    assert_eq!(told(&vertices), wanted.map(|(name, fate, reason)| (name.to_owned(), fate, reason)));
    assert!(vertices.iter().all(|vertex| vertex.parts.is_some()));
}

#[tokio::test]
async fn a_solve_accounts_for_every_vertex_however_it_ends() {
    let mut build = Fakes::new([
        vertex("base"),
        vertex("mid").names(["base"]),
        vertex("context").unpinned().gives("a=1"),
        vertex("copy").names(["mid"]).sees("context", ""),
        vertex("bad").names(["copy"]).on_run(|| async { Err(Exit(1)) }),
        vertex("top").names(["bad"]),
    ]);
    build.solve("mid").await;
    let (solver, plan) = (build.solver(), build.plan());
    let mut vertices = Vec::new();
    let outcome = solver.solve_with_accounts(&plan, &[edge("top")], |accounts| vertices = accounts).await;
    let first = Some(MissReason::FirstBuild);
    assert!(outcome.is_err());
    assert_eq!(
        told(&vertices),
        [
            ("base".to_owned(), Fate::NotNeeded, None),
            ("mid".to_owned(), Fate::Cached, None),
            ("context".to_owned(), Fate::Ran, None),
            ("copy".to_owned(), Fate::Ran, first.clone()),
            ("bad".to_owned(), Fate::Failed, first),
            ("top".to_owned(), Fate::NotReached, None),
        ]
    );
    let copy = &vertices[3];
    assert_eq!(copy.inputs, [1, 2]);
    let parts = copy.parts.as_ref().unwrap();
    assert!(parts.inputs.len() == 2 && parts.inputs.iter().all(|input| input.files.is_empty()));
    assert!(vertices[2].parts.is_none(), "a context does not last");
    build.change(vertex("top").names(["copy"]));
    let (solver, plan) = (build.solver(), build.plan());
    solver.solve(&plan, &[edge("top")]).await.unwrap();
    solver.solve_with_accounts(&plan, &[edge("top")], |accounts| vertices = accounts).await.unwrap();
    let fates: Vec<Fate> = vertices.iter().map(|vertex| vertex.fate).collect();
    assert_eq!(fates, [Fate::NotNeeded, Fate::NotNeeded, Fate::Ran, Fate::NotNeeded, Fate::Cached]);
}
