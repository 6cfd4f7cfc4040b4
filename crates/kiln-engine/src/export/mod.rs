//! What becomes of a result: one file for each kind of output.

mod archive;
mod image;
mod push;
mod tree;

use std::sync::Arc;

use kiln_fs::compress::Compression;
use kiln_oci::{Descriptor, ImageConfig, Manifest, MediaType, Raw, Reference};
use kiln_report::{Failure, FailureKind};
use kiln_store::Snapshot;

pub(crate) use archive::write_archive;
pub(crate) use image::{Made, make, store};
pub(crate) use push::push;
pub(crate) use tree::OutFile;

use crate::answer::BuildResult;
use crate::finish::{Finished, Packing, spelled};
use crate::job::{Job, Result};
use crate::request::{BuildRequest, CompressionKind, LayerOptions, Output};

/// Does everything the request wants with one build's result.
pub(crate) async fn export(
    job: &Arc<Job>,
    request: &BuildRequest,
    config: ImageConfig,
    snapshot: &Snapshot,
    epoch: Option<i64>,
) -> Result<BuildResult> {
    let mut result = BuildResult::default();
    let wants_image = request
        .outputs
        .iter()
        .any(|output| !matches!(output, Output::CacheOnly | Output::Tar { .. } | Output::Local { .. }));
    let made = if wants_image { Some(make(job, config, snapshot, epoch).await?) } else { None };
    for output in &request.outputs {
        match (output, &made) {
            (Output::CacheOnly, _) => {}
            (Output::Tar { dest }, _) => tree::tar(job, snapshot, dest).await?,
            (Output::Local { dest }, _) => tree::local(job, snapshot, dest).await?,
            (Output::Image { names, push, store, layers }, Some(made)) => {
                let names = all_names(request, names);
                image::keep(job, made, &names, *store, &mut result).await?;
                if *push {
                    result.descriptor = Some(push::all(job, made, &names, layers).await?);
                }
            }
            (Output::Oci { names, dest, tar, layers }, Some(made)) => {
                let names = all_names(request, names);
                result.descriptor = Some(archive::oci(job, made, &names, (dest, *tar), layers).await?);
            }
            (Output::Docker { names, dest, layers }, Some(made)) => {
                let names = all_names(request, names);
                result.descriptor = Some(archive::docker(job, made, &names, dest, layers).await?);
            }
            (_, None) => return Err(Failure::new(FailureKind::Bug, "an image was to be exported that was not made")),
        }
        if let Some(made) = &made {
            result.image_id = Some(made.config.digest());
        }
    }
    Ok(result)
}

fn all_names(request: &BuildRequest, more: &[Reference]) -> Vec<Reference> {
    request.tags.iter().chain(more).cloned().collect()
}

/// How layers have to be packed for these outputs; none need be for the local store.
pub(crate) fn packing(outputs: &[Output]) -> Result<Option<Packing>> {
    let mut found: Option<Packing> = None;
    for output in outputs {
        let Some(options) = packed(output) else { continue };
        let packing = Packing { compression: compression(options)?, force: options.force };
        if found.is_some_and(|other| other != packing) {
            let message = "outputs of one build want different compressions";
            return Err(Failure::new(FailureKind::Usage, message).hint("give all outputs the same `compression`"));
        }
        found = Some(packing);
    }
    Ok(found)
}

fn packed(output: &Output) -> Option<&LayerOptions> {
    match output {
        Output::Image { push: true, layers, .. } | Output::Oci { layers, .. } | Output::Docker { layers, .. } => {
            Some(layers)
        }
        Output::Image { push: false, .. } | Output::Tar { .. } | Output::Local { .. } | Output::CacheOnly => None,
    }
}

fn compression(options: &LayerOptions) -> Result<Compression> {
    let level = |default: u8, most: u8| match options.level.map(u8::try_from) {
        None => Ok(default),
        Some(Ok(level)) if level <= most => Ok(level),
        _ => Err(Failure::new(FailureKind::Usage, format!("`compression-level` goes from 0 to {most}"))),
    };
    Ok(match options.compression.unwrap_or(CompressionKind::Gzip) {
        CompressionKind::Uncompressed => Compression::None,
        CompressionKind::Gzip => Compression::Gzip { level: level(Compression::GZIP_LEVEL, 9)? },
        CompressionKind::Zstd => Compression::Zstd { level: level(Compression::ZSTD_LEVEL, 22)? },
    })
}

/// The manifest of an image whose layers are packed.
pub(crate) fn manifest(made: &Made, is_oci: bool) -> Result<Raw<Manifest>> {
    let (own, config) = match is_oci {
        true => (MediaType::OCI_MANIFEST, MediaType::OCI_CONFIG),
        false => (MediaType::DOCKER_MANIFEST, MediaType::DOCKER_CONFIG),
    };
    let blob = |layer: &Finished| layer.blob.as_ref().map(|blob| spelled(blob, is_oci));
    let layers: Option<Vec<Descriptor>> = made.layers.iter().map(blob).collect();
    let layers = layers.ok_or_else(|| Failure::new(FailureKind::Bug, "a layer is not packed"))?;
    Ok(Raw::new(Manifest {
        schema_version: 2,
        media_type: Some(own.into()),
        artifact_type: None,
        config: Descriptor::of(config, made.config.bytes()),
        layers,
        subject: None,
        annotations: Default::default(),
    }))
}
