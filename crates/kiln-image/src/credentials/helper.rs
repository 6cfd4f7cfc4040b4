//! Talks to `docker-credential-*` helpers, within ten seconds and a mebibyte.
//!
//! The only processes this crate starts: helpers the user has named in a credential file.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Child;

use super::{Credential, server_name};
use crate::{Error, Result};

const PATIENCE: Duration = Duration::from_secs(10);
const OUTPUT_LIMIT: u64 = 1 << 20;

/// A helper the user has named.
pub(crate) struct Helper {
    program: PathBuf,
    patience: Duration,
}

impl Helper {
    /// The helper `docker-credential-<name>` of the search path.
    pub(crate) fn named(name: &str, registry: &str) -> Result<Self> {
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
            let reason = "the name of its credential helper is not a word".into();
            return Err(Error::Credentials { host: registry.into(), reason });
        }
        Ok(Self { program: format!("docker-credential-{name}").into(), patience: PATIENCE })
    }

    /// Asks for a registry's credential; `None` when the helper says it has none.
    pub(crate) async fn get(&self, registry: &str) -> Result<Option<Credential>> {
        let answer = self.run("get", registry, server_name(registry).as_bytes()).await?;
        if !answer.ok {
            // The protocol's way to say "nothing stored" (docker-credential-helpers, credentials/error.go).
            if answer.said("credentials not found") || answer.said("no credentials server") {
                return Ok(None);
            }
            return Err(self.wrong(registry, &answer.complaint()));
        }
        let value: Value =
            serde_json::from_slice(&answer.stdout).map_err(|_| self.wrong(registry, "its answer is not JSON"))?;
        let text = |key: &str| value[key].as_str().map(str::to_owned);
        match (text("Username"), text("Secret")) {
            (Some(username), Some(secret)) if username == "<token>" => Ok(Some(Credential::IdentityToken(secret))),
            (Some(username), Some(password)) => Ok(Some(Credential::Password { username, password })),
            _ => Err(self.wrong(registry, "its answer has no `Username` and `Secret`")),
        }
    }

    /// Has it keep a credential.
    pub(crate) async fn store(&self, registry: &str, credential: &Credential) -> Result<()> {
        let (username, secret) = match credential {
            Credential::Password { username, password } => (username.as_str(), password),
            Credential::IdentityToken(token) | Credential::RegistryToken(token) => ("<token>", token),
        };
        let message = serde_json::json!({ "ServerURL": server_name(registry), "Username": username, "Secret": secret });
        let answer = self.run("store", registry, message.to_string().as_bytes()).await?;
        if answer.ok { Ok(()) } else { Err(self.wrong(registry, &answer.complaint())) }
    }

    /// Has it forget a credential.
    pub(crate) async fn erase(&self, registry: &str) -> Result<()> {
        let answer = self.run("erase", registry, server_name(registry).as_bytes()).await?;
        if answer.ok || answer.said("credentials not found") {
            return Ok(());
        }
        Err(self.wrong(registry, &answer.complaint()))
    }

    fn wrong(&self, registry: &str, reason: &str) -> Error {
        Error::Credentials { host: registry.into(), reason: format!("`{}`: {reason}", self.program.display()) }
    }

    async fn run(&self, action: &str, registry: &str, input: &[u8]) -> Result<Answer> {
        let mut child = tokio::process::Command::new(&self.program)
            .arg(action)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| self.wrong(registry, &format!("it does not start: {error}")))?;
        match tokio::time::timeout(self.patience, talk(&mut child, input)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.wrong(registry, &error.to_string())),
            Err(_) => Err(self.wrong(registry, &format!("no answer within {} s", self.patience.as_secs_f32()))),
        }
    }
}

async fn talk(child: &mut Child, input: &[u8]) -> std::io::Result<Answer> {
    let mut stdin = child.stdin.take().expect("it is piped");
    // A helper may answer without reading all of its input.
    let _ = stdin.write_all(input).await;
    drop(stdin);
    let out = child.stdout.take().expect("it is piped");
    let err = child.stderr.take().expect("it is piped");
    // The first that says too much ends both: a helper stuck on one full pipe never closes the other.
    let (stdout, stderr) = tokio::try_join!(read_bounded(out), read_bounded(err))?;
    let status = child.wait().await?;
    Ok(Answer { ok: status.success(), stdout, stderr })
}

