//! Annotations: `--annotation [TYPE[PLATFORM],…:]KEY=VALUE`, and outputs' `annotation-TYPE[PLATFORM].KEY=VALUE`.

use kiln_engine::{Annotated, Annotation};
use kiln_oci::Platform;

use super::value::{Wrong, did_you_mean};

const KINDS: [(&str, Annotated); 4] = [
    ("manifest", Annotated::Manifest),
    ("manifest-descriptor", Annotated::ManifestDescriptor),
    ("index", Annotated::Index),
    ("index-descriptor", Annotated::IndexDescriptor),
];

/// What one `--annotation` says: the same on every document it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Annotations(pub(crate) Vec<Annotation>);

/// Reads the value of `--annotation`.
pub(crate) fn parse(text: &str) -> Result<Annotations, Wrong> {
    let Some((place, value)) = text.split_once('=') else {
        return Err(Wrong("expected `key=value`".into()));
    };
    let (places, key) = match place.split_once(':') {
        Some((places, key)) => (places.split(',').map(place_of).collect::<Result<_, _>>()?, key),
        None => (vec![(Annotated::Manifest, None)], place),
    };
    if key.trim().is_empty() {
        return Err(Wrong("the key of the annotation is empty".into()));
    }
    let annotation = |(on, platform)| Annotation { on, platform, key: key.to_owned(), value: value.to_owned() };
    Ok(Annotations(places.into_iter().map(annotation).collect()))
}

/// Reads an attribute of an output, if it is an annotation.
pub(super) fn of_attribute(attribute: &str, value: &str) -> Option<Result<Annotation, Wrong>> {
    let rest = attribute.strip_prefix("annotation")?;
    let (place, key) = rest.split_once('.')?;
    if key.is_empty() || !(place.is_empty() || place.starts_with(['-', '['])) {
        return None;
    }
    let place = match place.strip_prefix('-') {
        Some(place) => place_of(place),
        None => place_of(&format!("manifest{place}")),
    };
    Some(place.map(|(on, platform)| Annotation { on, platform, key: key.to_owned(), value: value.to_owned() }))
}

/// `TYPE` or `TYPE[PLATFORM]`.
fn place_of(text: &str) -> Result<(Annotated, Option<Platform>), Wrong> {
    let (kind, platform) = match text.strip_suffix(']').and_then(|text| text.split_once('[')) {
        Some((kind, platform)) => (kind, Some(platform.parse().map_err(|error| Wrong(format!("{error}")))?)),
        None => (text, None),
    };
    let names = KINDS.map(|(name, _)| name);
    let Some((_, on)) = KINDS.into_iter().find(|(name, _)| *name == kind) else {
        let near = did_you_mean(kind, names);
        return Err(Wrong(format!("`{kind}` takes no annotation: expected `{}`{near}", names.join("`, `"))));
    };
    if platform.is_some() && matches!(on, Annotated::Index | Annotated::IndexDescriptor) {
        return Err(Wrong(format!("`{text}`: an index is for all platforms")));
    }
    Ok((on, platform))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotation(on: Annotated, platform: Option<&str>) -> Annotation {
        Annotation { on, platform: platform.map(|p| p.parse().unwrap()), key: "a.b".into(), value: "v=w".into() }
    }

    #[test]
    fn an_annotation_says_where_it_belongs() {
        let of = |all: Vec<Annotation>| Ok(Annotations(all));
        assert_eq!(parse("a.b=v=w"), of(vec![annotation(Annotated::Manifest, None)]));
        assert_eq!(
            parse("index,manifest[linux/arm64]:a.b=v=w"),
            of(vec![annotation(Annotated::Index, None), annotation(Annotated::Manifest, Some("linux/arm64"))])
        );
        for (text, said) in [
            ("a.b", "expected `key=value`"),
            ("manifset:a=b", "did you mean `manifest`?"),
            ("index[linux/amd64]:a=b", "an index is for all platforms"),
            ("manifest:=b", "the key of the annotation is empty"),
        ] {
            let Wrong(why) = parse(text).unwrap_err();
            assert!(why.contains(said), "{why}");
        }
    }

    #[test]
    fn attributes_of_outputs_say_the_same() {
        let of = |attribute| of_attribute(attribute, "v=w").map(|annotation| annotation.map_err(|Wrong(why)| why));
        assert_eq!(of("annotation.a.b"), Some(Ok(annotation(Annotated::Manifest, None))));
        assert_eq!(of("annotation-index-descriptor.a.b"), Some(Ok(annotation(Annotated::IndexDescriptor, None))));
        let arm = annotation(Annotated::Manifest, Some("linux/arm64"));
        assert_eq!(of("annotation[linux/arm64].a.b"), Some(Ok(arm.clone())));
        assert_eq!(of("annotation-manifest[linux/arm64].a.b"), Some(Ok(arm)));
        assert!(of("annotation-layer.a.b").unwrap().unwrap_err().starts_with("`layer` takes no annotation"));
        for other in ["annotation", "annotations.a", "annotation.", "name"] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
