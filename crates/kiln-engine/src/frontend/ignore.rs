//! Ignore files: which one counts for a context, and its rules compiled.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_dockerfile::check::IgnoreRule;
use kiln_dockerfile::{IgnorePattern, parse_ignore};
use kiln_fs::pattern::{PatternErrorKind, PatternSet};
use kiln_report::{Diagnostic, Excerpt, Failure, FailureKind, SourceFile};
use kiln_sys::root::Root;

use super::context::read_text;
use crate::failure::Context as _;
use crate::request::{BuildRequest, DockerfileSource};

/// The names of a context's ignore file, and the ends of a Dockerfile's own, the first that is there counts.
const NAMES: [&str; 2] = [".containerignore", ".dockerignore"];

/// An ignore file, read.
#[derive(Debug, Clone)]
pub(crate) struct IgnoreFile {
    source: Arc<SourceFile>,
    rules: Vec<IgnorePattern>,
}

impl IgnoreFile {
    fn new(name: impl Into<String>, text: String) -> Self {
        let source = SourceFile::new(name, text);
        Self { rules: parse_ignore(source.text()), source: Arc::new(source) }
    }

    /// The ignore file of a build: the one it names, else the Dockerfile's own, else the context's. Only one counts.
    pub(crate) fn of_build(
        request: &BuildRequest,
        dockerfile: &DockerfileSource,
        root: &Root,
    ) -> Result<Option<Self>, Failure> {
        if let Some(path) = &request.ignorefile {
            return read_outside(path)?.map(Some).ok_or_else(|| {
                let failure = Failure::new(FailureKind::Usage, format!("there is no file `{}`", path.display()));
                failure.hint("check the path after `--ignorefile`: it is relative to the current directory")
            });
        }
        match own(dockerfile, root)? {
            Some(own) => Ok(Some(own)),
            None => Self::of_context(root, ""),
        }
    }

    /// The ignore file of a context alone. `prefix` goes before its name when people are told of it.
    pub(crate) fn of_context(root: &Root, prefix: &str) -> Result<Option<Self>, Failure> {
        for name in NAMES {
            if let Some(text) = read_text(root, name)? {
                return Ok(Some(Self::new(format!("{prefix}{name}"), text)));
            }
        }
        Ok(None)
    }

    /// Its patterns; `None` when there is none. All that cannot be used are named at once.
    pub(crate) fn compile(&self) -> Result<Option<PatternSet>, Failure> {
        let texts: Vec<&str> = self.rules.iter().map(|rule| rule.pattern.as_str()).collect();
        match PatternSet::new(&texts) {
            Ok(set) => Ok(Some(set).filter(|set| !set.is_empty())),
            Err(_) => Err(self.malformed()),
        }
    }

    fn malformed(&self) -> Failure {
        let wrong = self.rules.iter().filter_map(|rule| {
            let error = PatternSet::new(&[&rule.pattern]).err()?;
            let message = format!("`{}` is no pattern: {}", rule.pattern, error.kind);
            let hint = match error.kind {
                PatternErrorKind::Syntax => "write `\\` before a character that is meant as itself",
                PatternErrorKind::EmptyException => "write behind the `!` what it takes back, or remove it",
            };
            let excerpt = Excerpt { file: Arc::clone(&self.source), span: rule.span };
            Some((Diagnostic::error(rule.span, message).hint(hint), excerpt))
        });
        let message = format!("cannot use the ignore rules of `{}`", self.source.name());
        Failure { diagnostics: wrong.collect(), ..Failure::new(FailureKind::Build, message) }
    }

    /// The rule of this index, and where it stands.
    pub(crate) fn rule(&self, index: usize) -> Option<IgnoreRule> {
        let rule = self.rules.get(index)?;
        Some(IgnoreRule { pattern: rule.pattern.clone(), place: format!("{}:{}", self.source.name(), rule.line) })
    }
}

/// The ignore file that stands beside a Dockerfile; of several Dockerfiles, beside the first.
fn own(dockerfile: &DockerfileSource, root: &Root) -> Result<Option<IgnoreFile>, Failure> {
    match dockerfile {
        DockerfileSource::Path(path) => own_outside(path),
        // The name in lower case is another spelling of the usual one, whose ignore file has that one's name.
        DockerfileSource::InContext(name) if name == "dockerfile" => match own_in_context(root, name)? {
            Some(own) => Ok(Some(own)),
            None => own_in_context(root, "Dockerfile"),
        },
        DockerfileSource::InContext(name) => own_in_context(root, name),
        DockerfileSource::Several(sources) => sources.first().map_or(Ok(None), |first| own(first, root)),
        DockerfileSource::Default | DockerfileSource::Text(_) | DockerfileSource::Remote(_) => Ok(None),
    }
}

/// The ignore file that stands beside a Dockerfile of the machine.
fn own_outside(dockerfile: &Path) -> Result<Option<IgnoreFile>, Failure> {
    for end in NAMES {
        let mut path = dockerfile.as_os_str().to_owned();
        path.push(end);
        if let Some(own) = read_outside(&PathBuf::from(path))? {
            return Ok(Some(own));
        }
    }
    Ok(None)
}

fn read_outside(path: &Path) -> Result<Option<IgnoreFile>, Failure> {
    match super::context::read_outside(path) {
        Ok(bytes) => {
            let name = path.display().to_string();
            let text = String::from_utf8(bytes).map_err(|error| Failure::not_utf8(&name, &error))?;
            Ok(Some(IgnoreFile::new(name, text)))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).or_environment(|| format!("cannot read `{}`", path.display())),
    }
}

fn own_in_context(root: &Root, dockerfile: &str) -> Result<Option<IgnoreFile>, Failure> {
    for end in NAMES {
        let name = format!("{dockerfile}{end}");
        if let Some(text) = read_text(root, &name)? {
            return Ok(Some(IgnoreFile::new(name, text)));
        }
    }
    Ok(None)
}
