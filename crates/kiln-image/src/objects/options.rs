//! What stores are opened with. Secrets are in types that do not print them.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::time::Duration;

/// Text that no message shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes it.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A store, and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectOptions {
    /// Amazon's S3, or what speaks like it.
    S3(Box<S3Options>),
    /// Azure's blob storage.
    Azure(Box<AzureOptions>),
    /// The cache of GitHub's actions.
    Actions(Box<ActionsOptions>),
}

impl ObjectOptions {
    /// What people call it.
    pub fn label(&self) -> String {
        match self {
            Self::S3(options) => {
                let name = options.layout.document(options.layout.first_name());
                format!("s3://{}/{name}", options.bucket)
            }
            Self::Azure(options) => {
                format!("azblob {}/{}", options.container, options.layout.joined_document(options.layout.first_name()))
            }
            Self::Actions(options) => format!("gha {}", options.scope),
        }
    }

    /// The name of the document for something beside the caches; none where there is no place for it.
    pub fn sibling(&self, suffix: &str) -> Option<String> {
        let layout = match self {
            Self::S3(options) => &options.layout,
            Self::Azure(options) => &options.layout,
            Self::Actions(_) => return None,
        };
        Some(format!("{}{suffix}", layout.first_name()))
    }
}

/// Where objects are within a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreLayout {
    /// Before all keys.
    pub prefix: String,
    /// Before digests.
    pub blobs_prefix: String,
    /// Before names.
    pub manifests_prefix: String,
    /// The names of the cache.
    pub names: Vec<String>,
}

impl StoreLayout {
    pub(super) fn first_name(&self) -> &str {
        self.names.first().map_or("buildkit", String::as_str)
    }

    /// S3's keys are put together as they are.
    pub(super) fn document(&self, name: &str) -> String {
        format!("{}{}{name}", self.prefix, self.manifests_prefix)
    }

    pub(super) fn blob(&self, digest: &kiln_oci::Digest) -> String {
        format!("{}{}{digest}", self.prefix, self.blobs_prefix)
    }

    /// Azure's are paths, with one slash between parts.
    pub(super) fn joined_document(&self, name: &str) -> String {
        join(&[&self.prefix, &self.manifests_prefix, name])
    }

    pub(super) fn joined_blob(&self, digest: &kiln_oci::Digest) -> String {
        join(&[&self.prefix, &self.blobs_prefix, digest.as_str()])
    }
}

/// Joins paths as Go's `filepath.Join` does.
fn join(parts: &[&str]) -> String {
    let parts: Vec<&str> = parts.iter().copied().filter(|part| !part.is_empty()).collect();
    let is_absolute = parts.first().is_some_and(|part| part.starts_with('/'));
    let mut segments: Vec<&str> = Vec::new();
    for segment in parts.iter().flat_map(|part| part.split('/')) {
        match segment {
            "" | "." => {}
            ".." if segments.last().is_some_and(|last| *last != "..") => {
                segments.pop();
            }
            ".." if is_absolute => {}
            other => segments.push(other),
        }
    }
    format!("{}{}", if is_absolute { "/" } else { "" }, segments.join("/"))
}

/// A bucket, and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Options {
    /// The bucket.
    pub bucket: String,
    /// The region that requests are signed for.
    pub region: String,
    /// The server, when it is not Amazon's.
    pub endpoint: Option<String>,
    /// Whether the bucket is part of the path at such a server, not of the host's name.
    pub use_path_style: bool,
    /// Where objects are in the bucket.
    pub layout: StoreLayout,
    /// Blobs that are older are touched when they are used again.
    pub touch_refresh: Duration,
    /// Requests that bring something, at once.
    pub upload_parallelism: NonZero<usize>,
    /// How often a request is tried.
    pub attempts: Option<NonZero<u32>>,
    /// The account. Without it, `environment` says how to get one.
    pub keys: Option<AwsKeys>,
    /// Variables that say where credentials come from, `AWS_ROLE_ARN` and its like.
    pub environment: BTreeMap<String, Secret>,
}

/// An account of S3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwsKeys {
    /// Its name.
    pub id: String,
    /// Its secret.
    pub secret: Secret,
    /// What goes along with a secret that is lent.
    pub token: Option<Secret>,
}

/// A container of Azure's blob storage, and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AzureOptions {
    /// `https://ACCOUNT.blob.core.windows.net`.
    pub account_url: String,
    /// The account.
    pub account: String,
    /// The container; it is made when it is not there.
    pub container: String,
    /// Where objects are in the container.
    pub layout: StoreLayout,
    /// The account's key. Without it, `environment` says how to get in.
    pub key: Option<Secret>,
    /// Variables that say where credentials come from, `AZURE_CLIENT_ID` and its like.
    pub environment: BTreeMap<String, Secret>,
}

/// The cache service of GitHub's actions, and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActionsOptions {
    /// The service; a workflow's steps find it in `ACTIONS_RESULTS_URL`.
    pub url: Option<String>,
    /// What lets a workflow in; its steps find it in `ACTIONS_RUNTIME_TOKEN`.
    pub token: Option<Secret>,
    /// Tells caches of one repository apart.
    pub scope: String,
    /// How long a request may be tried again.
    pub timeout: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_buildkit_makes() {
        let layout = StoreLayout {
            prefix: "team/".into(),
            blobs_prefix: "blobs/".into(),
            manifests_prefix: "manifests/".into(),
            names: vec!["main".into()],
        };
        let digest = kiln_oci::Digest::sha256("");
        assert_eq!(layout.document("main"), "team/manifests/main");
        assert_eq!(layout.blob(&digest), format!("team/blobs/{digest}"));
        assert_eq!(StoreLayout { prefix: "/a".into(), ..layout.clone() }.document("x"), "/amanifests/x");
        for (prefix, key) in [
            ("", "manifests/main"),
            ("team", "team/manifests/main"),
            ("team/", "team/manifests/main"),
            ("/a//b/./", "/a/b/manifests/main"),
            ("a/../b", "b/manifests/main"),
        ] {
            assert_eq!(
                StoreLayout { prefix: prefix.into(), ..layout.clone() }.joined_document("main"),
                key,
                "{prefix}"
            );
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let keys = AwsKeys { id: "AKIA".into(), secret: Secret::new("hush"), token: Some(Secret::new("hush")) };
        assert!(!format!("{keys:?}").contains("hush"));
    }
}
