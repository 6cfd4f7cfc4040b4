//! Builds that ask nobody: what they would need and is not here, told at once and before anything runs.

use std::sync::Arc;

use kiln_dockerfile::Fetch;
use kiln_report::{Diagnostic, Excerpt, Failure, FailureKind, SourceFile};

use crate::job::{Job, Result};
use crate::mounts::MountPlace;
use crate::request::{BuildRequest, CachePlace, Output};
use crate::step;

/// How something gets here that is not.
pub(crate) const WAY_OUT: &str = "fetch it once: leave out `--offline` and `--pull=never`, and unset `KILN_OFFLINE`";

/// How something gets elsewhere.
pub(crate) const GO_ONLINE: &str = "this needs the network: leave out `--offline`, and unset `KILN_OFFLINE`";

/// What failures are that stand for things a build needs.
pub(crate) const NEEDED: &str = "things that this build needs cannot be had";

/// The failure that says that something is not here.
pub(crate) fn not_here(what: &str) -> Failure {
    Failure::new(FailureKind::Environment, format!("{what} is not here, and is not to be fetched")).hint(WAY_OUT)
}

/// All failures as one, with what so many of them are.
pub(crate) fn joined(mut failures: Vec<Failure>, what: &str) -> Result<()> {
    if failures.len() < 2 {
        return failures.pop().map_or(Ok(()), Err);
    }
    let is_environment = failures.iter().all(|failure| failure.kind == FailureKind::Environment);
    let kind = if is_environment { FailureKind::Environment } else { FailureKind::Build };
    let mut all = Failure::new(kind, "");
    for failure in failures {
        let hints = failure.hints.iter().filter(|hint| !all.hints.contains(hint)).cloned().collect::<Vec<_>>();
        all.hints.extend(hints);
        match &failure.excerpt {
            Some(excerpt) => {
                all.diagnostics.push((Diagnostic::error(excerpt.span, failure.to_string()), excerpt.clone()));
            }
            // Several that were joined before.
            None if failure.message.ends_with(what) => {
                all.causes.extend(failure.causes);
                all.diagnostics.extend(failure.diagnostics);
            }
            None => all.causes.push(failure.to_string()),
        }
    }
    all.diagnostics.sort_by_key(|(finding, _)| finding.span);
    all.message = format!("{} {what}", all.diagnostics.len() + all.causes.len());
    Err(all)
}

/// What goes elsewhere cannot be asked for.
pub(crate) fn refuse_what_leaves(request: &BuildRequest) -> Result<()> {
    let pushes = request.outputs.iter().any(|output| matches!(output, Output::Image { push: true, .. }));
    let is_far = |place: &CachePlace| matches!(place, CachePlace::Registry { .. } | CachePlace::Objects(_));
    let caches = request.cache_to.iter().any(|to| is_far(&to.place) && !to.ignore_error);
    let is_far = |place: &MountPlace| matches!(place, MountPlace::Registry { .. } | MountPlace::Objects(_));
    let mounts = request.mounts_to.iter().any(|to| is_far(&to.place) && !to.ignore_error);
    let what = match (pushes, caches || mounts) {
        (true, _) => "an image cannot be pushed offline",
        (false, true) => "a cache cannot be written elsewhere offline",
        (false, false) => return Ok(()),
    };
    Err(Failure::new(FailureKind::Usage, what).hint("leave out `--offline`, and unset `KILN_OFFLINE`"))
}

/// What of these is not known here.
pub(crate) async fn unknown(job: &Arc<Job>, fetches: Vec<Fetch>, file: &Arc<SourceFile>) -> Vec<Failure> {
    let asked = fetches.into_iter().map(|Fetch { op, span }| {
        let excerpt = Excerpt { file: Arc::clone(file), span };
        step::known(job, op, excerpt)
    });
    futures::future::join_all(asked).await.into_iter().filter_map(Result::err).collect()
}
