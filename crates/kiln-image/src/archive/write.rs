//! Writes images as one tar stream, in the shape BuildKit's `oci` and `docker` exporters give it.

use std::collections::BTreeMap;

use kiln_oci::{Descriptor, Document, Manifest, Platform, Raw, Reference};
use serde::Serialize;

use super::ArchiveImage;
use super::tar_write::{ArchiveOut, TarWriter};
use crate::copy::Plan;
use crate::layout::{LAYOUT_VERSION, empty_index, named_entries};
use crate::{BlobSource, Error, Result, pick_platform};

/// Which kind of archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// An OCI layout in a tar.
    Oci,
    /// The same, and a `manifest.json` for `docker load`.
    Docker,
}

/// One image of `manifest.json` (Docker image-spec v1.2, combined image JSON).
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

/// What one member holds.
enum Member {
    Blob(Box<Descriptor>),
    Document(Vec<u8>),
}

/// Writes images, and all they refer to, to `out`. Equal images give equal bytes.
pub async fn write<W: ArchiveOut>(
    format: Format,
    images: &[ArchiveImage],
    from: &dyn BlobSource,
    out: &mut W,
) -> Result<()> {
    let mut members = BTreeMap::new();
    let mut index = empty_index();
    let mut entries = Vec::new();
    for image in images {
        let plan = Plan::of(from, &image.descriptor).await?;
        if format == Format::Docker {
            entries.push(docker_entry(image, &plan)?);
        }
        index.manifests.extend(named_entries(&image.descriptor, &image.names));
        gather(&mut members, image.descriptor.clone(), plan);
    }
    let mut tar = TarWriter::new(out);
    directories(&mut tar, &members).await?;
    for (name, member) in &members {
        match member {
            Member::Document(bytes) => tar.file(name, 0o444, bytes).await?,
            Member::Blob(blob) => match from.file(blob).await {
                Some(file) => tar.append(name, blob.size, file).await?,
                None => tar.stream(name, blob.size, from.fetch(blob).await?).await?,
            },
        }
    }
    tar.file("index.json", 0o644, Raw::new(index).bytes()).await?;
    if format == Format::Docker {
        let json = serde_json::to_vec(&entries).expect("plain data serialises");
        tar.file("manifest.json", 0o644, &json).await?;
    }
    tar.file("oci-layout", 0o444, LAYOUT_VERSION.as_bytes()).await?;
    tar.finish().await
}

async fn directories<W: ArchiveOut>(tar: &mut TarWriter<'_, W>, members: &BTreeMap<String, Member>) -> Result<()> {
    tar.directory("blobs/").await?;
    for algorithm in ["sha256", "sha512"] {
        let name = format!("blobs/{algorithm}/");
        if members.keys().any(|member| member.starts_with(&name)) {
            tar.directory(&name).await?;
        }
    }
    Ok(())
}

fn gather(members: &mut BTreeMap<String, Member>, root: Descriptor, plan: Plan) {
    for blob in plan.blobs {
        members.insert(blob_name(&blob), Member::Blob(Box::new(blob)));
    }
    for (descriptor, bytes) in plan.children.into_iter().chain([(root, plan.root)]) {
        members.insert(blob_name(&descriptor), Member::Document(bytes));
    }
}

fn blob_name(descriptor: &Descriptor) -> String {
    format!("blobs/{}/{}", descriptor.digest.algorithm(), descriptor.digest.hex())
}

/// The `manifest.json` entry of an image; of an index, that of the image for this machine.
fn docker_entry(image: &ArchiveImage, plan: &Plan) -> Result<DockerEntry> {
    let manifest = manifest_of(image, plan)?;
    let familiar = |name: &String| name.parse::<Reference>().map_or_else(|_| name.clone(), |r| r.familiar());
    Ok(DockerEntry {
        config: blob_name(&manifest.config),
        repo_tags: image.names.iter().map(familiar).collect(),
        layers: manifest.layers.iter().map(blob_name).collect(),
    })
}

fn manifest_of(image: &ArchiveImage, plan: &Plan) -> Result<Manifest> {
    let mut descriptor = image.descriptor.clone();
    loop {
        let found = plan.children.iter().find(|(child, _)| child.digest == descriptor.digest);
        let bytes = found.map_or(&plan.root, |(_, bytes)| bytes);
        let doing = || format!("write a docker archive of `{}`", image.descriptor.digest);
        let document = Document::parse(&descriptor.media_type, bytes.clone())
            .map_err(|source| Error::Document { doing: doing(), source })?;
        match document {
            Document::Manifest(manifest) => return Ok(manifest.into_parts().1),
            Document::Index(index) => {
                let name = image.names.first().map_or("the image", String::as_str);
                descriptor = pick_platform(name, index.value(), &Platform::host())?;
                if !plan.children.iter().any(|(child, _)| child.digest == descriptor.digest) {
                    return Err(Error::invalid(doing(), "its index names itself"));
                }
            }
        }
    }
}
