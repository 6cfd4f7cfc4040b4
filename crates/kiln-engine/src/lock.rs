//! Locks: what the names in a Dockerfile stood for once, in a file, so that later builds need not ask.

mod file;
mod make;
mod wants;

use std::path::PathBuf;

use kiln_oci::{Digest, Reference};
use kiln_report::{Failure, FailureKind};

use crate::failure::{CHECK_NAME, DO_NOT_TRUST};

pub(crate) use file::Home;
use file::Section;
pub(crate) use make::lock;
pub(crate) use wants::{Kind, must_be_pinned, require, require_fetches};

/// What is to be done with a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockMode {
    /// Add what is missing and take out what is not wanted any more.
    Fill,
    /// Ask again about these names, or about all when there are none.
    Update(Vec<String>),
    /// Fail when something is missing; nobody is asked and nothing is written.
    Check,
}

/// What became of a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockAnswer {
    /// The file.
    pub path: PathBuf,
    /// How many names it holds for the Dockerfile.
    pub entries: usize,
    /// What is different now, by name.
    pub changes: Vec<LockChange>,
}

/// A name that stands for something else now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockChange {
    /// The name.
    pub name: String,
    /// What it stood for; none if it is new.
    pub old: Option<String>,
    /// What it stands for; none if it is gone.
    pub new: Option<String>,
}

/// What is gone, or another than it was, may be so for the lock only.
pub(crate) fn blame(failure: Failure) -> Failure {
    let is_of_sources = |hint: &String| [CHECK_NAME, DO_NOT_TRUST].contains(&hint.as_str());
    match failure.hints.iter().any(is_of_sources) {
        true => {
            failure.hint("`--locked` takes what `kiln.lock` says: if another is meant now, run `kiln lock --update`")
        }
        false => failure,
    }
}

/// What a build holds its sources to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pins {
    section: Section,
    /// The file, when what is not in it must not be asked for.
    strict: Option<PathBuf>,
}

impl Pins {
    /// Holds to these, and asks about all others.
    pub(crate) fn some(section: Section) -> Self {
        Self { section, strict: None }
    }

    /// Holds to these, and refuses all others.
    pub(crate) fn all(section: Section, path: PathBuf) -> Self {
        Self { section, strict: Some(path) }
    }

    /// What an image's name stands for. A name with a digest stands for itself.
    pub(crate) fn image(&self, reference: &Reference) -> Result<Option<Digest>, Failure> {
        if reference.digest.is_some() {
            return Ok(None);
        }
        let name = reference.familiar();
        let found = self.find(Kind::Image, &name)?;
        found.map(|text| text.parse().map_err(|_| self.unreadable(&name))).transpose()
    }

    /// What is behind a URL.
    pub(crate) fn download(&self, name: &str) -> Result<Option<Digest>, Failure> {
        let found = self.find(Kind::Download, name)?;
        found.map(|text| text.parse().map_err(|_| self.unreadable(name))).transpose()
    }

    /// What a reference of a repository stands for.
    pub(crate) fn repository(&self, name: &str) -> Result<Option<&str>, Failure> {
        self.find(Kind::Repository, name)
    }

    fn find(&self, kind: Kind, name: &str) -> Result<Option<&str>, Failure> {
        match (self.section.get(kind, name), &self.strict) {
            (None, Some(_)) => Err(self.missing(kind, name)),
            (found, _) => Ok(found),
        }
    }

    /// The failure that says that a name is not locked.
    fn missing(&self, kind: Kind, name: &str) -> Failure {
        let path = self.strict.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
        Failure::new(FailureKind::Build, format!("{kind} `{name}` is not in `{path}`"))
            .hint("add it with `kiln lock`, or ask about all anew with `kiln lock --update`")
    }

    fn unreadable(&self, name: &str) -> Failure {
        Failure::new(FailureKind::Build, format!("what `{name}` is locked to cannot be read"))
            .hint("write it anew with `kiln lock --update`")
    }
}
