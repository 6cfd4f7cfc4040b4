//! The Dockerfile frontend: finds the text, reads it, and turns it into a graph, asking for images as it must.

mod commit;
mod context;
mod dockerfile;
mod epoch;
mod ignore;
mod images;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use kiln_dockerfile::{Breadth, CheckConfig, ImageFacts, LowerOptions, Lowered, Lowering, NoCache, Reach, all_errors};
use kiln_graph::llb;
use kiln_lint::{Scope, Settings};
use kiln_oci::Platform;
use kiln_report::{Diagnostic, Event, Excerpt, Failure, FailureKind, Level, Reporter, SourceFile, Span};

pub(crate) use commit::commit_time;
pub(crate) use context::{LocalTree, Trees, open_root, read_text};
use dockerfile::Place;
pub(crate) use dockerfile::{read_dockerfile, settled};
pub(crate) use epoch::{TimeOf, named as named_time, settle_epoch, time_of};
pub(crate) use images::{Resolver, fetch_config, image_manifest, split_layout};

use crate::job::Result;
use crate::progress::Work;
use crate::request::{BuildRequest, Entitlement, NamedContext, NetworkMode};
use ignore::IgnoreFile;

/// The name of the main context in the graph: `local://context`.
pub(crate) const CONTEXT: &str = "context";

/// A Dockerfile and the contexts its build may read.
pub(crate) struct Loaded {
    pub(crate) source: Arc<SourceFile>,
    pub(crate) trees: Trees,
}

/// Reads the Dockerfile and opens the contexts. `directory` is the main one, if there is any.
pub(crate) fn load(request: &BuildRequest, directory: Option<&Path>, reporter: &Arc<dyn Reporter>) -> Result<Loaded> {
    let root = directory.map(open_root).transpose()?;
    let place = Place::of(request, root.as_ref());
    let settled = place.settled(&request.dockerfile);
    let label = dockerfile::label(settled.as_ref().unwrap_or(&request.dockerfile));
    let work = Work::start(reporter, format!("[internal] load build definition from {label}"));
    let read = settled.and_then(|dockerfile| {
        let source = Arc::new(place.read(&dockerfile)?);
        language(&source, request, &work)?;
        Ok((dockerfile, source))
    });
    let (dockerfile, source) = work.end(read)?;
    let mut trees = named_trees(request)?;
    if let (Some(path), Some(root)) = (directory, &root) {
        let work = Work::start(reporter, "[internal] load .dockerignore");
        let ignore = IgnoreFile::of_build(request, &dockerfile, root);
        let tree = work.end(ignore.and_then(|ignore| LocalTree::open(CONTEXT, path, ignore)))?;
        trees.insert(CONTEXT.into(), Arc::new(tree.seen_by(request)));
    }
    Ok(Loaded { source, trees })
}

/// Reads the Dockerfile, and nothing else. `directory` is the main context, if there is any.
pub(crate) fn read(request: &BuildRequest, directory: Option<&Path>) -> Result<Arc<SourceFile>> {
    let root = directory.map(open_root).transpose()?;
    let place = Place::of(request, root.as_ref());
    Ok(Arc::new(place.read(&place.settled(&request.dockerfile)?)?))
}

/// Opens the contexts without reading the Dockerfile, which need not be there. `directory` is the main one.
pub(crate) fn trees(request: &BuildRequest, directory: Option<&Path>) -> Result<Trees> {
    let mut trees = named_trees(request)?;
    if let Some(path) = directory {
        let root = open_root(path)?;
        let settled = Place::of(request, Some(&root)).settled(&request.dockerfile);
        let ignore = IgnoreFile::of_build(request, settled.as_ref().unwrap_or(&request.dockerfile), &root)?;
        trees.insert(CONTEXT.into(), Arc::new(LocalTree::open(CONTEXT, path, ignore)?.seen_by(request)));
    }
    Ok(trees)
}

fn named_trees(request: &BuildRequest) -> Result<Trees> {
    let mut trees = Trees::new();
    for (name, context) in &request.contexts {
        if let NamedContext::Dir(path) = context {
            let ignore = IgnoreFile::of_context(&open_root(path)?, &format!("{}/", path.display()))?;
            trees.insert(name.clone(), Arc::new(LocalTree::open(name, path, ignore)?.seen_by(request)));
        }
    }
    Ok(trees)
}

/// Sees to it that the file is in the language that is built in.
fn language(source: &Arc<SourceFile>, request: &BuildRequest, work: &Work) -> Result<()> {
    let wanted = request.build_args.get("BUILDKIT_SYNTAX").map(String::as_str);
    let frontend = kiln_dockerfile::frontend(source.text(), wanted).map_err(|error| mistakes(source, vec![*error]))?;
    if let Some(frontend) = frontend {
        work.part(format!("syntax {} is built in", frontend.name));
        warn(source, frontend.warning.into_iter().collect(), work.reporter().as_ref());
    }
    Ok(())
}

