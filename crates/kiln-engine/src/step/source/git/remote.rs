//! Where a repository is: which protocols are spoken, and what of a URL must not be seen.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kiln_report::{Failure, FailureKind, without_credentials};

use crate::job::Result;

/// The protocols that are spoken; those of submodules too.
pub(super) const PROTOCOLS: &str = "http:https:ssh:git";

/// A repository's address, without credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remote {
    url: String,
    host: String,
    kind: Kind,
    /// Name and password of the URL, as a header's value.
    authorization: Option<String>,
}

/// How a repository is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Web,
    Ssh,
    Git,
}

impl Remote {
    /// Reads an address.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let remote = match text.split_once("://") {
            Some((scheme, rest)) => Self::of_url(scheme, rest),
            None => Self::of_scp(text),
        };
        let is_option = |part: &str| part.starts_with('-');
        let has_control = text.chars().any(char::is_control);
        remote.filter(|remote| !is_option(&remote.host) && !remote.host.is_empty() && !has_control).ok_or_else(|| {
            let shown = text.rsplit_once('@').map_or(text, |(_, rest)| rest);
            Failure::new(FailureKind::Build, format!("`{shown}` is no repository that can be fetched"))
                .hint("name it as `https://…`, `ssh://…`, `git://…` or `git@host:path`")
        })
    }

    fn of_url(scheme: &str, rest: &str) -> Option<Self> {
        let scheme = scheme.to_ascii_lowercase();
        let kind = match scheme.as_str() {
            "http" | "https" => Kind::Web,
            "ssh" => Kind::Ssh,
            "git" => Kind::Git,
            _ => return None,
        };
        let (address, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let (user, host) = match address.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, address),
        };
        let is_hidden = kind == Kind::Web;
        let authorization = user.filter(|user| is_hidden && !user.is_empty()).map(|user| basic(&percent_decoded(user)));
        let url = match user.filter(|_| !is_hidden) {
            Some(user) if user.starts_with('-') => return None,
            Some(user) => format!("{scheme}://{user}@{host}{path}"),
            None => format!("{scheme}://{host}{path}"),
        };
        Some(Self { url, host: host.to_owned(), kind, authorization })
    }

    /// `user@host:path`.
    fn of_scp(text: &str) -> Option<Self> {
        let (address, path) = text.split_once(':')?;
        let (user, host) = address.split_once('@')?;
        if user.starts_with('-') || path.starts_with('-') || host.contains('/') {
            return None;
        }
        Some(Self { url: text.to_owned(), host: host.to_owned(), kind: Kind::Ssh, authorization: None })
    }

    /// The address.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// The address for people.
    pub(super) fn shown(&self) -> String {
        without_credentials(&self.url)
    }

    /// Host and port.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// How it is reached.
    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// What the URL itself says about who asks.
    pub(super) fn authorization(&self) -> Option<&str> {
        self.authorization.as_deref()
    }

    /// The URLs that credentials are sent to: this one, and at GitHub all of them, for its submodules.
    pub(super) fn scope(&self) -> &str {
        let github = ["https://github.com/", "https://www.github.com/"];
        github.into_iter().find(|prefix| self.url.starts_with(prefix)).unwrap_or(&self.url)
    }
}

/// A name and password, `name:password`, as a header's value.
pub(super) fn basic(pair: &str) -> String {
    let pair = if pair.contains(':') { pair.to_owned() } else { format!("{pair}:") };
    format!("Basic {}", STANDARD.encode(pair))
}

fn percent_decoded(text: &str) -> String {
    let (bytes, mut out, mut at) = (text.as_bytes(), Vec::new(), 0);
    while at < bytes.len() {
        let hex = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        let byte = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        out.push(byte.unwrap_or(bytes[at]));
        at += if byte.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_protocols_are_spoken_and_nothing_is_an_option() {
        for bad in [
            "ext::sh -c true",
            "file:///etc",
            "/etc",
            "ssh://-oProxyCommand=x/y",
            "ssh://-oProxyCommand=x@h/y",
            "-x@h:y",
            "git@-oProxyCommand=x:y",
            "git@h:--upload-pack=x",
            "https://",
            "https://h/a\n",
            "ftp://h/a.git",
        ] {
            assert!(Remote::parse(bad).is_err(), "{bad}");
        }
        for (good, host, kind) in [
            ("https://h.example/a.git", "h.example", Kind::Web),
            ("http://h:8080/a.git", "h:8080", Kind::Web),
            ("ssh://git@h:22/a", "h:22", Kind::Ssh),
            ("git://h/a", "h", Kind::Git),
            ("git@h:a/b.git", "h", Kind::Ssh),
        ] {
            let remote = Remote::parse(good).unwrap();
            assert_eq!((remote.url(), remote.host(), remote.kind()), (good, host, kind));
        }
    }

    #[test]
    fn credentials_leave_the_url() {
        let remote = Remote::parse("HTTPS://us%40er:p%3Aw@h/a.git").unwrap();
        assert_eq!(remote.url(), "https://h/a.git");
        assert_eq!(remote.authorization(), Some("Basic dXNAZXI6cDp3"));
    }

    #[test]
    fn credentials_are_for_one_repository_but_at_github() {
        let scope = |url: &str| Remote::parse(url).unwrap().scope().to_owned();
        assert_eq!(scope("https://h/a.git"), "https://h/a.git");
        assert_eq!(scope("https://github.com/a/b.git"), "https://github.com/");
        assert_eq!(scope("https://github.com.evil/a/b.git"), "https://github.com.evil/a/b.git");
    }
}
