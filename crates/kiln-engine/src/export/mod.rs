//! What becomes of a result: one file for each kind of output.

mod archive;
mod image;
mod offload;
mod push;
mod tree;

use std::sync::Arc;

use kiln_oci::{Descriptor, Index, Manifest, MediaType, Platform, Raw, Reference};
use kiln_report::{Failure, FailureKind};

pub(crate) use archive::{documents, write_archive};
pub(crate) use image::{Made, Provenance, id_of, note_pushed, store};
pub(crate) use push::{meter, push};
pub(crate) use tree::OutFile;

use crate::answer::BuildResult;
use crate::finish::Finished;
use crate::job::{Job, Result};
use crate::packing::{Packing, packing_for, spelled};
use crate::request::{BuildRequest, Dest, Output};
use crate::target::Solved;

/// Does everything the request wants with the results of one build, one for each platform in the request's order.
pub(crate) async fn export(job: &Arc<Job>, request: &BuildRequest, solved: &[Solved]) -> Result<BuildResult> {
    let platforms = solved.iter().map(|solved| solved.platform.clone()).collect();
    let mut result = BuildResult { platforms, ..BuildResult::default() };
    let mut images: Vec<(Option<Packing>, Vec<Made>)> = Vec::new();
    for output in &request.outputs {
        let made = match output {
            Output::CacheOnly | Output::Tar { .. } | Output::Local { .. } => &[],
            _ => {
                let packing = packing_for(output)?;
                let at = match images.iter().position(|(other, _)| *other == packing) {
                    Some(at) => at,
                    None => {
                        images.push((packing, image::make_all(job, solved, packing).await?));
                        images.len() - 1
                    }
                };
                images[at].1.as_slice()
            }
        };
        match output {
            Output::CacheOnly => {}
            Output::Tar { dest } => tree::tar(job, solved, dest).await?,
            Output::Local { dest } => tree::local(job, solved, dest).await?,
            Output::Image { names, push, store, layers } => {
                let names = all_names(request, names);
                image::keep(job, made, &names, *store, &mut result).await?;
                if *push {
                    result.descriptor = Some(push::all(job, made, &names, (layers, *store)).await?);
                }
            }
            Output::Oci { names, dest, tar, layers } => {
                let names = all_names(request, names);
                result.descriptor = Some(archive::oci(job, made, &names, (dest, *tar), layers).await?);
            }
            Output::Docker { names, dest, layers } => {
                let names = all_names(request, names);
                result.descriptor = Some(archive::docker(job, made, &names, dest, layers).await?);
            }
        }
        if let Some(id) = image::id_of(made) {
            result.image_id = Some(id);
        }
    }
    // Others know an index by its own digest.
    if let Some(index) = result.descriptor.as_ref().filter(|root| root.media_type.is_index()) {
        result.image_id = Some(index.digest.clone());
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
            Output::Docker { .. } if crate::target::platforms(request)?.len() > 1 => {
                let message = "an archive for `docker load` holds one platform only";
                return usage(message.into(), "write an OCI archive with `-o type=oci`, or build for one platform");
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

/// The index of images that are told apart by their platforms.
pub(crate) fn index(manifests: Vec<(Platform, Descriptor)>, is_oci: bool) -> Raw<Index> {
    let own = if is_oci { MediaType::OCI_INDEX } else { MediaType::DOCKER_INDEX };
    let entry = |(platform, manifest): (Platform, Descriptor)| Descriptor { platform: Some(platform), ..manifest };
    Raw::new(Index {
        schema_version: 2,
        media_type: Some(own.into()),
        manifests: manifests.into_iter().map(entry).collect(),
        annotations: Default::default(),
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
    use crate::request::LayerOptions;

    fn image(push: bool) -> Output {
        Output::Image { names: Vec::new(), push, store: true, layers: LayerOptions::default() }
    }

    fn oci(tar: bool, dest: Dest) -> Output {
        Output::Oci { names: Vec::new(), dest, tar, layers: LayerOptions::default() }
    }

    #[test]
    fn what_no_result_can_help_is_said_before_the_build() {
        let tar = |path: &str| Output::Tar { dest: Dest::Path(path.into()) };
        let stdout = || Output::Tar { dest: Dest::Stdout };
        for (outputs, said) in [
            (vec![image(false), tar("/no/such/file"), stdout()], None),
            (vec![tar("/dev/null")], None),
            (vec![image(true)], Some("there is no name to push to")),
            (vec![oci(false, Dest::Stdout)], Some("a layout directory cannot go to standard output")),
            (vec![oci(false, Dest::Path("/".into()))], None),
            (vec![tar("/")], Some("cannot write `/`: it is a directory")),
            (vec![stdout(), oci(true, Dest::Stdout)], Some("standard output is taken by two outputs")),
        ] {
            let request = BuildRequest { outputs, ..BuildRequest::default() };
            let failure = check(&request).err();
            assert_eq!(failure.as_ref().map(|failure| failure.message.as_str()), said);
            assert!(failure.is_none_or(|failure| failure.kind == FailureKind::Usage && !failure.hints.is_empty()));
        }
    }
}