/// Parses and checks the text. Errors end the build, all of them at once; warnings are reported.
pub(crate) fn parse(options: &LowerOptions, reporter: &dyn Reporter) -> Result<kiln_dockerfile::Dockerfile> {
    let source = &options.source;
    let (file, findings) = kiln_dockerfile::parse_source(source);
    let errors: Vec<Diagnostic> = findings.iter().filter(|f| f.level == Level::Error).cloned().collect();
    if !errors.is_empty() {
        return Err(mistakes(source, all_errors(&file, options, errors, Breadth::Needed)));
    }
    warn(source, findings, reporter);
    Ok(file)
}

/// Ends the build for findings that the Dockerfile, or the user, makes errors of; reports them as warnings otherwise.
pub(crate) fn judge(
    source: &Arc<SourceFile>,
    settings: &Settings,
    findings: Vec<Diagnostic>,
    reporter: &dyn Reporter,
) -> Result<()> {
    if settings.check.error && !findings.is_empty() {
        let reason = violated(&findings);
        let failure = mistakes(source, findings);
        return Err(Failure { message: format!("{}: {reason}", failure.message), ..failure });
    }
    warn(source, findings, reporter);
    Ok(())
}

/// ``its checks count as errors, and 3 findings are of `StageNameCasing`, …``.
fn violated(findings: &[Diagnostic]) -> String {
    let rules: BTreeSet<&str> = findings.iter().filter_map(|finding| finding.rule).collect();
    let rules: Vec<String> = rules.into_iter().map(|rule| format!("`{rule}`")).collect();
    let (count, is) = (findings.len(), if findings.len() == 1 { "finding is" } else { "findings are" });
    format!("its checks count as errors, and {count} {is} of {}", rules.join(", "))
}

/// What is checked in a build: what the file says, unless the build says otherwise.
pub(crate) fn settings(
    source: &SourceFile,
    file: &kiln_dockerfile::Dockerfile,
    build_args: &BTreeMap<String, String>,
) -> Result<Settings> {
    let given = CheckConfig::given(build_args).map_err(|error| {
        Failure::new(FailureKind::Usage, format!("cannot use build argument `BUILDKIT_DOCKERFILE_CHECK`: {error}"))
    })?;
    // Settings of the file that cannot be read are found while lowering, with their place.
    let check = given.unwrap_or_else(|| CheckConfig::of(file).unwrap_or_default());
    let mut settings = Settings { check, scope: Scope::Build, ..Settings::default() };
    settings.read_comments(file, source.text());
    Ok(settings)
}

/// The checks that need nothing but the text, of what the build needs.
pub(crate) fn check(
    file: &kiln_dockerfile::Dockerfile,
    settings: &Settings,
    options: &LowerOptions,
) -> Vec<Diagnostic> {
    let reach = Reach::of(file, options);
    kiln_lint::lint(file, settings).into_iter().filter(|finding| reach.covers(finding)).collect()
}

/// Reports warnings.
pub(crate) fn warn(source: &Arc<SourceFile>, findings: Vec<Diagnostic>, reporter: &dyn Reporter) {
    for diagnostic in findings {
        let excerpt = Excerpt { file: Arc::clone(source), span: diagnostic.span };
        reporter.report(Event::Warning { diagnostic, excerpt });
    }
}

/// The failure that says all mistakes of a Dockerfile.
pub(crate) fn mistakes(source: &Arc<SourceFile>, findings: Vec<Diagnostic>) -> Failure {
    let message = format!("cannot build from `{}`", source.name());
    // A mistake of the command line has no place in the text: it is the message itself.
    if let [only] = findings.as_slice()
        && only.span == Span::default()
    {
        return Failure { hints: only.hints.clone(), ..Failure::new(FailureKind::Build, only.message.clone()) };
    }
    let place = |d: Diagnostic| {
        let excerpt = Excerpt { file: Arc::clone(source), span: d.span };
        (d, excerpt)
    };
    Failure { diagnostics: findings.into_iter().map(place).collect(), ..Failure::new(FailureKind::Build, message) }
}

/// Lowers for one platform, resolving images until nothing is missing.
pub(crate) async fn lower(
    file: &kiln_dockerfile::Dockerfile,
    options: &LowerOptions,
    resolver: &Resolver,
) -> Result<Lowered> {
    let mut facts = ImageFacts::new();
    loop {
        match kiln_dockerfile::lower(file, options, &facts) {
            Ok(Lowering::Done(lowered)) => return Ok(*lowered),
            Ok(Lowering::NeedsImages(wanted)) => resolver.resolve_all(wanted, &options.source, &mut facts).await?,
            Err(findings) => return Err(mistakes(&options.source, findings)),
        }
    }
}

