//! Which sources are downloads, and how their files are called.

use super::git::is_git;
use crate::path;

/// A URL that is fetched as a file.
pub(super) fn is_http(source: &str) -> bool {
    (source.starts_with("http://") || source.starts_with("https://")) && !is_git(source)
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

/// Percent signs undone.
pub(super) fn percent_decoded(text: &str) -> String {
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

/// A word of a URL's query, in which a plus sign is a space.
pub(super) fn query_decoded(text: &str) -> String {
    percent_decoded(&text.replace('+', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn downloads_are_told_from_paths_and_repositories() {
        for (source, http) in [
            ("https://example.com/a.tar", true),
            ("http://example.com", true),
            ("https://example.com/a?x=.git", true),
            ("https://example.com/a.git", false),
            ("https://example.com/a.git/", true),
            ("HTTPS://example.com/a", false),
            ("ftp://x/y", false),
            ("src/http://x", false),
        ] {
            assert_eq!(is_http(source), http, "{source}");
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
