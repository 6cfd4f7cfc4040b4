//! Resolves the images a Dockerfile asks for, all of a round at once: the local store first, then their registry.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use kiln_dockerfile::{ArchivedImage, ImageFacts, ImageRequest, PlatformInNames, ResolvedImage};
use kiln_image::archive::{Archive, ArchiveImage};
use kiln_image::{BlobSource, Layout, Selector, fetch_document, pick_platform};
use kiln_oci::{Descriptor, Digest, Document, ImageConfig, Manifest, Platform, Raw, Reference};
use kiln_report::{Event, Excerpt, Failure, FailureKind, Reporter, SourceFile};
use kiln_store::{ImageRecord, Lease, Store};
use tokio::sync::OnceCell;

use super::context::open_root;
use crate::base::BaseImage;
use crate::engine::Engine;
use crate::failure::{Context as _, environment, registry};
use crate::job::{Basis, Images, Result};
use crate::lock::Pins;
use crate::offline::{NEEDED, joined, not_here};
use crate::progress::Work;
use crate::registry::Registry;
use crate::remember::{Nobody, Remembered};
use crate::request::Pull;
use crate::worker::Purpose;

/// Facts about what references with a digest stand for.
const PINNED: &str = "pinned image";

/// Facts about what tags stood for when their registry was last asked.
const TAGGED: &str = "tagged image";

/// What lowering has to know of an image, and the image.
pub(crate) type Found = (ResolvedImage, Arc<BaseImage>);

/// Finds images by reference and platform.
pub(crate) struct Resolver {
    store: Store,
    lease: Lease,
    registry: Arc<Registry>,
    reporter: Arc<dyn Reporter>,
    images: Arc<Images>,
    /// When registries are asked.
    pub(crate) pull: Pull,
    /// What is resolved for a forecast is not kept.
    purpose: Purpose,
    pins: Arc<Pins>,
    /// The main context, in which archives are looked for.
    directory: Option<PathBuf>,
    /// Whether images are looked up for several platforms.
    platform_in_names: PlatformInNames,
    answers: Answers,
}

/// What was asked for so far, and what came of it.
pub(crate) type Answers = Mutex<HashMap<(String, Platform), Arc<OnceCell<Result<Found>>>>>;

impl Resolver {
    /// Finds images for a build, and hands them to it. A build without network asks nobody, whatever is wanted.
    pub(crate) fn new(
        engine: &Engine,
        basis: &Basis,
        (images, pull): (Arc<Images>, Pull),
        platform_in_names: PlatformInNames,
    ) -> Self {
        let registry = engine.registry();
        Self {
            store: basis.store.clone(),
            lease: basis.lease.clone(),
            reporter: Arc::clone(&basis.reporter),
            images,
            pull: if registry.is_offline() { Pull::Never } else { pull },
            registry,
            purpose: basis.purpose,
            pins: Arc::clone(&basis.pins),
            directory: None,
            platform_in_names,
            answers: Answers::default(),
        }
    }

    /// The same, with archives of this context.
    pub(crate) fn beside(self, directory: Option<&Path>) -> Self {
        Self { directory: directory.map(Path::to_owned), ..self }
    }

    /// Whether an image is of the local store alone: no registry knows it by this name.
    pub(crate) fn is_only_here(&self, reference: &str) -> bool {
        let Ok(Some(record)) = crate::images::find(&self.store, reference) else { return false };
        let Ok(name) = reference.parse::<Reference>().map(|reference| format!("{}@", reference.name())) else {
            return true;
        };
        !record.repo_digests.iter().any(|place| place.starts_with(&name))
    }

