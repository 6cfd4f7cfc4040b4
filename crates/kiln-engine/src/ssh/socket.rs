//! A socket of ours, for one step or one git: behind it the client's agent or keys.

use std::ffi::OsStr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_store::ActiveLayer;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::AbortHandle;

use super::protocol::{FAILURE, is_let_through, read, write};
use super::{SshAgent, SshKey, keys};
use crate::failure::Context as _;
use crate::job::{Job, Result};
use crate::scratch::{Scratch, open_dir};

/// The socket's name in its directory.
pub(crate) const NAME: &str = "agent";

/// Who may use the socket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Access {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// A socket that is served until it is dropped.
pub(crate) struct Socket {
    directory: OwnedFd,
    serving: AbortHandle,
    scratch: Scratch<ActiveLayer>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Socket {
    /// Serves what the client lends under `id`, if it lends anything.
    #[expect(
        clippy::disallowed_methods,
        reason = "the agent is named by whoever runs us; ours is in a new directory, by its handle"
    )]
    pub(crate) fn lend(job: &Arc<Job>, id: &str, access: Access) -> Result<Option<Self>> {
        let id = super::named(id);
        let Some(agent) = job.session.ssh(id)? else { return Ok(None) };
        if let SshAgent::Socket(path) = &agent {
            std::os::unix::net::UnixStream::connect(path)
                .or_environment(|| format!("cannot reach the ssh agent `{id}` at `{}`", path.display()))?;
        }
        let scratch = Scratch::layer(&job.store, &job.lease)?;
        let directory = open_dir(&scratch.tree())?.into_fd();
        let doing = || format!("cannot serve the ssh agent `{id}`");
        // A socket's path is short by law; the state directory's need not be.
        let path = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(NAME);
        let listener = std::os::unix::net::UnixListener::bind(&path).or_environment(doing)?;
        chown(&path, Some(access.uid), Some(access.gid)).or_environment(doing)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(access.mode)).or_environment(doing)?;
        listener.set_nonblocking(true).or_environment(doing)?;
        let listener = UnixListener::from_std(listener).or_environment(doing)?;
        let serving = tokio::spawn(serve(listener, agent)).abort_handle();
        Ok(Some(Self { directory, serving, scratch }))
    }

    /// The directory it is in.
    pub(crate) fn directory(&self) -> PathBuf {
        self.scratch.tree()
    }

    /// Its path for another program of ours, as long as we live.
    pub(crate) fn address(&self) -> PathBuf {
        let directory = format!("/proc/{}/fd/{}", std::process::id(), self.directory.as_raw_fd());
        Path::new(&directory).join(OsStr::new(NAME))
    }
}

async fn serve(listener: UnixListener, agent: SshAgent) {
    let agent = Arc::new(agent);
    // Conversations end with the listener.
    let mut conversations = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let agent = Arc::clone(&agent);
        conversations.spawn(async move {
            // What goes wrong is told to the other side by silence, as agents do.
            let _ = match agent.as_ref() {
                SshAgent::Socket(path) => pass_on(stream, path).await,
                SshAgent::Keys(keys) => answer(stream, keys).await,
            };
        });
        while conversations.try_join_next().is_some() {}
    }
}

async fn answer(mut stream: UnixStream, keys: &[SshKey]) -> std::io::Result<()> {
    while let Some(message) = read(&mut stream).await? {
        write(&mut stream, &keys::answer(keys, &message)).await?;
    }
    Ok(())
}

/// Only what changes nothing reaches the agent: it is its owner's, and what it keeps is no business of a build.
async fn pass_on(mut stream: UnixStream, path: &Path) -> std::io::Result<()> {
    let mut agent = UnixStream::connect(path).await?;
    while let Some(message) = read(&mut stream).await? {
        if !is_let_through(&message) {
            write(&mut stream, &[FAILURE]).await?;
            continue;
        }
        write(&mut agent, &message).await?;
        let Some(answer) = read(&mut agent).await? else { return Ok(()) };
        write(&mut stream, &answer).await?;
    }
    Ok(())
}
