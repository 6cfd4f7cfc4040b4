//! What an op wants of a repository, and what of that is in its key.

use kiln_graph::llb::SourceOp;
use kiln_report::{Failure, FailureKind};

use super::Commit;
use super::remote::Remote;
use crate::job::Result;

/// A repository and what is wanted of it.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) remote: Remote,
    /// Branch, tag, commit or the beginning of one; empty for the default branch.
    pub(super) reference: String,
    /// Below the top, without leading slash; empty for all of it.
    pub(super) subdir: String,
    pub(super) keeps_git_dir: bool,
    /// The commit that must be met, or the beginning of its name.
    pub(super) checksum: Option<String>,
    pub(super) submodules: Submodules,
    pub(super) times: Times,
    /// Whether the reference is only a name for the checksum.
    by_commit: bool,
    /// Names of the secrets with a token and with a whole header.
    pub(super) token_secret: Option<String>,
    pub(super) header_secret: Option<String>,
    /// The id of the agent for ssh.
    pub(super) agent: Option<String>,
    /// Lines of a `known_hosts`.
    pub(super) known_hosts: Option<String>,
}

/// Whether the repositories in the repository are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Submodules {
    All,
    None,
}

/// When files were last changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Times {
    /// When they were checked out.
    Checkout,
    /// When they were committed.
    Commit,
}

impl Wanted {
    /// Reads an op.
    pub(super) fn read(op: SourceOp) -> Result<Self> {
        let mut attrs = op.attrs;
        let place = op.identifier.strip_prefix("git://").unwrap_or(&op.identifier);
        let (place, fragment) = place.split_once('#').unwrap_or((place, ""));
        let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
        let is_true = |value: Option<String>| value.as_deref() == Some("true");
        let url = attrs.remove("git.fullurl").unwrap_or_else(|| format!("https://{place}"));
        let checksum = attrs.remove("git.checksum").filter(|text| !text.is_empty());
        let wanted = Self {
            remote: Remote::parse(&url)?,
            reference: reference.to_owned(),
            subdir: subdir.trim_matches('/').to_owned(),
            keeps_git_dir: is_true(attrs.remove("git.keepgitdir")),
            checksum: checksum.map(|text| text.to_ascii_lowercase()),
            submodules: if is_true(attrs.remove("git.skipsubmodules")) { Submodules::None } else { Submodules::All },
            times: match attrs.remove("git.mtime").as_deref() {
                Some("commit") => Times::Commit,
                _ => Times::Checkout,
            },
            by_commit: is_true(attrs.remove("git.fetchbycommit")),
            token_secret: attrs.remove("git.authtokensecret"),
            header_secret: attrs.remove("git.authheadersecret"),
            agent: attrs.remove("git.mountsshsock"),
            known_hosts: attrs.remove("git.knownsshhosts").filter(|text| !text.is_empty()),
        };
        wanted.check_reference()?;
        Ok(wanted)
    }

    /// What git would take for an option, or for a pattern, is no reference.
    fn check_reference(&self) -> Result<()> {
        let odd = |c: char| c.is_ascii_control() || " ~^:?*[\\".contains(c);
        let reference = &self.reference;
        if reference.starts_with('-') || reference.contains(odd) || reference.contains("..") || reference.contains("@{")
        {
            let message = format!("`{reference}` cannot be a branch, tag or commit of `{}`", self.remote.shown());
            return Err(Failure::new(FailureKind::Build, message));
        }
        Ok(())
    }

    /// The commit, when the op itself names all of it.
    pub(super) fn pinned(&self) -> Option<Commit> {
        if is_commit(&self.reference) {
            return Some(Commit { id: self.reference.to_ascii_lowercase(), peeled: None, name: None });
        }
        let id = self.checksum.clone().filter(|text| self.by_commit && is_commit(text))?;
        let name = match self.reference.as_str() {
            "" => None,
            full if full.starts_with("refs/") => Some(full.to_owned()),
            branch => Some(format!("refs/heads/{branch}")),
        };
        Some(Commit { id, peeled: None, name })
    }

    /// Whether the server may be asked for nothing but the commit.
    pub(super) fn is_by_commit(&self) -> bool {
        self.by_commit
    }

    /// Compares with what was asked for.
    pub(super) fn check(&self, commit: &Commit) -> Result<()> {
        let Some(checksum) = &self.checksum else { return Ok(()) };
        let ids = [Some(&commit.id), commit.peeled.as_ref()];
        if ids.into_iter().flatten().any(|id| id.starts_with(checksum.as_str())) {
            return Ok(());
        }
        let is = commit.peeled.as_ref().unwrap_or(&commit.id);
        let message = format!("{} is commit `{is}`, not `{checksum}`", self.shown());
        let hint = "give the commit you trust as the reference, or correct the checksum";
        Err(Failure::new(FailureKind::Build, message).hint(hint))
    }

