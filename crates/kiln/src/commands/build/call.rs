//! `kiln build --call`: answers about a build instead of building, as buildx gives them.

mod check;

use std::sync::Arc;

use kiln_dockerfile::{Breadth, Dockerfile, LowerOptions, all_errors};
use kiln_engine::{BuildRequest, Gathered};
use kiln_report::render::call::{self, Lines};
use kiln_report::{Diagnostic, Excerpt, Failure, FailureKind, Level, SourceFile, Span};

use crate::args::call::{Call, CallFormat, CallKind};
use crate::setting::Setting;
use crate::ui::exit::Outcome;
use crate::ui::stdout;

/// Answers.
pub(crate) fn run(asked: Call, gathered: &Gathered, setting: &Setting) -> Outcome {
    let answer = match asked.kind {
        CallKind::Describe => call::Requests::all().answer(),
        CallKind::Check => return check::run(asked, gathered, setting),
        CallKind::Targets => targets(&read(gathered)?).answer(),
        CallKind::Outline | CallKind::Build => outline(&read(gathered)?, gathered.request())?.answer(),
    };
    stdout::print(match asked.format {
        CallFormat::Text => &answer.text,
        CallFormat::Json => &answer.json,
    })?;
    Ok(0)
}

/// A Dockerfile without errors.
struct Read {
    source: Arc<SourceFile>,
    file: Dockerfile,
}

fn read(gathered: &Gathered) -> Result<Read, Failure> {
    let source = Arc::new(gathered.dockerfile()?);
    let (file, findings) = kiln_dockerfile::parse_source(&source);
    let wanted = gathered.request().build_args.get("BUILDKIT_SYNTAX").map(String::as_str);
    let foreign = kiln_dockerfile::frontend(source.text(), wanted).err().map(|error| *error);
    let told: Vec<Diagnostic> = findings.into_iter().filter(|finding| finding.level == Level::Error).collect();
    let errors = match foreign {
        Some(error) => vec![error],
        None if told.is_empty() => told,
        None => all_errors(&file, &options(gathered.request(), &source), told, Breadth::Needed),
    };
    if errors.is_empty() { Ok(Read { source, file }) } else { Err(broken(&source, errors)) }
}

fn options(request: &BuildRequest, source: &Arc<SourceFile>) -> LowerOptions {
    LowerOptions {
        target: request.target.clone(),
        build_args: request.build_args.clone(),
        contexts: kiln_engine::named_contexts(request),
        ..LowerOptions::new(Arc::clone(source))
    }
}

/// Says all that is wrong with a Dockerfile.
fn broken(source: &Arc<SourceFile>, errors: Vec<Diagnostic>) -> Failure {
    let placed = |error: Diagnostic| {
        let excerpt = Excerpt { file: Arc::clone(source), span: error.span };
        (error, excerpt)
    };
    let message = format!("`{}` cannot be built", source.name());
    Failure { diagnostics: errors.into_iter().map(placed).collect(), ..Failure::new(FailureKind::Build, message) }
}

fn targets(read: &Read) -> call::Targets {
    let target = |target: kiln_dockerfile::Target| call::Target {
        name: target.name,
        is_default: target.is_default,
        description: target.description,
        base: target.base,
        platform: target.platform,
        lines: lines(&read.source, target.span),
    };
    let targets = kiln_dockerfile::targets(&read.file).into_iter().map(target).collect();
    call::Targets { targets, source: read.source.text().to_owned() }
}

fn outline(read: &Read, request: &BuildRequest) -> Result<call::Outline, Failure> {
    let options = options(request, &read.source);
    let outline = kiln_dockerfile::outline(&read.file, &options).map_err(|errors| broken(&read.source, errors))?;
    let place = |span: Span| lines_of_instruction(read, span);
    let credential = |used: kiln_dockerfile::CredentialUse| call::Credential {
        lines: place(used.span),
        name: used.id,
        is_required: used.required,
    };
    let arg = |arg: kiln_dockerfile::OutlineArg| call::Arg {
        lines: place(arg.span),
        name: arg.name,
        description: arg.description,
        value: arg.value,
    };
    Ok(call::Outline {
        name: outline.name,
        description: outline.description,
        args: outline.args.into_iter().map(arg).collect(),
        secrets: outline.secrets.into_iter().map(credential).collect(),
        ssh: outline.ssh.into_iter().map(credential).collect(),
        caches: outline.caches.into_iter().map(|(id, span)| (id, place(span))).collect(),
        source: read.source.text().to_owned(),
    })
}

/// First and last line of a place.
fn lines(source: &SourceFile, span: Span) -> Lines {
    let last = span.end.max(span.start + 1) - 1;
    Lines { first: source.position(span.start).0, last: source.position(last).0 }
}

/// The lines of the instruction a place is in: BuildKit tells no less.
fn lines_of_instruction(read: &Read, span: Span) -> Lines {
    let instructions = read.file.instructions();
    let found = instructions.take_while(|instruction| instruction.span.start <= span.start).last();
    let whole = found.map(|found| found.span).filter(|whole| whole.range().contains(&span.start));
    lines(&read.source, whole.unwrap_or(span))
}
