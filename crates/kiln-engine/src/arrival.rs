//! Build contexts that are not on the disk: standard input, repositories, downloads. They are fetched before anything else.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use kiln_dockerfile::{DOWNLOADED, remote_context};
use kiln_fs::{Limits, archive};
use kiln_graph::llb::OpKind;
use kiln_graph::{Builder, VertexMeta};
use kiln_report::{Failure, FailureKind, logins, without_credentials};
use kiln_solver::Solver;
use kiln_store::{ActiveLayer, Snapshot};

use crate::artifact::Artifact;
use crate::base::MORE;
use crate::blocking::blocking;
use crate::cache::Cache;
use crate::engine::Engine;
use crate::failure::{Context as _, environment};
use crate::frontend;
use crate::job::{Basis, Job, Result, Subject};
use crate::offline::{NEEDED, joined};
use crate::remote::Imported;
use crate::request::{BuildRequest, Context, DockerfileSource, NamedContext};
use crate::scratch::{Scratch, open_dir};
use crate::worker::{solve_failure, turns};

/// No Dockerfile is larger.
const MAX_DOCKERFILE: u64 = 16 << 20;

/// Contexts that can be read in place.
pub(crate) struct Arrived {
    /// What was asked for, with directories for the named contexts that were elsewhere.
    pub(crate) request: BuildRequest,
    /// The directory of the main context, if it has any.
    pub(crate) directory: Option<PathBuf>,
    /// The time of the main context, in seconds since 1970, if it has one: of a commit, a download, the newest file of a tar.
    pub(crate) time: Option<i64>,
    /// The same of the named context that `SOURCE_DATE_EPOCH` names, when it was elsewhere.
    pub(crate) named_time: Option<i64>,
    /// What was unpacked: layers that are never committed.
    pub(crate) unpacked: Vec<Scratch<ActiveLayer>>,
}

/// What a URL leads to.
enum Found {
    Directory(PathBuf),
    Archive(File),
    Text(String),
}

/// Has the main context of a request here.
pub(crate) async fn receive(engine: &Engine, request: &BuildRequest, basis: &Basis) -> Result<Arrived> {
    let mut arrived =
        Arrived { request: request.clone(), directory: None, time: None, named_time: None, unpacked: Vec::new() };
    if let DockerfileSource::Remote(url) = &request.dockerfile {
        arrived.request.dockerfile = dockerfile_at(engine, request, basis, url).await?;
    }
    arrived.directory = match &request.context {
        Context::Empty => None,
        Context::Dir(path) => Some(path.clone()),
        Context::Stdin => {
            let input = basis.session.stdin();
            let input = input.ok_or_else(|| Failure::new(FailureKind::Usage, "standard input is taken twice"))?;
            let path = arrived.unpack(engine, basis, input, "standard input").await?;
            arrived.time = newest(&path).await?;
            Some(path)
        }
        Context::Remote(url) => match fetch(engine, request, basis, url).await? {
            Found::Directory(path) => {
                arrived.time = newest(&path).await?;
                Some(path)
            }
            Found::Archive(file) => {
                let modified = file.metadata().ok().map(|file| file.mtime()).filter(|time| *time > 0);
                let path = arrived.unpack(engine, basis, file, &shown(url)).await?;
                arrived.time = if modified.is_some() { modified } else { newest(&path).await? };
                Some(path)
            }
            Found::Text(text) => {
                arrived.request.dockerfile = only_text(&arrived.request.dockerfile, text, url)?;
                None
            }
        },
    };
    Ok(arrived)
}

impl Arrived {
    /// Has the named contexts here, too.
    pub(crate) async fn receive_named(&mut self, engine: &Engine, basis: &Basis) -> Result<()> {
        let mut failures = Vec::new();
        let epoch = self.request.build_args.get("SOURCE_DATE_EPOCH");
        let timed = epoch.and_then(|value| frontend::named_time(&self.request, value));
        for (name, context) in self.request.contexts.clone() {
            let NamedContext::Remote(url) = context else { continue };
            match fetch(engine, &self.request, basis, &url).await {
                Ok(found) => {
                    let path = self.directory_of(found, (engine, basis), (&name, &url)).await?;
                    if timed.as_ref() == Some(&name) {
                        self.named_time = newest(&path).await?;
                    }
                    self.request.contexts.insert(name, NamedContext::Dir(path));
                }
                Err(failure) => failures.push(failure),
            }
        }
        joined(failures, NEEDED)
    }

