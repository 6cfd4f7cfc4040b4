//! Which sources are URLs, of what kind, and how their files are called.

use crate::path;

/// A URL that is fetched as a file.
pub(super) fn is_http(source: &str) -> bool {
    (source.starts_with("http://") || source.starts_with("https://")) && !is_git(source)
}

/// A URL whose path ends in `.git`, `git://`, `ssh://`, or `user@host:path`.
pub(super) fn is_git(source: &str) -> bool {
    if let Some((scheme, rest)) = source.split_once("://") {
        let path = rest.split(['?', '#']).next().unwrap_or(rest);
        return match scheme.to_ascii_lowercase().as_str() {
            "git" | "ssh" => true,
            "http" | "https" => path.contains('/') && path.ends_with(".git"),
            _ => false,
        };
    }
    let word = |text: &str, more: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    let Some((user, rest)) = source.split_once('@') else { return false };
    let Some((host, _)) = rest.split_once(':') else { return false };
    word(user, "-_") && word(host, "-.")
}

/// The last part of a URL's path, percent signs undone.
pub(super) fn file_name(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = rest.split(['?', '#']).next().unwrap_or(rest);
    let path = path.split_once('/').map_or("", |(_, path)| path);
    let decoded = percent_decoded(path);
    let cleaned = path::clean(&format!("/{decoded}"));
    match path::base_name(&cleaned) {
        "/" | "." => "__unnamed__".to_owned(),
        name => name.to_owned(),
    }
}

fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = text.get(at + 1..at + 3).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|_| bytes[at] == b'%') {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_repositories_are_told_from_paths() {
        for (source, git, http) in [
            ("https://example.com/a.tar", false, true),
            ("http://example.com", false, true),
            ("https://example.com/a.git", true, false),
            ("https://example.com/a.git#main:sub", true, false),
            ("https://example.com/a?x=.git", false, true),
            ("git://x/y", true, false),
            ("ssh://x/y", true, false),
            ("git@example.com:a/b", true, false),
            ("a@b", false, false),
            ("./a@b:c/d", false, false),
            ("ftp://x/y.git", false, false),
            ("src/app.git", false, false),
        ] {
            assert_eq!((is_git(source), is_http(source)), (git, http), "{source}");
        }
    }

    #[test]
    fn downloads_are_named_after_the_last_part_of_the_path() {
        for (url, name) in [
            ("https://x/a/b.tar?c=d#e", "b.tar"),
            ("https://x/a/", "a"),
            ("https://x", "__unnamed__"),
            ("https://x/", "__unnamed__"),
            ("https://x/a%20b", "a b"),
            ("https://x/a%2e%2e%2f%2e%2e", "__unnamed__"),
        ] {
            assert_eq!(file_name(url), name, "{url}");
        }
    }
}
