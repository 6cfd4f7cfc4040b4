//! Logging in and out: tries a credential against its registry, keeps it where Docker looks for it.

use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use serde_json::{Map, Value, json};

use crate::credentials::helper::Helper;
use crate::credentials::{self, Credential, Place, server_name};
use crate::{Error, RegistryClient, Result};

/// What a registry said to a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// What to keep: what was tried, or the identity token the registry gave for it.
    pub keep: Credential,
    /// Whether the registry asked for a login at all.
    pub was_asked: bool,
}

/// Where a credential was put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// In the file, readable for whoever can read the file.
    File(PathBuf),
    /// In the care of `docker-credential-<name>`.
    Helper(String),
}

/// Tries a credential against the `/v2/` of a registry.
pub async fn verify(client: &RegistryClient, registry: &str, credential: &Credential) -> Result<Verified> {
    client.verify_login(registry, credential).await
}

/// Keeps a credential for a registry in `config` or with the helper that file names. Unknown fields stay.
pub async fn store(config: &Path, registry: &str, credential: &Credential) -> Result<Kept> {
    let mut value = load(config).await?;
    let auths = auths_of(&mut value, config)?;
    let key = server_name(registry).to_owned();
    if let Some(helper) = helper_for(config, registry).await? {
        Helper::named(&helper, registry)?.store(registry, credential).await?;
        // As Docker does: an empty entry says that there is a login, and no older one may shadow it.
        auths.insert(key, json!({}));
        save(config, &value)?;
        return Ok(Kept::Helper(helper));
    }
    let entry = match credential {
        Credential::Password { username, password } => {
            json!({ "auth": base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}")) })
        }
        Credential::IdentityToken(token) => json!({ "identitytoken": token }),
        Credential::RegistryToken(token) => json!({ "registrytoken": token }),
    };
    auths.insert(key, entry);
    save(config, &value)?;
    Ok(Kept::File(config.to_owned()))
}

/// Forgets a registry's credential; whether there was one to forget.
pub async fn remove(config: &Path, registry: &str) -> Result<bool> {
    let mut value = load(config).await?;
    let helper = helper_for(config, registry).await?;
    if let Some(helper) = &helper {
        Helper::named(helper, registry)?.erase(registry).await?;
    }
    let had_entry = auths_of(&mut value, config)?.remove(server_name(registry)).is_some();
    if had_entry {
        save(config, &value)?;
    }
    Ok(had_entry || helper.is_some())
}

async fn load(config: &Path) -> Result<Value> {
    Ok(credentials::read_config(config).await?.unwrap_or_else(|| json!({})))
}

/// The helper that keeps this registry's credentials: where a login goes, whatever entries there are now.
async fn helper_for(config: &Path, registry: &str) -> Result<Option<String>> {
    let mut value = load(config).await?;
    value["auths"] = json!({});
    Ok(match credentials::find(&value, registry, "") {
        Place::Helper(helper) => Some(helper.to_owned()),
        _ => None,
    })
}

fn auths_of<'a>(value: &'a mut Value, config: &Path) -> Result<&'a mut Map<String, Value>> {
    if value["auths"].is_null() {
        value["auths"] = json!({});
    }
    value["auths"].as_object_mut().ok_or_else(|| {
        let reason = std::io::Error::new(std::io::ErrorKind::InvalidData, "its `auths` is not an object");
        Error::file("change credentials in", config)(reason)
    })
}

/// Replaces the file in one step, readable for its owner only. A link is followed, so that it stays one.
fn save(config: &Path, value: &Value) -> Result<()> {
    let target = std::fs::canonicalize(config).unwrap_or_else(|_| config.to_owned());
    let write = || -> std::io::Result<()> {
        let dir = target.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let mut file = tempfile::Builder::new().prefix(".config.json.").tempfile_in(dir)?;
        let mut text = Vec::new();
        let tabs = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        serde::Serialize::serialize(value, &mut serde_json::Serializer::with_formatter(&mut text, tabs))?;
        text.push(b'\n');
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o600))?;
        file.write_all(&text)?;
        file.as_file().sync_all()?;
        file.persist(&target)?;
        Ok(())
    };
    write().map_err(Error::file("write credentials to", config))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::{AuthFiles, Credentials as _};

    fn secret() -> Credential {
        Credential::Password { username: "u".into(), password: "p:w".into() }
    }

    #[tokio::test]
    async fn storing_keeps_what_it_does_not_know_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real.json");
        let config = dir.path().join("config.json");
        std::fs::write(&real, r#"{"HttpHeaders":{"X":"y"},"auths":{"b.example":{"auth":"YTpi"}},"detachKeys":"c"}"#)
            .unwrap();
        std::os::unix::fs::symlink(&real, &config).unwrap();
        assert_eq!(store(&config, "docker.io", &secret()).await.unwrap(), Kept::File(config.clone()));
        let value: Value = serde_json::from_slice(&std::fs::read(&real).unwrap()).unwrap();
        assert_eq!(value["HttpHeaders"]["X"], "y");
        assert_eq!(value["auths"]["b.example"]["auth"], "YTpi");
        assert_eq!(value["auths"]["https://index.docker.io/v1/"]["auth"], "dTpwOnc=");
        assert_eq!(std::fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(std::fs::symlink_metadata(&config).unwrap().is_symlink());
        let files = AuthFiles::new([config.clone()]);
        assert_eq!(files.lookup("docker.io", "x").await.unwrap(), Some(secret()));
        assert!(remove(&config, "docker.io").await.unwrap());
        assert!(!remove(&config, "docker.io").await.unwrap());
        assert_eq!(files.lookup("docker.io", "x").await.unwrap(), None);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[tokio::test]
    async fn the_first_login_makes_a_private_directory() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("new/config.json");
        store(&config, "h:1", &Credential::IdentityToken("t".into())).await.unwrap();
        let mode = std::fs::metadata(config.parent().unwrap()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let found = AuthFiles::new([config]).lookup("h:1", "x").await.unwrap();
        assert_eq!(found, Some(Credential::IdentityToken("t".into())));
    }

    #[tokio::test]
    async fn a_file_that_is_not_understood_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.json");
        for text in ["{", "[]", r#"{"auths":3}"#] {
            std::fs::write(&config, text).unwrap();
            assert!(store(&config, "h:1", &secret()).await.is_err(), "{text}");
            assert_eq!(std::fs::read_to_string(&config).unwrap(), text);
        }
    }
}