    /// The directory that a named context is.
    async fn directory_of(
        &mut self,
        found: Found,
        (engine, basis): (&Engine, &Basis),
        (name, url): (&str, &str),
    ) -> Result<PathBuf> {
        match found {
            Found::Directory(path) => Ok(path),
            Found::Archive(file) => self.unpack(engine, basis, file, &shown(url)).await,
            Found::Text(_) => {
                let message =
                    format!("`{}` is neither a repository nor a tar: it cannot be context `{name}`", shown(url));
                Err(Failure::new(FailureKind::Build, message))
            }
        }
    }

    async fn unpack(
        &mut self,
        engine: &Engine,
        basis: &Basis,
        from: impl Read + Send + 'static,
        name: &str,
    ) -> Result<PathBuf> {
        let tree = Scratch::layer(&basis.store, &basis.lease)?;
        let (path, name) = (tree.tree(), name.to_owned());
        let (root, limits) = (open_dir(&path)?, engine.registry().limits());
        let unpack = move || {
            archive::extract(from, &root, &limits, None).map_err(|error| {
                let is_too_much = error.is_too_much();
                let doing = || format!("cannot unpack the build context from {name}");
                let failure = Err::<(), _>(error).or_build(doing).expect_err("it is an error");
                if is_too_much { failure.hint(MORE) } else { failure }
            })
        };
        blocking(unpack).await?;
        self.unpacked.push(tree);
        Ok(path)
    }
}

/// Downloads a Dockerfile.
async fn dockerfile_at(engine: &Engine, request: &BuildRequest, basis: &Basis, url: &str) -> Result<DockerfileSource> {
    match fetch(engine, request, basis, url).await? {
        Found::Text(text) => Ok(DockerfileSource::Text(text)),
        Found::Directory(_) | Found::Archive(_) => {
            let failure = Failure::new(FailureKind::Usage, format!("`{}` is no Dockerfile", shown(url)));
            Err(failure.hint("name it as the build context, and the file in it with `-f PATH`"))
        }
    }
}

/// Fetches a repository or a file as a step would: by the same credentials, and once.
async fn fetch(engine: &Engine, request: &BuildRequest, basis: &Basis, url: &str) -> Result<Found> {
    let keeps_git_dir = request.build_args.get("BUILDKIT_CONTEXT_KEEP_GIT_DIR");
    let mut op = remote_context(url, keeps_git_dir.is_some_and(|text| matches!(text.as_str(), "1" | "true"))).map_err(
        |bad| {
            let message = format!("cannot use `{}` as a build context: {}", shown(url), bad.message);
            Failure::new(FailureKind::Usage, message).hint(bad.hint)
        },
    )?;
    let (kind, is_git) =
        if op.identifier.starts_with("git://") { ("git source", true) } else { ("remote build context", false) };
    // Files have the time of their commit where times matter.
    if is_git && (request.reproducible || wants_epoch(request)) {
        op.attrs.entry("git.mtime".into()).or_insert_with(|| "commit".into());
    }
    let name = format!("[internal] load {kind} {}", shown(url));
    let mut builder = Builder::new();
    let root = builder.add(OpKind::Source(op), Vec::new(), None, VertexMeta { name, ..VertexMeta::default() });
    let job = Job::new(engine, request, basis, Subject::default())?;
    let plan = crate::step::plan(&builder.finish(), &job, &|_| false)?;
    let nothing = Imported::nothing(&basis.reporter);
    let cache = Arc::new(Cache::new(basis.store.clone(), basis.lease.clone(), shown(url), nothing, None));
    let solver = Solver::new(cache.clone(), cache, Arc::clone(&basis.reporter), turns(request));
    let results = solver.solve(&plan, &[root]).await.map_err(solve_failure)?;
    let tree = results.first().map(Artifact::snapshot).transpose()?.and_then(|tree| layer(basis, tree));
    let tree = tree.ok_or_else(|| Failure::new(FailureKind::Build, format!("`{}` is empty", shown(url))))?;
    if is_git { Ok(Found::Directory(tree)) } else { downloaded(tree, url).await }
}

