//! `kiln build --check`: what the language has to say about a Dockerfile, and nothing built.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_dockerfile::{CheckConfig, ImageFacts, LowerOptions, Lowering};
use kiln_engine::{Context, DockerfileSource};
use kiln_report::render;
use kiln_report::{Diagnostic, Excerpt, Failure, FailureKind, Level, SourceFile};

use crate::args::build::BuildPlan;
use crate::setting::Setting;
use crate::ui::exit::Outcome;
use crate::ui::{stdout, terminal};

/// Checks the plan's Dockerfile. Warnings make the exit code 1, as errors do.
pub(crate) fn run(plan: &BuildPlan, setting: &Setting) -> Outcome {
    let source = Arc::new(source(plan)?);
    let found = findings(&source, plan);
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

fn findings(source: &Arc<SourceFile>, plan: &BuildPlan) -> Vec<Diagnostic> {
    let (file, mut found) = kiln_dockerfile::parse(source.text());
    if found.iter().any(|diagnostic| diagnostic.level == Level::Error) {
        return found;
    }
    let options = LowerOptions {
        target: plan.request.target.clone(),
        build_args: plan.request.build_args.clone(),
        ..LowerOptions::new(source.clone())
    };
    // Settings that cannot be read are found while lowering, with their place.
    let check = CheckConfig::of(&file).unwrap_or_default();
    found.extend(kiln_lint::lint(
        &file,
        &kiln_lint::Settings { check, scope: kiln_lint::Scope::Build, ..Default::default() },
    ));
    // Images are not asked for: what is only known with them is not checked.
    match kiln_dockerfile::lower(&file, &options, &ImageFacts::new()) {
        Err(errors) => found.extend(errors),
        Ok(Lowering::Done(lowered)) => found.extend(lowered.warnings),
        Ok(Lowering::NeedsImages(_)) => {}
    }
    found.sort_by_key(|diagnostic| diagnostic.span);
    found
}

fn source(plan: &BuildPlan) -> Result<SourceFile, Failure> {
    let path: PathBuf = match (&plan.request.dockerfile, &plan.request.context) {
        (DockerfileSource::Text(text), _) => return Ok(SourceFile::new("Dockerfile", text.as_str())),
        (DockerfileSource::Path(path), _) => path.clone(),
        (DockerfileSource::InContext(name), Context::Dir(dir)) => dir.join(name),
        (DockerfileSource::InContext(_), _) => {
            return Err(Failure::new(FailureKind::Usage, "a Dockerfile inside of a tar cannot be checked yet")
                .hint("unpack the tar, and check the directory"));
        }
    };
    read(&path)
}

fn read(path: &Path) -> Result<SourceFile, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let mut failure = Failure::new(FailureKind::Usage, format!("cannot read the Dockerfile `{}`", path.display()));
        failure.causes.push(error.to_string());
        failure
    })?;
    Ok(SourceFile::new(path.to_string_lossy(), text))
}
