//! Git repositories as sources: what a URL says about the wanted commit, directory and way of checking out.

use std::collections::BTreeMap;
use std::ops::Range;

use super::urls::{percent_decoded, query_decoded};
use crate::instruction::parse_bool;
use crate::path;
use crate::suggest;

/// A repository, and what is wanted of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Repository {
    /// What git is told to fetch from.
    remote: String,
    /// Host and path: the same over any protocol.
    place: String,
    is_ssh: bool,
    /// Branch, tag or commit.
    reference: String,
    subdirectory: String,
    pub(super) keep_git_dir: Option<bool>,
    pub(super) checksum: Option<String>,
    submodules: Option<bool>,
    mtime: Option<String>,
    fetch_by_commit: bool,
}

/// Says what is wrong with a repository's URL, and which bytes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) message: String,
    pub(super) hint: String,
    pub(super) at: Range<usize>,
}

const OPTIONS: [&str; 10] =
    ["ref", "tag", "branch", "subdir", "checksum", "commit", "keep-git-dir", "submodules", "mtime", "fetch-by-commit"];

/// Whether a source is a repository: `git://`, `ssh://`, `user@host:path`, or a web URL whose path ends in `.git`.
pub(super) fn is_git(source: &str) -> bool {
    Parts::of(source).is_some()
}

impl Repository {
    /// Reads a URL that [`is_git`].
    pub(super) fn read(source: &str) -> Result<Self, Wrong> {
        let parts = Parts::of(source).unwrap_or_default();
        let (reference, subdirectory) = parts.fragment.split_once(':').unwrap_or((&parts.fragment, ""));
        let mut repository = Self {
            remote: parts.remote.to_owned(),
            place: parts.place,
            is_ssh: parts.is_ssh,
            reference: reference.to_owned(),
            subdirectory: relative(subdirectory),
            ..Self::default()
        };
        let mut at = parts.remote.len() + 1;
        let mut seen: Vec<String> = Vec::new();
        let (mut tag, mut branch) = (None, None);
        for field in parts.query.split('&') {
            let range = at..at + field.len();
            at = range.end + 1;
            let (key, value) = field.split_once('=').unwrap_or((field, ""));
            let (key, value) = (query_decoded(key), query_decoded(value));
            if key.is_empty() && value.is_empty() {
                continue;
            }
            if seen.contains(&key) {
                return Err(wrong(&range, format!("`{key}` is given twice"), "leave one of them out"));
            }
            match key.as_str() {
                "tag" => tag = Some((full_name("refs/tags/", &key, &value, &range)?, range)),
                "branch" => branch = Some((full_name("refs/heads/", &key, &value, &range)?, range)),
                _ => repository.set(&key, &value, &range)?,
            }
            seen.push(key);
        }
        if let (Some(_), Some((_, range))) = (&tag, &branch) {
            return Err(wrong(range, "`branch` and `tag` exclude each other".into(), "keep one of them"));
        }
        for (name, range) in [tag, branch].into_iter().flatten() {
            agree(&mut repository.reference, name, "ref", &range)?;
        }
        Ok(repository)
    }

    fn set(&mut self, key: &str, value: &str, range: &Range<usize>) -> Result<(), Wrong> {
        let switch = || match value {
            "" => Ok(true),
            _ => parse_bool(value).ok_or_else(|| {
                wrong(range, format!("`{key}` is `true` or `false`, not `{value}`"), "write `true` or `false`")
            }),
        };
        match key {
            "keep-git-dir" => self.keep_git_dir = Some(switch()?),
            "submodules" => self.submodules = Some(switch()?),
            "fetch-by-commit" => self.fetch_by_commit = switch()?,
            key if !OPTIONS.contains(&key) => {
                let hint = match suggest::nearest(key, OPTIONS) {
                    Some(nearest) => format!("did you mean `{nearest}`?"),
                    None => format!("the options are `{}`", OPTIONS.join("`, `")),
                };
                return Err(wrong(range, format!("the URL of a repository has no option `{key}`"), &hint));
            }
            key if value.is_empty() => return Err(no_value(key, range)),
            "ref" => agree(&mut self.reference, value.to_owned(), key, range)?,
            "subdir" => agree(&mut self.subdirectory, relative(value), key, range)?,
            "mtime" if value == "checkout" || value == "commit" => self.mtime = Some(value.to_owned()),
            "mtime" => {
                let message = format!("`mtime` is `checkout` or `commit`, not `{value}`");
                return Err(wrong(range, message, "files get the time of the commit with `mtime=commit`"));
            }
            // `checksum` and `commit` are two names for one thing.
            _ => {
                let commit = self.checksum.get_or_insert_with(String::new);
                agree(commit, value.to_owned(), "checksum", range)?;
            }
        }
        Ok(())
    }

