//! Turns the errors of the crates below into failures that say whose turn it is and the way out.

use std::error::Error;

use kiln_report::{Failure, FailureKind};

/// The machine, network or disk is in the way.
pub(crate) fn environment(error: impl Error) -> Failure {
    Failure::from_error(FailureKind::Environment, &error)
}

/// The build cannot succeed as written.
pub(crate) fn build(error: impl Error) -> Failure {
    Failure::from_error(FailureKind::Build, &error)
}

/// Puts what was being done before what went wrong.
pub(crate) trait Context<T> {
    /// `doing` says what could not be done, as in "cannot read the build context `…`".
    fn or_environment(self, doing: impl FnOnce() -> String) -> Result<T, Failure>;

    /// The same, when the user's input is to blame.
    fn or_build(self, doing: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T, E: Error> Context<T> for Result<T, E> {
    fn or_environment(self, doing: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| wrap(FailureKind::Environment, doing(), &error))
    }

    fn or_build(self, doing: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| wrap(FailureKind::Build, doing(), &error))
    }
}

fn wrap(kind: FailureKind, message: String, error: &dyn Error) -> Failure {
    let inner = Failure::from_error(kind, error);
    let causes = std::iter::once(inner.message).chain(inner.causes).collect();
    Failure { message, causes, ..Failure::new(kind, "") }
}
