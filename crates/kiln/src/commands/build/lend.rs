//! What the command line lends to a build: secrets, agents for ssh, and the standard streams.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::Mutex;

use kiln_engine::{Session, SshAgent, SshKey, Watched, WatchedKind};
use kiln_report::{Failure, FailureKind};

use crate::args::SecretSource;

/// BuildKit's limit, so that what builds here builds there.
const MAX_SECRET: u64 = 500 * 1024;

/// The client of a build.
pub(crate) struct Lender {
    secrets: BTreeMap<String, SecretSource>,
    agents: BTreeMap<String, SshAgent>,
    stdin: Mutex<Option<Box<dyn Read + Send>>>,
    stdout: Mutex<Option<std::io::Stdout>>,
}

impl Lender {
    /// Lends these. Files of secrets must be there now, not first when a step asks; what is no file, as a pipe, is read now,
    /// since that can be done but once.
    pub(crate) fn new(
        mut secrets: BTreeMap<String, SecretSource>,
        agents: BTreeMap<String, SshAgent>,
        stdin: Option<Box<dyn Read + Send>>,
    ) -> Result<Self, Failure> {
        for (id, source) in &mut secrets {
            let SecretSource::File(path) = source else { continue };
            let value = read(id, path)?;
            if !std::fs::metadata(path).is_ok_and(|found| found.is_file()) {
                *source = SecretSource::Value(OsString::from_vec(value));
            }
        }
        Ok(Self { secrets, agents, stdin: Mutex::new(stdin), stdout: Mutex::new(Some(std::io::stdout())) })
    }
}

impl Session for Lender {
    fn secret(&self, id: &str) -> Result<Option<Vec<u8>>, Failure> {
        match self.secrets.get(id) {
            None => Ok(None),
            Some(SecretSource::Value(value)) => check_size(id, value).map(Some),
            Some(SecretSource::File(path)) => read(id, path).map(Some),
        }
    }

    fn ssh(&self, id: &str) -> Result<Option<SshAgent>, Failure> {
        Ok(self.agents.get(id).cloned())
    }

    fn watched(&self) -> Result<Vec<Watched>, Failure> {
        let value = |id: &String| Ok(self.secret(id)?.map(|value| Watched::new(id, WatchedKind::Secret, value)));
        let secrets = self.secrets.keys().filter_map(|id| value(id).transpose());
        let key = |id: &str, key: &SshKey| Ok(Watched::new(id, WatchedKind::SshKey, key.file().to_vec()));
        let keys = self.agents.iter().flat_map(|(id, agent)| match agent {
            SshAgent::Keys(keys) => keys.iter().map(|it| key(id, it)).collect(),
            SshAgent::Socket(_) => Vec::new(),
        });
        secrets.chain(keys).collect()
    }

    fn stdin(&self) -> Option<Box<dyn Read + Send>> {
        self.stdin.lock().ok()?.take()
    }

    fn stdout(&self) -> Option<Box<dyn Write + Send>> {
        self.stdout.lock().ok()?.take().map(|stdout| Box::new(stdout) as Box<dyn Write + Send>)
    }
}

fn check_size(id: &str, value: &OsStr) -> Result<Vec<u8>, Failure> {
    match value.len() as u64 > MAX_SECRET {
        true => Err(too_large(id)),
        false => Ok(value.as_bytes().to_vec()),
    }
}

fn read(id: &str, path: &Path) -> Result<Vec<u8>, Failure> {
    let cannot = |error: std::io::Error| {
        let mut failure = usage(format!("cannot read secret `{id}` from `{}`", path.display()));
        failure.causes.push(error.to_string());
        failure.hint(format!(
            "name a file that is there, `id={id},src=FILE`, or a variable that is set, `id={id},env=NAME`"
        ))
    };
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_SECRET + 1).read_to_end(&mut bytes)).map_err(cannot)?;
    match bytes.len() as u64 > MAX_SECRET {
        true => Err(too_large(id)),
        false => Ok(bytes),
    }
}

fn too_large(id: &str) -> Failure {
    usage(format!("secret `{id}` is larger than {} KiB", MAX_SECRET / 1024))
}

/// Fails when the context is no directory, and says what it may have been meant as.
pub(crate) fn check_context(dir: &Path) -> Result<(), Failure> {
    match std::fs::metadata(dir) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => {
            let failure = usage(format!("the context `{}` is not a directory", dir.display()));
            let is_dockerfile = dir.file_name().is_some_and(|name| name.to_string_lossy().contains("ockerfile"));
            let is_tar = dir.to_string_lossy().contains(".tar");
            Err(match (is_dockerfile, is_tar) {
                (true, _) => failure.hint(format!("use `-f {}` and name the directory with the files", dir.display())),
                (_, true) => failure.hint(format!("send it to standard input: `kiln build - < {}`", dir.display())),
                _ => failure,
            })
        }
        Err(error) => {
            let mut failure = usage(format!("cannot read the context `{}`", dir.display()));
            failure.causes.push(error.to_string());
            Err(failure)
        }
    }
}

fn usage(message: String) -> Failure {
    Failure::new(FailureKind::Usage, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lender(path: &Path) -> Result<Lender, Failure> {
        Lender::new([("a".to_owned(), SecretSource::File(path.into()))].into(), BTreeMap::new(), None)
    }

    #[test]
    fn secrets_are_read_when_asked_for_and_missing_ones_are_found_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        assert!(lender(&path).is_err());
        std::fs::write(&path, "one").unwrap();
        let lender = lender(&path).unwrap();
        std::fs::write(&path, b"two\xff").unwrap();
        assert_eq!(lender.secret("a").unwrap().as_deref(), Some(b"two\xff".as_slice()));
        assert_eq!(lender.secret("b").unwrap(), None);
    }

    #[test]
    fn a_pipe_is_read_once() {
        let (read, mut write) = std::io::pipe().unwrap();
        write.write_all(b"piped").unwrap();
        drop(write);
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&read));
        let lender = lender(Path::new(&path)).unwrap();
        for _ in 0..2 {
            assert_eq!(lender.secret("a").unwrap().as_deref(), Some(b"piped".as_slice()));
        }
    }

    #[test]
    fn a_secret_that_would_fill_memory_is_refused() {
        let message = lender(Path::new("/dev/zero")).err().unwrap().message;
        assert_eq!(message, "secret `a` is larger than 500 KiB");
    }

    #[test]
    fn streams_are_lent_once() {
        let lender = Lender::new(BTreeMap::new(), BTreeMap::new(), Some(Box::new(&b"x"[..]))).unwrap();
        assert!(lender.stdin().is_some() && lender.stdin().is_none());
        assert!(lender.stdout().is_some() && lender.stdout().is_none());
    }

    #[test]
    fn a_context_that_is_a_file_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let hint = |name: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, "").unwrap();
            check_context(&path).unwrap_err().hints.concat().replace(&*dir.path().to_string_lossy(), "DIR")
        };
        assert_eq!(hint("app.Dockerfile"), "use `-f DIR/app.Dockerfile` and name the directory with the files");
        assert_eq!(hint("ctx.tar.gz"), "send it to standard input: `kiln build - < DIR/ctx.tar.gz`");
        assert_eq!(hint("x"), "");
        assert!(check_context(dir.path()).is_ok());
        assert!(check_context(&dir.path().join("none")).is_err());
    }
}
