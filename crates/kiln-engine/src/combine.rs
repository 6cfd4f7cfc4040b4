//! Indexes made of images that are in registries or layouts: nothing goes through the store.

mod look;
mod place;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::try_join_all;
use kiln_image::{BlobSink, BlobSource, CopyOptions, Layout, LayoutSink, Pushed, Role, copy_graph, fetch_document};
use kiln_oci::{Descriptor, Digest, Document, Index, Manifest, MediaType, Platform, Raw, Reference};
use kiln_report::{Failure, FailureKind, Reporter};

use crate::engine::Engine;
use crate::export::meter;
use crate::failure::{Context as _, registry};
use crate::frontend::fetch_config;
use crate::job::Result;
use crate::progress::Work;

pub(crate) use self::look::look;
pub use self::look::{Attested, Depth, RemoteImage};
pub use self::place::ImagePlace;

/// An image to be made of others.
#[derive(Debug, Clone, Default)]
pub struct CombineRequest {
    /// What it is made of, in order. An index stands for all that it names.
    pub sources: Vec<CombineSource>,
    /// Where it is pushed to; nowhere when there are none.
    pub names: Vec<ImagePlace>,
    /// Annotations of the index. Those of a single source stay besides.
    pub annotations: BTreeMap<String, String>,
    /// Annotations of its entries: of those for a platform, or of all.
    pub entry_annotations: Vec<(Option<Platform>, String, String)>,
    /// Only these platforms, when there are any.
    pub platforms: Vec<Platform>,
    /// What a single source that is no index becomes.
    pub single: Single,
}

/// What becomes of one manifest alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Single {
    /// An index of one.
    #[default]
    Index,
    /// A copy of it.
    Copy,
}

/// A part of an image to be made.
#[derive(Debug, Clone)]
pub struct CombineSource {
    /// Where it is.
    pub place: ImagePlace,
    /// What is said of it in the index, instead of what is known of it.
    pub said: Said,
}

/// What somebody says of a manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Said {
    /// Its type.
    pub media_type: Option<MediaType>,
    /// Its digest.
    pub digest: Option<Digest>,
    /// Its size.
    pub size: Option<u64>,
    /// Annotations that take the place of all others.
    pub annotations: BTreeMap<String, String>,
    /// Its platform.
    pub platform: Option<Platform>,
}

