//! What a client lends to a build: secrets and its standard streams.

use std::io::{Read, Write};

use kiln_report::Failure;

/// A client, as the engine sees it. Nothing it lends is kept longer than the step that asked.
pub trait Session: Send + Sync {
    /// The value of a secret, or `None` when the client has none by this id.
    fn secret(&self, id: &str) -> Result<Option<Vec<u8>>, Failure>;

    /// Standard input, once.
    fn stdin(&self) -> Option<Box<dyn Read + Send>>;

    /// Standard output, for `dest=-`, once.
    fn stdout(&self) -> Option<Box<dyn Write + Send>>;
}

/// A client that lends nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoSession;

impl Session for NoSession {
    fn secret(&self, _id: &str) -> Result<Option<Vec<u8>>, Failure> {
        Ok(None)
    }

    fn stdin(&self) -> Option<Box<dyn Read + Send>> {
        None
    }

    fn stdout(&self) -> Option<Box<dyn Write + Send>> {
        None
    }
}
