//! The one door from waiting code to working code: everything that touches disk or mounts goes through here.

use kiln_report::{Failure, FailureKind};

/// Runs `work` on a thread that may block. A panic in it is a defect of kiln, reported and not passed on.
pub(crate) async fn blocking<T, F>(work: F) -> Result<T, Failure>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, Failure> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(stopped) if stopped.is_cancelled() => Err(Failure::new(FailureKind::Interrupted, "canceled")),
        Err(panicked) => Err(Failure::new(FailureKind::Bug, format!("a worker thread stopped: {panicked}"))),
    }
}
