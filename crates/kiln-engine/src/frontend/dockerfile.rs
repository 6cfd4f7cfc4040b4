//! Finds Dockerfiles and reads them.

use std::path::{Path, PathBuf};

use kiln_exec::{PreprocessError, preprocess};
use kiln_report::{Failure, FailureKind, SourceFile};
use kiln_sys::root::Root;

use super::context::{open_root, read_outside, read_text};
use crate::failure::{build, environment};
use crate::job::Result;
use crate::request::{BuildRequest, Context, DockerfileSource};

/// What a context's Dockerfile may be called; the first that is there counts.
const NAMES: [&str; 3] = ["Containerfile", "Dockerfile", "dockerfile"];

/// Where Dockerfiles are looked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    /// The context.
    root: Option<&'a Root>,
    /// Its directory, when it is one of this machine and did not come in a tar.
    directory: Option<&'a Path>,
}

/// Reads the Dockerfile of a build, and names it by its path where it has one. `directory` is the main context, if there
/// is any.
pub(crate) fn read_dockerfile(request: &BuildRequest, directory: Option<&Path>) -> Result<SourceFile> {
    let root = directory.map(open_root).transpose()?;
    let place = Place::of(request, root.as_ref());
    let source = place.settled(&request.dockerfile)?;
    match (&source, place.directory) {
        // Whoever reads what is found wants to go there; it is still the context's, and read as such.
        (DockerfileSource::InContext(_), Some(directory)) if directory != Path::new(".") => {
            let (name, text) = place.read_one(&source)?;
            Ok(SourceFile::joined([(directory.join(name).display().to_string(), text)]))
        }
        _ => place.read(&source),
    }
}

/// A build's Dockerfile with its name, whether that was given or not. `root` is its context.
pub(crate) fn settled(request: &BuildRequest, root: Option<&Root>) -> Result<DockerfileSource> {
    Place::of(request, root).settled(&request.dockerfile)
}

/// What progress calls a Dockerfile.
pub(crate) fn label(source: &DockerfileSource) -> String {
    match source {
        DockerfileSource::Path(path) => path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned(),
        DockerfileSource::InContext(name) => name.clone(),
        DockerfileSource::Text(_) | DockerfileSource::Remote(_) | DockerfileSource::Default => "Dockerfile".into(),
        DockerfileSource::Several(sources) => sources.iter().map(label).collect::<Vec<_>>().join(", "),
    }
}

impl<'a> Place<'a> {
    /// The place of a build. `root` is its context.
    pub(crate) fn of(request: &'a BuildRequest, root: Option<&'a Root>) -> Self {
        let directory = match &request.context {
            Context::Dir(directory) => Some(directory.as_path()),
            Context::Stdin | Context::Remote(_) | Context::Empty => None,
        };
        Self { root, directory }
    }

    /// Gives the context's own Dockerfile its name.
    pub(crate) fn settled(&self, source: &DockerfileSource) -> Result<DockerfileSource> {
        let DockerfileSource::Default = source else { return Ok(source.clone()) };
        let root = self.root.ok_or_else(|| missing("Dockerfile", None))?;
        for name in NAMES {
            if read_text(root, name)?.is_some() {
                return Ok(DockerfileSource::InContext(name.into()));
            }
        }
        Err(missing("Dockerfile", None))
    }

    /// Reads a Dockerfile, or several as one.
    pub(crate) fn read(&self, source: &DockerfileSource) -> Result<SourceFile> {
        let DockerfileSource::Several(sources) = source else {
            return self.read_one(source).map(|text| SourceFile::joined([text]));
        };
        let texts: Vec<(String, String)> = sources.iter().map(|one| self.read_one(one)).collect::<Result<_>>()?;
        Ok(SourceFile::joined(texts))
    }

    /// A Dockerfile's name and its text.
    fn read_one(&self, source: &DockerfileSource) -> Result<(String, String)> {
        match source {
            DockerfileSource::Text(text) => Ok(("Dockerfile".into(), text.clone())),
            DockerfileSource::Path(path) => {
                let name = path.display().to_string();
                let bytes = read_outside(path).map_err(|error| missing(&name, Some(&error)))?;
                let text = String::from_utf8(bytes).map_err(|error| Failure::not_utf8(&name, &error))?;
                self.preprocessed(name, text, path.parent())
            }
            DockerfileSource::InContext(name) => {
                let root = self.root.ok_or_else(|| missing(name, None))?;
                let text = read_text(root, name)?.ok_or_else(|| missing(name, None))?;
                let beside = self.directory.map(|directory| directory.join(name));
                self.preprocessed(name.clone(), text, beside.as_deref().and_then(Path::parent))
            }
            DockerfileSource::Default => self.read_one(&self.settled(source)?),
            DockerfileSource::Remote(_) => {
                Err(Failure::new(FailureKind::Usage, "a Dockerfile that is elsewhere cannot be read here"))
            }
            DockerfileSource::Several(_) => Err(Failure::new(FailureKind::Usage, "a list of Dockerfiles holds files")),
        }
    }

    /// A text as it is, or what the C preprocessor makes of `NAME.in`.
    fn preprocessed(&self, name: String, text: String, beside: Option<&Path>) -> Result<(String, String)> {
        if !name.ends_with(".in") {
            return Ok((name, text));
        }
        let Some(beside) = beside else {
            let message = format!("`{name}` would be sent through `cpp`, which a tar from elsewhere must not be");
            return Err(Failure::new(FailureKind::Usage, message).hint("unpack the tar, and build the directory"));
        };
        let beside = if beside.as_os_str().is_empty() { PathBuf::from(".") } else { beside.to_owned() };
        match preprocess(&text, &beside, self.directory) {
            Ok(text) => Ok((format!("{name} (after cpp)"), text)),
            Err(error) => Err(unprocessed(&name, error)),
        }
    }
}

fn unprocessed(name: &str, error: PreprocessError) -> Failure {
    let is_machines_fault = matches!(error, PreprocessError::NoProgram | PreprocessError::Run(_));
    let is_missing = matches!(error, PreprocessError::NoProgram);
    let inner = if is_machines_fault { environment(error) } else { build(error) };
    let causes = std::iter::once(inner.message).chain(inner.causes).collect();
    let failure = Failure { causes, ..Failure::new(inner.kind, format!("cannot preprocess `{name}`")) };
    match is_missing {
        true => failure.hint("install it, as with `apt-get install cpp`, or write the file without `.in`"),
        false => failure,
    }
}

fn missing(name: &str, error: Option<&std::io::Error>) -> Failure {
    let mut failure = Failure::new(FailureKind::Build, format!("cannot read the Dockerfile `{name}`"));
    failure.causes.push(error.map_or_else(|| "no such file in the build context".to_owned(), ToString::to_string));
    if error.is_some() {
        return failure.hint("check the path after `-f`: it is relative to the current directory");
    }
    failure.hint("write a `Dockerfile` into the build context, or name another file with `-f`")
}
