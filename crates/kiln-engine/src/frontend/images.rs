//! Resolves the images a Dockerfile asks for, all of a round at once: the local store first, then their registry.

use std::path::PathBuf;
use std::sync::Arc;

use kiln_dockerfile::{ImageFacts, ImageRequest, ResolvedImage};
use kiln_image::{BlobSource, Layout, Selector, fetch_document, pick_platform};
use kiln_oci::{Descriptor, Document, ImageConfig, Manifest, Platform, Raw, Reference};
use kiln_report::{Excerpt, Failure, FailureKind, Reporter, SourceFile};
use kiln_store::{Lease, Store};

use crate::base::{BaseImage, registry};
use crate::failure::{Context as _, environment};
use crate::job::{Images, Result};
use crate::progress::Work;
use crate::registry::Registry;
use crate::remember::Remembered;
use crate::worker::Purpose;

/// Facts about what references with a digest stand for.
const PINNED: &str = "pinned image";

/// Finds images by reference and platform.
pub(crate) struct Resolver {
    pub(crate) store: Store,
    pub(crate) lease: Lease,
    pub(crate) registry: Arc<Registry>,
    pub(crate) reporter: Arc<dyn Reporter>,
    pub(crate) images: Arc<Images>,
    /// Whether the registry is asked even if the image is here.
    pub(crate) pull: bool,
    /// What is resolved for a forecast is not kept.
    pub(crate) purpose: Purpose,
}

impl Resolver {
    /// Answers all requests of a round.
    pub(crate) async fn resolve_all(
        &self,
        wanted: Vec<ImageRequest>,
        source: &Arc<SourceFile>,
        facts: &mut ImageFacts,
    ) -> Result<()> {
        let answers = futures::future::join_all(wanted.iter().map(|request| self.resolve(request))).await;
        for (request, answer) in wanted.into_iter().zip(answers) {
            let (resolved, image) = answer.map_err(|failure| unresolved(failure, &request, Arc::clone(source)))?;
            self.images.insert(resolved.identifier.clone(), image);
            facts.insert(request.reference, request.platform, resolved);
        }
        Ok(())
    }

    async fn resolve(&self, request: &ImageRequest) -> Result<(ResolvedImage, Arc<BaseImage>)> {
        if let Some(layout) = request.reference.strip_prefix("oci-layout://") {
            return self.in_layout(layout, &request.platform).await;
        }
        let reference: Reference = request.reference.parse().map_err(crate::failure::build)?;
        if !self.pull
            && let Some(found) = self.in_store(&request.reference, &reference, &request.platform)?
        {
            return Ok(found);
        }
        let work = Work::start(&self.reporter, format!("[internal] load metadata for {reference}"));
        work.end(self.at_registry(&reference, &request.platform).await)
    }

