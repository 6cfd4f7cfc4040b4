//! Whose name we give to a registry: Docker's `config.json`, Podman's `auth.json`, and credential helpers.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use serde_json::Value;

use crate::{Error, Result};

pub(crate) mod helper;

/// Docker Hub's name in credential files, for reasons of history.
pub(crate) const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// What a registry accepts instead of a face. `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// A name and a password or access token.
    Password {
        /// The name.
        username: String,
        /// The password.
        password: String,
    },
    /// An OAuth2 refresh token.
    IdentityToken(String),
    /// A bearer token, used as it is.
    RegistryToken(String),
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Password { username, .. } => write!(f, "Password {{ username: {username:?}, .. }}"),
            Self::IdentityToken(_) => f.write_str("IdentityToken(..)"),
            Self::RegistryToken(_) => f.write_str("RegistryToken(..)"),
        }
    }
}

/// Knows credentials. Asked only after a registry wanted some.
#[async_trait]
pub trait Credentials: Send + Sync {
    /// The credential for a repository of a registry, named as in references: `docker.io`, `host:port`.
    async fn lookup(&self, registry: &str, repository: &str) -> Result<Option<Credential>>;
}

/// Knows none.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoCredentials;

#[async_trait]
impl Credentials for NoCredentials {
    async fn lookup(&self, _registry: &str, _repository: &str) -> Result<Option<Credential>> {
        Ok(None)
    }
}

/// Credential files, the first that knows a registry wins. Files that do not exist know none.
#[derive(Debug, Clone, Default)]
pub struct AuthFiles {
    paths: Vec<PathBuf>,
}

impl AuthFiles {
    /// Reads these files when asked, in this order.
    pub fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        Self { paths: paths.into_iter().collect() }
    }
}

