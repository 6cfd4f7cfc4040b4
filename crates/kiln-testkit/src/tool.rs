//! Other people's tools as judges of what we write: skopeo, umoci, podman; absent ones are skipped aloud.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A program of this machine.
#[derive(Debug, Clone)]
pub struct Tool {
    path: PathBuf,
}

impl Tool {
    /// Finds it; `None`, aloud, when it is not there.
    pub fn find(name: &str) -> Option<Self> {
        let path = find(name);
        if path.is_none() {
            skip(&format!("no `{name}` on this machine"));
        }
        path.map(|path| Self { path })
    }

    /// Runs it; its stdout, or all it said when it failed.
    pub fn run(&self, args: &[&str]) -> Result<String, String> {
        #[expect(clippy::disallowed_methods, reason = "foreign tools judge our output in tests")]
        let output = Command::new(&self.path).args(args).stdin(Stdio::null()).output();
        let output = output.map_err(|error| format!("cannot start {}: {error}", self.path.display()))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            return Ok(text(&output.stdout));
        }
        Err(format!("{} {args:?}: {}{}", self.path.display(), text(&output.stdout), text(&output.stderr)))
    }
}

/// Says why a test shows nothing here.
#[expect(clippy::print_stderr, reason = "a skipped test must say so")]
pub fn skip(reason: &str) {
    eprintln!("skipped: {reason}");
}

/// A program in the usual places.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let dirs = ["/usr/bin", "/usr/local/bin", "/bin", "/usr/sbin", "/sbin"];
    dirs.iter().map(|dir| Path::new(dir).join(name)).find(|path| path.is_file())
}
