//! What becomes of a result: one file for each kind of output.

mod annotate;
mod archive;
mod early;
mod image;
mod load;
mod offload;
mod place;
mod push;
mod tree;

use std::collections::BTreeMap;
use std::sync::Arc;

use kiln_image::archive::Format;
use kiln_oci::{Descriptor, Index, Manifest, MediaType, Platform, Raw, Reference};
use kiln_report::{Failure, FailureKind};

pub(crate) use archive::{documents, write_archive};
pub(crate) use early::Early;
pub(crate) use image::{Made, Provenance, id_of, make_all, note_pushed, store};
pub(crate) use load::{Daemons, settle};
pub(crate) use place::check_file;
pub(crate) use push::{meter, push};
pub(crate) use tree::OutFile;

use crate::answer::BuildResult;
use crate::finish::Finished;
use crate::job::{Job, Result};
use crate::packing::{Packing, packing_for, spelled};
use crate::request::{BuildRequest, Daemon, Dest, Output};
use crate::target::Solved;

/// Does everything the request wants with the results of one build, one for each platform in the request's order.
pub(crate) async fn export(job: &Arc<Job>, request: &BuildRequest, solved: &[Solved]) -> Result<BuildResult> {
    let platforms = solved.iter().map(|solved| solved.platform.clone()).collect();
    let mut result = BuildResult { platforms, ..BuildResult::default() };
    let mut images = Images { job, solved, made: Vec::new() };
    for output in &request.outputs {
        match output.image() {
            None => trees(job, output, solved).await?,
            Some(options) => {
                let packing = packing_for(output)?;
                let begun = archive::begin(job, output, solved, packing).await?;
                images.make(packing).await?;
                // Where layers are not packed they have the digests that the store knows them by.
                images.make(None).await?;
                let (made, plain) = (images.find(packing)?, images.find(None)?);
                let names: Vec<_> = request.tags.iter().chain(&options.names).cloned().collect();
                result.image_id = image::id_of(made);
                if let [_, _, ..] = made {
                    result.images = made.iter().map(|made| made.config.digest()).collect();
                }
                write(job, output, (made, plain, begun), &names, &mut result).await?;
            }
        }
    }
    match &mut result.descriptor {
        // Others know an index by its own digest.
        Some(root) if root.media_type.is_index() => result.image_id = Some(root.digest.clone()),
        Some(root) => root.platform = result.platforms.first().cloned(),
        None => {}
    }
    Ok(result)
}

/// Writes an image in one of its forms. An archive is begun.
async fn write(
    job: &Arc<Job>,
    output: &Output,
    (made, plain, begun): (&[Made], &[Made], Option<archive::Writer>),
    names: &[Reference],
    result: &mut BuildResult,
) -> Result<()> {
    match output {
        Output::Image { image: options, store, push, naming } => {
            let stored = store.then_some(plain);
            image::Writing { made, stored, names, options, naming, push: *push }.write(job, result).await?;
        }
        Output::Oci { image: options, dest, .. } => {
            result.name(names);
            let place = (Format::Oci, dest, begun);
            result.descriptor = Some(archive::write_out(job, made, names, place, options).await?);
        }
        Output::Docker { image: options, dest, .. } => {
            result.name(names);
            let place = (Format::Docker, dest, begun);
            result.descriptor = Some(archive::write_out(job, made, names, place, options).await?);
        }
        Output::Load { image: options, into } => {
            image::keep(job, (made, Some(plain)), names, result).await?;
            let into = into.ok_or_else(|| Failure::new(FailureKind::Bug, "nobody found out what to load into"))?;
            result.descriptor = Some(load::load(job, made, names, into, options).await?);
        }
        Output::Tar { .. } | Output::Local { .. } | Output::CacheOnly => {}
    }
    Ok(())
}

async fn trees(job: &Arc<Job>, output: &Output, solved: &[Solved]) -> Result<()> {
    match output {
        Output::Tar { dest, platform_split } => tree::tar(job, solved, dest, *platform_split).await,
        Output::Local { dest, others, platform_split } => {
            tree::local(job, solved, dest, (*others, *platform_split)).await
        }
        _ => Ok(()),
    }
}

/// The images that results become: outputs that have layers packed alike share them.
struct Images<'a> {
    job: &'a Arc<Job>,
    solved: &'a [Solved],
    made: Vec<(Option<Packing>, Vec<Made>)>,
}

impl Images<'_> {
    async fn make(&mut self, packing: Option<Packing>) -> Result<()> {
        if self.find(packing).is_err() {
            self.made.push((packing, image::make_all(self.job, self.solved, packing).await?));
        }
        Ok(())
    }

    fn find(&self, packing: Option<Packing>) -> Result<&[Made]> {
        let made = self.made.iter().find(|(other, _)| *other == packing).map(|(_, made)| made.as_slice());
        made.ok_or_else(|| Failure::new(FailureKind::Bug, "an image was to be exported that was not made"))
    }
}

