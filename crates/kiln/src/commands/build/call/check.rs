//! `kiln build --check`: what is wrong with a Dockerfile, and nothing built.

use std::sync::Arc;

use kiln_dockerfile::Dockerfile;
use kiln_engine::Gathered;
use kiln_lint::{Scope, Settings, reference};
use kiln_report::render::call::{self, Lines};
use kiln_report::{Checked, Diagnostic, Level, SourceFile, Span};

use super::{Read, broken, lines, lines_of_instruction};
use crate::args::call::{Call, CallFormat};
use crate::commands::check::examine::{Found, examine};
use crate::commands::check::output::tty;
use crate::setting::Setting;
use crate::ui::exit::Outcome;
use crate::ui::{stdout, terminal};

/// Checks a build's Dockerfile. As with buildx, warnings make the exit code 1, as errors do.
pub(super) fn run(asked: Call, gathered: &Gathered, setting: &Setting) -> Outcome {
    let source = Arc::new(gathered.dockerfile()?);
    let settings = Settings { scope: Scope::Build, ..Settings::default() };
    let Found { file, findings, is_strict } = examine(&source, gathered, &settings)?;
    let code = u8::from(!findings.is_empty() && !asked.ignores_status);
    if asked.format == CallFormat::Json {
        stdout::print(&results(&Read { source, file }, &findings, is_strict).json())?;
        return Ok(code);
    }
    let (errors, warnings): (Vec<_>, Vec<_>) = findings.into_iter().partition(|found| found.level == Level::Error);
    let mut out = Vec::new();
    if !warnings.is_empty() {
        let has = if warnings.len() == 1 { "warning has" } else { "warnings have" };
        out.extend(format!("Check complete, {} {has} been found!\n\n", warnings.len()).into_bytes());
    } else if errors.is_empty() {
        out.extend(b"Check complete, no warnings found.\n");
    }
    let checked = Checked { source: Arc::clone(&source), findings: warnings };
    tty(&[checked], terminal::stdout_color(&setting.environment), &mut out).expect("writing to memory");
    stdout::print(&String::from_utf8_lossy(&out))?;
    if errors.is_empty() { Ok(code) } else { Err(broken(&source, errors).into()) }
}

/// What was found in buildx's form: warnings, and what keeps the file from being built.
fn results(read: &Read, findings: &[Diagnostic], is_strict: bool) -> call::LintResults {
    let warning = |finding: &Diagnostic| {
        let entry = finding.rule.and_then(reference::entry);
        call::LintWarning {
            rule: finding.rule.unwrap_or("Syntax").to_owned(),
            description: entry.map(|entry| entry.summary.to_owned()),
            url: entry.and_then(|entry| entry.url()),
            detail: finding.message.clone(),
            lines: place(read, finding),
        }
    };
    let (errors, warnings): (Vec<_>, Vec<_>) =
        findings.iter().partition(|finding| finding.level == Level::Error && finding.rule.is_none());
    let error = match errors.first() {
        Some(error) => Some((error.message.clone(), Some(place(read, error)))),
        None if is_strict && !warnings.is_empty() => Some((violated(&warnings), None)),
        None => None,
    };
    call::LintResults {
        warnings: warnings.into_iter().map(warning).collect(),
        file: read.source.name().to_owned(),
        source: read.source.text().to_owned(),
        error,
    }
}

fn violated(warnings: &[&Diagnostic]) -> String {
    let mut rules: Vec<&str> = warnings.iter().filter_map(|warning| warning.rule).collect();
    rules.sort_unstable();
    rules.dedup();
    format!("checks count as errors here, and these found something: {}", rules.join(", "))
}

/// BuildKit tells the lines of the whole instruction; of a blank line within one, the instruction's last.
fn place(read: &Read, finding: &Diagnostic) -> Lines {
    if finding.rule == Some("NoEmptyContinuation") {
        let last = last_line(&read.file, &read.source, finding.span);
        return Lines { first: last, last };
    }
    lines_of_instruction(read, finding.span)
}

fn last_line(file: &Dockerfile, source: &SourceFile, span: Span) -> usize {
    let found = file.instructions().take_while(|instruction| instruction.span.start <= span.start).last();
    let Some(found) = found else { return lines(source, span).first };
    match found.heredocs.first() {
        Some(heredoc) => source.position(heredoc.content_span.start).0.saturating_sub(1),
        None => lines(source, found.span).last,
    }
}
