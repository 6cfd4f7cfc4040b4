//! How large and how deep documents may be, and whether they agree with each other.

use kiln_oci::{Descriptor, Document, ImageConfig, Index, Manifest, Platform, Raw};

use crate::{Error, Result};

/// Bytes of a manifest or index.
pub const DOCUMENT: u64 = 4 << 20;
/// Bytes of an image config.
pub const CONFIG: u64 = 8 << 20;
/// Bytes of an answer that is neither document nor blob: tokens, error bodies.
pub const ANSWER: u64 = 1 << 20;
/// Layers of an image: a thousand steps, and what they stand on.
pub const LAYERS: usize = 1024;
/// Manifests of an index, and of everything below it together.
pub const MANIFESTS: usize = 1000;
/// Indexes within indexes.
pub const DEPTH: usize = 4;

pub(crate) fn check_size(doing: &str, what: &str, size: u64, limit: u64) -> Result<()> {
    if size <= limit {
        return Ok(());
    }
    Err(Error::TooLarge {
        doing: doing.into(),
        what: format!("{what} ({size} bytes)"),
        limit: format!("{} MiB", limit >> 20),
    })
}

/// Checks a document by itself: how many entries, of which sizes.
pub fn validate(document: &Document) -> Result<()> {
    match document {
        Document::Manifest(manifest) => validate_manifest(manifest.value()),
        Document::Index(index) => validate_index(index.value()),
    }
}

fn validate_manifest(manifest: &Manifest) -> Result<()> {
    const DOING: &str = "use the manifest";
    if manifest.layers.len() > LAYERS {
        return Err(too_many("layers", manifest.layers.len(), LAYERS));
    }
    check_size(DOING, "the image config", manifest.config.size, CONFIG)?;
    let total = manifest.layers.iter().try_fold(0u64, |sum, layer| sum.checked_add(layer.size));
    if total.is_none_or(|total| total > i64::MAX as u64) {
        return Err(Error::invalid(DOING, "the sizes of its layers overflow"));
    }
    let document = |d: &Descriptor| d.media_type.is_manifest() || d.media_type.is_index();
    if document(&manifest.config) || manifest.layers.iter().any(document) {
        return Err(Error::invalid(DOING, "its config or a layer calls itself a manifest"));
    }
    Ok(())
}

fn validate_index(index: &Index) -> Result<()> {
    if index.manifests.len() > MANIFESTS {
        return Err(too_many("manifests", index.manifests.len(), MANIFESTS));
    }
    // Some name blobs too, which may be of any size.
    let mut documents = index.manifests.iter().filter(|m| m.media_type.is_manifest() || m.media_type.is_index());
    documents.try_for_each(|m| check_size("use the index", "a manifest of it", m.size, DOCUMENT))
}

fn too_many(what: &str, count: usize, limit: usize) -> Error {
    Error::TooLarge { doing: "use the image".into(), what: format!("{count} {what}"), limit: limit.to_string() }
}

/// Reads the config of an image and checks it against the manifest that names it.
pub fn validate_config(manifest: &Manifest, bytes: Vec<u8>) -> Result<Raw<ImageConfig>> {
    let doing = format!("read image config `{}`", manifest.config.digest);
    check_size(&doing, "the image config", bytes.len() as u64, CONFIG)?;
    crate::verify::verify(&doing, &manifest.config, &bytes)?;
    let config: Raw<ImageConfig> =
        Raw::parse(bytes).map_err(|error| Error::invalid(&doing, format!("it is not valid: {error}")))?;
    let (layers, diff_ids) = (manifest.layers.len(), config.value().rootfs.diff_ids.len());
    if layers != diff_ids {
        return Err(Error::invalid(doing, format!("it names {diff_ids} layers, the manifest {layers}")));
    }
    Ok(config)
}

