//! Descriptions of devices: the files of the Container Device Interface, in JSON or YAML.
//!
//! Reference: Container Device Interface specification, version 0.8.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use kiln_report::{Failure, FailureKind};
use serde::Deserialize;

use crate::failure::Context as _;
use crate::job::Result;

pub(super) type Annotations = BTreeMap<String, String>;

/// The largest description that is read.
const LARGEST: u64 = 4 << 20;

/// A file.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spec {
    /// `vendor.com/class`.
    pub(super) kind: String,
    #[serde(default)]
    pub(super) annotations: Annotations,
    #[serde(default)]
    pub(super) devices: Vec<Named>,
    /// What all its devices ask for.
    #[serde(default)]
    pub(super) container_edits: Edits,
}

/// One device.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Named {
    pub(super) name: String,
    #[serde(default)]
    pub(super) annotations: Annotations,
    #[serde(default)]
    pub(super) container_edits: Edits,
}

/// What a container gets.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Edits {
    pub(super) env: Vec<String>,
    pub(super) device_nodes: Vec<Node>,
    pub(super) mounts: Vec<Bind>,
    #[serde(rename = "additionalGids", alias = "additionalGIDs")]
    pub(super) additional_gids: Vec<u32>,
    /// Programs to be run on the machine.
    pub(super) hooks: Vec<Hook>,
    pub(super) net_devices: Vec<serde::de::IgnoredAny>,
}

/// A device node.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Node {
    pub(super) path: String,
    pub(super) host_path: Option<String>,
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) major: Option<u32>,
    pub(super) minor: Option<u32>,
    pub(super) file_mode: Option<u32>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
}

/// A path of the machine.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Bind {
    pub(super) host_path: PathBuf,
    pub(super) container_path: String,
    pub(super) options: Vec<String>,
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
}

/// A program to be run on the machine.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Hook {
    pub(super) path: String,
}

/// Reads all descriptions, in the order of directories and names. A directory need not be there.
#[expect(clippy::disallowed_methods, reason = "descriptions of devices are in directories of the machine")]
pub(super) fn read_all(dirs: &[PathBuf]) -> Result<Vec<Spec>> {
    let mut specs = Vec::new();
    for dir in dirs {
        let mut files: Vec<PathBuf> = match fs::read_dir(dir) {
            Ok(entries) => entries.flatten().map(|entry| entry.path()).filter(|path| is_spec(path)).collect(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error).or_environment(|| format!("cannot read devices in `{}`", dir.display())),
        };
        files.sort();
        for file in files {
            specs.push(read(&file)?);
        }
    }
    Ok(specs)
}

fn is_spec(path: &Path) -> bool {
    matches!(path.extension().and_then(|extension| extension.to_str()), Some("json" | "yaml" | "yml"))
}

#[expect(clippy::disallowed_methods, reason = "descriptions of devices are in directories of the machine")]
fn read(path: &Path) -> Result<Spec> {
    use std::io::Read as _;
    let doing = || format!("cannot read the devices of `{}`", path.display());
    let mut text = String::new();
    fs::File::open(path).and_then(|file| file.take(LARGEST).read_to_string(&mut text)).or_environment(doing)?;
    let spec: Spec = match path.extension().is_some_and(|extension| extension == "json") {
        true => serde_json::from_str(&text).or_environment(doing)?,
        false => serde_saphyr::from_str(&text).or_environment(doing)?,
    };
    if spec.kind.split('/').filter(|part| !part.is_empty()).count() != 2 {
        let message = format!("the devices of `{}` are of kind `{}`", path.display(), spec.kind);
        return Err(Failure::new(FailureKind::Environment, message).hint("write the kind as `vendor.com/class`"));
    }
    Ok(spec)
}
