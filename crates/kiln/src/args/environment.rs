//! The environment, read once; everything else gets what it needs from here as a value.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use kiln_engine::{DoctorRequest, Isolation, SettingsFiles, Stacking};
use kiln_oci::{Platform, PlatformError};
use kiln_report::{Failure, FailureKind};

use super::value;

/// The variables of the process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment(BTreeMap<OsString, OsString>);

/// Variables that reach RUN steps without an ARG and are part of no cache key.
const PROXIES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];

impl Environment {
    /// Reads it.
    pub(crate) fn read() -> Self {
        Self(std::env::vars_os().collect())
    }

    /// A variable as text. One that is empty or no text counts as not set.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(OsStr::new(name)).and_then(|value| value.to_str()).filter(|value| !value.is_empty())
    }

    /// A variable that is on or off; not set it is off.
    pub(crate) fn switch(&self, name: &str) -> Result<bool, Failure> {
        let Some(text) = self.text(name) else { return Ok(false) };
        value::go_bool(text)
            .map_err(|_| Failure::new(FailureKind::Usage, format!("`{name}` is `{text}`: expected `1` or `0`")))
    }

    /// How layers become trees: `KILN_SNAPSHOTTER`.
    pub(crate) fn stacking(&self) -> Result<Option<Stacking>, Failure> {
        match self.text("KILN_SNAPSHOTTER") {
            None | Some("auto") => Ok(None),
            Some("overlay") => Ok(Some(Stacking::Overlay)),
            Some("native") => Ok(Some(Stacking::Native)),
            Some(other) => {
                let message = format!("`KILN_SNAPSHOTTER` is `{other}`: expected `auto`, `overlay` or `native`");
                Err(Failure::new(FailureKind::Usage, message))
            }
        }
    }

    /// What keeps steps apart from the machine: `KILN_ISOLATION`.
    pub(crate) fn isolation(&self) -> Result<Isolation, Failure> {
        let Some(text) = self.text("KILN_ISOLATION") else { return Ok(Isolation::default()) };
        value::isolation(text).map_err(|wrong| Failure::new(FailureKind::Usage, format!("`KILN_ISOLATION`: {wrong}")))
    }

    /// A variable as it is, for build arguments and secrets.
    pub(crate) fn raw(&self, name: &str) -> Option<&OsStr> {
        self.0.get(OsStr::new(name)).map(OsString::as_os_str)
    }

    /// The directory for state, when the command line names none.
    pub(crate) fn state(&self, is_root: bool) -> Option<PathBuf> {
        if let Some(dir) = self.path("KILN_STATE") {
            return Some(dir);
        }
        if is_root {
            return Some("/var/lib/kiln".into());
        }
        let data = self.path("XDG_DATA_HOME").filter(|dir| dir.is_absolute());
        let data = data.or_else(|| Some(self.path("HOME")?.join(".local/share")))?;
        Some(data.join("kiln"))
    }

    /// Docker's client configuration, where logins are kept.
    pub(crate) fn docker_config(&self) -> Option<PathBuf> {
        let dir = self.path("DOCKER_CONFIG").or_else(|| Some(self.path("HOME")?.join(".docker")))?;
        Some(dir.join("config.json"))
    }

    /// The platforms when the command line names none: `DOCKER_DEFAULT_PLATFORM`.
    pub(crate) fn platforms(&self) -> Result<Vec<Platform>, Failure> {
        let wrong =
            |error: PlatformError| Failure::new(FailureKind::Usage, format!("`DOCKER_DEFAULT_PLATFORM`: {error}"));
        let default = self.text("DOCKER_DEFAULT_PLATFORM").into_iter().flat_map(|default| default.split(','));
        default.map(|platform| platform.trim().parse().map_err(wrong)).collect()
    }

    /// Where registries are set up: podman's files, then kiln's own, unless `typed` or a variable names that.
    pub(crate) fn registries(&self, typed: Option<PathBuf>) -> SettingsFiles {
        let config = self.path("XDG_CONFIG_HOME").or_else(|| Some(self.path("HOME")?.join(".config")));
        let own = |path: &str| config.iter().map(|dir| dir.join(path)).collect::<Vec<_>>();
        let system = |path: &str| vec![PathBuf::from(path)];
        let named = typed.or_else(|| self.path("KILN_REGISTRY_CONFIG"));
        let podman = match self.path("CONTAINERS_REGISTRIES_CONF") {
            Some(path) => vec![path],
            None => [own("containers/registries.conf"), system("/etc/containers/registries.conf")].concat(),
        };
        let mut files = vec![podman, system("/etc/containers/registries.conf.d"), own("containers/registries.conf.d")];
        if named.is_none() {
            files.extend([system("/etc/kiln/registries.toml"), own("kiln/registries.toml")]);
        }
        let certificates = ["/etc/docker/certs.d", "/etc/containers/certs.d"].map(PathBuf::from);
        let at_home = [own("docker/certs.d"), own("containers/certs.d")].concat();
        SettingsFiles { files, named, certificates: certificates.into_iter().chain(at_home).collect() }
    }

    /// Where devices are described: `KILN_CDI_DIRS`, else the usual directories.
    pub(crate) fn device_specs(&self) -> Vec<PathBuf> {
        match self.raw("KILN_CDI_DIRS") {
            Some(dirs) => std::env::split_paths(dirs).filter(|dir| !dir.as_os_str().is_empty()).collect(),
            None => ["/etc/cdi", "/var/run/cdi"].map(PathBuf::from).into(),
        }
    }

    /// What `kiln doctor` goes by, beside what builds do.
    pub(crate) fn for_doctor(&self) -> DoctorRequest {
        let container = self.text("container").map(str::to_owned);
        let pod = || self.text("KUBERNETES_SERVICE_HOST").map(|_| "kubernetes".to_owned());
        DoctorRequest { ssh_agent: self.path("SSH_AUTH_SOCK"), container: container.or_else(pod), arrival: None }
    }

    /// What the programs of podman and containerd go by.
    pub(crate) fn for_daemons(&self) -> Vec<(String, OsString)> {
        let names = [
            "PATH",
            "HOME",
            "XDG_RUNTIME_DIR",
            "XDG_CONFIG_HOME",
            "XDG_DATA_HOME",
            "CONTAINERS_CONF",
            "CONTAINERS_STORAGE_CONF",
            "CONTAINERD_ADDRESS",
            "CONTAINERD_NAMESPACE",
        ];
        names.iter().filter_map(|name| Some(((*name).to_owned(), self.raw(name)?.to_owned()))).collect()
    }

    /// Whether the metadata of a build has its warnings, too.
    pub(crate) fn wants_warnings(&self) -> bool {
        self.text("BUILDX_METADATA_WARNINGS").is_some_and(|text| super::value::go_bool(text) == Ok(true))
    }

    /// Where hadolint looks for its configuration, in its order.
    pub(crate) fn hadolint_configs(&self) -> Vec<PathBuf> {
        let home = self.path("HOME");
        let in_home = |path: &str| home.as_ref().map(|home| home.join(path));
        let bases = [
            Some(PathBuf::from(".hadolint")),
            self.path("XDG_CONFIG_HOME").map(|dir| dir.join("hadolint")),
            in_home(".config/hadolint"),
            in_home(".hadolint/hadolint"),
            in_home("hadolint/config"),
            in_home(".hadolint"),
        ];
        let with = |base: PathBuf, end: &str| {
            let mut path = base.into_os_string();
            path.push(end);
            PathBuf::from(path)
        };
        bases.into_iter().flatten().flat_map(|base| [with(base.clone(), ".yaml"), with(base, ".yml")]).collect()
    }

    /// The proxy variables that are set, in the spelling they have.
    pub(crate) fn proxies(&self) -> BTreeMap<String, String> {
        let spellings = PROXIES.iter().flat_map(|name| [(*name).to_owned(), name.to_ascii_lowercase()]);
        spellings.filter_map(|name| self.text(&name).map(|value| (name.clone(), value.to_owned()))).collect()
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.raw(name).filter(|value| !value.is_empty()).map(PathBuf::from)
    }
}