async fn read_bounded(pipe: impl AsyncRead + Unpin) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    pipe.take(OUTPUT_LIMIT + 1).read_to_end(&mut bytes).await?;
    if bytes.len() as u64 > OUTPUT_LIMIT {
        return Err(std::io::Error::other("it says more than a mebibyte"));
    }
    Ok(bytes)
}

struct Answer {
    ok: bool,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Answer {
    fn said(&self, words: &str) -> bool {
        let contains = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains(words);
        !self.ok && (contains(&self.stdout) || contains(&self.stderr))
    }

    /// What it complained about. Only from stderr: stdout is where secrets go.
    fn complaint(&self) -> String {
        let text = String::from_utf8_lossy(&self.stderr);
        let line: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect();
        if line.is_empty() { "it failed".into() } else { line }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Instant;

    use super::*;

    /// A script being written while another test forks could not be started: "text file busy".
    static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

    /// A helper that is a shell script; its calls are kept in `calls`.
    fn script(dir: &tempfile::TempDir, text: &str) -> Helper {
        let program = dir.path().join("docker-credential-test");
        let calls = dir.path().join("calls");
        let text = format!("#!/bin/sh\n{{ echo \"$1\"; cat; echo; }} >> {}\n{text}\n", calls.display());
        std::fs::write(&program, text).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        Helper { program, patience: Duration::from_secs(5) }
    }

    #[tokio::test]
    async fn a_helper_is_asked_by_the_name_docker_uses() {
        let _turn = ONE_AT_A_TIME.lock().await;
        let dir = tempfile::tempdir().unwrap();
        let helper = script(&dir, r#"echo '{"ServerURL":"x","Username":"u","Secret":"s"}'"#);
        let expected = Credential::Password { username: "u".into(), password: "s".into() };
        assert_eq!(helper.get("docker.io").await.unwrap(), Some(expected.clone()));
        helper.store("h:1", &expected).await.unwrap();
        helper.erase("h:1").await.unwrap();
        let calls = std::fs::read_to_string(dir.path().join("calls")).unwrap();
        let store = r#"{"Secret":"s","ServerURL":"h:1","Username":"u"}"#;
        assert_eq!(calls, format!("get\nhttps://index.docker.io/v1/\nstore\n{store}\nerase\nh:1\n"));
        let token = script(&dir, r#"echo '{"Username":"<token>","Secret":"t"}'"#);
        assert_eq!(token.get("h:1").await.unwrap(), Some(Credential::IdentityToken("t".into())));
    }

    #[tokio::test]
    async fn having_nothing_is_not_being_broken() {
        let _turn = ONE_AT_A_TIME.lock().await;
        let dir = tempfile::tempdir().unwrap();
        let empty = script(&dir, "echo 'credentials not found in native keychain'; exit 1");
        assert_eq!(empty.get("h:1").await.unwrap(), None);
        empty.erase("h:1").await.unwrap();
        for (broken, words) in [
            ("echo secret; echo locked >&2; exit 1", "locked"),
            ("echo secret; exit 3", "failed"),
            ("echo secret", "not JSON"),
            ("echo '{}'", "no `Username`"),
            ("head -c 10000000 /dev/zero", "more than a mebibyte"),
        ] {
            let error = script(&dir, broken).get("h:1").await.unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("`h:1`") && !error.contains("secret"), "{broken}: {error}");
        }
    }

    #[tokio::test]
    async fn a_helper_that_hangs_is_killed() {
        let _turn = ONE_AT_A_TIME.lock().await;
        let dir = tempfile::tempdir().unwrap();
        let mut helper = script(&dir, "exec sleep 1000");
        helper.patience = Duration::from_millis(200);
        let begun = Instant::now();
        let error = helper.get("h:1").await.unwrap_err().to_string();
        assert!(error.contains("no answer") && begun.elapsed() < Duration::from_secs(3), "{error}");
    }

    #[tokio::test]
    async fn names_are_words_and_missing_helpers_are_errors() {
        let _turn = ONE_AT_A_TIME.lock().await;
        for bad in ["", "../x", "a b", "/bin/sh", "x;y"] {
            assert!(Helper::named(bad, "h:1").is_err(), "{bad}");
        }
        let error = Helper::named("kiln-has-no-such", "h:1").unwrap().get("h:1").await.unwrap_err();
        assert!(error.to_string().contains("`docker-credential-kiln-has-no-such`"), "{error}");
    }
}
