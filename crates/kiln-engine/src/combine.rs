//! Indexes made of images that are in registries, and what registries say of a name: nothing goes through the store.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::try_join_all;
use kiln_image::{BlobSink as _, BlobSource, CopyOptions, Role, copy_graph, fetch_document};
use kiln_oci::{Descriptor, Digest, Document, ImageConfig, Index, Manifest, MediaType, Platform, Raw, Reference};
use kiln_report::{Failure, FailureKind, Reporter};

use crate::engine::Engine;
use crate::export::meter;
use crate::failure::registry;
use crate::frontend::fetch_config;
use crate::job::Result;
use crate::progress::Work;

/// An image to be made of others.
#[derive(Debug, Clone, Default)]
pub struct CombineRequest {
    /// What it is made of, in order. An index stands for all that it names.
    pub sources: Vec<CombineSource>,
    /// Where it is pushed to; nowhere when there are none.
    pub names: Vec<Reference>,
    /// Annotations of the index.
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
    pub reference: Reference,
    /// What is said of it in the index, instead of what its registry says.
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

/// What a registry says of a name.
#[derive(Debug, Clone)]
pub struct RemoteImage {
    /// The document that the name stands for.
    pub document: RemoteDocument,
    /// Its index, if it is one.
    pub index: Option<Index>,
    /// The configs of its images, by platform.
    pub configs: Vec<(Platform, ImageConfig)>,
}

/// A manifest of the image to be, and the repository it is in.
struct Part {
    descriptor: Descriptor,
    at: Reference,
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
    at: Reference,
}

async fn find(engine: &Engine, CombineSource { reference, said }: &CombineSource) -> Result<Found> {
    let client = engine.registry();
    let resolved = client.client().resolve(reference).await.map_err(registry)?;
    let mut descriptor = resolved.descriptor;
    if said.size.is_some_and(|size| size != descriptor.size) {
        let message = format!("`{reference}` has {} bytes, not what its descriptor says", descriptor.size);
        return Err(Failure::new(FailureKind::Build, message).hint("leave out its `size`"));
    }
    if let Document::Manifest(manifest) = &resolved.document {
        let source: Arc<dyn BlobSource> = Arc::new(client.client().source(reference));
        descriptor.platform = Some(platform_of(said, manifest.value(), (&source, reference)).await?);
    }
    if !said.annotations.is_empty() {
        descriptor.annotations.clone_from(&said.annotations);
    }
    if let Some(media_type) = &said.media_type {
        descriptor.media_type.clone_from(media_type);
    }
    Ok(Found { descriptor, document: resolved.document, at: reference.clone() })
}

/// What is said of its platform, and for what is not the config's word.
async fn platform_of(
    said: &Said,
    manifest: &Manifest,
    (source, reference): (&Arc<dyn BlobSource>, &Reference),
) -> Result<Platform> {
    let mut platform = said.platform.clone().unwrap_or_default();
    if platform.os.is_empty() || platform.architecture.is_empty() {
        let config = fetch_config(&reference.familiar(), manifest, source).await?.1.into_parts().1;
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
    let mut parts: Vec<Part> = Vec::new();
    for Found { descriptor, document, at } in found {
        match document {
            Document::Manifest(_) => add(&mut parts, Part { descriptor, at }),
            Document::Index(index) => {
                let entries = index.into_parts().1.manifests;
                entries.into_iter().for_each(|descriptor| add(&mut parts, Part { descriptor, at: at.clone() }));
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
    let root = written(kind.into(), &parts, request.annotations.clone());
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

/// Copies what is not in the repository of the name, then lets the name point to the whole.
async fn push(engine: &Engine, combined: &Combined, name: &Reference, work: &Work) -> Result<()> {
    let client = engine.registry();
    let client = client.client();
    let repository = Reference { tag: None, digest: None, ..name.clone() };
    for Part { descriptor, at } in &combined.parts {
        if (&at.registry, &at.repository) == (&name.registry, &name.repository) {
            continue;
        }
        work.part(format!("copying {} from {}", descriptor.digest, at.name()));
        let mut sink = client.sink(&repository);
        if at.registry == name.registry {
            sink = sink.mounting_from(at.repository.clone());
        }
        let options = CopyOptions { progress: Some(meter(work)), ..CopyOptions::default() };
        copy_graph(&client.source(at), &sink, descriptor, &options).await.map_err(registry)?;
    }
    let RemoteDocument { descriptor, bytes } = &combined.root;
    work.part(format!("pushing {} to {name}", descriptor.digest));
    client.sink(name).push_document(descriptor, bytes, Role::Root).await.map_err(registry)
}

/// What a registry says of a name, with the configs of its images if they are wanted.
pub(crate) async fn look(engine: &Engine, name: &Reference, configs: Configs) -> Result<RemoteImage> {
    let client = engine.registry();
    let resolved = client.client().resolve(name).await.map_err(registry)?;
    let source: Arc<dyn BlobSource> = Arc::new(client.client().source(name));
    let (bytes, index, manifests) = match resolved.document {
        Document::Manifest(manifest) => {
            let (bytes, manifest) = manifest.into_parts();
            (bytes, None, vec![(None, manifest)])
        }
        Document::Index(index) => {
            let (bytes, index) = index.into_parts();
            let mut manifests = Vec::new();
            let is_image = |entry: &&Descriptor| {
                entry.media_type.is_manifest()
                    && entry.platform.as_ref().is_some_and(|platform| platform.os != "unknown")
            };
            for entry in index.manifests.iter().filter(is_image).filter(|_| configs == Configs::Read) {
                if let Document::Manifest(manifest) = fetch_document(source.as_ref(), entry).await.map_err(registry)? {
                    manifests.push((entry.platform.clone(), manifest.into_parts().1));
                }
            }
            (bytes, Some(index), manifests)
        }
    };
    let mut read = Vec::new();
    for (platform, manifest) in manifests.into_iter().filter(|_| configs == Configs::Read) {
        let config = fetch_config(&name.familiar(), &manifest, &source).await?.1.into_parts().1;
        read.push((platform.unwrap_or_else(|| config.platform.clone()), config));
    }
    let document = RemoteDocument { descriptor: resolved.descriptor, bytes };
    Ok(RemoteImage { document, index, configs: read })
}

/// Whether configs are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Configs {
    /// They are.
    Read,
    /// They are not: what a name stands for is enough.
    Skipped,
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
