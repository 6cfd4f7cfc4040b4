//! Writes images as one tar stream, in the shape BuildKit's `oci` and `docker` exporters give it.

use std::collections::HashSet;
use std::io::Read;

use kiln_oci::{Descriptor, Document, Manifest, Platform, Raw, Reference};
use serde::Serialize;

use super::ArchiveImage;
use super::tar_write::{ArchiveFile, ArchiveOut, TarWriter, Unnamed};
use crate::copy::{Plan, is_foreign};
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

/// Writes images, and all they refer to, to `out`. Equal images give equal bytes.
pub async fn write<W: ArchiveOut>(
    format: Format,
    images: &[ArchiveImage],
    from: &dyn BlobSource,
    out: W,
) -> Result<()> {
    ArchiveWriter::begin(out).await?.finish(format, images, from).await.map(drop)
}

/// An archive being written. Layers may be there before it is known what images they are of: the first layers of the
/// first image come first.
pub struct ArchiveWriter<W> {
    tar: TarWriter<W>,
    written: HashSet<String>,
}

/// A layer that is written, and whose digest was not known.
pub struct Followed(Unnamed);

impl<W: ArchiveOut> ArchiveWriter<W> {
    /// Begins an archive.
    pub async fn begin(out: W) -> Result<Self> {
        let mut begun = Self { tar: TarWriter::new(out), written: HashSet::new() };
        begun.directory("blobs/").await?;
        begun.directory("blobs/sha256/").await?;
        Ok(begun)
    }

    /// Adds a blob, if it is not there and may be redistributed.
    pub async fn blob(&mut self, blob: &Descriptor, from: &dyn BlobSource) -> Result<()> {
        if is_foreign(blob) {
            return Ok(());
        }
        let Some(name) = self.new_name(blob).await? else { return Ok(()) };
        match from.file(blob).await {
            Some(file) => self.tar.append(&name, blob.size, file).await,
            None => self.tar.stream(&name, blob.size, from.fetch(blob).await?).await,
        }
    }

    /// Completes it with all that is missing, and gives back where it went.
    pub async fn finish(mut self, format: Format, images: &[ArchiveImage], from: &dyn BlobSource) -> Result<W> {
        let mut index = empty_index();
        let mut entries = Vec::new();
        for image in images {
            let plan = Plan::of(from, &image.descriptor).await?;
            if format == Format::Docker {
                entries.push(docker_entry(image, &plan)?);
            }
            index.manifests.extend(named_entries(&image.descriptor, &image.names));
            for blob in &plan.blobs {
                self.blob(blob, from).await?;
            }
            for (document, bytes) in plan.children.iter().chain([&(image.descriptor.clone(), plan.root)]) {
                if let Some(name) = self.new_name(document).await? {
                    self.tar.file(&name, 0o444, bytes).await?;
                }
            }
        }
        self.tar.file("index.json", 0o644, Raw::new(index).bytes()).await?;
        if format == Format::Docker {
            let json = serde_json::to_vec(&entries).expect("plain data serialises");
            self.tar.file("manifest.json", 0o644, &json).await?;
        }
        self.tar.file("oci-layout", 0o444, LAYOUT_VERSION.as_bytes()).await?;
        self.tar.finish().await
    }

    /// The name a blob is to be written by. None when it is written.
    async fn new_name(&mut self, blob: &Descriptor) -> Result<Option<String>> {
        let name = blob_name(blob);
        let is_new = self.written.insert(name.clone());
        if is_new {
            self.directory(&format!("blobs/{}/", blob.digest.algorithm())).await?;
        }
        Ok(is_new.then_some(name))
    }

    async fn directory(&mut self, name: &str) -> Result<()> {
        if self.written.insert(name.to_owned()) {
            self.tar.directory(name).await?;
        }
        Ok(())
    }
}

impl<W: ArchiveFile> ArchiveWriter<W> {
    /// Adds a layer that is still being made, to the end of what the reader gives.
    pub async fn follow(&mut self, content: Box<dyn Read + Send>) -> Result<Followed> {
        self.tar.follow(content).await.map(Followed)
    }

    /// Says what blob the layer was that was followed last. One that is there already is taken back.
    pub async fn name(&mut self, Followed(member): Followed, blob: &Descriptor) -> Result<()> {
        if member.size() != blob.size {
            let doing = format!("write `{}` into the archive", blob.digest);
            return Err(Error::invalid(doing, format!("it has {} bytes, not {}", member.size(), blob.size)));
        }
        match self.new_name(blob).await? {
            Some(name) => self.tar.name(member, &name).await,
            None => self.tar.take_back(member).await,
        }
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

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use async_trait::async_trait;
    use kiln_oci::Document;

    use super::*;
    use crate::MemoryBlobs;
    use crate::blob::fetch_document;
    use crate::testing::tiny_image;

    #[async_trait]
    impl ArchiveFile for Vec<u8> {
        async fn follow(&mut self, mut content: Box<dyn Read + Send>) -> std::io::Result<u64> {
            content.read_to_end(self).map(|read| read as u64)
        }

        async fn patch(&mut self, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
            self[offset as usize..][..bytes.len()].copy_from_slice(bytes);
            Ok(())
        }

        async fn cut(&mut self, offset: u64) -> std::io::Result<()> {
            self.truncate(offset as usize);
            Ok(())
        }
    }

    #[tokio::test]
    async fn layers_that_are_written_while_they_are_made_give_the_same_archive() {
        let memory = MemoryBlobs::new();
        let root = tiny_image(&memory, "followed");
        let images = [ArchiveImage { descriptor: root.clone(), names: Vec::new() }];
        let mut expected = Vec::new();
        write(Format::Docker, &images, &memory, &mut expected).await.unwrap();

        let Document::Manifest(manifest) = fetch_document(&memory, &root).await.unwrap() else { panic!() };
        let layers = &manifest.value().layers;
        assert!(layers.len() > 1);
        let mut archive = ArchiveWriter::begin(Vec::new()).await.unwrap();
        for layer in layers.iter().chain(&layers[..1]) {
            let content = memory.fetch(layer).await.unwrap().bytes("read a layer", 1 << 20).await.unwrap();
            let followed = archive.follow(Box::new(Cursor::new(content))).await.unwrap();
            archive.name(followed, layer).await.unwrap();
        }
        assert!(archive.finish(Format::Docker, &images, &memory).await.unwrap() == expected);

        let mut archive = ArchiveWriter::begin(Vec::new()).await.unwrap();
        let followed = archive.follow(Box::new(Cursor::new(b"other"))).await.unwrap();
        assert!(archive.name(followed, &layers[0]).await.is_err(), "it has another size");
    }
}
