//! Standard output: the program's data, and nothing else.

use std::io::{self, ErrorKind, IsTerminal, Write};

use kiln_report::{Failure, FailureKind};

use super::exit::Exit;

/// Writes text to standard output, whole.
pub(crate) fn print(text: &str) -> Result<(), Exit> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(cannot_write)
}

/// Fails when standard output is a terminal: `what` is no text to read.
pub(crate) fn refuse_terminal(what: &str) -> Result<(), Failure> {
    if !io::stdout().is_terminal() {
        return Ok(());
    }
    Err(Failure::new(FailureKind::Usage, format!("{what} is not written to a terminal"))
        .hint("send standard output to a file or another command, or name a file"))
}

fn cannot_write(error: io::Error) -> Exit {
    if error.kind() == ErrorKind::BrokenPipe {
        return Exit::NobodyListens;
    }
    let mut failure = Failure::new(FailureKind::Environment, "cannot write to standard output");
    failure.causes.push(error.to_string());
    failure.into()
}