    /// Answers all requests of a round.
    pub(crate) async fn resolve_all(
        &self,
        wanted: Vec<ImageRequest>,
        source: &Arc<SourceFile>,
        facts: &mut ImageFacts,
    ) -> Result<()> {
        let answers = futures::future::join_all(wanted.iter().map(|request| self.resolve(request))).await;
        let mut failures = Vec::new();
        for (request, answer) in wanted.into_iter().zip(answers) {
            match answer {
                Ok((resolved, image)) => {
                    self.images.insert(resolved.identifier.clone(), &request.platform, image);
                    facts.insert(request.reference, request.platform, resolved);
                }
                Err(failure) => failures.push(unresolved(failure, &request, Arc::clone(source))),
            }
        }
        joined(failures, NEEDED)
    }

    /// Answers a request, once for all platforms of the build that have a stage for the same one.
    async fn resolve(&self, request: &ImageRequest) -> Result<Found> {
        let key = (request.reference.clone(), request.platform.clone());
        let answer = Arc::clone(self.answers.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default());
        answer.get_or_init(|| self.find(request)).await.clone()
    }

    async fn find(&self, request: &ImageRequest) -> Result<Found> {
        if let Some(layout) = request.reference.strip_prefix("oci-layout://") {
            return self.in_layout(layout, &request.platform).await;
        }
        if let Some(archived) = ArchivedImage::read(&request.reference) {
            return self.in_archive(archived, &request.platform).await;
        }
        let reference: Reference = request.reference.parse().map_err(crate::failure::build)?;
        let reference = match self.pins.image(&reference)? {
            Some(digest) => reference.with_digest(digest),
            None => reference,
        };
        let here = || self.in_store(&request.reference, &reference, &request.platform);
        match self.pull {
            Pull::Never => self.here(request, &reference).await,
            Pull::Missing => match here()? {
                Some(found) => Ok(found),
                None => self.asked(&reference, &request.platform).await,
            },
            Pull::Always => self.asked(&reference, &request.platform).await,
            Pull::Newer => match self.asked(&reference, &request.platform).await {
                Err(failure) => {
                    let found = self.here(request, &reference).await.map_err(|_| failure.clone())?;
                    let text = format!("warning: image `{}` is used as it is here: {failure}", reference.familiar());
                    self.reporter.report(Event::Note(text));
                    Ok(found)
                }
                found => found,
            },
        }
    }

    /// What its registry says now.
    async fn asked(&self, reference: &Reference, platform: &Platform) -> Result<Found> {
        let of = match self.platform_in_names {
            PlatformInNames::Shown => format!("{platform} "),
            PlatformInNames::Hidden => String::new(),
        };
        let work = Work::start(&self.reporter, format!("[{of}internal] load metadata for {reference}"));
        let found = async {
            let root = self.root(reference).await?;
            let source = self.remembered(Arc::new(self.registry.client().source(reference)));
            self.at(reference, root, (source, platform)).await
        };
        let found = found.await;
        self.registry.tell_mirrors(self.reporter.as_ref());
        work.end(found)
    }

    /// The image of the local store, or else what its registry said last, as far as that is kept.
    async fn here(&self, request: &ImageRequest, reference: &Reference) -> Result<Found> {
        if let Some(found) = self.in_store(&request.reference, reference, &request.platform)? {
            return Ok(found);
        }
        let nobody = Arc::new(Nobody { host: reference.registry.clone() });
        let known = match &reference.digest {
            Some(digest) => self.fact(PINNED, &pinned_name(reference, digest)),
            None => self.fact(TAGGED, &reference.to_string()),
        };
        let lacking = || not_here(&format!("image `{}`", reference.familiar()));
        let root = known.ok_or_else(lacking)?;
        let found = self.at(reference, root, (self.remembered(nobody), &request.platform)).await;
        found.map_err(|failure| if failure.kind == FailureKind::Environment { lacking() } else { failure })
    }

    fn remembered(&self, source: Arc<dyn BlobSource>) -> Arc<dyn BlobSource> {
        let (store, lease) = (self.store.clone(), self.lease.clone());
        Arc::new(Remembered { store, lease, source, keeps: self.purpose == Purpose::Build })
    }

