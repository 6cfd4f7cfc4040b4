//! `kiln build --check`: what the language has to say about a Dockerfile, and nothing built.

use std::io::Write;
use std::sync::Arc;

use kiln_dockerfile::{CheckConfig, ImageFacts, LowerOptions, Lowering};
use kiln_engine::{Context, ContextChecks, Contexts};
use kiln_report::render;
use kiln_report::{Diagnostic, Excerpt, Failure, FailureKind, Level, SourceFile};

use crate::args::build::BuildPlan;
use crate::setting::Setting;
use crate::ui::exit::Outcome;
use crate::ui::{stdout, terminal};

/// Checks the plan's Dockerfile. Warnings make the exit code 1, as errors do.
pub(crate) fn run(plan: &BuildPlan, setting: &Setting) -> Outcome {
    let source = Arc::new(kiln_engine::read_dockerfile(&plan.request)?);
    let found = findings(&source, plan)?;
    let excerpt = |diagnostic: &Diagnostic| Excerpt { file: source.clone(), span: diagnostic.span };
    let found: Vec<_> = found.into_iter().map(|diagnostic| (excerpt(&diagnostic), diagnostic)).collect();
    if found.is_empty() {
        stdout::print("Check complete, no warnings found.\n")?;
        return Ok(0);
    }
    let (errors, warnings): (Vec<_>, Vec<_>) = found
        .into_iter()
        .map(|(excerpt, diagnostic)| (diagnostic, excerpt))
        .partition(|(d, _)| d.level == Level::Error);
    let text = render::warnings(&warnings, terminal::color(&setting.environment));
    // Where nobody listens nobody is told.
    let _ = std::io::stderr().write_all(text.as_bytes());
    if errors.is_empty() {
        return Ok(1);
    }
    let message = format!("`{}` cannot be built", source.name());
    Err(Failure { diagnostics: errors, ..Failure::new(FailureKind::Build, message) }.into())
}

fn findings(source: &Arc<SourceFile>, plan: &BuildPlan) -> Result<Vec<Diagnostic>, Failure> {
    let wanted = plan.request.build_args.get("BUILDKIT_SYNTAX").map(String::as_str);
    let frontend = match kiln_dockerfile::frontend(source.text(), wanted) {
        Ok(frontend) => frontend,
        Err(error) => return Ok(vec![*error]),
    };
    let (file, mut found) = kiln_dockerfile::parse_source(source);
    if found.iter().any(|diagnostic| diagnostic.level == Level::Error) {
        return Ok(found);
    }
    found.extend(frontend.and_then(|frontend| frontend.warning));
    let options = LowerOptions {
        target: plan.request.target.clone(),
        build_args: plan.request.build_args.clone(),
        contexts: kiln_engine::named_contexts(&plan.request),
        ..LowerOptions::new(source.clone())
    };
    // Settings that cannot be read are found while lowering, with their place.
    let check = CheckConfig::of(&file).unwrap_or_default();
    let settings = kiln_lint::Settings { check, scope: kiln_lint::Scope::Build, ..Default::default() };
    found.extend(kiln_lint::lint(&file, &settings));
    // Images are not asked for: what is only known with them is not checked.
    match kiln_dockerfile::lower(&file, &options, &ImageFacts::new()) {
        Err(errors) => found.extend(errors),
        Ok(Lowering::Done(lowered)) => found.extend(lowered.warnings),
        Ok(Lowering::NeedsImages(_)) => {}
    }
    if !matches!(plan.request.context, Context::Stdin) {
        let reads = kiln_dockerfile::context_reads(&file, &options);
        found.extend(Contexts::open(&plan.request)?.check(&reads, &settings.check, ContextChecks::Sources)?);
    }
    found.sort_by_key(|diagnostic| diagnostic.span);
    Ok(found)
}
