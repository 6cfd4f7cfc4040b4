//! Steps that fail: their time, their attempts, and that nothing of them lives on.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::project::Project;

/// A step that starts processes in every way that could outlive it; none of them listens to signals.
fn stubborn(argument: u32, end: &str) -> String {
    format!(
        "FROM busybox\nRUN trap '' TERM INT HUP QUIT; \
         (trap '' TERM INT HUP QUIT; sleep {argument}) & setsid sleep {argument} & \
         sh -c '(setsid sh -c \"sleep {argument}; true\" &) &' & {end}\n"
    )
}

/// Whether a process of this argument lives; the kernel may take a moment to bury one.
pub(crate) fn is_running(argument: u32) -> bool {
    let word = argument.to_string();
    let has = || {
        let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        let lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
        lines.into_iter().any(|line| line.split(|byte| *byte == 0).any(|part| part == word.as_bytes()))
    };
    (0..20).all(|_| {
        std::thread::sleep(Duration::from_millis(50));
        has()
    })
}

#[test]
fn a_step_out_of_time_is_killed_with_all_that_it_started() {
    let project = Project::new();
    project.dockerfile(&stubborn(74301, "echo begun; sleep 74301"));
    let began = Instant::now();
    let run = project.build(&["--timeout", "1s"]).fails(1);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    run.says(" begun").says("stopped after 1s").says("hint: give it more time with `--timeout`");
    assert!(!is_running(74301));
}

#[test]
fn a_build_that_is_stopped_takes_with_it_what_listens_to_nothing() {
    let project = Project::new();
    for (argument, signal, code) in [(74303, Signal::INT, 130), (74304, Signal::TERM, 143), (74305, Signal::HUP, 129)] {
        project.dockerfile(&stubborn(argument, &format!("echo begun; sleep {argument}; sleep {argument}")));
        let mut command = project.command();
        let context = project.context();
        command.args(["build", "--progress=plain", "--retry", "3", context.to_str().unwrap()]);
        let mut kiln = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(kiln.stderr.take().unwrap()).lines().map(Result::unwrap);
        assert!(lines.any(|line| line.ends_with(" begun")));
        let began = Instant::now();
        rustix::process::kill_process(rustix::process::Pid::from_child(&kiln), signal).unwrap();
        assert_eq!(kiln.wait().unwrap().code(), Some(code));
        assert!(began.elapsed() < Duration::from_secs(2), "{signal:?}: {:?}", began.elapsed());
        assert!(!is_running(argument), "{signal:?}");
    }
}

#[test]
fn a_pause_before_another_attempt_ends_with_the_build() {
    let project = Project::new();
    project.dockerfile("FROM busybox\nRUN exit 1\n");
    let context = project.context();
    let mut command = project.command();
    command.args(["build", "--progress=plain", "--retry", "9", context.to_str().unwrap()]);
    let mut kiln = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(kiln.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("attempt 2 of 10 failed")));
    let began = Instant::now();
    rustix::process::kill_process(rustix::process::Pid::from_child(&kiln), Signal::INT).unwrap();
    assert_eq!(kiln.wait().unwrap().code(), Some(130));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[test]
fn what_a_step_leaves_running_ends_with_it_though_it_holds_the_output() {
    let project = Project::new();
    project.dockerfile(&(stubborn(74302, "echo done") + "RUN echo next\n"));
    let began = Instant::now();
    project.build(&[]).ok().says(" next");
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert!(!is_running(74302));
}

#[test]
fn a_timeout_is_of_one_stage_and_makes_no_step_another() {
    let project = Project::new();
    let text = "FROM busybox AS slow\nRUN sleep 1.5; echo a > /a\nFROM busybox AS quick\nRUN echo b > /b\n\
                FROM busybox\nCOPY --from=slow /a /\nCOPY --from=quick /b /\n";
    project.dockerfile(text);
    project.build(&["--timeout", "slow=200ms"]).fails(1).says("stopped after 200ms");
    project.build(&["--timeout", "1ms", "--timeout", "SLOW=1m", "--timeout", "quick=0"]).ok();
    let cached = project.build(&["--timeout", "5s", "--retry", "3"]).ok().cached();
    assert_eq!(cached, 5);
    let run = project.build(&["--timeout", "slwo=1s", "--retry", "quick=1"]).ok();
    run.says("warning: `--timeout slwo=…` names no stage; did you mean `slow`?").never_says("--retry");
    project.dockerfile("FROM --platform=$BUILDPLATFORM busybox AS only\nRUN sleep 2\n");
    let out_of_time = |more: &[&str]| project.build(&[&["--timeout", "only=200ms"], more].concat()).fails(1);
    out_of_time(&[]).says("stopped after 200ms").never_says("names no stage");
    out_of_time(&["--platform", "linux/amd64,linux/arm64"]).says("stopped after 200ms");
}

#[test]
fn a_step_is_tried_again_from_where_it_began() {
    let project = Project::new();
    project.dockerfile(
        "FROM busybox\nRUN --mount=type=cache,target=/c echo x >> /c/n; n=$(wc -l < /c/n); touch /attempt-$n; [ $n -ge 3 ]\n",
    );
    let run = project.build(&["--retry", "2"]).ok();
    run.says("attempt 1 of 3 failed (exit code: 1), the next is in 1s").says("attempt 2 of 3 failed");
    assert_eq!(project.sh("ls / | grep attempt"), "attempt-3\n");
    assert!(project.kiln(&["explain"]).ok().stdout.contains("; 3 attempts"));
}

#[test]
fn a_step_that_never_succeeds_says_how_often_it_was_tried() {
    let project = Project::new();
    project.dockerfile("FROM busybox\nRUN sleep 0.3; exit 7\n");
    project.build(&["--retry", "1"]).fails(1).says("exit code: 7").says("2 attempts failed");
    project
        .build(&["--retry", "1", "--timeout", "100ms"])
        .fails(1)
        .says("stopped after 100ms")
        .says("2 attempts failed");
    assert!(project.kiln(&["explain"]).ok().stdout.contains("; 2 attempts; failed"));
    // What cannot even start is not tried again.
    project.dockerfile("FROM busybox\nRUN [\"/no/such/program\"]\n");
    project.build(&["--retry", "5"]).fails(1).never_says("attempt");
}