    /// An image whose layers are all here.
    fn in_store(&self, written: &str, reference: &Reference, platform: &Platform) -> Result<Option<Found>> {
        let Some(record) = crate::images::find(&self.store, written)? else { return Ok(None) };
        if reference.digest.as_ref().is_some_and(|digest| !is_known_as(&record, reference, digest)) {
            return Ok(None);
        }
        // One that would only do in need is not taken before the registry was asked.
        let is_meant =
            |image: &&ImageRecord| image.platform.satisfies(platform) || image.platform.architecture.is_empty();
        let Some(record) = record.for_platform(platform).filter(is_meant).cloned() else { return Ok(None) };
        let config = crate::images::read_config(&self.store, &record.id)?;
        let Some(snapshot) = record.snapshot else { return Ok(None) };
        if !self.lease.hold_snapshot(&snapshot).map_err(environment)? {
            return Ok(None);
        }
        let pinned = Reference { digest: None, ..reference.clone() }.with_digest(record.id.clone());
        let image = BaseImage {
            name: reference.familiar(),
            config: config.clone(),
            blobs: Vec::new(),
            documents: Vec::new(),
            source: None,
            snapshot: Some(snapshot),
        };
        let identifier = format!("docker-image://{pinned}");
        Ok(Some((ResolvedImage { digest: record.id, identifier, config, is_local: true }, Arc::new(image))))
    }

    /// The image of a platform behind a manifest or index.
    async fn at(
        &self,
        reference: &Reference,
        root: Descriptor,
        (source, platform): (Arc<dyn BlobSource>, &Platform),
    ) -> Result<Found> {
        let document = fetch_document(source.as_ref(), &root).await.map_err(registry)?;
        let name = reference.familiar();
        let (own, manifest) = image_manifest(&name, document, &source, platform).await?;
        let config = fetch_config(&name, &manifest, &source).await?.1.into_parts().1;
        let identifier = format!("docker-image://{}", reference.with_digest(root.digest.clone()));
        let image = BaseImage {
            name,
            config: config.clone(),
            blobs: manifest.layers,
            documents: vec![root.digest.clone(), own.digest, manifest.config.digest],
            source: Some(source),
            snapshot: None,
        };
        if self.purpose == Purpose::Build
            && let Some(snapshot) = image.unpacked(&self.store)
        {
            image.keep_documents(&self.store, &snapshot);
        }
        Ok((ResolvedImage { digest: root.digest, identifier, config, is_local: false }, Arc::new(image)))
    }

    /// What a reference stands for now. What a digest stands for never changes, so it is asked only once.
    async fn root(&self, reference: &Reference) -> Result<Descriptor> {
        // What a registry says of a digest is its word only: another one is not what was asked for.
        let is_meant = |found: &Descriptor| reference.digest.as_ref().is_none_or(|wanted| *wanted == found.digest);
        let pinned = reference.digest.as_ref().and_then(|digest| self.fact(PINNED, &pinned_name(reference, digest)));
        if let Some(descriptor) = pinned.filter(is_meant) {
            return Ok(descriptor);
        }
        let client = self.registry.client();
        let root = match client.peek(reference).await.map_err(registry)?.filter(is_meant) {
            Some(descriptor) => descriptor,
            None => client.resolve(reference).await.map_err(registry)?.descriptor,
        };
        let text = serde_json::to_vec(&root).expect("plain data serialises");
        let records = self.store.records();
        records.put_fact(PINNED, &pinned_name(reference, &root.digest), &text);
        if reference.digest.is_none() {
            records.put_fact(TAGGED, &reference.to_string(), &text);
        }
        Ok(root)
    }

    fn fact(&self, kind: &str, name: &str) -> Option<Descriptor> {
        let fact = self.store.records().get_fact(kind, name).ok().flatten()?;
        serde_json::from_slice(&fact).ok()
    }

