//! Annotations of images: which of those asked for belong to which document.

use std::collections::BTreeMap;

use kiln_oci::Platform;
use kiln_report::{Failure, FailureKind};

use crate::job::Result;
use crate::request::{Annotated, Annotation};

/// Finds what no result can carry. `platforms` are those that are built for.
pub(crate) fn check(annotations: &[Annotation], platforms: &[Platform], is_oci: bool) -> Result<()> {
    let usage = |message: String, hint: &str| Err(Failure::new(FailureKind::Usage, message).hint(hint));
    for annotation in annotations {
        let key = &annotation.key;
        let is_of_index = matches!(annotation.on, Annotated::Index | Annotated::IndexDescriptor);
        if is_of_index && platforms.len() < 2 {
            let message = format!("annotation `{key}` is for an index, and an image for one platform has none");
            return usage(message, "annotate its `manifest`, or build for several platforms");
        }
        if let Some(platform) = annotation.platform.as_ref().filter(|platform| !platforms.contains(platform)) {
            let message = format!("annotation `{key}` is for {platform}, which is not built for");
            return usage(message, "name a platform of the build, or none");
        }
        if !is_oci && annotation.on != Annotated::Manifest {
            let message = format!("annotation `{key}` has no place among docker's media types");
            return usage(message, "leave out `oci-mediatypes=false`");
        }
    }
    Ok(())
}

/// Those for one kind of document. What is said of one platform counts more than what is said of all.
pub(crate) fn select(
    annotations: &[Annotation],
    on: Annotated,
    platform: Option<&Platform>,
) -> BTreeMap<String, String> {
    let mut selected = BTreeMap::new();
    let of_kind = || annotations.iter().filter(|annotation| annotation.on == on);
    let general = of_kind().filter(|annotation| annotation.platform.is_none());
    let own = of_kind().filter(|annotation| annotation.platform.is_some() && annotation.platform.as_ref() == platform);
    for annotation in general.chain(own) {
        selected.insert(annotation.key.clone(), annotation.value.clone());
    }
    selected
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotation(on: Annotated, platform: Option<&str>, value: &str) -> Annotation {
        Annotation { on, platform: platform.map(|p| p.parse().unwrap()), key: "k".into(), value: value.into() }
    }

    #[test]
    fn what_is_said_of_a_platform_counts_there_and_before_what_is_said_of_all() {
        let all = [
            annotation(Annotated::Manifest, Some("linux/arm64"), "arm"),
            annotation(Annotated::Manifest, None, "all"),
            annotation(Annotated::Index, None, "index"),
        ];
        let [amd, arm] = ["linux/amd64", "linux/arm64"].map(|text| text.parse::<Platform>().unwrap());
        assert_eq!(select(&all, Annotated::Manifest, Some(&amd))["k"], "all");
        assert_eq!(select(&all, Annotated::Manifest, Some(&arm))["k"], "arm");
        assert_eq!(select(&all, Annotated::Index, None)["k"], "index");
        assert!(select(&all, Annotated::ManifestDescriptor, Some(&arm)).is_empty());
    }

    #[test]
    fn what_no_document_can_carry_is_refused() {
        let [amd, arm] = ["linux/amd64", "linux/arm64"].map(|text| text.parse::<Platform>().unwrap());
        let (one, two) = (vec![amd.clone()], vec![amd, arm]);
        for (annotation, platforms, is_oci, said) in [
            (annotation(Annotated::Index, None, ""), &two, true, None),
            (annotation(Annotated::Manifest, Some("linux/amd64"), ""), &one, false, None),
            (annotation(Annotated::Index, None, ""), &one, true, Some("an image for one platform has none")),
            (annotation(Annotated::Manifest, Some("linux/arm64"), ""), &one, true, Some("is not built for")),
            (annotation(Annotated::ManifestDescriptor, None, ""), &one, false, Some("docker's media types")),
        ] {
            let failure = check(&[annotation], platforms, is_oci).err().map(|failure| failure.message);
            assert_eq!(failure.is_some(), said.is_some());
            assert!(failure.is_none_or(|message| message.contains(said.unwrap())));
        }
    }
}
