//! The live view on a virtual clock.

use std::time::{Duration, UNIX_EPOCH};

use kiln_oci::Digest;

use super::*;
use crate::{LogStream, VertexState};

fn time(ms: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(ms)
}

fn vertex(name: &str, state: VertexState) -> Event {
    Event::Vertex { id: Digest::sha256(name), name: name.into(), inputs: vec![], state }
}

fn started(name: &str, ms: u64) -> Event {
    vertex(name, VertexState::Started { at: time(ms), reason: None })
}

fn done(name: &str, from: u64, to: u64, cached: bool) -> Event {
    let state = VertexState::Completed { started: time(from), at: time(to), cached, error: None, reason: None };
    vertex(name, state)
}

fn failed(name: &str, from: u64, to: u64) -> Event {
    let error = Some("exit code 1".into());
    vertex(name, VertexState::Completed { started: time(from), at: time(to), cached: false, error, reason: None })
}

fn log(name: &str, data: &str) -> Event {
    let data = data.as_bytes().to_vec();
    Event::Log { vertex: Digest::sha256(name), stream: LogStream::Stdout, data, at: time(0) }
}

fn download(name: &str, current: u64, completed: Option<u64>) -> Event {
    Event::Status {
        vertex: Digest::sha256(name),
        id: "sha256:abc".into(),
        current,
        total: 3_000_000,
        started: time(0),
        completed: completed.map(time),
        at: time(500),
    }
}

fn view(events: &[Event]) -> Tty {
    let mut view = Tty::new(Color::Off, 6);
    for event in events {
        view.event(event, &mut Vec::new()).unwrap();
    }
    view
}

/// What a terminal of this size shows after all of `bytes`: enough of one for what the view sends.
fn terminal(bytes: &[u8], width: usize) -> Vec<String> {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let mut rows: Vec<String> = vec![String::new()];
    let mut rest = text.as_str();
    let mut row = 0;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '\n' => {
                row += 1;
                rows.resize(rows.len().max(row + 1), String::new());
            }
            '\r' => {}
            '\u{1b}' => {
                let end = rest.find(|c: char| c.is_ascii_alphabetic()).unwrap();
                match &rest[1..=end] {
                    "J" => {
                        rows.truncate(row);
                        rows.push(String::new());
                    }
                    "?25l" | "?25h" => {}
                    up => row = row.saturating_sub(up.strip_suffix('A').expect(up).parse().unwrap()),
                }
                rest = &rest[end + 1..];
            }
            c => {
                if rows[row].width() == width {
                    row += 1;
                    rows.insert(row, String::new());
                }
                rows[row].push(c);
            }
        }
    }
    rows
}

fn tick(view: &mut Tty, out: &mut Vec<u8>, screen: (u64, usize, usize)) {
    let (ms, width, height) = screen;
    view.tick(Screen { now: time(ms), width, height }, out).unwrap();
}

fn shown(view: &mut Tty, ms: u64, width: usize, height: usize) -> String {
    let mut out = Vec::new();
    tick(view, &mut out, (ms, width, height));
    terminal(&out, width).join("\n")
}