/// Finds what cannot be done with any result, before the work for one begins.
pub(crate) fn check(request: &BuildRequest) -> Result<()> {
    let usage = |message: &str, hint: &str| Err(Failure::new(FailureKind::Usage, message).hint(hint));
    let platforms = crate::target::platforms(request)?;
    for output in &request.outputs {
        if let Some(image) = output.image() {
            annotate::check(&image.annotations, &platforms, image.layers.is_oci())?;
        }
        if let Output::Image { image, push: true, naming, .. } = output
            && naming.by_digest
            && let Some(name) = request.tags.iter().chain(&image.names).find(|name| has_tag(name))
        {
            let message = format!("`{}` has a tag, and `push-by-digest` pushes without one", name.familiar());
            return usage(&message, "leave out the tag, or `push-by-digest`");
        }
        match output {
            Output::Image { image, push: true, .. } if request.tags.is_empty() && image.names.is_empty() => {
                return usage("there is no name to push to", "name the image with `-t REGISTRY/NAME:TAG`");
            }
            Output::Docker { .. } if platforms.len() > 1 => {
                let message = "an archive for `docker load` holds one platform only";
                return usage(message, "write an OCI archive with `-o type=oci`, or build for one platform");
            }
            Output::Load { into: Some(Daemon::Docker | Daemon::Podman), .. } if platforms.len() > 1 => {
                let message = "docker and podman load images of one platform only";
                return usage(message, "build for one platform, or write an OCI archive with `-o type=oci,dest=FILE`");
            }
            Output::Tar { platform_split: Some(false), .. } if platforms.len() > 1 => {
                let message = "a tar cannot hold the files of several platforms in one directory";
                return usage(message, "leave out `platform-split=false`, or use `type=local`");
            }
            Output::Oci { dest: Dest::Stdout, tar: false, .. }
            | Output::Docker { dest: Dest::Stdout, tar: false, .. } => {
                return usage("a layout directory cannot go to standard output", "give it a `dest`");
            }
            _ => {}
        }
    }
    place::check(&request.outputs)
}

/// Whether a name has a tag that is not the one it gets without.
fn has_tag(name: &Reference) -> bool {
    name.tag.as_deref().is_some_and(|tag| tag != "latest")
}

/// The index of images that are told apart by their platforms.
pub(crate) fn index(
    manifests: Vec<(Platform, Descriptor)>,
    is_oci: bool,
    annotations: BTreeMap<String, String>,
) -> Raw<Index> {
    let own = if is_oci { MediaType::OCI_INDEX } else { MediaType::DOCKER_INDEX };
    let entry = |(platform, manifest): (Platform, Descriptor)| Descriptor { platform: Some(platform), ..manifest };
    Raw::new(Index {
        schema_version: 2,
        media_type: Some(own.into()),
        manifests: manifests.into_iter().map(entry).collect(),
        annotations,
    })
}

/// The manifest of an image whose layers are packed.
pub(crate) fn manifest(made: &Made, is_oci: bool, annotations: BTreeMap<String, String>) -> Result<Raw<Manifest>> {
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
        annotations,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{ImageOptions, Naming};

    fn image(push: bool) -> Output {
        Output::Image { image: ImageOptions::default(), push, store: true, naming: Naming::default() }
    }

    fn by_digest(name: &str) -> Output {
        let image = ImageOptions { names: vec![name.parse().unwrap()], ..ImageOptions::default() };
        Output::Image { image, push: true, store: true, naming: Naming { by_digest: true, ..Naming::default() } }
    }

    fn oci(tar: bool, dest: Dest) -> Output {
        Output::Oci { image: ImageOptions::default(), dest, tar }
    }

    #[test]
    fn what_no_result_can_help_is_said_before_the_build() {
        let tar = |path: &str| Output::Tar { dest: Dest::Path(path.into()), platform_split: None };
        let stdout = || Output::Tar { dest: Dest::Stdout, platform_split: None };
        for (outputs, said) in [
            (vec![image(false), tar("file"), stdout()], None),
            (vec![tar("/dev/null")], None),
            (vec![image(true)], Some("there is no name to push to")),
            (vec![by_digest("r.lan/a")], None),
            (vec![by_digest("r.lan/a:1")], Some("`r.lan/a:1` has a tag, and `push-by-digest` pushes without one")),
            (vec![oci(false, Dest::Stdout)], Some("a layout directory cannot go to standard output")),
            (vec![oci(false, Dest::Path("/".into()))], None),
            (vec![tar("/")], Some("cannot write `/`: it is a directory")),
            (vec![tar("x.tar"), oci(true, Dest::Path("x.tar".into()))], Some("two outputs go to `x.tar`")),
            (vec![stdout(), oci(true, Dest::Stdout)], Some("standard output is taken by two outputs")),
        ] {
            let request = BuildRequest { outputs, ..BuildRequest::default() };
            let failure = check(&request).err();
            assert_eq!(failure.as_ref().map(|failure| failure.message.as_str()), said);
            assert!(failure.is_none_or(|failure| failure.kind == FailureKind::Usage && !failure.hints.is_empty()));
        }
    }
}
