//! The command line from outside: what is typed, what comes back on which stream, and the exit code.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stderr, reason = "a test that is skipped says why")]

mod build;
mod call;
mod check;
mod commands;
mod context;
mod debug;
mod diff;
mod doctor;
mod fix;
mod fmt;
mod help;
mod images;
mod language;
mod refusals;
mod stop;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// A `kiln` with a state directory and a home of its own.
struct Kiln {
    dir: tempfile::TempDir,
}

/// What came back.
struct Answer {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Kiln {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// One that can build; `None`, and said aloud, where the machine does not let it.
    fn that_builds() -> Option<Self> {
        if rustix::process::geteuid().is_root() {
            return Some(Self::new());
        }
        eprintln!("skipped: only root builds");
        None
    }

    /// One that can build, with the files of a busybox in `root`.
    fn with_busybox() -> Option<Self> {
        let kiln = Self::that_builds()?;
        let Some(busybox) = ["/usr/bin/busybox", "/bin/busybox"].into_iter().find(|path| Path::new(path).exists())
        else {
            eprintln!("skipped: there is no `busybox`");
            return None;
        };
        let bin = kiln.path().join("root/bin");
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::copy(busybox, bin.join("busybox")).unwrap();
        for name in ["sh", "echo", "cat", "wc", "id", "sleep", "pwd"] {
            std::os::unix::fs::symlink("busybox", bin.join(name)).unwrap();
        }
        Some(kiln)
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A command with nothing of the surroundings in it.
    fn command(&self, args: &[&str]) -> Command {
        #[allow(clippy::disallowed_methods, reason = "the tests start what they test")]
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
        command
            .args(args)
            .current_dir(self.path())
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.path())
            .env("KILN_STATE", self.path().join("state"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn run(&self, args: &[&str]) -> Answer {
        self.answer(self.command(args).output().unwrap())
    }

    fn run_with_input(&self, args: &[&str], input: &[u8]) -> Answer {
        let mut child: Child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        // A command that refuses does not read.
        let _ = child.stdin.take().unwrap().write_all(input);
        self.answer(child.wait_with_output().unwrap())
    }

    fn answer(&self, output: Output) -> Answer {
        let dir = self.path().to_string_lossy();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap().replace(&*dir, "DIR");
        Answer { code: output.status.code().unwrap_or(-1), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "exit {}", self.code)?;
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !text.is_empty() {
                write!(f, "--- {name}\n{text}")?;
            }
        }
        Ok(())
    }
}

/// The answer without what differs from run to run: digests and times.
fn stable(answer: &Answer) -> String {
    let text = answer.to_string();
    let mut stable = String::new();
    let mut rest = text.as_str();
    while let Some(c) = rest.chars().next() {
        let run = |is: fn(char) -> bool| rest.find(|c| !is(c)).unwrap_or(rest.len());
        let hex = run(|c| c.is_ascii_digit() || ('a'..='f').contains(&c));
        let number = run(|c| c.is_ascii_digit() || c == '.');
        let (taken, shown) = match (hex, number) {
            (hex, _) if hex >= 12 => (hex, "HEX"),
            (_, number) if number >= 3 && rest[..number].contains('.') => (number, "N"),
            _ => (hex.max(c.len_utf8()), &rest[..hex.max(c.len_utf8())]),
        };
        stable.push_str(shown);
        rest = &rest[taken..];
    }
    stable
}

#[test]
fn no_file_of_tests_is_forgotten() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli");
    let main = include_str!("main.rs");
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let is_rust = path.extension().is_some_and(|extension| extension == "rs");
        assert!(!is_rust || name == "main" || main.contains(&format!("mod {name};")), "`mod {name};` is missing");
    }
}