#[test]
fn a_build_in_the_middle() {
    let mut view = view(&[
        vertex("[3/3] COPY . .", VertexState::Pending),
        done("[internal] load build definition from Dockerfile", 0, 20, false),
        started("[1/3] FROM busybox", 0),
        download("[1/3] FROM busybox", 1_050_000, None),
        done("[a 1/1] WORKDIR /app", 10, 10, true),
        started("[2/3] RUN make", 400),
        log("[2/3] RUN make", "one\n\ntwo\r\nprogress 1%\rprogress 2%\u{1b}[2J\tx"),
    ]);
    insta::assert_snapshot!(shown(&mut view, 3200, 60, 20), @"
    [+] Building 3.2s (2/5)
     => [internal] load build definition from Dockerfile   0.0s
     => [1/3] FROM busybox                                 3.2s
     => => sha256:abc 1.05MB / 3.00MB                      3.2s
     => CACHED [a 1/1] WORKDIR /app                        0.0s
     => [2/3] RUN make                                     2.8s
     => => # one
     => => # two
     => => # progress 2%    x
    ");
}

#[test]
fn redrawing_leaves_one_frame() {
    let mut view = view(&[started("[1/2] RUN a", 0), log("[1/2] RUN a", "1\n2\n3\n")]);
    let mut out = Vec::new();
    tick(&mut view, &mut out, (100, 40, 20));
    view.event(&done("[1/2] RUN a", 0, 150, false), &mut out).unwrap();
    view.event(&Event::Note("a note".into()), &mut out).unwrap();
    tick(&mut view, &mut out, (200, 40, 20));
    insta::assert_snapshot!(terminal(&out, 40).join("\n"), @"
    a note
    [+] Building 0.2s (1/1) FINISHED
     => [1/2] RUN a                    0.1s
    ");
}

#[test]
fn a_narrower_terminal_is_erased_whole() {
    let mut view = view(&[started("[1/2] RUN a long name that fills the line", 0)]);
    let mut wide = Vec::new();
    tick(&mut view, &mut wide, (100, 60, 20));
    let mut narrow = Vec::new();
    tick(&mut view, &mut narrow, (200, 30, 20));
    let up = String::from_utf8(narrow).unwrap();
    assert!(up.contains("\u{1b}[3A"), "the 59 columns of the step have become two rows: {up:?}");
}

#[test]
fn a_small_terminal_folds_what_is_finished_first() {
    let mut events: Vec<Event> = (0..8).map(|n| done(&format!("[{n}/9] RUN {n}"), 0, 100, false)).collect();
    events.push(download("[0/9] RUN 0", 5, Some(10)));
    events.extend([started("[8/9] RUN 8", 0), log("[8/9] RUN 8", "a\nb\nc\n"), started("[x] RUN x", 0)]);
    let mut view = view(&events);
    insta::assert_snapshot!(shown(&mut view, 1000, 40, 10), @"
    [+] Building 1.0s (8/10)
     => (6 steps finished)
     => [6/9] RUN 6                    0.1s
     => [7/9] RUN 7                    0.1s
     => [8/9] RUN 8                    1.0s
     => => # a
     => => # b
     => => # c
     => [x] RUN x                      1.0s
    ");
    insta::assert_snapshot!(shown(&mut view, 1000, 40, 5), @"
    [+] Building 1.0s (8/10)
     => (8 steps finished)
     => [8/9] RUN 8                    1.0s
     => [x] RUN x                      1.0s
    ");
    assert!(shown(&mut view, 1000, 40, 0).lines().count() <= 3);
    assert!(shown(&mut view, 1000, 0, 0).lines().count() <= 3);
}

#[test]
fn the_last_frame_has_every_step_and_the_whole_log_of_the_failed_one() {
    let long: String = (0..9).map(|n| format!("line {n}\n")).collect();
    let mut events: Vec<Event> = (0..9).map(|n| done(&format!("[{n}/11] RUN {n}"), 0, 100, n < 2)).collect();
    events.extend([
        started("[9/11] RUN false", 0),
        log("[9/11] RUN false", &long),
        failed("[9/11] RUN false", 0, 900),
        started("[10/11] RUN sleep", 0),
    ]);
    let mut view = view(&events);
    let mut out = Vec::new();
    tick(&mut view, &mut out, (1000, 40, 8));
    view.finish(Screen { now: time(1000), width: 40, height: 8 }, &mut out).unwrap();
    insta::assert_snapshot!(terminal(&out, 80).join("\n"), @"
    [+] Building 1.0s (11/11) FINISHED
     => CACHED [0/11] RUN 0            0.1s
     => CACHED [1/11] RUN 1            0.1s
     => [2/11] RUN 2                   0.1s
     => [3/11] RUN 3                   0.1s
     => [4/11] RUN 4                   0.1s
     => [5/11] RUN 5                   0.1s
     => [6/11] RUN 6                   0.1s
     => [7/11] RUN 7                   0.1s
     => [8/11] RUN 8                   0.1s
     => ERROR [9/11] RUN false         0.9s
     => CANCELED [10/11] RUN sleep     1.0s
    ------
     > [9/11] RUN false:
    line 0
    line 1
    line 2
    line 3
    line 4
    line 5
    line 6
    line 7
    line 8
    ------
    ");
}

#[test]
fn wide_characters_are_counted_as_the_terminal_counts_them() {
    let mut view = view(&[started("[1/1] RUN echo 漢字漢字漢字漢字漢字漢字漢字", 0)]);
    for line in shown(&mut view, 0, 32, 10).lines() {
        assert!(line.width() < 32, "{line}");
    }
}

#[test]
fn colours_come_only_when_asked_for() {
    let events = [done("[1/1] RUN a", 0, 100, true)];
    let colored = |color| {
        let mut view = Tty::new(color, 6);
        view.event(&events[0], &mut Vec::new()).unwrap();
        let mut out = Vec::new();
        tick(&mut view, &mut out, (200, 40, 10));
        String::from_utf8(out).unwrap().contains("\u{1b}[34m")
    };
    assert!(colored(Color::On) && !colored(Color::Off));
}