    /// An image of an archive in the build context: a Dockerfile names no other files of the machine.
    async fn in_archive(&self, archived: ArchivedImage<'_>, platform: &Platform) -> Result<Found> {
        let path = archived.path;
        let missing = || {
            Failure::new(FailureKind::Build, format!("there is no archive `{path}` in the build context"))
                .hint(format!("put it there, or load it with `kiln load -i {path}` and write its name"))
        };
        let root = open_root(self.directory.as_deref().ok_or_else(missing)?)?;
        let is_file = root.metadata(path).is_ok_and(|found| found.is_file());
        let file = root.open_file(path).ok().filter(|_| is_file).ok_or_else(missing)?;
        let archive = Archive::of_file(file, path).await.map_err(registry)?;
        let named = |name: &str| name.parse::<Reference>().map_or_else(|_| name.to_owned(), |name| name.to_string());
        let wanted = archived.name.map(named);
        let is_meant = |image: &&ArchiveImage| wanted.as_ref().is_none_or(|wanted| image.names.contains(wanted));
        let found: Vec<ArchiveImage> = archive.images().iter().filter(is_meant).cloned().collect();
        let [image] = found.as_slice() else {
            let names: Vec<String> = archive.images().iter().flat_map(|image| image.names.clone()).collect();
            let failure = Failure::new(FailureKind::Build, format!("`{path}` does not have one image that is meant"));
            return Err(failure.hint(format!("name one of its images after the path: `{}`", names.join("`, `"))));
        };
        let source: Arc<dyn BlobSource> = Arc::new(archive);
        self.of_source(&image.descriptor, (path, path), (source, platform)).await
    }

    async fn in_layout(&self, text: &str, platform: &Platform) -> Result<Found> {
        let (path, selector) = split_layout(text)?;
        let layout = Layout::open(&path).await.map_err(registry)?;
        let root = layout.resolve(&selector).await.map_err(registry)?;
        let source: Arc<dyn BlobSource> = Arc::new(layout);
        self.of_source(&root, (text, &path.display().to_string()), (source, platform)).await
    }

    /// The image of a platform in a layout or an archive, which is called `name` and lies at `place`.
    async fn of_source(
        &self,
        root: &Descriptor,
        (name, place): (&str, &str),
        (source, platform): (Arc<dyn BlobSource>, &Platform),
    ) -> Result<Found> {
        let document = fetch_document(source.as_ref(), root).await.map_err(registry)?;
        let (_, manifest) = image_manifest(name, document, &source, platform).await?;
        let config = fetch_config(name, &manifest, &source).await?.1.into_parts().1;
        let image = BaseImage {
            name: name.into(),
            config: config.clone(),
            blobs: manifest.layers,
            documents: Vec::new(),
            source: Some(source),
            snapshot: None,
        };
        let identifier = format!("oci-layout://{place}@{}", root.digest);
        Ok((ResolvedImage { digest: root.digest.clone(), identifier, config, is_local: false }, Arc::new(image)))
    }
}

/// One digest of one repository, whatever tag stands beside it.
fn pinned_name(reference: &Reference, digest: &Digest) -> String {
    format!("{}@{digest}", reference.name())
}

/// Whether an image is the one of a digest: by its id, or by what the repository calls it.
fn is_known_as(record: &ImageRecord, reference: &Reference, digest: &Digest) -> bool {
    let is_id = record.id == *digest || record.images().iter().any(|image| image.id == *digest);
    is_id || record.repo_digests.contains(&pinned_name(reference, digest))
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

/// `PATH`, `PATH:NAME` or `PATH@DIGEST`.
pub(crate) fn split_layout(text: &str) -> Result<(PathBuf, Selector)> {
    if let Some((path, digest)) = text.rsplit_once('@') {
        let digest = digest.parse().or_build(|| format!("cannot use `oci-layout://{text}`"))?;
        return Ok((path.into(), Selector::Digest(digest)));
    }
    let (path, name) = Layout::split(text);
    Ok((path.into(), name.map_or(Selector::Only, |name| Selector::Name(name.to_owned()))))
}

#[cfg(test)]
mod tests {
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