    /// What is wrong with the commit that is asked for, if anything; for when all flags have been heard.
    pub(super) fn complaint(&self) -> Option<(String, &'static str)> {
        let is_commit = |text: &str| [40, 64].contains(&text.len()) && is_hex(text);
        let named = is_commit(&self.reference).then_some(self.reference.as_str());
        match (&self.checksum, named) {
            (Some(checksum), _) if !is_hex(checksum) => Some((
                format!("`{checksum}` is no commit"),
                "give the commit in hexadecimal digits, or the first of them",
            )),
            (Some(checksum), Some(named)) if !named.starts_with(checksum.as_str()) => {
                Some((format!("`{named}` is not the commit `{checksum}`"), "leave one of them out"))
            }
            (checksum, named) if self.fetch_by_commit && named.is_none() => match checksum {
                Some(checksum) if is_commit(checksum) => None,
                _ => Some(("`fetch-by-commit` needs a whole commit".into(), "add `checksum=` and all of its digits")),
            },
            _ => None,
        }
    }

    /// The source op's identifier.
    pub(super) fn identifier(&self) -> String {
        let mut identifier = format!("git://{}", self.place);
        if !self.reference.is_empty() || !self.subdirectory.is_empty() {
            identifier.push_str(&format!("#{}", self.reference));
        }
        if !self.subdirectory.is_empty() {
            identifier.push_str(&format!(":{}", self.subdirectory));
        }
        identifier
    }

    /// The source op's attributes.
    pub(super) fn attrs(&self) -> BTreeMap<String, String> {
        let truth = |is_true: bool| is_true.then_some("true");
        let attrs = [
            ("git.fullurl", Some(self.remote.as_str())),
            ("git.authtokensecret", Some("GIT_AUTH_TOKEN")),
            ("git.authheadersecret", Some("GIT_AUTH_HEADER")),
            ("git.mountsshsock", self.is_ssh.then_some("default")),
            ("git.keepgitdir", truth(self.keep_git_dir == Some(true))),
            ("git.checksum", self.checksum.as_deref()),
            ("git.skipsubmodules", truth(self.submodules == Some(false))),
            ("git.mtime", self.mtime.as_deref()),
            ("git.fetchbycommit", truth(self.fetch_by_commit)),
        ];
        attrs.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))).collect()
    }
}

/// Sets what may be said in two places, if they say the same.
fn agree(slot: &mut String, value: String, key: &str, range: &Range<usize>) -> Result<(), Wrong> {
    if !slot.is_empty() && *slot != value {
        let message = format!("`{key}` is both `{slot}` and `{value}`");
        return Err(wrong(range, message, "say it once, in the query or after `#`"));
    }
    *slot = value;
    Ok(())
}

fn full_name(prefix: &str, key: &str, value: &str, range: &Range<usize>) -> Result<String, Wrong> {
    match value {
        "" => Err(no_value(key, range)),
        _ if value.starts_with(prefix) => Ok(value.to_owned()),
        _ => Ok(format!("{prefix}{value}")),
    }
}

fn no_value(key: &str, range: &Range<usize>) -> Wrong {
    wrong(range, format!("`{key}` has no value"), &format!("write `{key}=…`"))
}

fn wrong(at: &Range<usize>, message: String, hint: &str) -> Wrong {
    Wrong { message, hint: hint.to_owned(), at: at.clone() }
}

fn relative(directory: &str) -> String {
    path::absolute("/", directory).trim_start_matches('/').to_owned()
}

fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// A repository's URL, taken apart.
#[derive(Debug, Default)]
struct Parts<'s> {
    /// Without query and fragment.
    remote: &'s str,
    place: String,
    is_ssh: bool,
    query: &'s str,
    fragment: String,
}