#[cfg(test)]
impl<const N: usize> From<[(&str, &str); N]> for Environment {
    fn from(pairs: [(&str, &str); N]) -> Self {
        Self(pairs.iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_is_where_the_user_wants_it() {
        let home = [("HOME", "/home/u")];
        assert_eq!(Environment::from(home).state(true), Some("/var/lib/kiln".into()));
        assert_eq!(Environment::from(home).state(false), Some("/home/u/.local/share/kiln".into()));
        let xdg = [("HOME", "/home/u"), ("XDG_DATA_HOME", "/data")];
        assert_eq!(Environment::from(xdg).state(false), Some("/data/kiln".into()));
        assert_eq!(Environment::from([("KILN_STATE", "/s")]).state(true), Some("/s".into()));
        assert_eq!(Environment::default().state(false), None);
    }

    #[test]
    fn hadolint_is_configured_here_or_at_home() {
        let all = Environment::from([("HOME", "/h"), ("XDG_CONFIG_HOME", "/x")]).hadolint_configs();
        let all: Vec<_> = all.iter().map(|path| path.to_str().unwrap()).collect();
        assert_eq!(all[..4], [".hadolint.yaml", ".hadolint.yml", "/x/hadolint.yaml", "/x/hadolint.yml"]);
        assert!(all.contains(&"/h/.config/hadolint.yaml") && all.contains(&"/h/.hadolint.yaml"));
        assert_eq!(Environment::default().hadolint_configs().len(), 2);
    }

    #[test]
    fn registries_are_set_up_by_podman_s_files_and_our_own() {
        let home = [("HOME", "/h")];
        let files = Environment::from(home).registries(None);
        assert_eq!(
            files.files[0],
            ["/h/.config/containers/registries.conf", "/etc/containers/registries.conf"].map(PathBuf::from)
        );
        assert_eq!(files.files.last().unwrap(), &["/h/.config/kiln/registries.toml"].map(PathBuf::from));
        assert!(files.named.is_none() && files.certificates.contains(&"/etc/docker/certs.d".into()));
        let named = [("CONTAINERS_REGISTRIES_CONF", "/c"), ("KILN_REGISTRY_CONFIG", "/k")];
        let files = Environment::from(named).registries(None);
        assert_eq!((&files.files[0], &files.named), (&vec!["/c".into()], &Some("/k".into())));
        assert!(!files.files.iter().flatten().any(|file| file.ends_with("kiln/registries.toml")));
        assert_eq!(Environment::from(named).registries(Some("/t".into())).named, Some("/t".into()));
    }

    #[test]
    fn proxies_keep_their_spelling() {
        let environment = Environment::from([("http_proxy", "a"), ("HTTPS_PROXY", "b"), ("NO_PROXY", ""), ("X", "c")]);
        let proxies: Vec<_> = environment.proxies().into_iter().collect();
        assert_eq!(proxies, [("HTTPS_PROXY".into(), "b".into()), ("http_proxy".into(), "a".into())]);
    }
}
