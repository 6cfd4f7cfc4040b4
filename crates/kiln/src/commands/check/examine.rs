//! One Dockerfile, examined: all that can be known of it without building and without a registry.

use std::sync::Arc;

use kiln_dockerfile::{Breadth, CheckConfig, Dockerfile, LowerOptions, Reach, all_errors};
use kiln_engine::{ContextChecks, Gathered};
use kiln_lint::{Scope, Settings, lint};
use kiln_report::{Diagnostic, Failure, FailureKind, Level, SourceFile, Span};

/// Leaves one finding of those that say the same of one word: what keeps the file from being built, or knows better.
fn once(findings: &mut Vec<Diagnostic>) {
    let of = |rule| findings.iter().filter(|finding| finding.rule == Some(rule)).cloned().collect::<Vec<_>>();
    let (undeclared, misspelt) = (of("UndefinedArgInFrom"), of("MisspeltStage"));
    let mut wrong = Vec::new();
    for error in findings.iter_mut().filter(|finding| finding.rule.is_none()) {
        if let Some(reason) = undeclared.iter().find(|reason| is_within(reason.span, error.span)) {
            error.fix = error.fix.take().or_else(|| reason.fix.clone());
        }
        wrong.push(error.span);
    }
    let is_wrong = |span: Span| wrong.iter().any(|wrong| is_within(span, *wrong));
    findings.retain(|finding| match finding.rule {
        Some("UndefinedArgInFrom") => !is_wrong(finding.span),
        Some("InvalidDefaultArgInFrom") => {
            !is_wrong(finding.span) && !undeclared.iter().any(|reason| is_within(reason.span, finding.span))
        }
        Some("UntaggedImage" | "CopyFromUnknownStage") => !misspelt.iter().any(|known| known.span == finding.span),
        _ => true,
    });
}

fn is_within(inner: Span, outer: Span) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}

/// What was found.
#[derive(Debug)]
pub(crate) struct Found {
    /// The tree, as far as there is one.
    pub(crate) file: Dockerfile,
    /// What was found, in the order of the file.
    pub(crate) findings: Vec<Diagnostic>,
    /// Whether `# check=error=true` is set.
    pub(crate) is_strict: bool,
}

/// Examines the file of a build. `settings` are what is wanted, whatever the file says.
pub(crate) fn examine(source: &Arc<SourceFile>, gathered: &Gathered, settings: &Settings) -> Result<Found, Failure> {
    let request = gathered.request();
    let given = CheckConfig::given(&request.build_args).map_err(|error| {
        Failure::new(FailureKind::Usage, format!("cannot use build argument `BUILDKIT_DOCKERFILE_CHECK`: {error}"))
    })?;
    let (file, mut findings) = kiln_dockerfile::parse_source(source);
    let frontend = request.build_args.get("BUILDKIT_SYNTAX").map(String::as_str);
    match kiln_dockerfile::frontend(source.text(), frontend) {
        // What is written in another language has no mistakes in this one.
        Err(error) => return Ok(Found { file, findings: vec![*error], is_strict: false }),
        Ok(frontend) => findings.extend(frontend.and_then(|frontend| frontend.warning)),
    }
    let options = LowerOptions {
        target: request.target.clone(),
        build_args: request.build_args.clone(),
        contexts: kiln_engine::named_contexts(request),
        ..LowerOptions::new(Arc::clone(source))
    };
    if findings.iter().any(|diagnostic| diagnostic.level == Level::Error) {
        let findings = all_errors(&file, &options, findings, Breadth::All);
        return Ok(Found { file, findings, is_strict: false });
    }
    // Settings of the file that cannot be read are found by the survey, with their place.
    let check = given.unwrap_or_else(|| CheckConfig::of(&file).unwrap_or_default());
    let mut settings = Settings { check, ..settings.clone() };
    settings.read_comments(&file, source.text());
    findings.extend(lint(&file, &settings));
    let mut more = kiln_dockerfile::survey(&file, &options);
    let reads = kiln_dockerfile::context_reads(&file, &options);
    let asked = if settings.scope == Scope::Check { ContextChecks::All } else { ContextChecks::Sources };
    more.extend(gathered.contexts()?.check(&reads, &settings.check, asked)?);
    findings.extend(settings.admit(&file, more));
    if request.target.is_some() {
        let reach = Reach::of(&file, &options);
        findings.retain(|finding| reach.covers(finding));
    }
    findings.sort_by_key(|diagnostic| diagnostic.span);
    findings.dedup();
    if settings.scope == Scope::Check {
        once(&mut findings);
    }
    Ok(Found { file, findings, is_strict: settings.check.error })
}
