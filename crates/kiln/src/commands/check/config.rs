//! The configuration file: where it is looked for, and what is said about it.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use kiln_lint::{Hadolint, Place};
use kiln_report::{Diagnostic, Excerpt, Failure, FailureKind, Level, SourceFile, Span, render};

use crate::args::Environment;
use crate::text_file::read_text;
use crate::ui::terminal;

/// Reads the file that is named, else the first that is found; says what in it has no meaning here.
pub(super) fn load(named: Option<&Path>, environment: &Environment) -> Result<Hadolint, Failure> {
    let found = || environment.hadolint_configs().into_iter().find(|path| path.is_file());
    let Some(path) = named.map(Path::to_owned).or_else(found) else { return Ok(Hadolint::default()) };
    let text = read_text(&path)?;
    read(&path, text, environment)
}

fn read(path: &Path, text: String, environment: &Environment) -> Result<Hadolint, Failure> {
    let source = Arc::new(SourceFile::new(path.to_string_lossy(), text));
    let place = |place: Place| Excerpt { file: Arc::clone(&source), span: span(source.text(), place) };
    let config = Hadolint::parse(source.text()).map_err(|error| {
        let excerpt = place(error.place);
        let finding = Diagnostic::error(excerpt.span, error.to_string());
        let message = format!("cannot use the configuration `{}`", source.name());
        Failure { diagnostics: vec![(finding, excerpt)], ..Failure::new(FailureKind::Usage, message) }
    })?;
    for unknown in &config.unknown {
        let excerpt = place(unknown.place);
        let message = format!("{} has no meaning here", unknown.what);
        let hints = unknown.nearest.iter().map(|near| format!("did you mean `{near}`?")).collect();
        let finding = Diagnostic { level: Level::Warning, hints, ..Diagnostic::error(excerpt.span, message) };
        let text = render::diagnostic(&finding, &excerpt, terminal::color(environment));
        // Where nobody listens nobody is told.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
    Ok(config)
}

/// The word at a place, or what there is of it.
fn span(text: &str, Place { line, column }: Place) -> Span {
    let start: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let line = text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or_default();
    let before: usize = line.chars().take(column.saturating_sub(1)).map(char::len_utf8).sum();
    let word = line[before..].find([' ', ',', ':', ']', '}']).unwrap_or(line.len() - before);
    Span::new(start + before, start + before + word)
}