/// The name of a file's only stage; empty if it has several.
pub(crate) fn only_stage(file: &kiln_dockerfile::Dockerfile) -> String {
    match kiln_dockerfile::targets(file).as_mut_slice() {
        [only] => only.name.take().unwrap_or_else(|| "stage-0".to_owned()),
        _ => String::new(),
    }
}

/// Tells names of `--no-cache-filter` and of settings for some stages that are of no stage: they do nothing.
pub(crate) fn filters(file: &kiln_dockerfile::Dockerfile, request: &BuildRequest, reporter: &dyn Reporter) {
    let filters = request.no_cache_filter.iter().map(|name| ("--no-cache-filter ", name, ""));
    let timeouts = request.timeouts.stages.keys().map(|name| ("--timeout ", name, "=…"));
    let retries = request.retries.stages.keys().map(|name| ("--retry ", name, "=…"));
    let said: Vec<_> = filters.chain(timeouts).chain(retries).collect();
    if said.is_empty() {
        return;
    }
    let stages = kiln_dockerfile::targets(file).into_iter().enumerate();
    let stages: Vec<String> =
        stages.map(|(index, stage)| stage.name.unwrap_or_else(|| format!("stage-{index}"))).collect();
    let is_named = |name: &String| stages.iter().any(|stage| stage.eq_ignore_ascii_case(name));
    // Docker's option takes numbers, too.
    let is_stage = |name: &String, value: &str| is_named(name) || value.is_empty() && name.parse::<usize>().is_ok();
    for (option, name, value) in said.into_iter().filter(|(_, name, value)| !is_stage(name, value)) {
        let meant = kiln_dockerfile::nearest(name, stages.iter().map(String::as_str));
        let meant = meant.map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default();
        reporter.report(Event::Note(format!("warning: `{option}{name}{value}` names no stage{meant}")));
    }
}

/// Says to the language what the request says.
pub(crate) fn options(request: &BuildRequest, source: Arc<SourceFile>, platform: Platform) -> LowerOptions {
    let mut options = LowerOptions::new(source);
    options.target.clone_from(&request.target);
    options.build_args.clone_from(&request.build_args);
    options.labels.clone_from(&request.labels);
    options.platform = platform;
    options.platform_is_chosen = !request.platforms.is_empty();
    options.contexts = named_contexts(request);
    options.no_cache = match (request.no_cache, request.no_cache_filter.is_empty()) {
        (true, _) => NoCache::Always,
        (false, true) => NoCache::Never,
        (false, false) => NoCache::Stages(request.no_cache_filter.iter().cloned().collect()),
    };
    options.network = match request.network {
        NetworkMode::Default => llb::NetMode::Unset,
        NetworkMode::None => llb::NetMode::None,
        NetworkMode::Host => llb::NetMode::Host,
    };
    options.entitlements = request.allowed.iter().filter_map(entitlement).map(str::to_owned).collect();
    options.hostname.clone_from(&request.hostname);
    options.extra_hosts.clone_from(&request.extra_hosts);
    options
}

/// The name of what the language checks; devices are checked where they are known.
fn entitlement(allowed: &Entitlement) -> Option<&'static str> {
    match allowed {
        Entitlement::NetworkHost => Some("network.host"),
        Entitlement::SecurityInsecure => Some("security.insecure"),
        Entitlement::AllDevices | Entitlement::Device { .. } => None,
    }
}

/// The named contexts of a request, as the language knows them.
pub fn named_contexts(request: &BuildRequest) -> BTreeMap<String, kiln_dockerfile::NamedContext> {
    request.contexts.iter().map(|(name, context)| (name.clone(), named(name, context))).collect()
}

fn named(name: &str, context: &NamedContext) -> kiln_dockerfile::NamedContext {
    match context {
        NamedContext::Dir(_) | NamedContext::Remote(_) => {
            kiln_dockerfile::NamedContext::Local { name: name.to_owned() }
        }
        NamedContext::Image(reference) => kiln_dockerfile::NamedContext::Image { reference: reference.clone() },
        NamedContext::Stage(stage) => kiln_dockerfile::NamedContext::Stage { name: stage.clone() },
        NamedContext::OciLayout { path, reference } => {
            let suffix = match reference {
                Some(text) if text.contains(':') => format!("@{text}"),
                Some(tag) => format!(":{tag}"),
                None => String::new(),
            };
            kiln_dockerfile::NamedContext::OciLayout { reference: format!("{}{suffix}", path.display()) }
        }
    }
}
