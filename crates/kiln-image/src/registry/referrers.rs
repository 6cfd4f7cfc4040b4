//! What refers to an image (signatures, bills of materials): asked of the registry, or kept in an index under a tag made of
//! the digest where a registry does not know.
//!
//! See the distribution specification, "Listing Referrers" and "Pushing Manifests with Subject".

use kiln_oci::{Descriptor, Digest, Index, Manifest, MediaType, Raw, Reference};
use reqwest::header::{ACCEPT, HeaderMap, HeaderValue, LINK};
use reqwest::{Method, StatusCode, Url};

use super::{Access, RegistryClient, Target};
use crate::http::{Reply, answer_bytes, same_origin, status_error};
use crate::{Error, Result, limits};

/// What a registry that keeps the list itself says in its answer to a manifest with a subject.
const KEPT: &str = "oci-subject";

/// More pages nobody has; a list without end is none.
const PAGES: usize = 50;

impl RegistryClient {
    /// The manifests in the repository of `image` that refer to a digest; only those of a type, if one is given.
    pub async fn referrers(
        &self,
        image: &Reference,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Descriptor>> {
        let doing = format!("list what refers to `{}@{subject}`", image.name());
        let found = match self.listed(image, subject, artifact_type, &doing).await? {
            Some(found) => found,
            None => self.tagged(image, subject, &doing).await?.manifests,
        };
        // Filtering is the registry's choice.
        let is_wanted =
            |entry: &Descriptor| artifact_type.is_none_or(|kind| entry.artifact_type.as_deref() == Some(kind));
        Ok(found.into_iter().filter(is_wanted).collect())
    }

    /// What the registry itself lists; `None` when it does not know how.
    async fn listed(
        &self,
        image: &Reference,
        subject: &Digest,
        artifact_type: Option<&str>,
        doing: &str,
    ) -> Result<Option<Vec<Descriptor>>> {
        let target = Target::of(image, Access::Pull);
        let mut call = self.request(&target, doing, Method::GET, &format!("referrers/{subject}")).await?;
        if let Some(kind) = artifact_type {
            call.url.query_pairs_mut().append_pair("artifactType", kind);
        }
        call.headers.insert(ACCEPT, HeaderValue::from_static(MediaType::OCI_INDEX));
        let mut found = Vec::new();
        for _ in 0..PAGES {
            let reply = self.send(&target, call.clone()).await?;
            match reply.status() {
                StatusCode::OK => {}
                StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::BAD_REQUEST
                    if found.is_empty() =>
                {
                    return Ok(None);
                }
                _ => return Err(status_error(doing, reply).await),
            }
            let next = next_page(&reply).filter(|next| same_origin(next, &call.url));
            let bytes = answer_bytes(self.http().retry(), doing, reply, limits::DOCUMENT).await?;
            found.extend(index(doing, bytes)?.manifests);
            match next {
                Some(next) => call.url = next,
                None => return Ok(Some(found)),
            }
        }
        Err(Error::invalid(doing, format!("the list goes on after {PAGES} pages")))
    }

    /// The index that clients keep where the registry does not; empty when there is none.
    async fn tagged(&self, image: &Reference, subject: &Digest, doing: &str) -> Result<Index> {
        let target = Target::of(image, Access::Pull);
        let path = format!("manifests/{}", tag_of(subject));
        let mut call = self.request(&target, doing, Method::GET, &path).await?;
        call.headers.insert(ACCEPT, HeaderValue::from_static(MediaType::OCI_INDEX));
        let reply = self.send(&target, call).await?;
        match reply.status() {
            StatusCode::OK => index(doing, answer_bytes(self.http().retry(), doing, reply, limits::DOCUMENT).await?),
            StatusCode::NOT_FOUND => Ok(empty()),
            _ => Err(status_error(doing, reply).await),
        }
    }

    /// Notes a pushed manifest under the tag of its subject, unless it has none or the registry does that itself.
    pub(super) async fn note_subject(
        &self,
        to: &Reference,
        pushed: &Descriptor,
        (bytes, answer): (&[u8], &HeaderMap),
    ) -> Result<()> {
        if !pushed.media_type.is_manifest() || answer.contains_key(KEPT) {
            return Ok(());
        }
        let Ok(manifest) = serde_json::from_slice::<Manifest>(bytes) else { return Ok(()) };
        let Some(subject) = &manifest.subject else { return Ok(()) };
        let doing = format!("note what refers to `{}@{}`", to.name(), subject.digest);
        let mut index = self.tagged(to, &subject.digest, &doing).await?;
        if index.manifests.iter().any(|known| known.digest == pushed.digest) {
            return Ok(());
        }
        let mut entry = Descriptor::new(pushed.media_type.clone(), pushed.digest.clone(), pushed.size);
        entry.artifact_type = manifest.artifact_type.or_else(|| Some(manifest.config.media_type.as_str().to_owned()));
        entry.annotations = manifest.annotations;
        index.manifests.push(entry);
        let index = Raw::new(index);
        let descriptor = Descriptor::of(MediaType::OCI_INDEX, index.bytes());
        self.put_manifest(to, &descriptor, index.bytes(), &tag_of(&subject.digest)).await.map(drop)
    }
}

/// The tag under which clients keep the list (distribution specification, "Referrers Tag Schema").
fn tag_of(subject: &Digest) -> String {
    let (algorithm, hex) = (subject.algorithm(), subject.hex());
    format!("{}-{}", &algorithm[..algorithm.len().min(32)], &hex[..hex.len().min(64)])
}

fn empty() -> Index {
    Index {
        schema_version: 2,
        media_type: Some(MediaType::OCI_INDEX.into()),
        manifests: Vec::new(),
        annotations: Default::default(),
    }
}

fn index(doing: &str, bytes: Vec<u8>) -> Result<Index> {
    let index: Index = serde_json::from_slice(&bytes)
        .map_err(|error| Error::invalid(doing, format!("the list is not valid: {error}")))?;
    if index.manifests.len() > limits::MANIFESTS {
        let what = format!("the list ({} entries)", index.manifests.len());
        return Err(Error::TooLarge { doing: doing.into(), what, limit: limits::MANIFESTS.to_string() });
    }
    Ok(index)
}

/// Where a list goes on (RFC 8288), relative to where its beginning was.
fn next_page(reply: &Reply) -> Option<Url> {
    let links = reply.headers().get_all(LINK).iter().filter_map(|value| value.to_str().ok());
    let next = links.flat_map(|text| text.split(',')).find_map(|link| {
        let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        let is_next = parameters.split(';').any(|p| matches!(p.trim(), "rel=\"next\"" | "rel=next"));
        is_next.then(|| target.to_owned())
    })?;
    reply.response.url().join(&next).ok()
}
