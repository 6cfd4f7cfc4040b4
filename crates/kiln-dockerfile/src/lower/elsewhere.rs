//! Build contexts that are not on this machine: repositories and downloads.

use kiln_graph::llb::SourceOp;

use super::git::{Repository, is_git};
use super::urls::is_http;

/// The name a downloaded context has in what its source op gives.
pub const DOWNLOADED: &str = "context";

const GITHUB: &str = "github.com/";

/// Why a URL cannot be a build context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadContext {
    /// What is wrong with it.
    pub message: String,
    /// The way out.
    pub hint: String,
}

/// Whether a build context is a URL to docker: a web URL, a repository, or `github.com/…`.
pub fn is_remote_context(text: &str) -> bool {
    is_http(text) || is_git(text) || text.starts_with(GITHUB)
}

/// The source op that fetches a context for which [`is_remote_context`] holds: a repository, checked out, or a file with the
/// name [`DOWNLOADED`].
pub fn remote_context(url: &str, keep_git_dir: bool) -> Result<SourceOp, BadContext> {
    let url = url.strip_prefix(GITHUB).map_or_else(|| url.to_owned(), of_github);
    if !is_git(&url) {
        let attrs = [("http.filename".to_owned(), DOWNLOADED.to_owned())];
        return Ok(SourceOp { identifier: url, attrs: attrs.into() });
    }
    let bad = |message: String, hint: &str| BadContext { message, hint: hint.to_owned() };
    let mut repository = Repository::read(&url).map_err(|wrong| bad(wrong.message, &wrong.hint))?;
    repository.keep_git_dir = repository.keep_git_dir.or(keep_git_dir.then_some(true));
    match repository.complaint() {
        Some((message, hint)) => Err(bad(message, hint)),
        None => Ok(SourceOp { identifier: repository.identifier(), attrs: repository.attrs() }),
    }
}

fn of_github(rest: &str) -> String {
    let (path, more) = rest.find(['#', '?']).map_or((rest, ""), |at| rest.split_at(at));
    let path = path.trim_end_matches('/');
    format!("https://{GITHUB}{}.git{more}", path.strip_suffix(".git").unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_fetched_is_told_from_paths() {
        for (text, is_remote) in [
            ("https://example.com/app.git#main:dir", true),
            ("http://example.com/app.tar.gz", true),
            ("git@example.com:app", true),
            ("ssh://git@example.com/app", true),
            ("git://example.com/app", true),
            ("github.com/owner/app", true),
            (".", false),
            ("./github.com/owner/app", false),
            ("app.git", false),
        ] {
            assert_eq!(is_remote_context(text), is_remote, "{text}");
        }
    }

    #[test]
    fn urls_become_ops() {
        let op = |url: &str| remote_context(url, false).unwrap();
        for (url, identifier) in [
            ("https://example.com/app.git#v1:dir", "git://example.com/app.git#v1:dir"),
            ("github.com/owner/app#v1", "git://github.com/owner/app.git#v1"),
            ("github.com/owner/app.git", "git://github.com/owner/app.git"),
            ("https://example.com/app.tar", "https://example.com/app.tar"),
        ] {
            assert_eq!(op(url).identifier, identifier, "{url}");
        }
        assert_eq!(op("https://example.com/app.tar").attrs["http.filename"], "context");
        assert!(!op("git@h:app").attrs.contains_key("git.keepgitdir"));
        assert_eq!(remote_context("git@h:app", true).unwrap().attrs["git.keepgitdir"], "true");
        let wrong = remote_context("https://example.com/app.git?rf=v1", false).unwrap_err();
        assert!(wrong.message.contains("no option `rf`") && wrong.hint.contains("`ref`"), "{wrong:?}");
    }
}
