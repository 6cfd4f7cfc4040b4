//! What becomes of a result: one file for each kind of output.

mod archive;
mod image;
mod offload;
mod push;
mod tree;

use std::sync::Arc;

use kiln_fs::compress::Compression;
use kiln_oci::{Descriptor, ImageConfig, Manifest, MediaType, Raw, Reference};
use kiln_report::{Failure, FailureKind};
use kiln_store::Snapshot;

pub(crate) use archive::{documents, write_archive};
pub(crate) use image::{Made, make, note_pushed, store};
pub(crate) use push::{meter, push};
pub(crate) use tree::OutFile;

use crate::answer::BuildResult;
use crate::finish::{Finished, Packing, spelled};
use crate::job::{Job, Result};
use crate::request::{BuildRequest, CachePlace, CacheTo, CompressionKind, Dest, LayerOptions, Output};

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
                    result.descriptor = Some(push::all(job, made, &names, (layers, *store)).await?);
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

/// Finds what cannot be done with any result, before the work for one begins.
pub(crate) fn check(request: &BuildRequest) -> Result<()> {
    let usage = |message: String, hint: &str| Err(Failure::new(FailureKind::Usage, message).hint(hint));
    let mut is_stdout_taken = false;
    for output in &request.outputs {
        let dest = match output {
            Output::Image { names, push: true, .. } if request.tags.is_empty() && names.is_empty() => {
                return usage("there is no name to push to".into(), "name the image with `-t REGISTRY/NAME:TAG`");
            }
            Output::Oci { dest: Dest::Stdout, tar: false, .. } => {
                return usage("a layout directory cannot go to standard output".into(), "give it a `dest`");
            }
            Output::Oci { tar: true, dest, .. } | Output::Docker { dest, .. } | Output::Tar { dest } => dest,
            _ => continue,
        };
        match dest {
            Dest::Path(path) if path.is_dir() => {
                let message = format!("cannot write `{}`: it is a directory", path.display());
                return usage(message, "name a file as `dest`");
            }
            Dest::Stdout if is_stdout_taken => {
                return usage("standard output is taken by two outputs".into(), "give one of them a `dest`");
            }
            Dest::Stdout => is_stdout_taken = true,
            Dest::Path(_) => {}
        }
    }
    Ok(())
}

fn all_names(request: &BuildRequest, more: &[Reference]) -> Vec<Reference> {
    request.tags.iter().chain(more).cloned().collect()
}

/// How layers have to be packed for these outputs; none need be for the local store. When only caches want them
/// packed, the first says how.
pub(crate) fn packing(outputs: &[Output], caches: &[CacheTo]) -> Result<Option<Packing>> {
    let mut found: Option<Packing> = None;
    for output in outputs {
        let Some(options) = packed(output) else { continue };
        let packing = packing_of(options)?;
        if found.is_some_and(|other| other != packing) {
            let message = "outputs of one build want different compressions";
            return Err(Failure::new(FailureKind::Usage, message).hint("give all outputs the same `compression`"));
        }
        found = Some(packing);
    }
    let for_others = caches.iter().find(|cache| cache.place != CachePlace::Inline);
    found.map_or_else(|| for_others.map(|cache| packing_of(&cache.layers)).transpose(), |found| Ok(Some(found)))
}

/// How layers are packed by these options.
pub(crate) fn packing_of(options: &LayerOptions) -> Result<Packing> {
    Ok(Packing { compression: compression(options)?, force: options.force })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn image(push: bool) -> Output {
        Output::Image { names: Vec::new(), push, store: true, layers: LayerOptions::default() }
    }

    fn oci(compression: Option<CompressionKind>, tar: bool, dest: Dest) -> Output {
        Output::Oci { names: Vec::new(), dest, tar, layers: LayerOptions { compression, ..Default::default() } }
    }

    #[test]
    fn what_no_result_can_help_is_said_before_the_build() {
        let tar = |path: &str| Output::Tar { dest: Dest::Path(path.into()) };
        let stdout = || Output::Tar { dest: Dest::Stdout };
        for (outputs, said) in [
            (vec![image(false), tar("/no/such/file"), stdout()], None),
            (vec![tar("/dev/null")], None),
            (vec![image(true)], Some("there is no name to push to")),
            (vec![oci(None, false, Dest::Stdout)], Some("a layout directory cannot go to standard output")),
            (vec![oci(None, false, Dest::Path("/".into()))], None),
            (vec![tar("/")], Some("cannot write `/`: it is a directory")),
            (vec![stdout(), oci(None, true, Dest::Stdout)], Some("standard output is taken by two outputs")),
        ] {
            let request = BuildRequest { outputs, ..BuildRequest::default() };
            let failure = check(&request).err();
            assert_eq!(failure.as_ref().map(|failure| failure.message.as_str()), said);
            assert!(failure.is_none_or(|failure| failure.kind == FailureKind::Usage && !failure.hints.is_empty()));
        }
    }

    #[test]
    fn layers_are_packed_only_for_others_and_in_one_way() {
        let to = || Dest::Path("x".into());
        assert_eq!(packing(&[image(false), Output::CacheOnly], &[]).unwrap(), None);
        let zstd = Packing { compression: Compression::Zstd { level: Compression::ZSTD_LEVEL }, force: false };
        assert_eq!(packing(&[image(false), oci(Some(CompressionKind::Zstd), true, to())], &[]).unwrap(), Some(zstd));
        let both = [oci(Some(CompressionKind::Zstd), true, to()), oci(None, true, to())];
        assert_eq!(packing(&both, &[]).unwrap_err().kind, FailureKind::Usage);
        let level = LayerOptions { level: Some(10), ..LayerOptions::default() };
        let failure = compression(&level).unwrap_err();
        assert_eq!(failure.message, "`compression-level` goes from 0 to 9");
    }
}
