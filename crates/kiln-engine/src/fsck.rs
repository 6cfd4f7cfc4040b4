//! Looks whether all that is kept is whole, and takes out what is not.

use std::path::Path;

use kiln_report::{Failure, FailureKind};
use kiln_store::FsckOptions;

use crate::answer::{FsckAnswer, FsckProblem};
use crate::failure::environment;
use crate::job::Result;
use crate::request::FsckRequest;

/// Looks at a whole state directory, which need not be fit for anything else.
#[expect(clippy::disallowed_methods, reason = "the state directory is what whoever runs us names")]
pub(crate) fn fsck(state: &Path, request: &FsckRequest) -> Result<FsckAnswer> {
    if !state.exists() {
        let failure =
            Failure::new(FailureKind::Environment, format!("there is no state directory `{}`", state.display()));
        return Err(failure.hint("name another one with `--state`, or build something first"));
    }
    let options = FsckOptions { repair: request.repair, deep: request.deep };
    let report = kiln_store::fsck(state, options).map_err(environment)?;
    let checked = vec![
        ("blobs", report.blobs),
        ("layers", report.layers),
        ("images", report.images),
        ("results", report.results),
    ];
    let problems = report.problems.into_iter().map(|problem| FsckProblem {
        kind: problem.kind.name(),
        id: problem.id,
        what: problem.what,
        lost: problem.lost,
        is_repaired: problem.is_repaired,
    });
    let leftovers = report.leftovers.into_iter().map(|leftover| (leftover.id, leftover.bytes));
    Ok(FsckAnswer { problems: problems.collect(), leftovers: leftovers.collect(), checked })
}
