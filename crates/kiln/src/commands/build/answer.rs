//! What a build leaves for others: the id file, the metadata file, the closing line.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use kiln_engine::BuildResult;
use kiln_oci::Digest;
use kiln_report::{Failure, FailureKind};
use serde_json::{Value, json};

/// Removes an id file, so that a build that fails leaves none from before. Devices, pipes and links are no such files.
pub(crate) fn forget(path: &Path) -> Result<(), Failure> {
    if !std::fs::symlink_metadata(path).is_ok_and(|there| there.is_file()) {
        return Ok(());
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(cannot("remove", path, &error)),
        _ => Ok(()),
    }
}

/// Writes the image's id; nothing, when only the cache was filled.
pub(crate) fn write_id(path: &Path, result: &BuildResult) -> Result<(), Failure> {
    std::fs::write(path, result.image_id.as_ref().map_or("", Digest::as_str))
        .map_err(|error| cannot("write", path, &error))
}

/// Writes what was built, in buildx's keys.
pub(crate) fn write_metadata(path: &Path, result: &BuildResult, warnings: Vec<Value>) -> Result<(), Failure> {
    let mut keys = metadata(result);
    if !warnings.is_empty() {
        keys.insert("buildx.build.warnings", Value::Array(warnings));
    }
    let mut text = serde_json::to_string_pretty(&keys).expect("plain data serialises");
    text.push('\n');
    std::fs::write(path, text).map_err(|error| cannot("write", path, &error))
}

fn metadata(result: &BuildResult) -> BTreeMap<&'static str, Value> {
    let mut keys = BTreeMap::new();
    if !result.reference.is_empty() {
        keys.insert("buildx.build.ref", json!(result.reference));
    }
    // An index has no config.
    if let Some(id) = result.image_id.as_ref().filter(|_| result.platforms.len() < 2) {
        keys.insert("containerimage.config.digest", json!(id));
    }
    if let Some(descriptor) = &result.descriptor {
        keys.insert("containerimage.digest", json!(descriptor.digest));
        keys.insert("containerimage.descriptor", json!(descriptor));
    }
    if !result.names.is_empty() {
        keys.insert("image.name", json!(result.names.join(",")));
    }
    keys
}

/// The last line people see of a build.
pub(crate) fn closing_line(result: &BuildResult) -> String {
    match (&result.image_id, result.names.as_slice()) {
        (None, _) => "built".to_owned(),
        (Some(id), []) => format!("built {id}"),
        (Some(id), names) => format!("built {} ({})", names.join(", "), id.short()),
    }
}

fn cannot(verb: &str, path: &Path, error: &std::io::Error) -> Failure {
    let mut failure = Failure::new(FailureKind::Environment, format!("cannot {verb} `{}`", path.display()));
    failure.causes.push(error.to_string());
    failure
}

#[cfg(test)]
mod tests {
    use kiln_oci::{Descriptor, Platform};

    use super::*;

    fn result() -> BuildResult {
        let digest = Digest::sha256(b"manifest");
        BuildResult {
            platforms: vec![Platform::linux("amd64")],
            image_id: Some(Digest::sha256(b"config")),
            images: Vec::new(),
            descriptor: Some(Descriptor::new("application/vnd.oci.image.manifest.v1+json", digest, 7)),
            names: vec!["docker.io/library/a:1".into(), "docker.io/library/a:2".into()],
            reference: "r".into(),
        }
    }

    #[test]
    fn metadata_has_buildx_s_keys() {
        insta::assert_snapshot!(serde_json::to_string_pretty(&metadata(&result())).unwrap(), @r#"
        {
          "buildx.build.ref": "r",
          "containerimage.config.digest": "sha256:b79606fb3afea5bd1609ed40b622142f1c98125abcfe89a76a661b0e8e343910",
          "containerimage.descriptor": {
            "digest": "sha256:05b3abf2579a5eb66403cd78be557fd860633a1fe2103c7642030defe32c657f",
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "size": 7
          },
          "containerimage.digest": "sha256:05b3abf2579a5eb66403cd78be557fd860633a1fe2103c7642030defe32c657f",
          "image.name": "docker.io/library/a:1,docker.io/library/a:2"
        }
        "#);
        assert!(metadata(&BuildResult::default()).is_empty());
    }

    #[test]
    fn the_closing_line_names_the_image() {
        assert_eq!(closing_line(&result()), "built docker.io/library/a:1, docker.io/library/a:2 (b79606fb3afe)");
        assert_eq!(closing_line(&BuildResult::default()), "built");
    }

    #[test]
    fn an_id_file_of_an_earlier_build_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("iid");
        write_id(&path, &result()).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), Digest::sha256(b"config").to_string());
        forget(&path).unwrap();
        forget(&path).unwrap();
        assert!(!path.exists());
    }
}