    /// What makes the result. Where it comes from is part of it only when it can be read in its `.git/config`.
    pub(super) fn key(&self, commit: &Commit) -> Vec<String> {
        let mut key = match (self.has_git_dir(), &commit.peeled) {
            (false, Some(peeled)) => vec![peeled.clone()],
            _ => vec![commit.id.clone()],
        };
        key.push(self.subdir.clone());
        if self.has_git_dir() {
            key.extend(["git directory".to_owned(), self.remote.url().to_owned()]);
            key.push(commit.name.clone().unwrap_or_default());
        }
        if self.submodules == Submodules::None {
            key.push("no submodules".to_owned());
        }
        if self.times == Times::Commit {
            key.push("times of the commit".to_owned());
        }
        key
    }

    /// A directory of a repository has no `.git` of its own.
    pub(super) fn has_git_dir(&self) -> bool {
        self.keeps_git_dir && self.subdir.is_empty()
    }

    /// The reference and where it is.
    pub(super) fn place(&self) -> String {
        format!("{}#{}", self.remote.url(), self.reference)
    }

    /// For people.
    pub(super) fn shown(&self) -> String {
        match self.reference.as_str() {
            "" => format!("`{}`", self.remote.shown()),
            reference => format!("`{reference}` of `{}`", self.remote.shown()),
        }
    }
}

/// Whether this is a whole commit, of either kind of hash.
pub(super) fn is_commit(text: &str) -> bool {
    [40, 64].contains(&text.len()) && is_hex(text)
}

/// Whether this can be a commit, or the beginning of one.
pub(super) fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(identifier: &str, attrs: &[(&str, &str)]) -> Result<Wanted> {
        let attrs = attrs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Wanted::read(SourceOp { identifier: identifier.to_owned(), attrs })
    }

    fn commit(id: &str, peeled: Option<&str>, name: Option<&str>) -> Commit {
        Commit { id: id.into(), peeled: peeled.map(Into::into), name: name.map(Into::into) }
    }

    #[test]
    fn what_makes_the_tree_is_in_the_key_and_how_it_is_reached_is_not() {
        let found = commit("t", Some("c"), Some("refs/tags/v1"));
        let key = |identifier: &str, attrs: &[(&str, &str)]| wanted(identifier, attrs).unwrap().key(&found);
        let plain = key("git://h/a.git#v1", &[]);
        assert_eq!(plain[0], "c");
        assert_eq!(plain, key("git://other/b.git#main", &[("git.authtokensecret", "T"), ("git.checksum", "c")]));
        let (kept, there) = (("git.keepgitdir", "true"), ("git.fullurl", "https://there/a.git"));
        let keys = [
            plain,
            key("git://h/a.git#v1:sub", &[]),
            key("git://h/a.git#v1", &[kept]),
            key("git://h/a.git#v1", &[kept, there]),
            key("git://h/a.git#v1", &[("git.skipsubmodules", "true")]),
            key("git://h/a.git#v1", &[("git.mtime", "commit")]),
        ];
        let different: std::collections::BTreeSet<_> = keys.iter().collect();
        assert_eq!(different.len(), keys.len());
        assert_eq!(keys[1], key("git://h/a.git#v1:sub", &[kept]), "a directory has no git directory to keep");
        assert_eq!(keys[2][0], "t", "a tag can be read in the git directory");
    }

    #[test]
    fn whole_commits_are_pinned_and_nothing_else_is() {
        let whole = "0123456789abcdef0123456789abcdef01234567";
        let pinned = |identifier: &str, attrs: &[(&str, &str)]| wanted(identifier, attrs).unwrap().pinned();
        assert_eq!(pinned(&format!("git://h/a#{whole}"), &[]), Some(commit(whole, None, None)));
        assert_eq!(pinned("git://h/a#0123456", &[]), None);
        assert_eq!(pinned("git://h/a#v1", &[("git.checksum", whole)]), None);
        let by_commit = [("git.checksum", whole), ("git.fetchbycommit", "true")];
        assert_eq!(pinned("git://h/a#v1", &by_commit), Some(commit(whole, None, Some("refs/heads/v1"))));
    }

    #[test]
    fn a_checksum_may_be_met_by_the_tag_or_its_commit() {
        let meets = |checksum: &str| {
            let wanted = wanted("git://h/a#v1", &[("git.checksum", checksum)]).unwrap();
            wanted.check(&commit("aa11", Some("bb22"), None)).is_ok()
        };
        assert!(meets("aa") && meets("BB2") && meets("bb22"));
        assert!(!meets("11") && !meets("bb223"));
    }

    #[test]
    fn a_reference_is_never_an_option_or_a_pattern() {
        for bad in ["-x", "--upload-pack=x", "a b", "a..b", "refs/heads/*", "a^", "@{u}"] {
            assert!(wanted(&format!("git://h/a#{bad}"), &[]).is_err(), "{bad}");
        }
        for good in ["main", "v1.2.3", "feature/x-y", "refs/pull/1/head", "a@b"] {
            assert!(wanted(&format!("git://h/a#{good}"), &[]).is_ok(), "{good}");
        }
    }
}
