//! Sends a text through the C preprocessor, as is done with `Containerfile.in`.

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Runs the program, looked for where programs are, with no more memory in KiB and seconds than any honest text needs:
/// macros within macros may want everything there is.
const SCRIPT: &str = "ulimit -v 1048576; ulimit -t 20; exec cpp \"$@\"";
/// How a shell says that there is no such program.
const NOT_FOUND: i32 = 127;
/// What macros make of a text is never longer.
const LIMIT: u64 = 16 << 20;
/// Stands for a `#` that begins no directive of the preprocessor. It is no part of any text people write.
const HASH: char = '\u{1}';
/// What may stand behind a `#` that is the preprocessor's.
const DIRECTIVES: [&str; 14] = [
    "define",
    "undef",
    "include",
    "include_next",
    "if",
    "ifdef",
    "ifndef",
    "elif",
    "else",
    "endif",
    "error",
    "warning",
    "line",
    "pragma",
];

/// A text that could not be preprocessed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PreprocessError {
    /// There is no preprocessor.
    #[error("there is no program `cpp` on this machine")]
    NoProgram,
    /// It cannot be started or spoken to.
    #[error("cannot run `cpp`")]
    Run(#[source] io::Error),
    /// It found something wrong; its own words.
    #[error("`cpp` refuses it: {0}")]
    Refused(String),
    /// Macros within macros grow without end.
    #[error("its macros make more than {0} bytes")]
    TooLong(u64),
    /// What comes out is no text.
    #[error("`cpp` makes no UTF-8 text of it")]
    NoText,
}

/// Sends `text` through `cpp`. `#include "…"` is looked for in `beside`, then in `context`. Lines that begin with `#`
/// and are no directives of the preprocessor stay as they are.
pub fn preprocess(text: &str, beside: &Path, context: Option<&Path>) -> Result<String, PreprocessError> {
    let child = start(beside, context).map_err(PreprocessError::Run)?;
    let output = talk(child, hidden(text)).map_err(PreprocessError::Run)?;
    if output.stdout.len() as u64 > LIMIT {
        return Err(PreprocessError::TooLong(LIMIT));
    }
    if output.code == Some(NOT_FOUND) {
        return Err(PreprocessError::NoProgram);
    }
    if output.code != Some(0) {
        return Err(PreprocessError::Refused(complaint(&output.stderr)));
    }
    let text = String::from_utf8(output.stdout).map_err(|_| PreprocessError::NoText)?;
    Ok(text.replace(HASH, "#"))
}

#[expect(clippy::disallowed_methods, reason = "whoever runs us names the Dockerfile and the context")]
fn start(beside: &Path, context: Option<&Path>) -> io::Result<Child> {
    let beside = beside.canonicalize()?;
    #[expect(clippy::disallowed_methods, reason = "this is the place where programs of the host are started")]
    let mut command = Command::new("/bin/sh");
    // Without line markers, which would stand in heredocs; with old rules, which leave quotes and blanks alone.
    command.args(["-c", SCRIPT, "sh", "-E", "-P", "-traditional", "-undef"]);
    if let Some(context) = context {
        command.arg("-iquote").arg(context.canonicalize()?);
    }
    command.arg("-").current_dir(beside).env("LC_ALL", "C");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
}

struct Output {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    code: Option<i32>,
}

fn talk(mut child: Child, text: String) -> io::Result<Output> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    // All three pipes at once, so that none fills up while we wait for another.
    let write = std::thread::spawn(move || stdin.map(|mut stdin| stdin.write_all(text.as_bytes())));
    let complain = std::thread::spawn(move || read(stderr));
    let stdout = read(stdout);
    // Whoever still writes then, writes too much.
    let _ = child.kill();
    let status = child.wait()?;
    let _ = write.join();
    let stderr = complain.join().unwrap_or_else(|_| Ok(Vec::new()))?;
    Ok(Output { stdout: stdout?, stderr, code: status.code() })
}

fn read(stream: Option<impl Read>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        stream.take(LIMIT + 1).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// The text with every `#` at the front of a line hidden that is not the preprocessor's.
fn hidden(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        match line.strip_prefix('#') {
            Some(rest) if !is_directive(rest) => {
                out.push(HASH);
                out.push_str(rest);
            }
            _ => out.push_str(line),
        }
    }
    out
}

fn is_directive(rest: &str) -> bool {
    let word = rest.trim_start_matches([' ', '\t']);
    let end = word.find(|c: char| !c.is_ascii_alphabetic() && c != '_').unwrap_or(word.len());
    DIRECTIVES.contains(&&word[..end])
}

/// The first error the preprocessor tells of. Its line numbers are not to be relied on with old rules.
fn complaint(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let line = text.lines().find(|line| line.contains("error")).or_else(|| text.lines().next());
    let line = line.unwrap_or("it gives no reason");
    line.find("error: ").map_or(line, |at| &line[at + "error: ".len()..]).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_preprocessors_own_lines_are_its() {
        let text = "# syntax=x\n#define A b\n# if x\n#!/bin/sh\n  # note\n#iffy\nRUN a # b\n";
        let wanted = "\u{1} syntax=x\n#define A b\n# if x\n\u{1}!/bin/sh\n  # note\n\u{1}iffy\nRUN a # b\n";
        assert_eq!(hidden(text), wanted);
    }

    #[test]
    fn a_text_is_preprocessed_with_its_includes() {
        let (beside, context) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(beside.path().join("a.in"), "RUN a BASE\n").unwrap();
        std::fs::write(context.path().join("b.in"), "RUN b\n").unwrap();
        let run = |text: &str| preprocess(text, beside.path(), Some(context.path()));
        let text = "# escape=`\n#define BASE busybox\nFROM BASE\n#include \"a.in\"\n#include \"b.in\"\n\
            #ifdef NO\nRUN no\n#endif\nRUN echo \"it's  //\" <<E\n#!x\nE\n";
        let out = match run(text) {
            Err(PreprocessError::NoProgram) => return,
            out => out.unwrap(),
        };
        let wanted = "# escape=`\nFROM busybox\nRUN a busybox\nRUN b\nRUN echo \"it's  //\" <<E\n#!x\nE\n";
        assert_eq!(out.trim_start(), wanted);
        let error = run("FROM a\n#include \"none\"\n").unwrap_err().to_string();
        assert_eq!(error, "`cpp` refuses it: none: No such file or directory");
    }

    #[test]
    fn macros_that_grow_without_end_are_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let mut text = format!("#define A0 {}\n", "x".repeat(1000));
        for n in 1..=15 {
            text += &format!("#define A{n} A{0} A{0}\n", n - 1);
        }
        text += "A15\n";
        let error = preprocess(&text, dir.path(), None).unwrap_err();
        assert!(matches!(error, PreprocessError::TooLong(_) | PreprocessError::NoProgram), "{error:?}");
    }
}