impl<'s> Parts<'s> {
    fn of(source: &'s str) -> Option<Self> {
        let scheme = source.split_once("://").filter(|(scheme, _)| scheme.bytes().all(|b| b.is_ascii_alphanumeric()));
        let Some((scheme, rest)) = scheme else { return Self::of_scp(source) };
        let (is_web, is_ssh) = match scheme.to_ascii_lowercase().as_str() {
            "http" | "https" => (true, false),
            "ssh" => (false, true),
            "git" => (false, false),
            _ => return None,
        };
        let (address, query, fragment) = split(rest);
        let (host, path) = address.find('/').map_or((address, ""), |at| address.split_at(at));
        if is_web && !path.ends_with(".git") {
            return None;
        }
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        Some(Self {
            remote: &source[..scheme.len() + 3 + address.len()],
            place: format!("{host}{}", path::absolute("/", &percent_decoded(path))),
            is_ssh,
            query,
            fragment: percent_decoded(fragment),
        })
    }

    /// `user@host:path`.
    fn of_scp(source: &'s str) -> Option<Self> {
        let word = |text: &str, more: &str| {
            !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
        };
        let (user, rest) = source.split_once('@')?;
        let (host, rest) = rest.split_once(':')?;
        if !word(user, "-_") || !word(host, "-.") {
            return None;
        }
        let (path, query, fragment) = split(rest);
        Some(Self {
            remote: &source[..user.len() + host.len() + 2 + path.len()],
            place: format!("{host}{}", path::absolute("/", path)),
            is_ssh: true,
            query,
            fragment: fragment.to_owned(),
        })
    }
}

