//! Credentials in what is said and kept: URLs bring them.

/// Masks what stands between `http://` and `@`: URLs in names and messages may bring a user's credentials.
pub fn without_credentials(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + "://".len());
        shown.push_str(before);
        rest = after;
        let is_web = before.ends_with("http://") || before.ends_with("https://");
        let end = after.find(|c: char| c.is_whitespace() || "/@\"'\\?#".contains(c)).unwrap_or(after.len());
        if is_web && after[end..].starts_with('@') {
            shown.push_str("****");
            rest = &after[end..];
        }
    }
    shown.push_str(rest);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_of_urls_are_masked_and_names_of_images_are_not() {
        for (text, shown) in [
            ("ADD https://u:p@h/x https://t@h:1/y /z", "ADD https://****@h/x https://****@h:1/y /z"),
            ("docker-image://busybox@sha256:1", "docker-image://busybox@sha256:1"),
            ("http://h/a@b http://h", "http://h/a@b http://h"),
            ("\"http://h\" a@b", "\"http://h\" a@b"),
        ] {
            assert_eq!(without_credentials(text), shown);
        }
    }
}
