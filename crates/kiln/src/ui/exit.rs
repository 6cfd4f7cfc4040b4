//! How a command ends, and the exit code that says so.

use kiln_report::{Failure, FailureKind};

/// A command's answer: the exit code, or why it stopped before its end.
pub(crate) type Outcome = Result<u8, Exit>;

/// Why a command stopped.
#[derive(Debug)]
pub(crate) enum Exit {
    /// Something could not be done.
    Failure(Box<Failure>),
    /// A signal came.
    Signal(Signal),
    /// Nobody reads standard output any more, so nobody misses what was not written.
    NobodyListens,
}

impl Exit {
    /// The end of a command whose exit code 1 is an answer: what cannot be built has the code of what cannot be meant.
    pub(crate) fn without_answer(mut self) -> Self {
        if let Self::Failure(failure) = &mut self
            && failure.kind == FailureKind::Build
        {
            failure.kind = FailureKind::Usage;
        }
        self
    }
}

/// The signals that stop a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// `kill`.
    Terminate,
    /// The terminal is gone.
    Hangup,
}

impl Signal {
    /// What a shell would report.
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
            Self::Hangup => 129,
        }
    }
}

impl From<Failure> for Exit {
    fn from(failure: Failure) -> Self {
        Self::Failure(Box::new(failure))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_has_the_exit_code_one() {
        let code = |kind| match Exit::from(Failure::new(kind, "no")).without_answer() {
            Exit::Failure(failure) => failure.exit_code(),
            other => panic!("{other:?}"),
        };
        assert_eq!([FailureKind::Build, FailureKind::Usage, FailureKind::Environment].map(code), [2, 2, 3]);
        assert!(matches!(Exit::Signal(Signal::Interrupt).without_answer(), Exit::Signal(Signal::Interrupt)));
    }
}
