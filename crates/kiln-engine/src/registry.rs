//! The one registry client of an engine; nothing of it is set up before it is needed.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use kiln_image::{AuthFiles, ClientOptions, HttpClient, RegistryClient, RegistryOptions, SettingsFiles};

/// Makes the client when first asked.
#[derive(Default)]
pub(crate) struct Registry {
    docker_config: Option<PathBuf>,
    is_offline: bool,
    settings: SettingsFiles,
    client: OnceLock<RegistryClient>,
}

impl Registry {
    /// Credentials are read from `docker_config`, when there is one; `settings` say how registries are reached.
    pub(crate) fn new(docker_config: Option<PathBuf>, settings: SettingsFiles) -> Self {
        Self { docker_config, settings, ..Self::default() }
    }

    /// The same, that asks nobody.
    pub(crate) fn offline(self) -> Self {
        Self { is_offline: true, ..self }
    }

    /// Whether nobody is asked for anything.
    pub(crate) fn is_offline(&self) -> bool {
        self.is_offline
    }

    /// The client.
    pub(crate) fn client(&self) -> &RegistryClient {
        self.client.get_or_init(|| {
            let client = ClientOptions {
                user_agent: concat!("kiln/", env!("CARGO_PKG_VERSION")).into(),
                is_offline: self.is_offline,
                settings: self.settings.clone(),
                ..Default::default()
            };
            let credentials = Arc::new(AuthFiles::new(self.docker_config.clone()));
            RegistryClient::new(RegistryOptions { client, credentials })
        })
    }

    /// The client for files from the web.
    pub(crate) fn http(&self) -> &HttpClient {
        self.client().http()
    }

    /// Where credentials are kept.
    pub(crate) fn docker_config(&self) -> Option<&PathBuf> {
        self.docker_config.as_ref()
    }
}
