//! Manifests and indexes (OCI image-spec, manifest.md and image-index.md; Docker schema 2).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::null_as_default;
use crate::{Descriptor, MediaType, Raw};

/// An image manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// The document's own media type; older OCI manifests leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<MediaType>,
    /// The artifact type, when the manifest is no image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The config blob.
    pub config: Descriptor,
    /// The layers, base first.
    #[serde(default, deserialize_with = "null_as_default")]
    pub layers: Vec<Descriptor>,
    /// What this manifest refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_as_default")]
    pub annotations: BTreeMap<String, String>,
}

/// An image index, or Docker manifest list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// The document's own media type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<MediaType>,
    /// The manifests.
    #[serde(default, deserialize_with = "null_as_default")]
    pub manifests: Vec<Descriptor>,
    /// Free annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_as_default")]
    pub annotations: BTreeMap<String, String>,
}

/// What a digest or tag points at: decided once, by media type.
#[derive(Debug, Clone, PartialEq)]
pub enum Document {
    /// One image.
    Manifest(Raw<Manifest>),
    /// Several.
    Index(Raw<Index>),
}

/// Says why bytes are no manifest.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// The type says nothing kiln can read.
    #[error("media type `{0}` is neither an image manifest nor an index")]
    MediaType(String),
    /// The document says it is something else than what it was announced as.
    #[error("document calls itself `{inner}` but was announced as `{announced}`")]
    Mismatch {
        /// What the document says.
        inner: String,
        /// What the descriptor or Content-Type said.
        announced: String,
    },
    /// `manifests` beside `layers` or `config`: readable two ways, so refused (CVE-2021-41190).
    #[error("document has both `manifests` and `layers` or `config`")]
    Ambiguous,
    /// A schema version other than 2.
    #[error("schema version {0} is not supported")]
    SchemaVersion(u64),
    /// Not JSON of the right shape.
    #[error("document is not valid")]
    Json(#[from] serde_json::Error),
}

impl Document {
    /// Reads a manifest or index announced as `media_type`.
    pub fn parse(media_type: &MediaType, bytes: Vec<u8>) -> Result<Self, DocumentError> {
        let probe: serde_json::Value = serde_json::from_slice(&bytes)?;
        let has = |key: &str| probe.get(key).is_some_and(|v| !v.is_null());
        if has("manifests") && (has("layers") || has("config")) {
            return Err(DocumentError::Ambiguous);
        }
        let inner = probe.get("mediaType").and_then(|v| v.as_str());
        if let Some(inner) = inner.filter(|inner| *inner != media_type.as_str()) {
            return Err(DocumentError::Mismatch { inner: inner.into(), announced: media_type.to_string() });
        }
        match probe.get("schemaVersion").and_then(serde_json::Value::as_u64) {
            Some(2) | None => {}
            Some(other) => return Err(DocumentError::SchemaVersion(other)),
        }
        if media_type.is_index() {
            return Ok(Self::Index(Raw::parse(bytes)?));
        }
        if media_type.is_manifest() {
            return Ok(Self::Manifest(Raw::parse(bytes)?));
        }
        Err(DocumentError::MediaType(media_type.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_readable_two_ways_is_refused() {
        let text = br#"{"schemaVersion":2,"manifests":[],"layers":[]}"#.to_vec();
        let error = Document::parse(&MediaType::OCI_INDEX.into(), text).unwrap_err();
        assert!(matches!(error, DocumentError::Ambiguous));
    }

    #[test]
    fn a_document_that_contradicts_its_announcement_is_refused() {
        let text = format!(r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[]}}"#, MediaType::OCI_INDEX);
        let error = Document::parse(&MediaType::DOCKER_INDEX.into(), text.into_bytes()).unwrap_err();
        assert!(matches!(error, DocumentError::Mismatch { .. }));
    }
}
