//! What every command stands on: the environment, the state directory, the engine.

use std::path::PathBuf;

use kiln_engine::{Engine, EngineConfig};
use kiln_report::{Failure, FailureKind};

use crate::args::Environment;

/// The surroundings of a command.
#[derive(Debug)]
pub(crate) struct Setting {
    /// The environment.
    pub(crate) environment: Environment,
    /// The state directory that was typed.
    pub(crate) state: Option<PathBuf>,
}

impl Setting {
    /// Opens the engine on the state directory.
    pub(crate) fn engine(&self) -> Result<Engine, Failure> {
        Engine::open(EngineConfig {
            state: self.state_directory()?,
            docker_config: self.environment.docker_config(),
            jobs: None,
            proxies: self.environment.proxies(),
        })
    }

    fn state_directory(&self) -> Result<PathBuf, Failure> {
        let is_root = rustix::process::geteuid().is_root();
        let state = self.state.clone().or_else(|| self.environment.state(is_root));
        let state = state.ok_or_else(|| {
            Failure::new(FailureKind::Usage, "there is no place for images and the cache: `HOME` is not set")
                .hint("name a directory with `--state DIR` or `KILN_STATE`")
        })?;
        std::path::absolute(&state).map_err(|error| {
            let mut failure = Failure::new(FailureKind::Usage, format!("`{}` is no directory", state.display()));
            failure.causes.push(error.to_string());
            failure
        })
    }
}