/// Address, query and fragment.
fn split(rest: &str) -> (&str, &str, &str) {
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
    (address, query, fragment)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(source: &str) -> Result<(String, BTreeMap<String, String>), String> {
        assert!(is_git(source), "{source}");
        let repository =
            Repository::read(source).map_err(|wrong| format!("{} @{}", wrong.message, &source[wrong.at]))?;
        if let Some((message, _)) = repository.complaint() {
            return Err(message);
        }
        let mut attrs = repository.attrs();
        assert_eq!(attrs.remove("git.authtokensecret").as_deref(), Some("GIT_AUTH_TOKEN"));
        assert_eq!(attrs.remove("git.authheadersecret").as_deref(), Some("GIT_AUTH_HEADER"));
        Ok((repository.identifier(), attrs))
    }

    #[test]
    fn repositories_are_told_from_files_and_paths() {
        for (source, git) in [
            ("https://example.com/a.git", true),
            ("https://example.com/a.git#main:sub", true),
            ("http://example.com/a.git?ref=x", true),
            ("https://example.com/a.git/", false),
            ("https://example.com/a.tar", false),
            ("https://example.com/a?x=.git", false),
            ("https://example.com/a.git:#branch", false),
            ("git://x/y", true),
            ("SSH://x/y", true),
            ("git@example.com:a/b", true),
            ("a@b", false),
            ("./a@b:c/d", false),
            ("ftp://x/y.git", false),
            ("github.com/a/b.git", false),
            ("src/app.git", false),
            (".git", false),
        ] {
            assert_eq!(is_git(source), git, "{source}");
        }
    }

    #[test]
    fn one_repository_has_one_identifier_over_any_protocol() {
        for source in [
            "https://example.com/a/b.git",
            "http://user:word@example.com/a/b.git",
            "git://example.com/a/b.git",
            "ssh://git@example.com/a/b.git",
            "git@example.com:a/b.git",
            "git@example.com:/a/b.git",
        ] {
            let (identifier, attrs) = read(source).unwrap();
            assert_eq!(identifier, "git://example.com/a/b.git", "{source}");
            assert_eq!(attrs["git.fullurl"], source);
            let is_ssh = source.starts_with("ssh") || source.starts_with("git@");
            assert_eq!(attrs.contains_key("git.mountsshsock"), is_ssh, "{source}");
        }
    }

    #[test]
    fn fragment_and_query_say_the_same_things() {
        for (source, identifier) in [
            ("https://x/a.git#v1", "git://x/a.git#v1"),
            ("https://x/a.git?ref=v1", "git://x/a.git#v1"),
            ("https://x/a.git#v1:sub/dir", "git://x/a.git#v1:sub/dir"),
            ("https://x/a.git?ref=v1&subdir=/sub/dir", "git://x/a.git#v1:sub/dir"),
            ("https://x/a.git?subdir=sub/dir#v1", "git://x/a.git#v1:sub/dir"),
            ("https://x/a.git?ref=v1#v1", "git://x/a.git#v1"),
            ("https://x/a.git#:sub", "git://x/a.git#:sub"),
            ("https://x/a.git#:../..", "git://x/a.git"),
            ("https://x/a.git?tag=v1", "git://x/a.git#refs/tags/v1"),
            ("https://x/a.git?tag=refs/tags/v1", "git://x/a.git#refs/tags/v1"),
            ("https://x/a.git?branch=v1", "git://x/a.git#refs/heads/v1"),
            ("https://x/a.git?ref=a%2Fb%20c+d", "git://x/a.git#a/b c d"),
            ("git@x:a.git?subdir=sub#v1", "git://x/a.git#v1:sub"),
            ("https://x:8080/a.git#v1", "git://x:8080/a.git#v1"),
        ] {
            assert_eq!(read(source).unwrap().0, identifier, "{source}");
        }
    }

    #[test]
    fn options_of_the_query_become_attributes() {
        let whole = "a".repeat(40);
        for (query, name, value) in [
            ("checksum=abc123", "git.checksum", "abc123"),
            ("commit=ABC", "git.checksum", "ABC"),
            ("keep-git-dir", "git.keepgitdir", "true"),
            ("keep-git-dir=1", "git.keepgitdir", "true"),
            ("submodules=false", "git.skipsubmodules", "true"),
            ("mtime=commit", "git.mtime", "commit"),
            (&format!("fetch-by-commit&commit={whole}"), "git.fetchbycommit", "true"),
            (&format!("ref={whole}&fetch-by-commit=true"), "git.fetchbycommit", "true"),
        ] {
            let (_, attrs) = read(&format!("https://x/a.git?{query}")).unwrap();
            assert_eq!(attrs.get(name).map(String::as_str), Some(value), "{query}");
        }
        for query in ["keep-git-dir=false", "submodules", "fetch-by-commit=0", "&"] {
            let (_, attrs) = read(&format!("https://x/a.git?{query}")).unwrap();
            assert_eq!(attrs.len(), 1, "{query}: {attrs:?}");
        }
    }

    #[test]
    fn conflicts_and_slips_in_the_query_are_told_at_their_place() {
        for (source, wanted) in [
            ("https://x/a.git?ref=v1#v2", "`ref` is both `v2` and `v1` @ref=v1"),
            ("https://x/a.git?subdir=a#:b", "`subdir` is both `b` and `a` @subdir=a"),
            ("https://x/a.git?ref=v1&tag=v1", "`ref` is both `v1` and `refs/tags/v1` @tag=v1"),
            ("https://x/a.git?tag=a&branch=b", "`branch` and `tag` exclude each other @branch=b"),
            ("https://x/a.git?checksum=a&commit=b", "`checksum` is both `a` and `b` @commit=b"),
            ("https://x/a.git?ref=a&ref=a", "`ref` is given twice @ref=a"),
            ("https://x/a.git?ref", "`ref` has no value @ref"),
            ("https://x/a.git?tag=", "`tag` has no value @tag="),
            ("https://x/a.git?submodules=no", "`submodules` is `true` or `false`, not `no` @submodules=no"),
            ("https://x/a.git?mtime=now", "`mtime` is `checkout` or `commit`, not `now` @mtime=now"),
            ("git@x:a?sub=b#c", "the URL of a repository has no option `sub` @sub=b"),
            ("https://x/a.git?checksum=main", "`main` is no commit"),
            ("https://x/a.git?fetch-by-commit&commit=abc", "`fetch-by-commit` needs a whole commit"),
            ("https://x/a.git?fetch-by-commit#main", "`fetch-by-commit` needs a whole commit"),
        ] {
            assert_eq!(read(source).unwrap_err(), wanted, "{source}");
        }
        let other = format!("https://x/a.git?commit=b#{}", "a".repeat(40));
        assert_eq!(read(&other).unwrap_err(), format!("`{}` is not the commit `b`", "a".repeat(40)));
    }
}
