//! What a Dockerfile takes from elsewhere by names that may stand for something else tomorrow.

use std::sync::Arc;

use kiln_dockerfile::{
    ArchivedImage, Dockerfile, Fetch, ImageFacts, ImageRequest, LowerOptions, Lowering, remote_context,
};
use kiln_oci::Reference;
use kiln_report::{Excerpt, Failure, FailureKind, SourceFile, Span};

use super::Pins;
use crate::frontend::mistakes;
use crate::job::Result;
use crate::offline::joined;
use crate::request::{BuildRequest, Context, DockerfileSource, NamedContext};
use crate::step::lock_name;

/// What a name is one of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A language, which is built in.
    Syntax,
    Image,
    /// A file from the web.
    Download,
    /// A reference of a repository.
    Repository,
}

impl Kind {
    pub(super) const ALL: [Self; 4] = [Self::Syntax, Self::Image, Self::Download, Self::Repository];
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Syntax => "syntax",
            Self::Image => "image",
            Self::Download => "file",
            Self::Repository => "repository",
        })
    }
}

/// A name, and who says it; contexts are said by nobody in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Want {
    pub(super) kind: Kind,
    pub(super) name: String,
    pub(super) span: Option<Span>,
}

impl Want {
    /// What an image is asked for by. Those of layouts and archives are here, and a digest says all.
    pub(super) fn of_image(request: &ImageRequest) -> Option<Self> {
        if ArchivedImage::read(&request.reference).is_some() {
            return None;
        }
        let reference: Reference = request.reference.parse().ok()?;
        let is_open = reference.digest.is_none();
        let name = reference.familiar();
        is_open.then_some(Self { kind: Kind::Image, name, span: Some(request.span) })
    }

    /// What is fetched, unless it says itself what it must be.
    pub(super) fn of_fetch(fetch: &Fetch) -> Option<Self> {
        let (kind, name) = lock_name(&fetch.op)?;
        Some(Self { kind, name, span: Some(fetch.span) })
    }
}

/// The language of a file, when it names one.
pub(super) fn syntax(source: &SourceFile, options: &LowerOptions) -> Option<Want> {
    let wanted = options.build_args.get("BUILDKIT_SYNTAX").map(String::as_str);
    let found = kiln_dockerfile::frontend(source.text(), wanted).ok()??;
    let span = kiln_dockerfile::detect_syntax(source.text()).map(|word| word.span);
    (!found.name.contains('@')).then_some(Want { kind: Kind::Syntax, name: found.name, span })
}

/// The contexts that are fetched.
pub(super) fn contexts(request: &BuildRequest) -> Vec<(Want, Fetch)> {
    let fetches = request.contexts.values().filter_map(|context| match context {
        NamedContext::Remote(url) => Some(Fetch { op: remote_context(url, false).ok()?, span: Span::default() }),
        _ => None,
    });
    fetches.filter_map(|fetch| Some((Want { span: None, ..Want::of_fetch(&fetch)? }, fetch))).collect()
}

/// All that is known without asking anybody.
pub(super) fn wants(request: &BuildRequest, file: &Dockerfile, options: &LowerOptions) -> Result<Vec<Want>> {
    let mut wants: Vec<Want> = syntax(&options.source, options).into_iter().collect();
    match kiln_dockerfile::lower(file, options, &ImageFacts::new()) {
        Ok(Lowering::NeedsImages(images)) => wants.extend(images.iter().filter_map(Want::of_image)),
        Ok(Lowering::Done(_)) => {}
        Err(findings) => return Err(mistakes(&options.source, findings)),
    }
    wants.extend(kiln_dockerfile::fetches(file, options).iter().filter_map(Want::of_fetch));
    wants.extend(contexts(request).into_iter().map(|(want, _)| want));
    Ok(wants)
}

/// Fails when a build would ask for what is not locked, as far as that is known before anybody was asked.
pub(crate) fn require(pins: &Pins, request: &BuildRequest, file: &Dockerfile, options: &LowerOptions) -> Result<()> {
    all_locked(pins, &wants(request, file, options)?, &options.source)
}

/// The same, of what is fetched, when all of that is known.
pub(crate) fn require_fetches(pins: &Pins, fetches: &[Fetch], source: &Arc<SourceFile>) -> Result<()> {
    all_locked(pins, &fetches.iter().filter_map(Want::of_fetch).collect::<Vec<_>>(), source)
}

pub(super) fn all_locked(pins: &Pins, wants: &[Want], source: &Arc<SourceFile>) -> Result<()> {
    let mut failures: Vec<Failure> = Vec::new();
    for want in wants {
        let Err(failure) = pins.find(want.kind, &want.name) else { continue };
        let failure = match want.span {
            Some(span) => failure.at(Excerpt { file: Arc::clone(source), span }),
            None => failure,
        };
        let is_new = |other: &Failure| other.message != failure.message;
        if failures.iter().all(is_new) {
            failures.push(failure);
        }
    }
    joined(failures, "names of this build are not locked")
}

/// Fails for a main context or a Dockerfile that a lock cannot hold: it would have to be fetched to find the lock.
pub(crate) fn must_be_pinned(request: &BuildRequest) -> Result<()> {
    if matches!(request.dockerfile, DockerfileSource::Remote(_)) {
        let failure = Failure::new(FailureKind::Usage, "a Dockerfile by URL has no lock beside it");
        return Err(failure.hint("download it, and lock it there"));
    }
    let Context::Remote(url) = &request.context else { return Ok(()) };
    let is_pinned = remote_context(url, false).is_ok_and(|op| lock_name(&op).is_none());
    if is_pinned {
        return Ok(());
    }
    Err(Failure::new(FailureKind::Usage, "a context by URL may be another one each time, so it cannot be locked")
        .hint("name a commit of a repository in all its digits: `….git#COMMIT`"))
}
