//! Names of images that say how they are reached, as other builders take them. Archives in the build context are read;
//! for all else the command line says it.

/// An image in an archive, as buildah writes it: `oci-archive:FILE` or `docker-archive:FILE`, with `:NAME` when the archive
/// has several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchivedImage<'a> {
    /// The file, in the build context.
    pub path: &'a str,
    /// What the image is called in it.
    pub name: Option<&'a str>,
}

impl<'a> ArchivedImage<'a> {
    /// Reads the name of an image, if it is one of these.
    pub fn read(name: &'a str) -> Option<Self> {
        let rest = name.strip_prefix("oci-archive:").or_else(|| name.strip_prefix("docker-archive:"))?;
        let (path, name) = rest.split_once(':').map_or((rest, None), |(path, name)| (path, Some(name)));
        (!path.is_empty()).then_some(Self { path, name: name.filter(|name| !name.is_empty()) })
    }
}

/// Says what is wrong with such a name, and the way out.
pub(super) fn refused(name: &str) -> Option<(String, String)> {
    let is_path = |rest: &str| rest.contains('/') || rest.starts_with('.');
    let (transport, rest) = name.split_once(':')?;
    let hint = match transport {
        "docker" => format!("write `{}`", rest.strip_prefix("//")?),
        "oci" | "oci-layout" if is_path(rest) => {
            let path = rest.trim_start_matches("//");
            format!("name it with `--build-context base=oci-layout://{path}`, and write `FROM base`")
        }
        "dir" if is_path(rest) => "push it to a registry, or write it as an OCI layout".to_owned(),
        "docker-daemon" | "containers-storage" => {
            "save it there as an archive, load it with `kiln load`, and write its name".to_owned()
        }
        _ => return None,
    };
    Some((format!("`{name}` is not the name of an image: a Dockerfile does not say how an image is reached"), hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_of_archives_have_a_path_and_maybe_a_name() {
        let read = |name| ArchivedImage::read(name).map(|image| (image.path, image.name));
        assert_eq!(read("oci-archive:./a.tar"), Some(("./a.tar", None)));
        assert_eq!(read("docker-archive:dir/a.tar:app:1"), Some(("dir/a.tar", Some("app:1"))));
        assert_eq!(read("oci-archive:"), None);
        assert_eq!(read("busybox:1"), None);
    }

    #[test]
    fn transports_are_told_from_names_with_tags() {
        for name in ["oci:latest", "dir:1", "docker:20", "localhost:5000/app", "busybox", "oci/app:1", "docker-x:1"] {
            assert_eq!(refused(name), None, "{name}");
        }
        for (name, hint) in [
            ("docker://busybox:1", "write `busybox:1`"),
            ("oci:/x/dir", "name it with `--build-context base=oci-layout:///x/dir`, and write `FROM base`"),
        ] {
            assert_eq!(refused(name).unwrap().1, hint, "{name}");
        }
        assert!(refused("containers-storage:x").is_some() && refused("docker-daemon:x:y").is_some());
    }
}