    /// An image whose layers are all here.
    fn in_store(
        &self,
        written: &str,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Option<(ResolvedImage, Arc<BaseImage>)>> {
        let Some(record) = crate::images::find(&self.store, written)? else { return Ok(None) };
        let config = crate::images::read_config(&self.store, &record.id)?;
        let Some(snapshot) = record.snapshot.filter(|_| fits(&config, platform)) else { return Ok(None) };
        if !self.lease.hold_snapshot(&snapshot).map_err(environment)? {
            return Ok(None);
        }
        let pinned = Reference { digest: None, ..reference.clone() }.with_digest(record.id.clone());
        let image = BaseImage {
            name: reference.familiar(),
            config: config.clone(),
            blobs: Vec::new(),
            source: None,
            snapshot: Some(snapshot),
        };
        let identifier = format!("docker-image://{pinned}");
        Ok(Some((ResolvedImage { digest: record.id, identifier, config }, Arc::new(image))))
    }

    async fn at_registry(&self, reference: &Reference, platform: &Platform) -> Result<(ResolvedImage, Arc<BaseImage>)> {
        let source: Arc<dyn BlobSource> = Arc::new(Remembered {
            store: self.store.clone(),
            lease: self.lease.clone(),
            source: Arc::new(self.registry.client().source(reference)),
            keeps: self.purpose == Purpose::Build,
        });
        let root = self.root(reference).await?;
        let document = fetch_document(source.as_ref(), &root).await.map_err(registry)?;
        let name = reference.familiar();
        let (_, manifest) = image_manifest(&name, document, &source, platform).await?;
        let config = fetch_config(&name, &manifest, &source).await?.1.into_parts().1;
        let identifier = format!("docker-image://{}", reference.with_digest(root.digest.clone()));
        let image =
            BaseImage { name, config: config.clone(), blobs: manifest.layers, source: Some(source), snapshot: None };
        Ok((ResolvedImage { digest: root.digest, identifier, config }, Arc::new(image)))
    }

    /// What a reference stands for now. What a digest stands for never changes, so it is asked only once.
    async fn root(&self, reference: &Reference) -> Result<Descriptor> {
        let pinned = reference.digest.is_some().then(|| reference.to_string());
        let records = self.store.records();
        let fact = pinned.as_ref().and_then(|name| records.get_fact(PINNED, name).ok().flatten());
        // What a registry says of a digest is its word only: another one is not what was asked for.
        let is_meant = |found: &Descriptor| reference.digest.as_ref().is_none_or(|wanted| *wanted == found.digest);
        let fact = fact.and_then(|fact| serde_json::from_slice(&fact).ok());
        if let Some(descriptor) = fact.filter(is_meant) {
            return Ok(descriptor);
        }
        let client = self.registry.client();
        let root = match client.peek(reference).await.map_err(registry)?.filter(is_meant) {
            Some(descriptor) => descriptor,
            None => client.resolve(reference).await.map_err(registry)?.descriptor,
        };
        if let Some(name) = pinned {
            records.put_fact(PINNED, &name, &serde_json::to_vec(&root).expect("plain data serialises"));
        }
        Ok(root)
    }

    async fn in_layout(&self, text: &str, platform: &Platform) -> Result<(ResolvedImage, Arc<BaseImage>)> {
        let (path, selector) = split_layout(text)?;
        let layout = Layout::open(&path).await.map_err(registry)?;
        let root = layout.resolve(&selector).await.map_err(registry)?;
        let source: Arc<dyn BlobSource> = Arc::new(layout);
        let document = fetch_document(source.as_ref(), &root).await.map_err(registry)?;
        let (_, manifest) = image_manifest(text, document, &source, platform).await?;
        let config = fetch_config(text, &manifest, &source).await?.1.into_parts().1;
        let identifier = format!("oci-layout://{}@{}", path.display(), root.digest);
        let image = BaseImage {
            name: text.into(),
            config: config.clone(),
            blobs: manifest.layers,
            source: Some(source),
            snapshot: None,
        };
        Ok((ResolvedImage { digest: root.digest, identifier, config }, Arc::new(image)))
    }
}

/// Whether an image serves a platform. One that does not say what it is for serves all.
fn fits(config: &ImageConfig, platform: &Platform) -> bool {
    config.platform.satisfies(platform) || config.platform.architecture.is_empty()
}

/// An image that is nearly called like a stage was most likely meant to be that stage.
fn unresolved(mut failure: Failure, request: &ImageRequest, file: Arc<SourceFile>) -> Failure {
    if let Some(stage) = &request.similar_stage {
        failure.kind = FailureKind::Build;
        failure.hints = vec![format!("did you mean the stage `{stage}`?")];
    }
    failure.at(Excerpt { file, span: request.span })
}

/// The manifest of one platform.
pub(crate) async fn image_manifest(
    name: &str,
    document: Document,
    source: &Arc<dyn BlobSource>,
    platform: &Platform,
) -> Result<(Descriptor, Manifest)> {
    match document {
        Document::Manifest(manifest) => {
            let media_type =
                manifest.value().media_type.clone().unwrap_or_else(|| kiln_oci::MediaType::OCI_MANIFEST.into());
            Ok((Descriptor::of(media_type, manifest.bytes()), manifest.into_parts().1))
        }
        Document::Index(index) => {
            let picked = pick_platform(name, index.value(), platform).map_err(registry)?;
            match fetch_document(source.as_ref(), &picked).await.map_err(registry)? {
                Document::Manifest(manifest) => Ok((picked, manifest.into_parts().1)),
                Document::Index(_) => {
                    let message = format!("image `{name}` has an index where {platform} should be");
                    Err(Failure::new(FailureKind::Build, message))
                }
            }
        }
    }
}

/// The config a manifest names, checked against it.
pub(crate) async fn fetch_config(
    name: &str,
    manifest: &Manifest,
    source: &Arc<dyn BlobSource>,
) -> Result<(Descriptor, Raw<ImageConfig>)> {
    let doing = format!("read the config of image `{name}`");
    let reader = source.fetch(&manifest.config).await.map_err(registry)?;
    let bytes = reader.bytes(&doing, kiln_image::limits::CONFIG).await.map_err(registry)?;
    Ok((manifest.config.clone(), kiln_image::validate_config(manifest, bytes).map_err(registry)?))
}

/// `PATH`, `PATH:TAG` or `PATH@DIGEST`.
pub(crate) fn split_layout(text: &str) -> Result<(PathBuf, Selector)> {
    if let Some((path, digest)) = text.rsplit_once('@') {
        let digest = digest.parse().or_build(|| format!("cannot use `oci-layout://{text}`"))?;
        return Ok((path.into(), Selector::Digest(digest)));
    }
    match text.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => Ok((path.into(), Selector::Name(tag.to_owned()))),
        _ => Ok((text.into(), Selector::Only)),
    }
}

#[cfg(test)]
mod tests {
    use kiln_oci::Digest;

    use super::*;

    #[test]
    fn layouts_are_named_with_a_tag_a_digest_or_neither() {
        let digest = Digest::sha256("x");
        for (text, path, selector) in [
            ("/a/b".to_owned(), "/a/b", Selector::Only),
            ("/a/b:1.0".into(), "/a/b", Selector::Name("1.0".into())),
            ("/a:b/c".into(), "/a:b/c", Selector::Only),
            (format!("/a/b@{digest}"), "/a/b", Selector::Digest(digest.clone())),
        ] {
            let found = split_layout(&text).unwrap();
            assert_eq!(
                (found.0.to_str().unwrap(), format!("{:?}", found.1)),
                (path, format!("{selector:?}")),
                "{text}"
            );
        }
        assert_eq!(split_layout("/a@nonsense").unwrap_err().kind, FailureKind::Build);
    }
}
