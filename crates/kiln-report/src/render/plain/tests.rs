//! The plain view on recorded events.

use std::time::UNIX_EPOCH;

use kiln_oci::Digest;

use super::*;
use crate::{LogStream, VertexState};

struct Build {
    view: Plain,
    out: Vec<u8>,
}

fn time(ms: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(ms)
}

impl Build {
    fn new() -> Self {
        Self { view: Plain::new(Color::Off), out: Vec::new() }
    }

    fn send(&mut self, event: &Event) -> &mut Self {
        self.view.event(event, &mut self.out).unwrap();
        self
    }

    fn vertex(&mut self, name: &str, state: VertexState) -> &mut Self {
        self.send(&Event::Vertex { id: Digest::sha256(name), name: name.into(), inputs: vec![], state })
    }

    fn start(&mut self, name: &str, ms: u64) -> &mut Self {
        self.vertex(name, VertexState::Started { at: time(ms), reason: None })
    }

    fn end(&mut self, name: &str, from: u64, to: u64) -> &mut Self {
        let (started, at) = (time(from), time(to));
        self.vertex(name, VertexState::Completed { started, at, cached: false, error: None, reason: None })
    }

    fn log(&mut self, name: &str, ms: u64, data: &str) -> &mut Self {
        self.log_on(name, LogStream::Stdout, ms, data)
    }

    fn log_on(&mut self, name: &str, stream: LogStream, ms: u64, data: &str) -> &mut Self {
        let data = data.as_bytes().to_vec();
        self.send(&Event::Log { vertex: Digest::sha256(name), stream, data, at: time(ms) })
    }

    fn part(&mut self, name: &str, id: &str, current: u64, from_to_done: (u64, u64, bool)) -> &mut Self {
        let (from, to, done) = from_to_done;
        self.send(&Event::Status {
            vertex: Digest::sha256(name),
            id: id.into(),
            current,
            total: 3_000_000,
            started: time(from),
            completed: done.then(|| time(to)),
            at: time(to),
        })
    }

    fn tick(&mut self, ms: u64) -> &mut Self {
        self.view.tick(Screen { now: time(ms), width: 80, height: 24 }, &mut self.out).unwrap();
        self
    }

    fn finish(&mut self, ms: u64) -> String {
        self.view.finish(Screen { now: time(ms), width: 80, height: 24 }, &mut self.out).unwrap();
        self.text()
    }

    fn text(&self) -> String {
        String::from_utf8(self.out.clone()).unwrap()
    }
}

const A: &str = "[a 1/2] RUN a";
const B: &str = "[b 1/2] RUN b";

