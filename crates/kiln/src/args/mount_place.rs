//! Where cache mounts travel to and from: a path, a reference with its registry, or `type=…` with attributes.

use std::path::PathBuf;

use kiln_engine::MountPlace;
use kiln_oci::Reference;

use super::value::{Wrong, attributes, did_you_mean};

/// Reads the value of `--to` of an export.
pub(crate) fn to(text: &str) -> Result<MountPlace, Wrong> {
    place(text, "dest")
}

/// Reads the value of `--from` of an import.
pub(crate) fn from(text: &str) -> Result<MountPlace, Wrong> {
    place(text, "src")
}

fn place(text: &str, path_key: &str) -> Result<MountPlace, Wrong> {
    if text.is_empty() {
        return Err(Wrong("the place is empty".into()));
    }
    if !text.starts_with("type=") && !text.contains(",type=") {
        return match registry_of(text) {
            true => reference(text).map(registry),
            false => Ok(path(text)),
        };
    }
    let (mut kind, mut value) = (String::new(), None);
    let given = attributes(text)?;
    let (is_local, is_registry) = (has(&given, "local"), has(&given, "registry"));
    for (key, text) in given {
        match key.as_str() {
            "type" => kind = text,
            key if key == path_key && is_local => value = Some(path(&text)),
            "ref" if is_registry => value = Some(registry(reference(&text)?)),
            key => {
                let near = did_you_mean(key, ["type", path_key, "ref"]);
                return Err(Wrong(format!("`type={kind}` has no `{key}`{near}")));
            }
        }
    }
    match kind.as_str() {
        "local" => value.ok_or_else(|| Wrong(format!("`type=local` needs `{path_key}=DIR`"))),
        "registry" => value.ok_or_else(|| Wrong("`type=registry` needs `ref=NAME`".into())),
        other => Err(Wrong(format!(
            "cache mounts cannot travel by `type={other}`; `type=local` and `type=registry` can{}",
            did_you_mean(other, ["local", "registry"])
        ))),
    }
}

fn has(attributes: &[(String, String)], kind: &str) -> bool {
    attributes.iter().any(|(key, value)| key == "type" && value == kind)
}

fn registry(reference: Reference) -> MountPlace {
    MountPlace::Registry { reference, may_be_insecure: false }
}

/// A file is an archive by its name, anything else a layout.
fn path(text: &str) -> MountPlace {
    let path = PathBuf::from(text);
    match path.extension().is_some_and(|extension| extension == "tar") && !path.is_dir() {
        true => MountPlace::Archive(path),
        false => MountPlace::Layout(path),
    }
}

/// Whether a text names a registry: `ghcr.io/…` does, `./x` and `dir/x` do not.
fn registry_of(text: &str) -> bool {
    let Some((host, _)) = text.split_once('/') else { return false };
    let is_path = host.is_empty() || host.starts_with('.');
    !is_path && (host == "localhost" || host.contains(['.', ':']))
}

fn reference(text: &str) -> Result<Reference, Wrong> {
    text.parse().map_err(|error| Wrong(format!("{error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_paths_references_and_attributes() {
        let layout = |path: &str| MountPlace::Layout(path.into());
        let registry = |name: &str| registry(name.parse().unwrap());
        for (text, place) in [
            ("out", layout("out")),
            ("./ghcr.io/x", layout("./ghcr.io/x")),
            ("some/dir", layout("some/dir")),
            ("/no/such/mounts.tar", MountPlace::Archive("/no/such/mounts.tar".into())),
            ("ghcr.io/acme/cache", registry("ghcr.io/acme/cache")),
            ("localhost:5000/c:1", registry("localhost:5000/c:1")),
            ("type=local,dest=x", layout("x")),
            ("dest=x.tar,type=local", MountPlace::Archive("x.tar".into())),
            ("type=registry,ref=acme/cache", registry("acme/cache")),
        ] {
            assert_eq!(to(text).unwrap(), place, "{text}");
        }
        assert_eq!(from("type=local,src=x").unwrap(), layout("x"));
    }

    #[test]
    fn a_wrong_place_is_refused_by_name() {
        for (text, said) in [
            ("", "is empty"),
            ("type=local", "needs `dest=DIR`"),
            ("type=local,src=x", "no `src`"),
            ("type=registry", "needs `ref=NAME`"),
            ("type=registry,dest=x", "no `dest`"),
            ("type=locl,dest=x", "did you mean"),
            ("type=inline", "`type=inline`"),
            ("ghcr.io/UPPER", "UPPER"),
        ] {
            let Wrong(error) = to(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