/// A document as a registry has it, or is to have it.
#[derive(Debug, Clone)]
pub struct RemoteDocument {
    /// What it is.
    pub descriptor: Descriptor,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// A manifest of the image to be, and where it is.
struct Part {
    descriptor: Descriptor,
    at: ImagePlace,
}

/// What is to be made: its document, and the manifests that it names.
struct Combined {
    root: RemoteDocument,
    parts: Vec<Part>,
}

/// Makes an image of others, and pushes it under all its names.
pub(crate) async fn combine(
    engine: &Engine,
    request: &CombineRequest,
    reporter: &Arc<dyn Reporter>,
) -> Result<RemoteDocument> {
    let found = try_join_all(request.sources.iter().map(|source| find(engine, source))).await?;
    let combined = filtered(join(found, request)?, &request.platforms)?;
    for name in &request.names {
        let work = Work::start(reporter, format!("pushing {name}"));
        let pushed = push(engine, &combined, name, &work).await;
        work.end(pushed)?;
    }
    Ok(combined.root)
}

/// A source, and what it turned out to be.
struct Found {
    descriptor: Descriptor,
    document: Document,
    at: ImagePlace,
}

async fn find(engine: &Engine, CombineSource { place, said }: &CombineSource) -> Result<Found> {
    let (mut descriptor, document) = place.resolve(engine).await?;
    if said.size.is_some_and(|size| size != descriptor.size) {
        let message = format!("`{place}` has {} bytes, not what its descriptor says", descriptor.size);
        return Err(Failure::new(FailureKind::Build, message).hint("leave out its `size`"));
    }
    if let Document::Manifest(manifest) = &document {
        let source = place.source(engine).await?;
        descriptor.platform = Some(platform_of(said, manifest.value(), (&source, place)).await?);
    }
    if !said.annotations.is_empty() {
        descriptor.annotations.clone_from(&said.annotations);
    }
    if let Some(media_type) = &said.media_type {
        descriptor.media_type.clone_from(media_type);
    }
    Ok(Found { descriptor, document, at: place.clone() })
}

/// What is said of its platform, and for what is not the config's word.
async fn platform_of(
    said: &Said,
    manifest: &Manifest,
    (source, place): (&Arc<dyn BlobSource>, &ImagePlace),
) -> Result<Platform> {
    let mut platform = said.platform.clone().unwrap_or_default();
    if platform.os.is_empty() || platform.architecture.is_empty() {
        let config = fetch_config(&place.to_string(), manifest, source).await?.1.into_parts().1;
        let own = config.platform.normalized();
        if platform.architecture.is_empty() {
            (platform.architecture, platform.variant) = (own.architecture, platform.variant.or(own.variant));
        }
        if platform.os.is_empty() {
            platform.os = own.os;
        }
    }
    Ok(platform)
}

fn join(mut found: Vec<Found>, request: &CombineRequest) -> Result<Combined> {
    let is_annotated = !(request.annotations.is_empty() && request.entry_annotations.is_empty());
    if let ([only], false) = (found.as_slice(), is_annotated)
        && (matches!(only.document, Document::Index(_)) || request.single == Single::Copy)
    {
        return Ok(as_it_is(found.remove(0)));
    }
    let is_single = found.len() == 1;
    let mut annotations = BTreeMap::new();
    let mut parts: Vec<Part> = Vec::new();
    for Found { descriptor, document, at } in found {
        match document {
            Document::Manifest(_) => add(&mut parts, Part { descriptor, at }),
            Document::Index(index) => {
                let index = index.into_parts().1;
                if is_single {
                    annotations = index.annotations;
                }
                index.manifests.into_iter().for_each(|descriptor| add(&mut parts, Part { descriptor, at: at.clone() }));
            }
        }
    }
    let is_docker = parts.iter().all(|part| part.descriptor.media_type.as_str() == MediaType::DOCKER_MANIFEST);
    if is_docker && is_annotated {
        let message = "a Docker manifest list has no annotations";
        return Err(
            Failure::new(FailureKind::Usage, message).hint("add a source with OCI media types, or leave them out")
        );
    }
    for (platform, key, value) in &request.entry_annotations {
        let is_meant = |part: &&mut Part| platform.is_none() || part.descriptor.platform == *platform;
        for part in parts.iter_mut().filter(is_meant) {
            part.descriptor.annotations.insert(key.clone(), value.clone());
        }
    }
    let kind = if is_docker { MediaType::DOCKER_INDEX } else { MediaType::OCI_INDEX };
    annotations.extend(request.annotations.clone());
    let root = written(kind.into(), &parts, annotations);
    Ok(Combined { root, parts })
}

fn as_it_is(Found { descriptor, document, at }: Found) -> Combined {
    match document {
        Document::Manifest(manifest) => {
            let parts = vec![Part { descriptor: descriptor.clone(), at }];
            Combined { root: RemoteDocument { descriptor, bytes: manifest.into_parts().0 }, parts }
        }
        Document::Index(index) => {
            let (bytes, index) = index.into_parts();
            let parts = index.manifests.into_iter().map(|descriptor| Part { descriptor, at: at.clone() });
            Combined { parts: parts.collect(), root: RemoteDocument { descriptor, bytes } }
        }
    }
}

/// What is named twice is one entry, with what the later one says.
fn add(parts: &mut Vec<Part>, new: Part) {
    match parts.iter_mut().find(|part| part.descriptor.digest == new.descriptor.digest) {
        None => parts.push(new),
        Some(part) => {
            part.descriptor.platform = new.descriptor.platform.or(part.descriptor.platform.take());
            part.descriptor.annotations.extend(new.descriptor.annotations);
            part.at = new.at;
        }
    }
}

/// An index as buildx writes it: with line breaks, so that it has the same digest.
fn written(media_type: MediaType, parts: &[Part], annotations: BTreeMap<String, String>) -> RemoteDocument {
    let index = Index {
        schema_version: 2,
        media_type: Some(media_type.clone()),
        manifests: parts.iter().map(|part| part.descriptor.clone()).collect(),
        annotations,
    };
    let bytes = serde_json::to_vec_pretty(&index).expect("plain data serialises");
    RemoteDocument { descriptor: Descriptor::of(media_type, &bytes), bytes }
}

/// What BuildKit says of an entry that is an attestation: of which other.
const SUBJECT: &str = "vnd.docker.reference.digest";

/// Only these platforms, and what is said of their images.
fn filtered(combined: Combined, platforms: &[Platform]) -> Result<Combined> {
    if platforms.is_empty() {
        return Ok(combined);
    }
    let is_wanted = |platform: &Option<Platform>| {
        platform.as_ref().is_none_or(|platform| platforms.contains(&platform.clone().normalized()))
    };
    let subject = |entry: &Descriptor| {
        let digest = entry.annotations.get(SUBJECT)?;
        combined.parts.iter().find(|part| part.descriptor.digest.as_str() == digest).map(|part| &part.descriptor)
    };
    let is_kept = |part: &Part| is_wanted(&subject(&part.descriptor).unwrap_or(&part.descriptor).platform);
    let kept: Vec<bool> = combined.parts.iter().map(is_kept).collect();
    if !kept.contains(&true) {
        let there = combined.parts.iter().filter_map(|part| Some(format!("`{}`", part.descriptor.platform.as_ref()?)));
        let message =
            format!("none of the sources is for these platforms, but for {}", there.collect::<Vec<_>>().join(", "));
        return Err(Failure::new(FailureKind::Build, message).hint("name one of these with `--platform`"));
    }
    if !kept.contains(&false) {
        return Ok(combined);
    }
    let Combined { root, parts } = combined;
    let parts: Vec<Part> = parts.into_iter().zip(kept).filter(|(_, kept)| *kept).map(|(part, _)| part).collect();
    let annotations = Raw::<Index>::parse(root.bytes).map(|index| index.into_parts().1.annotations).unwrap_or_default();
    Ok(Combined { root: written(root.descriptor.media_type, &parts, annotations), parts })
}

/// Copies what is not where the name is, then lets the name point to the whole.
async fn push(engine: &Engine, combined: &Combined, name: &ImagePlace, work: &Work) -> Result<()> {
    match name {
        ImagePlace::Registry(reference) => {
            for part in &combined.parts {
                let client = engine.registry();
                let mut sink = client.client().sink(&Reference { tag: None, digest: None, ..reference.clone() });
                if let ImagePlace::Registry(at) = &part.at
                    && at.registry == reference.registry
                {
                    sink = sink.mounting_from(at.repository.clone());
                }
                bring(engine, part, (name, &sink), work).await?;
            }
            finish(combined, (name, &engine.registry().client().sink(reference)), work).await.map_err(registry)
        }
        ImagePlace::Layout { dir, tag, .. } => {
            let doing = || format!("cannot write the layout `{}`", dir.display());
            let layout = Layout::create(dir).await.or_environment(doing)?;
            let sink = under_tag(&layout, tag.as_deref().unwrap_or("latest")).await.or_environment(doing)?;
            for part in &combined.parts {
                bring(engine, part, (name, &Beneath(&sink)), work).await?;
            }
            finish(combined, (name, &sink), work).await.or_environment(doing)
        }
    }
}

/// A sink of what a tag is to stand for. An image of that tag with a full name, too, gives both to the new one.
async fn under_tag(layout: &Layout, tag: &str) -> kiln_image::Result<LayoutSink> {
    let entries = layout.entries().await?;
    let of_tag = entries.into_iter().filter(|entry| entry.tag.as_deref() == Some(tag));
    match of_tag.map(|entry| entry.name).collect::<Vec<_>>().as_slice() {
        [Some(only)] => layout.sink([only.clone()]).await,
        _ => layout.tagged_sink(tag).await,
    }
}

/// Copies a part that is elsewhere; one that should be there must be there.
async fn bring(
    engine: &Engine,
    Part { descriptor, at }: &Part,
    (name, sink): (&ImagePlace, &dyn BlobSink),
    work: &Work,
) -> Result<()> {
    let (source, repository) = (at.source(engine).await?, at.repository());
    if repository != name.repository() {
        work.part(format!("copying {} from {repository}", descriptor.digest));
        let options = CopyOptions { progress: Some(meter(work)), ..CopyOptions::default() };
        copy_graph(source.as_ref(), sink, descriptor, &options).await.map_err(registry)?;
    } else if descriptor.media_type.is_manifest() || descriptor.media_type.is_index() {
        let found = fetch_document(source.as_ref(), descriptor).await;
        found.or_build(|| format!("`{repository}` lacks what the image is to be made of"))?;
    }
    Ok(())
}

async fn finish(
    combined: &Combined,
    (name, sink): (&ImagePlace, &dyn BlobSink),
    work: &Work,
) -> kiln_image::Result<()> {
    let RemoteDocument { descriptor, bytes } = &combined.root;
    work.part(format!("pushing {} to {name}", descriptor.digest));
    sink.push_document(descriptor, bytes, Role::Root).await
}

/// A sink of what a root will lead to: nothing points at it as yet.
struct Beneath<'a>(&'a dyn BlobSink);

