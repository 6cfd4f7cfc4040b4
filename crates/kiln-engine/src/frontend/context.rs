//! Build contexts: directories read in place, with their ignore rules, and tars unpacked for the time of a build.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use kiln_dockerfile::check::IgnoreRule;
use kiln_fs::SourceTree;
use kiln_report::{Failure, FailureKind};
use kiln_store::ActiveLayer;
use kiln_sys::root::Root;

use super::ignore::IgnoreFile;
use crate::failure::Context as _;
use crate::job::Job;
use crate::request::BuildRequest;
use crate::scratch::{Scratch, open_dir};

/// A text of the context larger than this is no Dockerfile and no ignore file.
const TEXT_LIMIT: u64 = 16 << 20;

/// A directory of the machine as a source of files.
#[derive(Debug)]
pub(crate) struct LocalTree {
    name: String,
    path: PathBuf,
    tree: SourceTree,
    ignore: Option<IgnoreFile>,
}

impl LocalTree {
    /// Opens a directory. `ignore` are its rules.
    pub(crate) fn open(name: &str, path: &Path, ignore: Option<IgnoreFile>) -> Result<Self, Failure> {
        let root = open_root(path)?;
        let patterns = ignore.as_ref().map(IgnoreFile::compile).transpose()?.flatten();
        let tree = SourceTree::context(root, patterns);
        Ok(Self { name: name.to_owned(), path: path.to_owned(), tree, ignore })
    }

    /// The tree as a request sees it: a build that is to be reproducible sees only what git keeps.
    pub(crate) fn seen_by(self, request: &BuildRequest) -> Self {
        let tree = if request.reproducible { self.tree.plain() } else { self.tree };
        Self { tree, ..self }
    }

    /// The context's name in the graph: `context`, or what `--build-context` calls it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its files, without the ignored ones.
    pub(crate) fn tree(&self) -> &SourceTree {
        &self.tree
    }

    /// Its files in a directory of their own, for steps that mount them: copied once a build, gone with it.
    pub(crate) fn copied(&self, job: &Job) -> Result<Arc<Scratch<ActiveLayer>>, Failure> {
        let mut all = job.materialized.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(copy) = all.get(&self.name) {
            return Ok(Arc::clone(copy));
        }
        let copy = Arc::new(Scratch::layer(&job.store, &job.lease)?);
        kiln_fs::materialize(&self.tree, &open_dir(&copy.tree())?)
            .or_environment(|| format!("cannot mount context `{}`", self.name))?;
        all.insert(self.name.clone(), Arc::clone(&copy));
        Ok(copy)
    }

    /// Whether any ignore file counts for it.
    pub(crate) fn is_filtered(&self) -> bool {
        self.ignore.is_some()
    }

    /// The ignore rule of this index.
    pub(crate) fn rule(&self, index: usize) -> Option<IgnoreRule> {
        self.ignore.as_ref()?.rule(index)
    }

    /// What people call it in a sentence.
    pub(crate) fn title(&self) -> String {
        match self.name == super::CONTEXT {
            true => format!("the build context `{}`", self.path.display()),
            false => format!("context `{}` (`{}`)", self.name, self.path.display()),
        }
    }
}

/// Opens a directory as a root that no path in it leaves.
#[expect(clippy::disallowed_methods, reason = "whoever runs us names it on the command line")]
pub(crate) fn open_root(path: &Path) -> Result<Root, Failure> {
    Root::open_ambient(path).map_err(|error| {
        let message = format!("cannot open the build context `{}`", path.display());
        let failure = Failure { message, ..crate::failure::environment(error) };
        match path.is_dir() {
            true => failure,
            false => Failure { kind: FailureKind::Usage, ..failure }
                .hint("name a directory, or `-` to read a tar or a Dockerfile from standard input"),
        }
    })
}

/// Reads a text of the context, or `None` when it is not there.
pub(crate) fn read_text(root: &Root, name: &str) -> Result<Option<String>, Failure> {
    let bytes = match root.read_to_limit(name, TEXT_LIMIT) {
        Ok(bytes) => bytes,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error).or_environment(|| format!("cannot read `{name}` in the build context")),
    };
    String::from_utf8(bytes).map(Some).map_err(|error| Failure::not_utf8(name, &error))
}

/// Reads a Dockerfile or ignore file that the command line names.
#[expect(clippy::disallowed_methods, reason = "whoever runs us names it on the command line")]
pub(crate) fn read_outside(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(TEXT_LIMIT + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > TEXT_LIMIT {
        true => Err(std::io::Error::other(format!("larger than {} MiB", TEXT_LIMIT >> 20))),
        false => Ok(bytes),
    }
}

/// All contexts of a build by their names in the graph.
pub(crate) type Trees = std::collections::BTreeMap<String, Arc<LocalTree>>;
