//! Results as archives and layouts that other tools read.

use std::sync::Arc;

use kiln_image::archive::{ArchiveImage, ArchiveWriter, Format, write};
use kiln_image::{BlobSource, CopyOptions, Either, Layout, MemoryBlobs, copy_graph};
use kiln_oci::{Descriptor, MediaType, Reference};
use kiln_report::{Failure, FailureKind};
use kiln_store::Snapshot;

use crate::blobs::StoreBlobs;
use crate::blocking::blocking;
use crate::export::annotate::select;
use crate::export::image::told;
use crate::export::offload::Offloaded;
use crate::export::tree::{OutFile, open};
use crate::export::{Made, index, manifest};
use crate::failure::{Context as _, registry};
use crate::finish::Packed;
use crate::job::{Job, Result};
use crate::packing::Packing;
use crate::progress::Work;
use crate::request::{Annotated, Dest, ImageOptions, Output};
use crate::target::Solved;

/// An archive that is begun.
pub(crate) type Writer = ArchiveWriter<Offloaded>;

/// Begins an archive, if that is what the output is. In a file that can be changed as long as it is written, the layers
/// of the first result arrive while they are packed.
pub(crate) async fn begin(
    job: &Arc<Job>,
    output: &Output,
    solved: &[Solved],
    packing: Option<Packing>,
) -> Result<Option<Writer>> {
    let (Output::Oci { dest, tar: true, .. } | Output::Docker { dest, tar: true, .. }) = output else {
        return Ok(None);
    };
    let mut out = open(job, dest)?;
    let can_follow = out.changeable().is_some();
    let mut writer = ArchiveWriter::begin(Offloaded::new(out)).await.map_err(registry)?;
    if let ([first, ..], Some(packing), true) = (solved, packing, can_follow) {
        told(job, follow_layers(job, &mut writer, &first.snapshot, packing)).await?;
    }
    Ok(Some(writer))
}

async fn follow_layers(job: &Job, writer: &mut Writer, snapshot: &Snapshot, packing: Packing) -> Result<()> {
    let blobs = StoreBlobs { store: job.store.clone(), lease: job.lease.clone() };
    for layer in snapshot.layers() {
        match job.finisher.begun(layer, packing).await? {
            Packed::Whole(blob) => writer.blob(&blob, &blobs).await.map_err(registry)?,
            Packed::Growing(follower) => {
                let followed = writer.follow(Box::new(follower)).await;
                // If it was not packed, that says why.
                let blob = job.finisher.packed(layer, packing).await?;
                writer.name(followed.map_err(registry)?, &blob).await.map_err(registry)?;
            }
        }
    }
    Ok(())
}

/// Writes an OCI archive, a Docker archive, or a layout directory.
pub(crate) async fn write_out(
    job: &Arc<Job>,
    made: &[Made],
    names: &[Reference],
    (format, dest, begun): (Format, &Dest, Option<Writer>),
    options: &ImageOptions,
) -> Result<Descriptor> {
    let kind = if format == Format::Docker { "docker" } else { "oci" };
    let work = Work::start(&job.reporter, format!("exporting to {kind} image format"));
    let written = match (begun, dest) {
        (Some(writer), _) => archive(job, made, names, (format, writer), options).await,
        (None, Dest::Path(path)) => layout(job, made, names, path, options).await,
        (None, Dest::Stdout) => Err(Failure::new(FailureKind::Bug, "a layout directory was let through to a stream")),
    };
    tell(&work, made, &written);
    work.end(written)
}

fn tell(work: &Work, made: &[Made], written: &Result<Descriptor>) {
    if let Ok(root) = written {
        let kind = if root.media_type.is_index() { "manifest list" } else { "manifest" };
        work.part(format!("exporting {kind} {}", root.digest));
        made.iter().for_each(|made| work.part(format!("exporting config {}", made.config.digest())));
    }
}

/// The documents of images, and what points at the one that leads to all: a manifest, or for several an index.
pub(crate) fn documents(made: &[Made], options: &ImageOptions) -> Result<(MemoryBlobs, Descriptor)> {
    let is_oci = options.layers.is_oci();
    let documents = MemoryBlobs::new();
    let mut roots = Vec::with_capacity(made.len());
    for made in made {
        let annotated = |on| select(&options.annotations, on, Some(&made.platform));
        let manifest = manifest(made, is_oci, annotated(Annotated::Manifest))?;
        documents.insert(manifest.value().config.media_type.clone(), made.config.bytes().to_vec());
        let media_type = manifest.value().media_type.clone().unwrap_or_else(|| MediaType::OCI_MANIFEST.into());
        let mut root = documents.insert(media_type, manifest.bytes().to_vec());
        root.annotations = annotated(Annotated::ManifestDescriptor);
        roots.push((made.platform.clone(), root));
    }
    if roots.len() == 1 {
        return Ok((documents, roots.remove(0).1));
    }
    let index = index(roots, is_oci, select(&options.annotations, Annotated::Index, None));
    let media_type = index.value().media_type.clone().unwrap_or_else(|| MediaType::OCI_INDEX.into());
    let mut root = documents.insert(media_type, index.bytes().to_vec());
    root.annotations = select(&options.annotations, Annotated::IndexDescriptor, None);
    Ok((documents, root))
}

async fn archive(
    job: &Arc<Job>,
    made: &[Made],
    names: &[Reference],
    (format, writer): (Format, Writer),
    options: &ImageOptions,
) -> Result<Descriptor> {
    let (documents, root) = documents(made, options)?;
    let blobs = StoreBlobs { store: job.store.clone(), lease: job.lease.clone() };
    let image = ArchiveImage { descriptor: root.clone(), names: names.iter().map(ToString::to_string).collect() };
    close(writer.finish(format, &[image], &Either(&documents, &blobs)).await.map_err(registry)?).await?;
    Ok(root)
}

/// Writes images to an opened file.
pub(crate) async fn write_archive(
    format: Format,
    images: &[ArchiveImage],
    from: &dyn BlobSource,
    file: OutFile,
) -> Result<()> {
    let mut out = Offloaded::new(file);
    write(format, images, from, &mut out).await.map_err(registry)?;
    close(out).await
}

async fn close(out: Offloaded) -> Result<()> {
    let file = out.finish().await?;
    blocking(move || file.finish()).await
}

async fn layout(
    job: &Arc<Job>,
    made: &[Made],
    names: &[Reference],
    path: &std::path::Path,
    options: &ImageOptions,
) -> Result<Descriptor> {
    let (documents, root) = documents(made, options)?;
    let blobs = StoreBlobs { store: job.store.clone(), lease: job.lease.clone() };
    let doing = || format!("cannot write the layout `{}`", path.display());
    let layout = Layout::create(path).await.or_environment(doing)?;
    // An image without a name takes the place of the one before.
    let sink = match names {
        [] => layout.tagged_sink("latest").await,
        names => layout.sink(names.iter().map(ToString::to_string)).await,
    };
    let sink = sink.or_environment(doing)?;
    copy_graph(&Either(&documents, &blobs), &sink, &root, &CopyOptions::default()).await.or_environment(doing)?;
    Ok(root)
}