#[async_trait]
impl BlobSink for Beneath<'_> {
    async fn has(&self, descriptor: &Descriptor) -> kiln_image::Result<bool> {
        self.0.has(descriptor).await
    }

    async fn push(&self, descriptor: &Descriptor, from: &dyn BlobSource) -> kiln_image::Result<Pushed> {
        self.0.push(descriptor, from).await
    }

    async fn push_document(&self, descriptor: &Descriptor, bytes: &[u8], _role: Role) -> kiln_image::Result<()> {
        self.0.push_document(descriptor, bytes, Role::Child).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(platform: Option<&str>, text: &str) -> Part {
        let mut descriptor = Descriptor::of(MediaType::OCI_MANIFEST, text.as_bytes());
        descriptor.platform = platform.map(|platform| platform.parse().unwrap());
        Part { descriptor, at: "localhost:5000/a".parse().unwrap() }
    }

    fn combined(parts: Vec<Part>) -> Combined {
        Combined { root: written(MediaType::OCI_INDEX.into(), &parts, BTreeMap::new()), parts }
    }

    #[test]
    fn a_platform_keeps_what_is_said_of_its_image() {
        let image = part(Some("linux/amd64"), "one");
        let mut attestation = part(Some("unknown/unknown"), "of one");
        attestation.descriptor.annotations.insert(SUBJECT.into(), image.descriptor.digest.to_string());
        let other = part(Some("linux/arm64"), "two");
        let all = || {
            combined(vec![
                Part { descriptor: image.descriptor.clone(), at: image.at.clone() },
                Part { descriptor: other.descriptor.clone(), at: other.at.clone() },
                Part { descriptor: attestation.descriptor.clone(), at: attestation.at.clone() },
            ])
        };
        let kept = filtered(all(), &["linux/amd64".parse().unwrap()]).unwrap();
        let digests: Vec<_> = kept.parts.iter().map(|part| part.descriptor.digest.clone()).collect();
        assert_eq!(digests, [image.descriptor.digest.clone(), attestation.descriptor.digest.clone()]);
        let whole = filtered(all(), &["linux/arm64".parse().unwrap(), "linux/amd64".parse().unwrap()]).unwrap();
        assert_eq!(whole.root.bytes, all().root.bytes, "what keeps all stays as it is");
        let failure = filtered(all(), &["linux/s390x".parse().unwrap()]).err().unwrap();
        assert!(failure.message.contains("`linux/arm64`"), "{failure}");
    }

    #[test]
    fn what_is_named_twice_is_one_entry() {
        let mut parts = vec![part(None, "one")];
        let mut again = part(Some("linux/arm64"), "one");
        again.descriptor.annotations.insert("k".into(), "v".into());
        add(&mut parts, again);
        add(&mut parts, part(None, "two"));
        assert_eq!(parts.len(), 2);
        assert_eq!(parts[0].descriptor.platform, Some(Platform::linux("arm64")));
        assert_eq!(parts[0].descriptor.annotations["k"], "v");
    }
}
