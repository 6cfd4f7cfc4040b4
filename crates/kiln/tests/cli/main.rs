//! The command line from outside: what is typed, what comes back on which stream, and the exit code.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod build;
mod commands;
mod help;
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
        write!(f, "exit {}\n", self.code)?;
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !text.is_empty() {
                write!(f, "--- {name}\n{text}")?;
            }
        }
        Ok(())
    }
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
