//! A step that runs again and gives what it gave before stops the change: what follows hits.

use crate::fakes::{Fake, Fakes, vertex};

/// `mid` gives `value`, where what stands behind `@` is only when it was made.
fn chain(seed: &str, value: &str) -> [Fake; 4] {
    [
        vertex("base"),
        vertex("mid").seed(seed).gives(value).names(["base"]),
        vertex("next").names(["mid"]),
        vertex("top").names(["next"]),
    ]
}

fn change(build: &mut Fakes, seed: &str, value: &str) {
    build.change(vertex("mid").seed(seed).gives(value).names(["base"]));
}

#[tokio::test]
async fn what_follows_the_same_result_hits_and_is_the_older_one() {
    let mut build = Fakes::new(chain("one", "v@1"));
    assert_eq!(build.solve("top").await, "top(next(v@1))");
    change(&mut build, "two", "v@2");
    assert_eq!(build.solve("top").await, "top(next(v@1))");
    assert_eq!(build.ran(), ["mid"]);
    let news = build.heard.news();
    assert!(news.contains(&"mid: done, step changed; same result as before".to_owned()), "{news:?}");
    assert!(news.contains(&"next: cached".to_owned()) && news.contains(&"top: cached".to_owned()), "{news:?}");
}

#[tokio::test]
async fn the_next_build_finds_it_at_once() {
    let mut build = Fakes::new(chain("one", "v@1"));
    build.solve("top").await;
    change(&mut build, "two", "v@2");
    build.solve("top").await;
    assert_eq!(build.solve("top").await, "top(next(v@1))");
    assert_eq!((build.ran().len(), build.loads()), (0, 1));
    assert_eq!(build.log.count("put ") + build.log.count("save "), 0);
}

#[tokio::test]
async fn it_works_again_and_again() {
    let mut build = Fakes::new(chain("one", "v@1"));
    build.solve("top").await;
    for round in 2..5 {
        change(&mut build, &format!("seed {round}"), &format!("v@{round}"));
        assert_eq!(build.solve("top").await, "top(next(v@1))");
        assert_eq!(build.ran(), ["mid"]);
    }
}

#[tokio::test]
async fn another_result_runs_what_follows() {
    let mut build = Fakes::new(chain("one", "v@1"));
    build.solve("top").await;
    change(&mut build, "two", "w@2");
    assert_eq!(build.solve("top").await, "top(next(w@2))");
    assert_eq!(build.ran(), ["mid", "next", "top"]);
}

#[tokio::test]
async fn nothing_is_the_same_as_what_is_gone_but_what_follows_may_be() {
    let mut build = Fakes::new(chain("one", "v@1"));
    build.solve("top").await;
    build.prune("v@1").await;
    change(&mut build, "two", "v@2");
    assert_eq!(build.solve("top").await, "top(next(v@1))");
    assert_eq!(build.ran(), ["mid", "next"]);
}

#[tokio::test]
async fn a_follower_that_reads_something_else_too_runs_when_that_changed() {
    let project = |seed: &str, value: &str, side: &str| {
        [vertex("mid").seed(seed).gives(value), vertex("side").seed(side), vertex("top").names(["mid", "side"])]
    };
    let mut build = Fakes::new(project("one", "v@1", "a"));
    build.solve("top").await;
    project("two", "v@2", "b").into_iter().for_each(|fake| build.change(fake));
    assert_eq!(build.solve("top").await, "top(v@1,b())");
    assert_eq!(build.ran(), ["mid", "side", "top"]);
    assert_eq!(build.solve("top").await, "top(v@1,b())");
    assert!(build.ran().is_empty());
}

#[tokio::test]
async fn who_asked_for_no_cache_gets_what_is_new() {
    let mut build = Fakes::new(chain("one", "v@1"));
    build.solve("top").await;
    build.change(vertex("mid").seed("one").gives("v@2").names(["base"]).ignored());
    assert_eq!(build.solve("top").await, "top(next(v@2))");
    assert_eq!(build.ran(), ["mid", "next", "top"]);
}

#[tokio::test]
async fn a_change_further_down_after_it_was_cut_off_counts_again() {
    let mut build = Fakes::new(chain("one", "v@1"));
    build.solve("top").await;
    change(&mut build, "two", "v@2");
    build.solve("top").await;
    build.change(vertex("base").seed("other"));
    change(&mut build, "two", "w@3");
    assert_eq!(build.solve("top").await, "top(next(w@3))");
}

#[tokio::test]
async fn results_that_differ_surely_are_not_compared() {
    let copy = |seed: &str, value: &str| vertex("copy").seed(seed).gives(value).sees("src", "src");
    let src = |content: &str| vertex("src").gives(content);
    // (says that it shows what it reads, runs what follows)
    for (shows, runs) in [(false, 2), (true, 3)] {
        let fake = |seed, value| if shows { copy(seed, value).shows() } else { copy(seed, value) };
        let mut build = Fakes::new([src("src=1"), fake("one", "v@1"), vertex("top").names(["copy"])]);
        build.solve("top").await;
        build.change(src("src=2").seed("changed"));
        build.change(fake("one", "v@2"));
        build.solve("top").await;
        assert_eq!(build.ran().len(), runs, "another content");
        // What it does is another: that need not show.
        build.change(fake("two", "v@3"));
        build.solve("top").await;
        assert_eq!(build.ran(), ["copy"], "another step");
    }
}
