//! Runs what waits: an async verb of the engine, until it is done or a signal comes.

use std::io::Write;
use std::time::Duration;

use kiln_report::{Failure, FailureKind};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use super::exit::{Exit, Signal};

/// How long work on other threads may take to notice that nobody waits for it.
const GRACE: Duration = Duration::from_millis(1200);
/// When the process ends after the first signal, whatever its threads still do; people wait no longer for a prompt.
const LAST: Duration = Duration::from_millis(1800);

/// Runs `verb` to its end. The first signal drops it, which is how the engine is told to stop; the second ends the
/// process at once, as does time. What is killed on the way is found and removed by the next prune, as after a crash.
pub(crate) fn block_on<T>(verb: impl Future<Output = Result<T, Failure>>) -> Result<T, Exit> {
    let runtime = Builder::new_multi_thread().enable_all().build().map_err(|e| cannot_start(&e))?;
    let stop = listen()?;
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = verb => outcome.map_err(Exit::from),
            Ok(signal) = stop => Err(Exit::Signal(signal)),
        }
    });
    match outcome {
        // What was at work beside the step that failed takes its half-made trees away.
        Err(_) => runtime.shutdown_timeout(GRACE),
        Ok(_) => runtime.shutdown_background(),
    }
    outcome
}

/// Listens for signals on a thread and a runtime of its own, so that no busy worker can keep it from hearing.
fn listen() -> Result<oneshot::Receiver<Signal>, Failure> {
    let (heard, stop) = oneshot::channel();
    let runtime = Builder::new_current_thread().enable_all().build().map_err(|e| cannot_start(&e))?;
    let entered = runtime.enter();
    let mut interrupts = signal(SignalKind::interrupt()).map_err(|e| cannot_start(&e))?;
    let mut terminations = signal(SignalKind::terminate()).map_err(|e| cannot_start(&e))?;
    let hangups = (!hangups_are_ignored()).then(|| signal(SignalKind::hangup())).transpose();
    let mut hangups = hangups.map_err(|e| cannot_start(&e))?;
    drop(entered);
    let listener = move || {
        runtime.block_on(async {
            let mut next = async || {
                tokio::select! {
                    _ = interrupts.recv() => Signal::Interrupt,
                    _ = terminations.recv() => Signal::Terminate,
                    Some(()) = async { hangups.as_mut()?.recv().await } => Signal::Hangup,
                }
            };
            let first = next().await;
            let _ = heard.send(first);
            let last = tokio::time::timeout(LAST, next()).await.unwrap_or(first);
            let _ = std::io::stderr().write_all(b"interrupted\n");
            std::process::exit(last.exit_code().into());
        });
    };
    std::thread::Builder::new().name("signals".into()).spawn(listener).map_err(|e| cannot_start(&e))?;
    Ok(stop)
}

/// Whether we were started to live on without a terminal, as by nohup(1). See `SigIgn` in proc_pid_status(5).
fn hangups_are_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

fn cannot_start(error: &std::io::Error) -> Failure {
    let mut failure = Failure::new(FailureKind::Environment, "cannot start a thread");
    failure.causes.push(error.to_string());
    failure
}
