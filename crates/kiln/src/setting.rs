//! What every command stands on: the environment, the state directory, the engine.

use std::path::{Path, PathBuf};

use kiln_engine::{Arrival, Engine, EngineConfig, Isolation};
use kiln_report::{Failure, FailureKind};

use crate::args::{Environment, space};

/// What may be asked of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    Any,
    None,
}

/// The surroundings of a command.
#[derive(Debug)]
pub(crate) struct Setting {
    /// The environment.
    pub(crate) environment: Environment,
    /// The state directory that was typed.
    pub(crate) state: Option<PathBuf>,
    /// The settings of registries that were typed.
    pub(crate) registry_config: Option<PathBuf>,
    /// The largest layer that was typed.
    pub(crate) max_layer_size: Option<u64>,
    /// Whether kiln was started by root.
    pub(crate) is_root: bool,
    /// What is said of user ids when the first step runs.
    pub(crate) ids_note: Option<String>,
    /// Whether this process has the rights over layers that it can have.
    pub(crate) has_become_root: bool,
    /// What keeps steps apart from the machine.
    pub(crate) isolation: Isolation,
    /// Which user asks `kiln doctor`.
    pub(crate) arrival: Option<Arrival>,
}

impl Setting {
    /// Opens the engine on the state directory.
    pub(crate) fn engine(&self) -> Result<Engine, Failure> {
        self.engine_on(Network::Any)
    }

    /// The same, that may ask the network or not. `KILN_OFFLINE` counts, too.
    pub(crate) fn engine_on(&self, network: Network) -> Result<Engine, Failure> {
        Engine::open(EngineConfig {
            state: self.state_directory()?,
            docker_config: self.environment.docker_config(),
            registries: self.environment.registries(self.registry_config.clone()),
            largest_layer: self.max_layer_size,
            search_path: self.environment.raw("PATH").map(ToOwned::to_owned),
            device_specs: self.environment.device_specs(),
            docker_host: self.environment.text("DOCKER_HOST").map(str::to_owned),
            daemon_env: self.environment.for_daemons(),
            gc: space::gc(&self.environment)?,
            proxies: self.environment.proxies(),
            ids_note: self.ids_note.clone(),
            stacking: self.environment.stacking()?,
            has_become_root: self.has_become_root,
            isolation: self.isolation,
            is_offline: network == Network::None || self.environment.switch("KILN_OFFLINE")?,
        })
    }

    fn state_directory(&self) -> Result<PathBuf, Failure> {
        let state = state_directory(self.state.as_deref(), &self.environment, self.is_root)?;
        std::path::absolute(&state).map_err(|error| {
            let mut failure = Failure::new(FailureKind::Usage, format!("`{}` is no directory", state.display()));
            failure.causes.push(error.to_string());
            failure
        })
    }
}

/// What was typed, else what the environment says.
fn state_directory(typed: Option<&Path>, environment: &Environment, is_root: bool) -> Result<PathBuf, Failure> {
    let state = typed.map(Path::to_path_buf).or_else(|| environment.state(is_root));
    state.ok_or_else(|| {
        Failure::new(FailureKind::Usage, "there is no place for images and the cache: `HOME` is not set")
            .hint("name a directory with `--state DIR` or `KILN_STATE`")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_counts_first_and_without_a_home_it_must_be() {
        let environment = Environment::from([("KILN_STATE", "/s"), ("HOME", "/h")]);
        let typed = Path::new("typed");
        assert_eq!(state_directory(Some(typed), &environment, false).unwrap(), typed);
        assert_eq!(state_directory(None, &environment, true).unwrap(), Path::new("/s"));
        let failure = state_directory(None, &Environment::default(), false).unwrap_err();
        assert_eq!(failure.hints, ["name a directory with `--state DIR` or `KILN_STATE`"]);
    }
}
