//! What a registry or a layout says of an image: its document, its configs, and what is attested of it.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kiln_image::{BlobSource, fetch_document};
use kiln_oci::{Descriptor, Document, ImageConfig, Index, Manifest, Platform};
use kiln_report::{Failure, FailureKind};
use serde_json::Value;

use super::place::ImagePlace;
use super::{RemoteDocument, SUBJECT};
use crate::engine::Engine;
use crate::failure::registry;
use crate::frontend::fetch_config;
use crate::job::Result;

/// What older images have in place of `SUBJECT`.
const OLD_SUBJECT: &str = "com.docker.reference.digest";
/// Says what an attestation is about.
const PREDICATE: &str = "in-toto.io/predicate-type";
const SPDX: &str = "https://spdx.dev/Document";
const PROVENANCE: &str = "https://slsa.dev/provenance/";
/// The media type of statements; those that are signed have longer ones.
const STATEMENT: &str = "application/vnd.in-toto";
/// Nobody lists more software than this.
const STATEMENT_SIZE: u64 = 64 << 20;

/// What is found behind a name.
#[derive(Debug, Clone)]
pub struct RemoteImage {
    /// The document that the name stands for.
    pub document: RemoteDocument,
    /// Its index, if it is one.
    pub index: Option<Index>,
    /// The configs of its images, by platform.
    pub configs: Vec<(Platform, ImageConfig)>,
    /// What is attested of its images, of which anything is.
    pub attested: Vec<(Platform, Attested)>,
}

/// What the attestations beside an image say.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Attested {
    /// Lists of its software, as SPDX.
    pub software: Vec<Value>,
    /// How it was built, as SLSA has it.
    pub provenance: Option<Value>,
}

/// How closely is looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// What the name stands for is enough.
    Name,
    /// Configs are read.
    Configs,
    /// Attestations, too.
    Attestations,
}

/// Looks at what is behind a name.
pub(crate) async fn look(engine: &Engine, name: &ImagePlace, depth: Depth) -> Result<RemoteImage> {
    let (descriptor, document) = name.resolve(engine).await?;
    let source = name.source(engine).await?;
    let mut found = RemoteImage {
        document: RemoteDocument { descriptor, bytes: Vec::new() },
        index: None,
        configs: Vec::new(),
        attested: Vec::new(),
    };
    match document {
        Document::Manifest(manifest) => {
            let (bytes, manifest) = manifest.into_parts();
            found.document.bytes = bytes;
            if depth >= Depth::Configs {
                let config = fetch_config(&name.to_string(), &manifest, &source).await?.1.into_parts().1;
                found.configs.push((config.platform.clone(), config));
            }
        }
        Document::Index(index) => {
            let (bytes, index) = index.into_parts();
            found.document.bytes = bytes;
            for entry in index.manifests.iter().filter(|_| depth >= Depth::Configs) {
                let Some(platform) = entry.platform.as_ref().filter(|platform| platform.os != "unknown") else {
                    continue;
                };
                let Some(manifest) = manifest(&source, entry).await? else { continue };
                let config = fetch_config(&name.to_string(), &manifest, &source).await?.1.into_parts().1;
                found.configs.push((platform.clone(), config));
                if depth >= Depth::Attestations {
                    let attested = attested(&source, &index, entry).await?;
                    found.attested.extend(attested.map(|attested| (platform.clone(), attested)));
                }
            }
            found.index = Some(index);
        }
    }
    Ok(found)
}

async fn manifest(source: &Arc<dyn BlobSource>, entry: &Descriptor) -> Result<Option<Manifest>> {
    if !entry.media_type.is_manifest() {
        return Ok(None);
    }
    match fetch_document(source.as_ref(), entry).await.map_err(registry)? {
        Document::Manifest(manifest) => Ok(Some(manifest.into_parts().1)),
        Document::Index(_) => Ok(None),
    }
}

/// What the entries of an index say that speak of another.
async fn attested(source: &Arc<dyn BlobSource>, index: &Index, image: &Descriptor) -> Result<Option<Attested>> {
    let speaks_of_it = |entry: &&Descriptor| {
        let subject = entry.annotations.get(SUBJECT).or_else(|| entry.annotations.get(OLD_SUBJECT));
        subject.is_some_and(|subject| subject == image.digest.as_str())
    };
    let mut attested = Attested::default();
    for entry in index.manifests.iter().filter(speaks_of_it) {
        let Some(manifest) = manifest(source, entry).await? else { continue };
        for layer in manifest.layers.iter().filter(|layer| layer.media_type.as_str().starts_with(STATEMENT)) {
            let about = layer.annotations.get(PREDICATE).map_or("", String::as_str);
            if about == SPDX {
                attested.software.push(predicate(source, layer).await?);
            } else if about.starts_with(PROVENANCE) {
                attested.provenance = Some(predicate(source, layer).await?);
            }
        }
    }
    Ok((attested != Attested::default()).then_some(attested))
}

async fn predicate(source: &Arc<dyn BlobSource>, layer: &Descriptor) -> Result<Value> {
    let doing = format!("read attestation `{}`", layer.digest);
    let bytes = source.fetch(layer).await.map_err(registry)?.bytes(&doing, STATEMENT_SIZE).await.map_err(registry)?;
    let wrong = || Failure::new(FailureKind::Build, format!("cannot {doing}: it is no statement in JSON"));
    let mut statement: Value = serde_json::from_slice(&bytes).map_err(|_| wrong())?;
    // A signed one is wrapped.
    if layer.media_type.as_str().ends_with("+dsse") {
        let payload = statement["payload"].as_str().and_then(|text| BASE64_STANDARD.decode(text).ok());
        statement = serde_json::from_slice(&payload.ok_or_else(wrong)?).map_err(|_| wrong())?;
    }
    Ok(statement["predicate"].take())
}
