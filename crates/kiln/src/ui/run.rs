//! Runs what waits: an async verb of the engine, until it is done or a signal comes.

use std::io::Write;
use std::time::Duration;

use kiln_report::{Failure, FailureKind};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use super::exit::{Exit, Signal};

/// How long work on other threads may take to notice that nobody waits for it.
const GRACE: Duration = Duration::from_millis(1500);

/// Runs `verb` to its end. The first signal drops it, which is how the engine is told to stop; the second ends the
/// process at once.
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
        Err(Exit::Signal(_)) => runtime.shutdown_timeout(GRACE),
        _ => runtime.shutdown_background(),
    }
    outcome
}

/// Listens for signals on a thread and a runtime of its own, so that no busy worker can keep it from hearing.
fn listen() -> Result<oneshot::Receiver<Signal>, Failure> {
    let (heard, stop) = oneshot::channel();
    let runtime = Builder::new_current_thread().enable_io().build().map_err(|e| cannot_start(&e))?;
    let entered = runtime.enter();
    let mut interrupts = signal(SignalKind::interrupt()).map_err(|e| cannot_start(&e))?;
    let mut terminations = signal(SignalKind::terminate()).map_err(|e| cannot_start(&e))?;
    drop(entered);
    let listener = move || {
        runtime.block_on(async {
            let mut next = async || {
                tokio::select! {
                    _ = interrupts.recv() => Signal::Interrupt,
                    _ = terminations.recv() => Signal::Terminate,
                }
            };
            let _ = heard.send(next().await);
            let second = next().await;
            // A live view may be in the middle of a frame.
            let _ = std::io::stderr().write_all(b"\x1b[?25h");
            std::process::exit(second.exit_code().into());
        });
    };
    std::thread::Builder::new().name("signals".into()).spawn(listener).map_err(|e| cannot_start(&e))?;
    Ok(stop)
}

fn cannot_start(error: &std::io::Error) -> Failure {
    let mut failure = Failure::new(FailureKind::Environment, "cannot start a thread");
    failure.causes.push(error.to_string());
    failure
}
