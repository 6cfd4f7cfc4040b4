//! Names of images that say how they are reached, as other builders take them; here the command line says it.

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
        "oci-archive" | "docker-archive" => {
            let file = rest.split(':').next().unwrap_or(rest);
            format!("load it with `kiln load -i {file}`, and write its name")
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
    fn transports_are_told_from_names_with_tags() {
        for name in ["oci:latest", "dir:1", "docker:20", "localhost:5000/app", "busybox", "oci/app:1", "docker-x:1"] {
            assert_eq!(refused(name), None, "{name}");
        }
        for (name, hint) in [
            ("docker://busybox:1", "write `busybox:1`"),
            ("oci-archive:./a.tar:tag", "load it with `kiln load -i ./a.tar`, and write its name"),
            ("docker-archive:/x/a.tar", "load it with `kiln load -i /x/a.tar`, and write its name"),
            ("oci:/x/dir", "name it with `--build-context base=oci-layout:///x/dir`, and write `FROM base`"),
        ] {
            assert_eq!(refused(name).unwrap().1, hint, "{name}");
        }
        assert!(refused("containers-storage:x").is_some() && refused("docker-daemon:x:y").is_some());
    }
}
