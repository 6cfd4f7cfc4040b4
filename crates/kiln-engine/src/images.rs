//! Images of the local store: found, listed, inspected, tagged, removed.

use kiln_oci::{Digest, ImageConfig, Raw, Reference};
use kiln_report::{Failure, FailureKind};
use kiln_store::{Image, ImageRecord, Store};

use crate::answer::{ImageDetails, ImageSummary, Removed};
use crate::failure::environment;
use crate::job::Result;

/// Configs are read whole; a larger one was refused when it came.
const CONFIG_LIMIT: u64 = kiln_image::limits::CONFIG;

/// Fewer digits of an id than docker prints are taken for a name only: `FROM cafe` must not find `cafe1234…`.
const SHORT_ID: usize = 12;

/// The image a name, or an id as docker prints it, stands for.
pub(crate) fn find(store: &Store, text: &str) -> Result<Option<ImageRecord>> {
    let images = store.images();
    let found = match text.parse::<Reference>() {
        Ok(name) if text.len() < SHORT_ID => images.by_name(&name),
        _ => images.find(text).map(Some),
    };
    match found {
        Ok(image) => Ok(image.map(|image| image.record)),
        Err(kiln_store::Error::UnknownImage { .. }) => Ok(None),
        Err(error) => Err(Failure::from_error(FailureKind::Build, &error)),
    }
}

/// The image a name, id or beginning of an id stands for; an unknown one is a failure with near names.
pub(crate) fn get(store: &Store, text: &str) -> Result<Image> {
    store.images().find(text).map_err(|error| match error {
        kiln_store::Error::UnknownImage { .. } => unknown(store, text),
        other => Failure::from_error(FailureKind::Build, &other),
    })
}

/// The failure for a name that no image has.
pub(crate) fn unknown(store: &Store, text: &str) -> Failure {
    let failure = Failure::new(FailureKind::Build, format!("no such image: `{text}`"));
    let names = store.images().list().unwrap_or_default().into_iter().flat_map(|image| image.names);
    let wanted = text.split(['/', ':']).filter(|part| !part.is_empty()).max_by_key(|part| part.len()).unwrap_or(text);
    let near: Vec<String> = names.map(familiar).filter(|name| name.contains(wanted)).take(3).collect();
    if near.is_empty() {
        return failure.hint(format!("build it, or fetch it with `kiln pull {text}`"));
    }
    failure.hint(format!("did you mean `{}`?", near.join("` or `")))
}

/// The config of an image.
pub(crate) fn read_config(store: &Store, id: &Digest) -> Result<ImageConfig> {
    let bytes = store.content().read(id, CONFIG_LIMIT).map_err(environment)?;
    Ok(Raw::parse(bytes).map_err(environment)?.into_parts().1)
}

/// All images, newest first.
pub(crate) fn list(store: &Store) -> Result<Vec<ImageSummary>> {
    let mut images = store.images().list().map_err(environment)?;
    images.sort_by(|a, b| b.stored.cmp(&a.stored).then_with(|| a.names.cmp(&b.names)));
    // An image whose config cannot be read is listed all the same, or nobody could remove it.
    let line = |image: Image| {
        let config = read_config(store, &image.record.id).ok();
        summary(image, config.as_ref())
    };
    Ok(images.into_iter().map(line).collect())
}

fn summary(image: Image, config: Option<&ImageConfig>) -> ImageSummary {
    ImageSummary {
        id: image.record.id,
        names: image.names.into_iter().map(familiar).collect(),
        digests: image.record.repo_digests.into_iter().map(familiar).collect(),
        created: image.record.created,
        size: image.record.size,
        platform: image.record.platform,
        labels: config.map(|config| config.config.labels.clone()).unwrap_or_default(),
    }
}

fn familiar(name: String) -> String {
    name.parse::<Reference>().map_or(name, |reference| reference.familiar())
}

/// Everything known of one image.
pub(crate) fn inspect(store: &Store, name: &str) -> Result<ImageDetails> {
    let image = get(store, name)?;
    let manifest = image.record.manifest.clone();
    let layers = image.record.snapshot.clone().unwrap_or_default();
    let sizes: Result<Vec<u64>> = layers
        .layers()
        .iter()
        .map(|layer| Ok(store.layer(layer).map_err(environment)?.size.unwrap_or_default()))
        .collect();
    let config = read_config(store, &image.record.id)?;
    let summary = summary(image, Some(&config));
    Ok(ImageDetails { summary, config, manifest, layer_sizes: sizes? })
}

/// Gives an image one more name.
pub(crate) fn tag(store: &Store, from: &str, to: &Reference) -> Result<()> {
    let image = get(store, from)?;
    store.images().tag(&image.record.id, to).map_err(environment)
}

/// Removes a name, and the image with its last one; an id removes the image with all its names.
pub(crate) fn remove(store: &Store, text: &str, force: bool) -> Result<Vec<Removed>> {
    let image = get(store, text)?;
    let name = text.parse::<Reference>().ok().filter(|name| image.names.contains(&name.to_string()));
    let removed = match name {
        Some(name) => store.images().remove_name(&name),
        None if image.names.len() > 1 && !force => {
            let names: Vec<String> = image.names.into_iter().map(familiar).collect();
            let message = format!("image {} has several names: `{}`", image.record.id.short(), names.join("`, `"));
            return Err(Failure::new(FailureKind::Build, message).hint("remove all of them with `kiln rmi -f`"));
        }
        None => store.images().remove(&image.record.id),
    };
    let removed = removed.map_err(environment)?;
    let names = removed.untagged.into_iter().map(|name| Removed::Untagged(familiar(name)));
    Ok(names.chain(removed.deleted.map(Removed::Deleted)).collect())
}