#[async_trait]
impl Credentials for AuthFiles {
    async fn lookup(&self, registry: &str, repository: &str) -> Result<Option<Credential>> {
        for path in &self.paths {
            let Some(config) = read_config(path).await? else { continue };
            if let Some(found) = look_in(&config, registry, repository).await? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

const FILE_LIMIT: u64 = 4 << 20;

/// Reads a credential file; `None` when there is none.
pub(crate) async fn read_config(path: &Path) -> Result<Option<Value>> {
    let failed = |error| Error::file("read credentials from", path)(error);
    let size = match tokio::fs::metadata(path).await {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    crate::limits::check_size("read credentials", "the file", size, FILE_LIMIT)?;
    let bytes = tokio::fs::read(path).await.map_err(failed)?;
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    // The parser's message could quote a secret; its position cannot.
    let value: Value = serde_json::from_slice(&bytes).map_err(|error| {
        let place = format!("not valid JSON at line {}, column {}", error.line(), error.column());
        failed(std::io::Error::new(std::io::ErrorKind::InvalidData, place))
    })?;
    if !value.is_object() {
        return Err(failed(std::io::Error::new(std::io::ErrorKind::InvalidData, "not a JSON object")));
    }
    Ok(Some(value))
}

/// The helpers that a credential file names, each once and by the name it has there; `None` when there is no such file.
pub async fn credential_helpers(path: &Path) -> Result<Option<Vec<String>>> {
    Ok(read_config(path).await?.as_ref().map(helpers))
}

fn helpers(config: &Value) -> Vec<String> {
    let named = config["credHelpers"].as_object().into_iter().flat_map(|helpers| helpers.values());
    let named = named.chain([&config["credsStore"]]).filter_map(Value::as_str);
    let all: std::collections::BTreeSet<&str> = named.filter(|name| !name.is_empty()).collect();
    all.into_iter().map(str::to_owned).collect()
}

/// Where the credential for a registry lives.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place<'a> {
    Helper(&'a str),
    Inline(&'a Value),
    Nowhere,
}

/// A helper named for the registry, else what the file itself holds, else the helper for all registries.
pub(crate) fn find<'a>(config: &'a Value, registry: &str, repository: &str) -> Place<'a> {
    let helper = config["credHelpers"].as_object().and_then(|helpers| {
        names_of(registry).find_map(|name| helpers.get(name)).and_then(Value::as_str).filter(|name| !name.is_empty())
    });
    if let Some(helper) = helper {
        return Place::Helper(helper);
    }
    let inline = config["auths"].as_object().and_then(|auths| {
        let wanted = format!("{registry}/{repository}");
        let exact = names_of(registry).find_map(|name| auths.get(name));
        let by_path = || {
            std::iter::successors(Some(wanted.as_str()), |path| path.rsplit_once('/').map(|(parent, _)| parent))
                .find_map(|path| auths.get(path))
        };
        let by_host = || auths.iter().find(|(key, _)| same_registry(key, registry)).map(|(_, entry)| entry);
        by_path().or(exact).or_else(by_host)
    });
    if let Some(entry) = inline.filter(|entry| says_something(entry)) {
        return Place::Inline(entry);
    }
    match config["credsStore"].as_str() {
        Some(store) if !store.is_empty() => Place::Helper(store),
        _ => Place::Nowhere,
    }
}

async fn look_in(config: &Value, registry: &str, repository: &str) -> Result<Option<Credential>> {
    match find(config, registry, repository) {
        Place::Nowhere => Ok(None),
        Place::Inline(entry) => read_entry(entry)
            .map(Some)
            .map_err(|reason| Error::Credentials { host: registry.into(), reason: reason.into() }),
        Place::Helper(name) => helper::Helper::named(name, registry)?.get(registry).await,
    }
}

/// The name a registry has in credential files and towards helpers.
pub(crate) fn server_name(registry: &str) -> &str {
    if registry == "docker.io" { DOCKER_HUB } else { registry }
}

fn names_of(registry: &str) -> impl Iterator<Item = &str> {
    let hub: &[&str] = match registry {
        "docker.io" => &[DOCKER_HUB, "index.docker.io", "registry-1.docker.io"],
        _ => &[],
    };
    hub.iter().copied().chain([registry])
}

/// Whether a key such as `https://host/v1/` means this registry.
fn same_registry(key: &str, registry: &str) -> bool {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    let host = match (bare, key.split_once('/')) {
        (Some(bare), _) => bare.split('/').next().unwrap_or(bare),
        (None, Some((host, "v1" | "v1/" | "v2" | "v2/"))) => host,
        _ => return false,
    };
    names_of(registry).any(|name| name == host)
}

fn says_something(entry: &Value) -> bool {
    ["auth", "username", "password", "identitytoken", "registrytoken"]
        .iter()
        .any(|key| entry[key].as_str().is_some_and(|text| !text.is_empty()))
}

fn read_entry(entry: &Value) -> Result<Credential, &'static str> {
    let text = |key: &str| entry[key].as_str().filter(|text| !text.is_empty());
    if let Some(token) = text("registrytoken") {
        return Ok(Credential::RegistryToken(token.into()));
    }
    if let Some(token) = text("identitytoken") {
        return Ok(Credential::IdentityToken(token.into()));
    }
    if let Some(auth) = text("auth") {
        return decode_auth(auth);
    }
    match (text("username"), text("password")) {
        (Some(username), Some(password)) => {
            Ok(Credential::Password { username: username.into(), password: password.into() })
        }
        _ => Err("the entry has a name or a password but not both"),
    }
}

fn decode_auth(auth: &str) -> Result<Credential, &'static str> {
    let lenient = GeneralPurposeConfig::new().with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent);
    let engine = GeneralPurpose::new(&base64::alphabet::STANDARD, lenient);
    let bytes = engine.decode(auth.trim()).map_err(|_| "its `auth` is not base64")?;
    let pair = String::from_utf8(bytes).map_err(|_| "its `auth` is not text")?;
    let (username, password) = pair.split_once(':').ok_or("its `auth` is not a name and a password")?;
    Ok(Credential::Password { username: username.into(), password: password.trim_end_matches('\0').into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn helpers_are_told_once_each() {
        let config = json!({ "credsStore": "pass", "credHelpers": { "a": "ecr", "b": "pass", "c": "", "d": 1 } });
        assert_eq!(helpers(&config), ["ecr", "pass"]);
        assert!(helpers(&json!({ "auths": {} })).is_empty());
    }

    fn auth(pair: &str) -> Value {
        json!({ "auth": base64::engine::general_purpose::STANDARD.encode(pair) })
    }

    fn password(username: &str, password: &str) -> Option<Credential> {
        Some(Credential::Password { username: username.into(), password: password.into() })
    }

    #[tokio::test]
    async fn entries_are_found_under_all_their_spellings() {
        let config = json!({ "auths": {
            DOCKER_HUB: auth("hub:h"),
            "https://old.example/v1/": auth("old:o"),
            "localhost:5000": auth("local:l:with:colons"),
            "quay.io": auth("quay:q"),
            "quay.io/org/app": auth("org:a"),
            "token.example": { "identitytoken": "T", "auth": "dTo=" },
            "plain.example": { "username": "u", "password": "p" },
            "empty.example": {},
        }});
        let get = async |registry: &str, repository: &str| look_in(&config, registry, repository).await.unwrap();
        assert_eq!(get("docker.io", "library/x").await, password("hub", "h"));
        assert_eq!(get("old.example", "x").await, password("old", "o"));
        assert_eq!(get("localhost:5000", "x").await, password("local", "l:with:colons"));
        assert_eq!(get("localhost:5001", "x").await, None);
        assert_eq!(get("quay.io", "x").await, password("quay", "q"));
        assert_eq!(get("quay.io", "org/app/sub").await, password("org", "a"));
        assert_eq!(get("quay.io", "org/application").await, password("quay", "q"));
        assert_eq!(get("token.example", "x").await, Some(Credential::IdentityToken("T".into())));
        assert_eq!(get("plain.example", "x").await, password("u", "p"));
        assert_eq!(get("empty.example", "x").await, None);
        assert_eq!(get("example", "x").await, None);
    }

    #[test]
    fn helpers_come_before_entries_and_the_store_after() {
        let config = json!({
            "credsStore": "all",
            "credHelpers": { "a.example": "own" },
            "auths": { "a.example": auth("a:a"), "b.example": auth("b:b"), "c.example": {} },
        });
        assert_eq!(find(&config, "a.example", "x"), Place::Helper("own"));
        assert!(matches!(find(&config, "b.example", "x"), Place::Inline(_)));
        assert_eq!(find(&config, "c.example", "x"), Place::Helper("all"));
        assert_eq!(find(&json!({}), "c.example", "x"), Place::Nowhere);
        assert_eq!(find(&json!({ "auths": [], "credHelpers": 3 }), "c.example", "x"), Place::Nowhere);
    }

    #[tokio::test]
    async fn a_broken_entry_is_an_error_that_shows_no_secret() {
        for entry in [json!({ "auth": "c2VjcmV0" }), json!({ "auth": "!secret" }), json!({ "username": "secret" })] {
            let config = json!({ "auths": { "a.example": entry } });
            let error = look_in(&config, "a.example", "x").await.unwrap_err();
            assert!(error.to_string().contains("`a.example`") && !error.to_string().contains("secret"), "{error}");
        }
    }

    #[tokio::test]
    async fn files_are_asked_in_order_and_may_be_absent() {
        let dir = tempfile::tempdir().unwrap();
        let (docker, podman) = (dir.path().join("config.json"), dir.path().join("auth.json"));
        let files = AuthFiles::new([dir.path().join("none.json"), docker.clone(), podman.clone()]);
        assert_eq!(files.lookup("a.example", "x").await.unwrap(), None);
        std::fs::write(&docker, json!({ "auths": { "a.example": auth("d:d") } }).to_string()).unwrap();
        std::fs::write(&podman, json!({ "auths": { "a.example": auth("p:p"), "b.example": auth("p:p") } }).to_string())
            .unwrap();
        assert_eq!(files.lookup("a.example", "x").await.unwrap(), password("d", "d"));
        assert_eq!(files.lookup("b.example", "x").await.unwrap(), password("p", "p"));
        std::fs::write(&docker, "{\"auths\": secret").unwrap();
        let error = files.lookup("a.example", "x").await.unwrap_err();
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    }

    #[test]
    fn debug_output_shows_no_secret() {
        let shown = format!(
            "{:?} {:?} {:?}",
            password("u", "hush").unwrap(),
            Credential::IdentityToken("hush".into()),
            Credential::RegistryToken("hush".into())
        );
        assert!(!shown.contains("hush"));
    }
}
