//! Standard output: the program's data, and nothing else.

use std::borrow::Cow;
use std::io::{self, ErrorKind, IsTerminal, Write};

use kiln_report::render::{Escapes, sanitize};
use kiln_report::{Failure, FailureKind};

use super::exit::Exit;

/// Writes text to standard output, whole. Programs get every byte of it; a terminal does not get what strangers wrote
/// into a Dockerfile or an image to move its cursor or hide text.
pub(crate) fn print(text: &str) -> Result<(), Exit> {
    let mut stdout = io::stdout().lock();
    let text = if stdout.is_terminal() { Cow::Owned(for_terminal(text)) } else { Cow::Borrowed(text) };
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

fn for_terminal(text: &str) -> String {
    let clean = |line: &str| match line.strip_suffix('\n') {
        Some(line) => sanitize(line.as_bytes(), Escapes::KeepColors) + "\n",
        None => sanitize(line.as_bytes(), Escapes::KeepColors),
    };
    text.split_inclusive('\n').map(clean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_lines_and_colours_and_nothing_else() {
        let text = "a\tb\r\n\u{1b}[31mred\u{1b}[0m\n\n\u{1b}]0;title\u{7}\u{9b}2Jc\u{202e}d";
        assert_eq!(for_terminal(text), "a\tb\n\u{1b}[31mred\u{1b}[0m\n\ncd");
    }
}
