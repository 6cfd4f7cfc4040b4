//! Agents for ssh, as steps and git see them: a socket of ours that answers for an agent or keys of the client.

mod keys;
mod protocol;
mod socket;

use std::path::PathBuf;

pub use keys::SshKey;
pub(crate) use socket::{Access, NAME as SOCKET, Socket};

/// The agent that is meant when none is named.
pub(crate) const DEFAULT: &str = "default";

/// What a client lends for ssh.
#[derive(Debug, Clone)]
pub enum SshAgent {
    /// An agent, by its socket. It is asked for its keys and for signatures; nothing else gets through.
    Socket(PathBuf),
    /// Keys that kiln signs with itself.
    Keys(Vec<SshKey>),
}

/// The id that is meant.
pub(crate) fn named(id: &str) -> &str {
    if id.is_empty() { DEFAULT } else { id }
}

/// How to lend an agent.
pub(crate) fn how_to_lend(id: &str) -> String {
    match id {
        DEFAULT => {
            "lend the agent of `SSH_AUTH_SOCK` with `--ssh default`, or a key with `--ssh default=FILE`".to_owned()
        }
        id => format!("lend it with `--ssh {id}=SOCKET` or `--ssh {id}=FILE`"),
    }
}