fn wants_epoch(request: &BuildRequest) -> bool {
    request.build_args.get("SOURCE_DATE_EPOCH").is_some_and(|value| !value.is_empty())
}

/// The time of the newest file of a tree.
async fn newest(tree: &std::path::Path) -> Result<Option<i64>> {
    let root = open_dir(tree)?;
    blocking(move || kiln_fs::layer::newest(&root).or_environment(|| "cannot look at the build context".into())).await
}

fn layer(basis: &Basis, tree: &Snapshot) -> Option<PathBuf> {
    tree.layers().last().map(|layer| basis.store.layer_dir(layer))
}

/// A tar, or the text of a Dockerfile.
async fn downloaded(tree: PathBuf, url: &str) -> Result<Found> {
    let url = shown(url);
    blocking(move || {
        let root = open_dir(&tree)?;
        let open = || root.open_file(DOWNLOADED).or_environment(|| format!("cannot read what `{url}` gave"));
        if archive::is_archive(open()?, &Limits::default()) {
            return Ok(Found::Archive(open()?));
        }
        let mut bytes = Vec::new();
        open()?.take(MAX_DOCKERFILE + 1).read_to_end(&mut bytes).map_err(environment)?;
        let text = String::from_utf8(bytes).ok().filter(|text| text.len() as u64 <= MAX_DOCKERFILE);
        text.map(Found::Text).ok_or_else(|| {
            let message = format!("`{url}` is neither a tar nor a Dockerfile");
            Failure::new(FailureKind::Build, message)
                .hint("name a tar, a Dockerfile, or a repository whose URL ends in `.git`")
        })
    })
    .await
}

fn only_text(dockerfile: &DockerfileSource, text: String, url: &str) -> Result<DockerfileSource> {
    match dockerfile {
        DockerfileSource::Default => Ok(DockerfileSource::Text(text)),
        DockerfileSource::Text(_) | DockerfileSource::Path(_) => Ok(dockerfile.clone()),
        DockerfileSource::InContext(_) | DockerfileSource::Remote(_) | DockerfileSource::Several(_) => {
            let message = format!("`{}` is no tar, so there are no files in it", shown(url));
            Err(Failure::new(FailureKind::Usage, message)
                .hint("leave out `--file`: what is downloaded is the Dockerfile"))
        }
    }
}

/// Where a context is, for people and for records: without credentials. Nothing when it is nowhere.
#[expect(clippy::disallowed_methods, reason = "the context is what whoever runs us names")]
pub(crate) fn place_of(context: &Context) -> String {
    match context {
        Context::Dir(path) => std::fs::canonicalize(path).unwrap_or_else(|_| path.clone()).display().to_string(),
        Context::Remote(url) => shown(url),
        Context::Stdin | Context::Empty => String::new(),
    }
}

/// A URL without user and password.
pub(crate) fn shown(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let login = logins(url).next();
    let place = login.and_then(|login| rest.strip_prefix(login)?.strip_prefix('@'));
    format!("{scheme}://{}", without_credentials(place.unwrap_or(rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_not_shown() {
        for (url, expected) in [
            ("https://user:secret@example.com/app.git#main", "https://example.com/app.git#main"),
            ("https://user:sec/r@t@example.com/app.git#main", "https://example.com/app.git#main"),
            ("https://example.com/a@b", "https://example.com/a@b"),
            ("git@example.com:app", "git@example.com:app"),
        ] {
            assert_eq!(shown(url), expected);
        }
    }
}
