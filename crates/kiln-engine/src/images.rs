//! Images of the local store: found, listed, inspected, tagged, removed.

use kiln_oci::{Digest, ImageConfig, Platform, Raw, Reference};
use kiln_report::{Failure, FailureKind};
use kiln_store::{Image, ImageRecord, Store};

use crate::answer::{ImageDetails, ImageMember, ImageSummary, Removed};
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

/// What a name or id stands for: all of it, or only the image for this platform.
pub(crate) fn of_platform(store: &Store, text: &str, platform: Option<&Platform>) -> Result<ImageRecord> {
    let record = get(store, text)?.record;
    let Some(platform) = platform else { return Ok(record) };
    record.for_platform(platform).cloned().ok_or_else(|| no_platform(text, platform, &record))
}

/// The one image that is meant when only one can be: the one for this platform; if none is named the machine's, or else
/// the first.
pub(crate) fn one(store: &Store, text: &str, platform: Option<&Platform>) -> Result<Image> {
    let image = get(store, text)?;
    let record = match platform {
        Some(platform) => image.record.for_platform(platform),
        None => image.record.for_platform(&Platform::host()).or(image.record.images().first()),
    };
    match (record, platform) {
        (Some(record), _) => Ok(Image { record: record.clone(), ..image }),
        (None, platform) => Err(no_platform(text, platform.unwrap_or(&Platform::host()), &image.record)),
    }
}

fn no_platform(text: &str, wanted: &Platform, record: &ImageRecord) -> Failure {
    let there: Vec<String> = record.images().iter().map(|image| format!("`{}`", image.platform)).collect();
    let message = format!("image `{text}` is not here for `{wanted}`, but for {}", there.join(", "));
    Failure::new(FailureKind::Build, message).hint(format!("fetch it with `kiln pull --platform {wanted} {text}`"))
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
    failure.hint(format!("did you mean `{}`? Else fetch it with `kiln pull {text}`", near.join("` or `")))
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
        let config = image.record.images().first().and_then(|image| read_config(store, &image.id).ok());
        summary(image, config.as_ref())
    };
    Ok(images.into_iter().map(line).collect())
}

fn summary(image: Image, config: Option<&ImageConfig>) -> ImageSummary {
    let member = |member: &ImageRecord| ImageMember {
        id: member.id.clone(),
        platform: member.platform.clone(),
        created: member.created.clone(),
        size: member.size,
    };
    ImageSummary {
        members: image.record.members.iter().map(member).collect(),
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
pub(crate) fn inspect(store: &Store, name: &str, platform: Option<&Platform>) -> Result<ImageDetails> {
    let whole = get(store, name)?.record;
    let image = one(store, name, platform)?;
    // Who names no platform means the whole.
    let (id, manifest) = match platform {
        None => (whole.id, whole.manifest),
        Some(_) => (image.record.id.clone(), image.record.manifest.clone()),
    };
    let layers = image.record.snapshot.clone().unwrap_or_default();
    let sizes: Result<Vec<u64>> = layers
        .layers()
        .iter()
        .map(|layer| Ok(store.layer(layer).map_err(environment)?.size.unwrap_or_default()))
        .collect();
    let config = read_config(store, &image.record.id)?;
    let summary = ImageSummary {
        id,
        digests: whole.repo_digests.into_iter().map(familiar).collect(),
        ..summary(image, Some(&config))
    };
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
