//! The one registry client of an engine; nothing of it is set up before it is needed.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use kiln_fs::Limits;
use kiln_image::{AuthFiles, ClientOptions, HttpClient, RegistryClient, RegistryOptions, SettingsFiles};
use kiln_report::{Event, Reporter};

use crate::request::EngineConfig;

/// Makes the client when first asked.
#[derive(Default)]
pub(crate) struct Registry {
    docker_config: Option<PathBuf>,
    is_offline: bool,
    settings: SettingsFiles,
    largest_layer: Option<u64>,
    client: OnceLock<RegistryClient>,
    /// Those for registries that an output or a cache calls insecure.
    insecure: Mutex<HashMap<String, RegistryClient>>,
}

impl Registry {
    /// As an engine is set up.
    pub(crate) fn new(config: &EngineConfig) -> Self {
        Self {
            docker_config: config.docker_config.clone(),
            is_offline: config.is_offline,
            settings: config.registries.clone(),
            largest_layer: config.largest_layer,
            client: OnceLock::new(),
            insecure: Mutex::default(),
        }
    }

    /// How much a layer from elsewhere may ask for. Who names a size means it, however well it is packed.
    pub(crate) fn limits(&self) -> Limits {
        match self.largest_layer {
            Some(bytes) => Limits { bytes, ..Limits::default() }.of_any_ratio(),
            None => Limits::default(),
        }
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

    /// The client for a registry that may be insecure where it is named.
    pub(crate) fn client_for(&self, registry: &str, may_be_insecure: bool) -> RegistryClient {
        if !may_be_insecure {
            return self.client().clone();
        }
        let mut known = self.insecure.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(registry.to_owned()).or_insert_with(|| self.client().allowing_insecure(registry)).clone()
    }

    /// Says which mirrors were passed over since, and why; each of them once.
    pub(crate) fn tell_mirrors(&self, reporter: &dyn Reporter) {
        let passed_over = self.client.get().map(RegistryClient::passed_over).unwrap_or_default();
        passed_over.into_iter().for_each(|note| reporter.report(Event::Note(note)));
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