/// Finds the image for a platform in an index: the one that serves it best, the first of equals.
pub fn pick_platform(image: &str, index: &Index, wanted: &Platform) -> Result<Descriptor> {
    let candidates = || index.manifests.iter().filter(|m| m.media_type.is_manifest() || m.media_type.is_index());
    let ranked = candidates().filter_map(|m| Some((m.platform.as_ref()?.rank(wanted)?, m)));
    let best = ranked.min_by_key(|(rank, _)| *rank).map(|(_, m)| m);
    let only = || match &index.manifests[..] {
        [one] if one.platform.is_none() => Some(one),
        _ => None,
    };
    best.or_else(only).cloned().ok_or_else(|| Error::NoPlatform {
        image: image.to_owned(),
        wanted: wanted.to_string(),
        available: index
            .manifests
            .iter()
            .filter_map(|m| m.platform.as_ref())
            .filter(|p| p.os != "unknown")
            .map(ToString::to_string)
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_oci::{Digest, MediaType};

    fn entry(platform: Option<&str>, salt: &str) -> Descriptor {
        let mut d = Descriptor::new(MediaType::OCI_MANIFEST, Digest::sha256(salt), 2);
        d.platform = platform.map(|p| {
            let mut parts = p.split('/');
            Platform {
                os: parts.next().unwrap().into(),
                architecture: parts.next().unwrap().into(),
                variant: parts.next().map(Into::into),
                ..Platform::default()
            }
        });
        d
    }

    fn index(platforms: &[Option<&str>]) -> Index {
        let manifests = platforms.iter().enumerate().map(|(i, p)| entry(*p, &i.to_string())).collect();
        Index { schema_version: 2, media_type: None, manifests, annotations: Default::default() }
    }

    #[test]
    fn an_exact_platform_wins_over_a_near_one() {
        let index = index(&[Some("linux/arm/v6"), Some("linux/arm"), Some("linux/amd64"), Some("unknown/unknown")]);
        let pick = |wanted: &str| pick_platform("x", &index, &wanted.parse().unwrap()).map(|d| d.digest);
        assert_eq!(pick("linux/arm/v6").unwrap(), Digest::sha256("0"));
        assert_eq!(pick("linux/arm/v7").unwrap(), Digest::sha256("1"));
        assert_eq!(pick("linux/amd64").unwrap(), Digest::sha256("2"));
        let error = pick("linux/s390x").unwrap_err().to_string();
        assert!(
            error.contains("`linux/s390x`") && error.contains("`linux/amd64`") && !error.contains("unknown"),
            "{error}"
        );
    }

    #[test]
    fn a_single_image_without_a_platform_fits_all() {
        assert!(pick_platform("x", &index(&[None]), &Platform::linux("amd64")).is_ok());
        assert!(pick_platform("x", &index(&[None, None]), &Platform::linux("amd64")).is_err());
    }

    #[test]
    fn configs_and_manifests_must_agree() {
        let bytes = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#.to_vec();
        let mut manifest = Manifest {
            schema_version: 2,
            media_type: None,
            artifact_type: None,
            config: Descriptor::of(MediaType::OCI_CONFIG, &bytes),
            layers: vec![],
            subject: None,
            annotations: Default::default(),
        };
        validate_config(&manifest, bytes.clone()).unwrap();
        manifest.layers = vec![Descriptor::of(MediaType::OCI_LAYER, b""); LAYERS + 1];
        assert!(
            validate_config(&manifest, bytes).unwrap_err().to_string().contains("names 0 layers, the manifest 1025")
        );
        assert!(validate_manifest(&manifest).unwrap_err().to_string().contains("1025 layers"));
        manifest.layers = vec![Descriptor::new(MediaType::OCI_LAYER, Digest::sha256(""), u64::MAX); 2];
        assert!(validate_manifest(&manifest).is_err());
        manifest.layers.clear();
        manifest.config.size = CONFIG + 1;
        assert_eq!(validate_manifest(&manifest).unwrap_err().kind(), crate::ErrorKind::TooLarge);
    }
}
