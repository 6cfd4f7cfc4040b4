//! Talks to `docker-credential-*` helpers, within ten seconds and a mebibyte.
//!
//! The only processes this crate starts: helpers the user has named in a credential file.

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Credential, server_name};
use crate::{Error, Result};

const PATIENCE: Duration = Duration::from_secs(10);
const OUTPUT_LIMIT: u64 = 1 << 20;

/// Asks a helper for a registry's credential; `None` when the helper says it has none.
pub(crate) async fn get(helper: &str, registry: &str) -> Result<Option<Credential>> {
    let answer = run(helper, "get", registry, server_name(registry).as_bytes()).await?;
    let wrong =
        |reason: &str| Error::Credentials { host: registry.into(), reason: format!("{}: {reason}", name(helper)) };
    if !answer.ok {
        // The protocol's way to say "nothing stored" (docker-credential-helpers, credentials/error.go).
        if answer.said("credentials not found") || answer.said("no credentials server") {
            return Ok(None);
        }
        return Err(wrong(&answer.complaint()));
    }
    let value: Value = serde_json::from_slice(&answer.stdout).map_err(|_| wrong("its answer is not JSON"))?;
    let text = |key: &str| value[key].as_str().map(str::to_owned);
    match (text("Username"), text("Secret")) {
        (Some(username), Some(secret)) if username == "<token>" => Ok(Some(Credential::IdentityToken(secret))),
        (Some(username), Some(password)) => Ok(Some(Credential::Password { username, password })),
        _ => Err(wrong("its answer has no `Username` and `Secret`")),
    }
}

/// Has a helper keep a credential.
pub(crate) async fn store(helper: &str, registry: &str, credential: &Credential) -> Result<()> {
    let (username, secret) = match credential {
        Credential::Password { username, password } => (username.as_str(), password),
        Credential::IdentityToken(token) | Credential::RegistryToken(token) => ("<token>", token),
    };
    let message = serde_json::json!({ "ServerURL": server_name(registry), "Username": username, "Secret": secret });
    let answer = run(helper, "store", registry, message.to_string().as_bytes()).await?;
    answer.succeeded(helper, registry)
}

/// Has a helper forget a credential.
pub(crate) async fn erase(helper: &str, registry: &str) -> Result<()> {
    let answer = run(helper, "erase", registry, server_name(registry).as_bytes()).await?;
    if answer.said("credentials not found") {
        return Ok(());
    }
    answer.succeeded(helper, registry)
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

    fn succeeded(&self, helper: &str, registry: &str) -> Result<()> {
        if self.ok {
            return Ok(());
        }
        Err(Error::Credentials { host: registry.into(), reason: format!("{}: {}", name(helper), self.complaint()) })
    }
}

fn name(helper: &str) -> String {
    format!("`docker-credential-{helper}`")
}

async fn run(helper: &str, action: &str, registry: &str, input: &[u8]) -> Result<Answer> {
    let wrong = |reason: String| Error::Credentials { host: registry.into(), reason };
    if !helper.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
        return Err(wrong("the name of its credential helper is not a word".into()));
    }
    let mut child = tokio::process::Command::new(format!("docker-credential-{helper}"))
        .arg(action)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| wrong(format!("cannot start {}: {error}", name(helper))))?;
    let talk = async {
        let mut stdin = child.stdin.take().expect("it is piped");
        // A helper may answer without reading all of its input.
        let _ = stdin.write_all(input).await;
        drop(stdin);
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let mut out = child.stdout.take().expect("it is piped").take(OUTPUT_LIMIT + 1);
        let mut err = child.stderr.take().expect("it is piped").take(OUTPUT_LIMIT + 1);
        tokio::try_join!(out.read_to_end(&mut stdout), err.read_to_end(&mut stderr))?;
        if (stdout.len().max(stderr.len())) as u64 > OUTPUT_LIMIT {
            return Err(std::io::Error::other("it says more than a mebibyte"));
        }
        let status = child.wait().await?;
        Ok(Answer { ok: status.success(), stdout, stderr })
    };
    match tokio::time::timeout(PATIENCE, talk).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(wrong(format!("{}: {error}", name(helper)))),
        Err(_) => Err(wrong(format!("{} does not answer within {} s", name(helper), PATIENCE.as_secs()))),
    }
}
