//! Where registries are set up: files, directories of files, and directories of certificates.

use std::path::{Path, PathBuf};

use super::{Settings, parse};
use crate::{Error, Result};

/// Where settings are; later files count before earlier ones. Those that are not there set up nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SettingsFiles {
    /// Of each of these the first that is there: a file, or a directory whose files that end in `.conf` or `.toml` are read
    /// in the order of their names.
    pub files: Vec<Vec<PathBuf>>,
    /// A file that was named and must be there; it counts before all others.
    pub named: Option<PathBuf>,
    /// Directories in which a directory `host[:port]` holds `*.crt` of authorities, and `*.cert` and `*.key` of clients.
    pub certificates: Vec<PathBuf>,
}

/// No honest file is larger.
const LARGEST: u64 = 4 << 20;

impl SettingsFiles {
    pub(crate) fn read(&self) -> Result<Settings> {
        let mut settings = Settings::default();
        for path in self.files.iter().filter_map(|paths| paths.iter().find(|path| path.exists())) {
            for file in expanded(path)? {
                settings.add(read(&file)?.unwrap_or_default());
            }
        }
        if let Some(named) = &self.named {
            let not_there = || Error::file("read", named)(std::io::ErrorKind::NotFound.into());
            settings.add(read(named)?.ok_or_else(not_there)?);
        }
        Ok(settings)
    }
}

/// The file itself, or the files in a directory.
fn expanded(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
    let entries = entries.map_err(Error::file("list", path))?;
    let is_meant = |file: &PathBuf| file.extension().is_some_and(|end| end == "conf" || end == "toml");
    let mut files: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).filter(is_meant).collect();
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<Option<Settings>> {
    match std::fs::metadata(path) {
        Ok(found) => crate::limits::check_size("read the settings of registries", "the file", found.len(), LARGEST)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::file("read", path)(error)),
    }
    let text = std::fs::read_to_string(path).map_err(Error::file("read", path))?;
    let parsed = parse::parse(&text).map_err(|reason| {
        Error::file("use the settings of registries in", path)(std::io::Error::new(
            std::io::ErrorKind::InvalidData,
            reason,
        ))
    });
    parsed.map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_in_order_and_only_the_named_one_must_be_there() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("conf.d")).unwrap();
        let blocked = |by: &str| format!("[[registry]]\nlocation = \"{by}\"\nblocked = true\n");
        std::fs::write(at("conf.d/10-a.conf"), blocked("a")).unwrap();
        std::fs::write(at("conf.d/20-a.conf"), "[[registry]]\nlocation = \"a\"").unwrap();
        std::fs::write(at("conf.d/a.orig"), blocked("b")).unwrap();
        let files = SettingsFiles {
            files: vec![vec![at("none.conf"), at("conf.d")], vec![at("none.toml")]],
            ..SettingsFiles::default()
        };
        let settings = files.read().unwrap();
        assert!(settings.permits("a", "x") && settings.permits("b", "x"));
        let named = SettingsFiles { named: Some(at("own.toml")), ..files };
        let error = named.read().unwrap_err().to_string();
        assert!(error.contains("own.toml"), "{error}");
        std::fs::write(at("own.toml"), blocked("a")).unwrap();
        assert!(!named.read().unwrap().permits("a", "x"));
        std::fs::write(at("own.toml"), "[[registry").unwrap();
        assert_eq!(named.read().unwrap_err().kind(), crate::ErrorKind::Environment);
    }
}
