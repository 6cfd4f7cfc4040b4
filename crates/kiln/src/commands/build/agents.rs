//! What `--ssh` lends: the socket of an agent, or keys read from their files.

use std::io::Read as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use kiln_engine::{SshAgent, SshKey};
use kiln_report::{Failure, FailureKind};

/// BuildKit's limit.
const MAX_KEY: u64 = 100 * 1024;

/// Looks at what the paths of one `--ssh` are.
pub(crate) fn lend(id: &str, paths: &[PathBuf]) -> Result<SshAgent, Failure> {
    let mut keys = Vec::new();
    for path in paths {
        let found = std::fs::metadata(path).map_err(|error| cannot(id, path, &error))?;
        match found.file_type().is_socket() {
            true if paths.len() == 1 => return Ok(SshAgent::Socket(path.clone())),
            true => {
                let message = format!("cannot lend ssh agent `{id}`: it is one socket, or keys, not both");
                return Err(Failure::new(FailureKind::Usage, message));
            }
            false => keys.push(read(id, path)?),
        }
    }
    Ok(SshAgent::Keys(keys))
}

fn read(id: &str, path: &Path) -> Result<SshKey, Failure> {
    let mut text = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| cannot(id, path, &error))?;
    file.take(MAX_KEY).read_to_end(&mut text).map_err(|error| cannot(id, path, &error))?;
    SshKey::parse(&text, &path.to_string_lossy())
}

fn cannot(id: &str, path: &Path, error: &std::io::Error) -> Failure {
    let mut failure =
        Failure::new(FailureKind::Usage, format!("cannot lend ssh agent `{id}`: cannot read `{}`", path.display()));
    failure.causes.push(error.to_string());
    failure
}
