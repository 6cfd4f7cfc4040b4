//! Certificates of hosts, from the directories docker and podman keep them in, and from files that settings name.

use std::path::{Path, PathBuf};

use super::Link;
use crate::{Error, Result};

/// What TLS with a host begins with, PEM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Certificates {
    /// Authorities trusted beside the machine's own.
    pub(crate) roots: Vec<Vec<u8>>,
    /// A client certificate with its key.
    pub(crate) identity: Option<Vec<u8>>,
}

impl Certificates {
    pub(crate) fn is_empty(&self) -> bool {
        self.roots.is_empty() && self.identity.is_none()
    }
}

/// Reads the certificates for a host. Of several client certificates the first counts.
pub(crate) fn certificates(authority: &str, link: &Link, directories: &[PathBuf]) -> Result<Certificates> {
    let mut found = Certificates::default();
    for root in &link.roots {
        found.roots.push(read(root)?);
    }
    for (certificate, key) in &link.identities {
        found.keep(certificate, key)?;
    }
    // A host is one component of a path.
    let is_plain = !authority.contains('/') && authority != "..";
    for directory in directories.iter().filter(|_| is_plain) {
        let mut files = Vec::new();
        for name in names_of(authority) {
            // Most hosts have none, and where nothing can be read nothing is set up.
            let entries = std::fs::read_dir(directory.join(name)).into_iter().flatten().flatten();
            files.extend(entries.map(|entry| entry.path()));
        }
        files.sort();
        for file in files {
            match file.extension().and_then(|end| end.to_str()) {
                Some("crt") => found.roots.push(read(&file)?),
                Some("cert") => found.keep(&file, &file.with_extension("key"))?,
                _ => {}
            }
        }
    }
    Ok(found)
}

impl Certificates {
    fn keep(&mut self, certificate: &Path, key: &Path) -> Result<()> {
        if self.identity.is_none() {
            let pair = [read(key)?, read(certificate)?];
            self.identity = Some(pair.join(&b'\n'));
        }
        Ok(())
    }
}

/// Docker Hub's API has another host than its references, and either may be meant.
fn names_of(authority: &str) -> impl Iterator<Item = &str> {
    [authority].into_iter().chain((authority == crate::registry::api_host("docker.io")).then_some("docker.io"))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(Error::file("read the certificate", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_found_where_docker_keeps_them() {
        let dir = tempfile::tempdir().unwrap();
        let host = dir.path().join("r.lan:5000");
        std::fs::create_dir(&host).unwrap();
        for name in ["ca.crt", "client.cert", "client.key", "readme"] {
            std::fs::write(host.join(name), name).unwrap();
        }
        let read = |authority: &str| certificates(authority, &Link::default(), &[dir.path().into(), "/none".into()]);
        let found = read("r.lan:5000").unwrap();
        assert_eq!(found.roots, [b"ca.crt"]);
        assert_eq!(found.identity.unwrap(), b"client.key\nclient.cert");
        assert!(read("r.lan").unwrap().is_empty() && read("..").unwrap().is_empty());
        std::fs::remove_file(host.join("client.key")).unwrap();
        assert!(read("r.lan:5000").unwrap_err().to_string().contains("client.key"));
    }
}
