//! Paths of images, as text: cleaned and joined the way Go's `path` package does.

/// The shortest text for the same path: no `//`, `.` or inner `..`. Empty becomes `.`.
pub(crate) fn clean(path: &str) -> String {
    let is_rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        match (part, parts.last()) {
            ("..", Some(last)) if *last != ".." => drop(parts.pop()),
            ("..", None) if is_rooted => {}
            _ => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (is_rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

/// `path` below `base`, cleaned, always absolute.
pub(crate) fn absolute(base: &str, path: &str) -> String {
    if path.starts_with('/') { clean(path) } else { clean(&format!("/{base}/{path}")) }
}

/// As [`absolute`], but a slash or `/.` at the end stays: a copy reads a meaning into it.
pub(crate) fn absolute_keeping_slash(base: &str, path: &str) -> String {
    let mut result = absolute(base, path);
    if path.ends_with('/') && !result.ends_with('/') {
        result.push('/');
    } else if path.ends_with("/.") {
        result.push_str(if result == "/" { "." } else { "/." });
    }
    result
}

/// The working directory after `WORKDIR path`. An absolute path stays as it is written.
pub(crate) fn workdir(current: &str, path: &str) -> String {
    match path {
        "" => absolute("", current),
        _ if path.starts_with('/') => path.to_owned(),
        _ => absolute(current, path),
    }
}

/// The last part of a path: `/` for the root, `.` for nothing.
pub(crate) fn base_name(path: &str) -> &str {
    if path.is_empty() {
        return ".";
    }
    let trimmed = path.trim_end_matches('/');
    if trimmed.is_empty() { "/" } else { trimmed.rsplit('/').next().unwrap_or(trimmed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned() {
        for (path, wanted) in
            [("", "."), ("/", "/"), ("a//b/./c/", "a/b/c"), ("a/../b", "b"), ("../a/../..", "../.."), ("/../a/..", "/")]
        {
            assert_eq!(clean(path), wanted, "{path}");
        }
    }

    #[test]
    fn relative_paths_join_and_slashes_stay_when_asked() {
        assert_eq!(absolute("/app", "x/../y"), "/app/y");
        assert_eq!(absolute("", "x"), "/x");
        assert_eq!(absolute("/app", "/x"), "/x");
        for (path, wanted) in
            [("./", "/app/"), ("x/", "/app/x/"), ("/", "/"), ("/.", "/."), ("x/.", "/app/x/."), ("x", "/app/x")]
        {
            assert_eq!(absolute_keeping_slash("/app", path), wanted, "{path}");
        }
    }

    #[test]
    fn working_directories_follow_each_other() {
        for (current, path, wanted) in
            [("", "test", "/test"), ("/test", "../sub", "/sub"), ("/test", "/cur/", "/cur/"), ("test", "", "/test")]
        {
            assert_eq!(workdir(current, path), wanted, "{current} {path}");
        }
    }

    #[test]
    fn base_names() {
        for (path, wanted) in [("/a/b", "b"), ("a/", "a"), ("/", "/"), ("", "."), ("a", "a")] {
            assert_eq!(base_name(path), wanted, "{path}");
        }
    }
}
