//! How a command ends, and the exit code that says so.

use kiln_report::Failure;

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

/// The signals that stop a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// `kill`.
    Terminate,
}

impl Signal {
    /// What a shell would report.
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }
}

impl From<Failure> for Exit {
    fn from(failure: Failure) -> Self {
        Self::Failure(Box::new(failure))
    }
}