#[test]
fn a_straight_build_reads_like_buildkit_s() {
    let mut build = Build::new();
    build
        .vertex(A, VertexState::Pending)
        .end("[internal] load build definition from Dockerfile", 0, 20)
        .vertex(
            "[1/3] FROM busybox",
            VertexState::Completed { started: time(20), at: time(20), cached: true, error: None, reason: None },
        )
        .start(A, 100)
        .log(A, 223, "cc main.c\ncc \u{1b}[31mutil.c\u{1b}[2J\n")
        .log(A, 12_345, "late\n")
        .end(A, 100, 12_500)
        .vertex(
            "[3/3] COPY . .",
            VertexState::Completed {
                started: time(0),
                at: time(10),
                cached: false,
                error: None,
                reason: Some("main.go changed".into()),
            },
        );
    insta::assert_snapshot!(build.finish(13_000).replace('\u{1b}', "ESC"), @"
    #1 [internal] load build definition from Dockerfile
    #1 DONE 0.0s

    #2 [1/3] FROM busybox
    #2 CACHED

    #3 [a 1/2] RUN a
    #3 0.123 cc main.c
    #3 0.123 cc ESC[31mutil.cESC[0m
    #3 12.24 late
    #3 DONE 12.4s

    #4 [3/3] COPY . .
    #4 miss: main.go changed
    #4 DONE 0.0s
    ");
}

#[test]
fn a_reason_is_said_before_the_output_and_what_is_added_to_it_at_the_end() {
    let started = |ms| VertexState::Started { at: time(ms), reason: Some("main.go changed".into()) };
    let ended = |from, to, reason: &str| VertexState::Completed {
        started: time(from),
        at: time(to),
        cached: false,
        error: None,
        reason: Some(reason.into()),
    };
    let mut build = Build::new();
    build
        .vertex(A, started(0))
        .log(A, 10, "a1\n")
        .vertex(B, started(20))
        .log(B, 30, "b1\n")
        .vertex(A, ended(0, 40, "main.go changed; same result as before"))
        .vertex(B, ended(20, 50, "main.go changed"));
    insta::assert_snapshot!(build.finish(60), @"
    #1 [a 1/2] RUN a
    #1 miss: main.go changed
    #1 0.010 a1
    #1 same result as before
    #1 DONE 0.0s

    #2 [b 1/2] RUN b
    #2 miss: main.go changed
    #2 0.010 b1
    #2 DONE 0.0s
    ");
}

#[test]
fn who_speaks_is_not_interrupted_at_once() {
    let mut build = Build::new();
    build
        .start(A, 0)
        .start(B, 0)
        .log(A, 10, "a1\n")
        .log(B, 20, "b1\n")
        .log(A, 30, "a2\n")
        .tick(1000)
        .log(B, 1100, "b2\n");
    insta::assert_snapshot!(build.text(), @"
    #1 [a 1/2] RUN a
    #1 0.010 a1
    #1 0.030 a2
    ");
    build.end(A, 0, 2000).tick(2100);
    insta::assert_snapshot!(build.text(), @"
    #1 [a 1/2] RUN a
    #1 0.010 a1
    #1 0.030 a2
    #1 DONE 2.0s

    #2 [b 1/2] RUN b
    #2 0.020 b1
    #2 1.100 b2
    ");
    insta::assert_snapshot!(build.finish(3000).lines().last().unwrap(), @"#2 CANCELED");
}

#[test]
fn a_step_that_ends_is_said_although_another_speaks() {
    let mut build = Build::new();
    build.start(A, 0).log(A, 10, "a1\n").start(B, 20).end(B, 20, 50).log(A, 60, "a2\n").end(A, 0, 70);
    insta::assert_snapshot!(build.finish(100), @"
    #1 [a 1/2] RUN a
    #1 0.010 a1
    #1 ...

    #2 [b 1/2] RUN b
    #2 DONE 0.0s

    #1 [a 1/2] RUN a
    #1 0.060 a2
    #1 DONE 0.1s
    ");
}

#[test]
fn who_waited_ten_seconds_is_heard() {
    let mut build = Build::new();
    build.start(A, 0);
    for second in 0..13 {
        for _ in 0..50 {
            build.log(A, second * 1000, "a\n");
        }
        if second == 1 {
            build.start(B, 1000).log(B, 1000, "b\n");
        }
    }
    let text = build.text();
    let before = text.find("#2 0.000 b\n").expect("b was heard");
    assert_eq!(text[..before].matches(" a\n").count(), 602, "601 lines and the header");
    assert!(text[..before].ends_with("#1 ...\n\n#2 [b 1/2] RUN b\n"), "{text}");
}

#[test]
fn who_has_megabytes_to_say_does_not_wait() {
    let mut build = Build::new();
    build.start(A, 0).log(A, 0, "a\n").start(B, 1);
    let line = format!("{}\n", "b".repeat(1 << 20));
    for _ in 0..4 {
        build.log(B, 2, &line);
    }
    let text = build.text();
    assert!(text.contains("#1 ...\n\n#2 [b 1/2] RUN b\n#2 0.001 bbb"), "{}", text.len());
}

#[test]
fn lines_cut_anywhere_come_out_whole() {
    let mut build = Build::new();
    build.start(A, 0).log(A, 0, "on").log_on(A, LogStream::Stderr, 1, "err").log(A, 2, "e\r").log(A, 3, "\ntw");
    build.log_on(A, LogStream::Stderr, 4, "or\n").log(A, 5, "o\r\r10%\r20%\r\n\nend").end(A, 0, 10);
    insta::assert_snapshot!(build.finish(10), @"
    #1 [a 1/2] RUN a
    #1 0.000 one
    #1 0.001 error
    #1 0.003 two
    #1 0.005 10%
    #1 0.005 20%
    #1 0.005 
    #1 0.005 end
    #1 DONE 0.0s
    ");
}

#[test]
fn a_line_that_does_not_end_is_shown_after_a_second() {
    let mut build = Build::new();
    build.start(A, 0).log(A, 0, "first\n").log(A, 0, "waiting.").tick(500);
    assert!(!build.text().contains("waiting"));
    build.tick(1000);
    assert!(build.text().ends_with("#1 0.000 waiting."), "{}", build.text());
}

#[test]
fn an_open_line_is_closed_before_another_one() {
    let mut build = Build::new();
    build.start(A, 0).log(A, 0, "first\n").log(A, 0, "wait.").tick(1500).log(A, 1600, ".").tick(3000);
    assert!(build.text().ends_with("#1 0.000 wait.."), "{}", build.text());
    build.log_on(A, LogStream::Stderr, 3100, "oops\n").log(A, 3200, "done\n").log(A, 3300, "dots").tick(4400);
    build.start(B, 4500).end(B, 4500, 4600).log(A, 4700, "\n").log(A, 4800, "last").end(A, 0, 5000);
    insta::assert_snapshot!(build.finish(5000), @"
    #1 [a 1/2] RUN a
    #1 0.000 first
    #1 0.000 wait..
    #1 3.100 oops
    #1 0.000 done
    #1 3.300 dots
    #1 ...

    #2 [b 1/2] RUN b
    #2 DONE 0.1s

    #1 [a 1/2] RUN a
    #1 4.800 last
    #1 DONE 5.0s
    ");
}

#[test]
fn endless_lines_are_not_kept_in_memory() {
    let mut build = Build::new();
    build.start(A, 0);
    let megabyte = "x".repeat(1 << 20);
    for ms in 0..8 {
        build.log(A, ms, &megabyte);
    }
    assert!(build.text().len() > 8 << 20);
    build.end(A, 0, 9);
    assert_eq!(build.text().matches('x').count(), 8 << 20);
}

#[test]
fn progress_is_said_at_its_steps_only() {
    let mut build = Build::new();
    let name = "[1/2] FROM busybox";
    build.start(name, 0);
    for step in 0..=100 {
        build.part(name, "sha256:abc", step * 30_000, (0, step * 10, false));
    }
    build.part(name, "sha256:abc", 3_000_000, (0, 1000, true)).end(name, 0, 1100);
    let text = build.finish(1100);
    assert_eq!(text.matches("sha256:abc").count(), 22);
    assert!(text.ends_with("#1 sha256:abc 3.00MB / 3.00MB 1.0s done\n#1 DONE 1.1s\n"), "{text}");
}

#[test]
fn failures_and_the_steps_they_cancel_are_told_apart() {
    let mut build = Build::new();
    let error = Some("process `/bin/sh -c a` ended with exit code 1\nbad".into());
    build
        .start(A, 0)
        .start(B, 0)
        .log(A, 1, "no")
        .vertex(A, VertexState::Completed { started: time(0), at: time(5), cached: false, error, reason: None });
    insta::assert_snapshot!(build.finish(10), @"
    #1 [a 1/2] RUN a
    #1 0.001 no
    #1 ERROR: process `/bin/sh -c a` ended with exit code 1 bad

    #2 [b 1/2] RUN b
    #2 CANCELED
    ");
}

#[test]
fn notes_and_warnings_stand_apart() {
    let file = std::sync::Arc::new(crate::SourceFile::new("Dockerfile", "FROM a as b\n"));
    let span = crate::Span::new(7, 9);
    let diagnostic = crate::Diagnostic::warning("FromAsCasing", span, "`as` and `FROM` differ in case");
    let mut build = Build::new();
    build.send(&Event::Note("two platforms".into())).start(A, 0).log(A, 0, "x\n");
    build.send(&Event::Warning { diagnostic, excerpt: crate::Excerpt { file, span } });
    build.send(&Event::Note("again".into())).end(A, 0, 5);
    insta::assert_snapshot!(build.finish(10), @"
    #0 two platforms

    #1 [a 1/2] RUN a
    #1 0.000 x
    #1 ...

    #0 again

    #1 [a 1/2] RUN a
    #1 DONE 0.0s

    1 warning found:

    warning[FromAsCasing]: `as` and `FROM` differ in case
     --> Dockerfile:1:8
      |
    1 | FROM a as b
      |        ^^
    ");
}
