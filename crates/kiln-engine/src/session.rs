//! What a client lends to a build: secrets, agents for ssh, and its standard streams.

use std::io::{Read, Write};

use kiln_report::{Failure, FailureKind};
use kiln_sys::secret::Secret;

use crate::ssh::SshAgent;

/// A client, as the engine sees it. Nothing it lends is kept longer than the step that asked.
pub trait Session: Send + Sync {
    /// The value of a secret, or `None` when the client has none by this id.
    fn secret(&self, id: &str) -> Result<Option<Vec<u8>>, Failure>;

    /// The agent for ssh by this id, or `None` when the client lends none.
    fn ssh(&self, id: &str) -> Result<Option<SshAgent>, Failure>;

    /// All that must not end in an image or in a log, as far as the client knows it beforehand.
    fn watched(&self) -> Result<Vec<Watched>, Failure> {
        Ok(Vec::new())
    }

    /// Standard input, once.
    fn stdin(&self) -> Option<Box<dyn Read + Send>>;

    /// Standard output, for `dest=-`, once.
    fn stdout(&self) -> Option<Box<dyn Write + Send>>;
}

/// Something that must not end in an image or in a log.
#[derive(Debug, Clone)]
pub struct Watched {
    /// What the client calls it.
    pub(crate) id: String,
    kind: WatchedKind,
    pub(crate) value: Secret,
}

/// Kinds of what is lent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchedKind {
    /// A secret.
    Secret,
    /// The file of a private key.
    SshKey,
}

impl Watched {
    /// Something by its id.
    pub fn new(id: &str, kind: WatchedKind, value: Vec<u8>) -> Self {
        Self { id: id.to_owned(), kind, value: value.into() }
    }

    /// What it is called in messages.
    pub(crate) fn name(&self) -> String {
        match self.kind {
            WatchedKind::Secret => format!("secret `{}`", self.id),
            WatchedKind::SshKey => format!("the ssh key of `{}`", self.id),
        }
    }
}

/// A client that lends nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoSession;

impl Session for NoSession {
    fn secret(&self, _id: &str) -> Result<Option<Vec<u8>>, Failure> {
        Ok(None)
    }

    fn ssh(&self, _id: &str) -> Result<Option<SshAgent>, Failure> {
        Ok(None)
    }

    fn stdin(&self) -> Option<Box<dyn Read + Send>> {
        None
    }

    fn stdout(&self) -> Option<Box<dyn Write + Send>> {
        None
    }
}

/// A secret that is a word for a header: without the line's end that files have.
pub(crate) fn text_secret(session: &dyn Session, id: &str) -> Result<Option<String>, Failure> {
    let Some(value) = session.secret(id)? else { return Ok(None) };
    let text = String::from_utf8(value).ok().map(|text| text.trim_end_matches(['\r', '\n']).to_owned());
    match text.filter(|text| !text.is_empty() && !text.chars().any(char::is_control)) {
        Some(text) => Ok(Some(text)),
        None => {
            let message = format!("secret `{id}` cannot be sent: it is empty, or not one line of text");
            Err(Failure::new(FailureKind::Usage, message))
        }
    }
}
