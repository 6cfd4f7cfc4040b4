//! Certificates that steps trust beyond their image's: for them alone, and in nothing that they make.

use std::path::{Path, PathBuf};

use kiln_exec::{ContainerMount, MountSource};
use kiln_report::{Failure, FailureKind};
use kiln_sys::mount::{INERT, Swap, Tmpfs};
use kiln_sys::root::Root;

use crate::failure::{Context as _, environment};
use crate::job::Result;

/// Where steps find them.
const PLACE: &str = "/run/kiln";
const BUNDLE: &str = "ca-certificates.pem";
const APT: &str = "apt.conf";

/// Where systems keep the certificates they trust, in one file.
const SYSTEM: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Many times what they are.
const LIMIT: u64 = 8 << 20;

/// Variables by which programs and libraries learn of another file.
const VARIABLES: [&str; 13] = [
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "NODE_EXTRA_CA_CERTS",
    // Without it a file that npm's own settings name goes before node's.
    "npm_config_cafile",
    "GIT_SSL_CAINFO",
    "CARGO_HTTP_CAINFO",
    "AWS_CA_BUNDLE",
    "BUNDLE_SSL_CA_CERT",
    "DENO_CERT",
    "PERL_LWP_SSL_CA_FILE",
    "NIX_SSL_CERT_FILE",
];

/// What steps trust besides.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trust(Vec<u8>);

impl Trust {
    /// Reads files of certificates.
    pub(crate) fn new(files: &[PathBuf]) -> Result<Trust> {
        let all = files.iter().map(|file| certificates(file)).collect::<Result<Vec<_>>>()?;
        Ok(Trust(all.concat()))
    }

    /// A directory for one step; nothing when there is nothing to trust.
    /// Whether steps are given certificates.
    pub(crate) fn is_given(&self) -> bool {
        !self.0.is_empty()
    }

    pub(crate) fn for_step(&self) -> Result<Option<Trusted<'_>>> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tmpfs = Tmpfs { size: Some(2 * LIMIT), mode: 0o755, swap: Swap::Allowed, attributes: INERT };
        let dir = tmpfs.mount_detached().map_err(environment)?;
        Ok(Some(Trusted { given: &self.0, dir: Root::new(dir) }))
    }
}

#[expect(clippy::disallowed_methods, reason = "a file that whoever runs us names")]
fn certificates(file: &Path) -> Result<Vec<u8>> {
    let doing = || format!("cannot read the certificates in `{}`", file.display());
    let mut bytes = std::fs::read(file).or_build(doing)?;
    if !String::from_utf8_lossy(&bytes).contains("-----BEGIN CERTIFICATE-----") {
        let failure = Failure::new(FailureKind::Build, format!("`{}` holds no certificate", file.display()));
        return Err(failure.hint("give a file in PEM form, which has a line `-----BEGIN CERTIFICATE-----`"));
    }
    bytes.push(b'\n');
    Ok(bytes)
}

/// What one step finds.
pub(crate) struct Trusted<'a> {
    given: &'a [u8],
    dir: Root,
}

impl Trusted<'_> {
    /// Shows it to the step.
    pub(crate) fn mount(&self) -> Result<ContainerMount> {
        let dir = self.dir.try_clone().map_err(environment)?.into_fd();
        let source = MountSource::Tree { dir, subpath: String::new() };
        Ok(ContainerMount { target: PLACE.to_owned(), readonly: true, source })
    }

    /// Writes what the image trusts, and what is trusted besides. An image without certificates has the machine's.
    pub(crate) fn write(&self, image: &Root) -> Result<()> {
        let of = |root: &Root| SYSTEM.iter().find_map(|path| root.read_to_limit(path, LIMIT).ok());
        let machine = || Root::open_ambient("/").ok().and_then(|root| of(&root));
        let mut bundle = of(image).or_else(machine).unwrap_or_default();
        bundle.push(b'\n');
        bundle.extend(self.given);
        self.file(BUNDLE, &bundle)?;
        self.file(APT, format!("Acquire::https::CAInfo \"{PLACE}/{BUNDLE}\";\n").as_bytes())
    }

    fn file(&self, name: &str, content: &[u8]) -> Result<()> {
        let mut file = self.dir.create_file(name, 0o444).map_err(environment)?;
        std::io::Write::write_all(&mut file, content).or_environment(|| "cannot write certificates for a step".into())
    }
}

/// Tells programs of it; what the Dockerfile says itself stays. npm reads its variables in any case.
pub(crate) fn variables(env: &[String]) -> Vec<String> {
    let is_said =
        |name: &str| env.iter().any(|pair| pair.split('=').next().is_some_and(|it| it.eq_ignore_ascii_case(name)));
    let bundle = VARIABLES.iter().map(|name| (*name, BUNDLE)).chain([("APT_CONFIG", APT)]);
    bundle.filter(|(name, _)| !is_said(name)).map(|(name, file)| format!("{name}={PLACE}/{file}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_dockerfile_says_stays() {
        let env = variables(&["PIP_CERT=/mine", "NPM_CONFIG_CAFILE=/mine", "PATH=/bin"].map(str::to_owned));
        assert!(!env.iter().any(|pair| pair.starts_with("PIP_CERT=") || pair.starts_with("npm_config_cafile=")));
        assert!(env.contains(&"SSL_CERT_FILE=/run/kiln/ca-certificates.pem".to_owned()));
        assert!(env.contains(&"APT_CONFIG=/run/kiln/apt.conf".to_owned()));
    }

    #[test]
    fn a_file_without_a_certificate_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key.pem");
        std::fs::write(&file, "-----BEGIN PRIVATE KEY-----\n").unwrap();
        assert!(Trust::new(&[file]).unwrap_err().message.contains("holds no certificate"));
        assert!(Trust::new(&[dir.path().join("gone")]).unwrap_err().message.contains("cannot read"));
    }
}
