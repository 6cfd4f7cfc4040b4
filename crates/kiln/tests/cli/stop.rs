//! Signals: the prompt is back soon, and the code says why.

use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::Kiln;

/// Runs `kiln` on a standard input that never ends, and sends a signal once it waits there.
fn stopped_by(signal: Signal) -> (i32, Duration) {
    let kiln = Kiln::new();
    let archive = kiln.path().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &archive, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
    let mut child = kiln.command(&["load", "-i", "fifo"]).spawn().unwrap();
    // Opening it for writing waits for the reader; from then on the engine waits for bytes.
    let writer = std::fs::OpenOptions::new().write(true).open(&archive).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let began = Instant::now();
    kill_process(Pid::from_child(&child), signal).unwrap();
    let code = child.wait().unwrap().code().unwrap_or(-1);
    let took = began.elapsed();
    drop(writer);
    let said: Vec<String> = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap).collect();
    assert_eq!(said, ["interrupted"]);
    (code, took)
}

#[test]
fn ctrl_c_gives_the_prompt_back() {
    let (code, took) = stopped_by(Signal::INT);
    assert_eq!(code, 130);
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn kill_is_told_apart() {
    assert_eq!(stopped_by(Signal::TERM).0, 143);
    assert_eq!(stopped_by(Signal::HUP).0, 129, "the terminal is gone");
}

#[test]
fn a_stopped_build_leaves_no_process() {
    let Some(kiln) = Kiln::with_busybox() else { return };
    kiln.file("ctx/Dockerfile", "FROM scratch\nCOPY --from=tools / /\nRUN echo ready; sleep 74219\n");
    let mut child = kiln.command(&["build", "--build-context", "tools=root", "ctx"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.ends_with(" ready")), "the step began");
    let began = Instant::now();
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let rest: Vec<String> = lines.collect();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(began.elapsed() < Duration::from_secs(2));
    assert!(rest.iter().any(|line| line.ends_with(" CANCELED")), "{rest:?}");
    assert!(!is_running("74219"));
}

/// Whether a process has this argument; the kernel may take a moment to bury one.
fn is_running(argument: &str) -> bool {
    let has = || {
        let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        let lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
        lines.into_iter().any(|line| line.split(|b| *b == 0).any(|word| word == argument.as_bytes()))
    };
    (0..20).all(|_| {
        std::thread::sleep(Duration::from_millis(50));
        has()
    })
}
