//! Credentials in what is said and kept: URLs bring them.

/// Masks what stands between `http://` and `@`: URLs in names and messages may bring a user's credentials.
pub fn without_credentials(text: &str) -> String {
    masked(text, |_| 4)
}

/// The same, with as many bytes as before, for texts in which places are marked.
pub(crate) fn covered_credentials(text: &str) -> String {
    masked(text, str::len)
}

/// Has so many stars in place of a login.
fn masked(text: &str, stars: impl Fn(&str) -> usize) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + "://".len());
        shown.push_str(before);
        rest = after;
        let is_web = before.ends_with("http://") || before.ends_with("https://");
        if let Some(login) = login(after).filter(|_| is_web) {
            shown.extend(std::iter::repeat_n('*', stars(login)));
            rest = &after[login.len()..];
        }
    }
    shown.push_str(rest);
    shown
}

/// The logins of URLs, of any scheme: what stands between `://` and `@`.
pub fn logins(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("://").filter_map(|(at, mark)| login(&text[at + mark.len()..]))
}

/// The login at the beginning of what follows `://`. In a password `/`, `?` and `#` should be escaped, and `@` too; where they
/// are not, all up to an `@` after which a host can begin is taken for it: rather too much is masked than too little.
fn login(after: &str) -> Option<&str> {
    let end = after.find(|c: char| c.is_whitespace() || "\"'\\".contains(c)).unwrap_or(after.len());
    let url = &after[..end];
    let mut host = 0;
    loop {
        let rest = &url[host..];
        let authority = rest.find(['/', '?', '#']).map_or(rest, |end| &rest[..end]);
        let at = match authority.rfind('@') {
            Some(at) => at,
            None if may_be_host(authority, host > 0) => break,
            None => match rest.rfind('@') {
                Some(at) => at,
                None => break,
            },
        };
        host += at + 1;
    }
    (host > 0).then(|| &url[..host - 1])
}

/// Whether this is a host, maybe with a port, rather than the beginning of a login. Behind another `@`, or before something that
/// looks like a port, only a name with a dot, an address or `localhost` surely is one.
fn may_be_host(authority: &str, is_behind_login: bool) -> bool {
    let (name, port) = match authority.rsplit_once(':') {
        Some((name, port)) if !authority.ends_with(']') => (name, Some(port)),
        _ => (authority, None),
    };
    let is_sure = name == "localhost" || name.contains('.') || (name.starts_with('[') && name.ends_with(']'));
    match port {
        Some(port) => is_sure && port.bytes().all(|b| b.is_ascii_digit()),
        None => is_sure || !is_behind_login,
    }
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
            ("http://localhost:4873/@a/b http://h.dev:1/@a http://[::1]:1/@a http://[::1]/@a", ""),
            ("\"http://h\" a@b", "\"http://h\" a@b"),
            ("https://u:p@h.dev/@a/b?c#d", "https://****@h.dev/@a/b?c#d"),
            ("https:// @a https://", ""),
        ] {
            assert_eq!(without_credentials(text), if shown.is_empty() { text } else { shown });
        }
    }

    #[test]
    fn passwords_with_signs_that_should_be_escaped_are_masked_whole() {
        for password in
            ["a/b", "a?b", "a#b", "a@b", "a@b/c@d", "1/2", "80/2", "/", "@", "a:b/c", "a/b.c/d", "?#/@:", "//x@y/"]
        {
            for rest in ["h.dev/x", "h/x", "h", "h.dev:443/x?y#z", "localhost:1", "[::1]:2/x"] {
                let shown = without_credentials(&format!("ADD https://u:{password}@{rest} /z"));
                assert_eq!(shown, format!("ADD https://****@{rest} /z"), "{password}");
            }
        }
        assert_eq!(logins("socks5://u:a/b@h.dev, http://h, x://t@h").collect::<Vec<_>>(), ["u:a/b", "t"]);
    }

    #[test]
    fn any_text_is_taken() {
        for text in ["://", "://@", "http://@", "http://@@/", "http://:@", "http://\u{e4}@\u{e4}", "http://u:p@"] {
            let shown = without_credentials(text);
            assert!(!shown.contains("u:p"), "{shown}");
        }
    }
}
