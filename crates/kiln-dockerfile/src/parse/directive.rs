//! Parser directives: `# syntax=…`, `# escape=…`, `# check=…` at the top of a file.

use kiln_report::{Diagnostic, Span};

use super::lines::Physical;
use super::{Directive, Word};

const KNOWN: [&str; 3] = ["syntax", "escape", "check"];

/// Reads the directives of a file, line by line, until the first line that is none.
#[derive(Debug, Default)]
pub(crate) struct DirectiveReader {
    seen: Vec<String>,
    is_done: bool,
}

impl DirectiveReader {
    /// Reads one line; gives the directive, if it is one and the top of the file is not yet over.
    pub(crate) fn read(&mut self, line: Physical<'_>, diagnostics: &mut Vec<Diagnostic>) -> Option<Directive> {
        if self.is_done {
            return None;
        }
        let directive = directive(line);
        let Some(directive) = directive else {
            self.is_done = true;
            return None;
        };
        if self.seen.contains(&directive.name.text) {
            let message = format!("directive `{}` is set twice", directive.name.text);
            diagnostics.push(Diagnostic::error(directive.name.span, message).hint("keep only one of them"));
        }
        self.seen.push(directive.name.text.clone());
        Some(directive)
    }
}

fn directive(line: Physical<'_>) -> Option<Directive> {
    let body = line.text.trim_start().strip_prefix('#')?.trim_start();
    let (name, value) = name_and_value(body)?;
    let at = line.end() - body.len();
    let value_at = at + (value.as_ptr() as usize - body.as_ptr() as usize);
    Some(Directive {
        name: Word { text: name.to_ascii_lowercase(), span: Span::new(at, at + name.len()) },
        value: Word { text: value.to_owned(), span: Span::new(value_at, value_at + value.len()) },
    })
}

/// Splits `name = value`; nothing when it is no directive that is known.
pub(crate) fn name_and_value(body: &str) -> Option<(&str, &str)> {
    let end = body.find(|c: char| !c.is_ascii_alphanumeric())?;
    let name = &body[..end];
    if !KNOWN.iter().any(|known| known.eq_ignore_ascii_case(name)) {
        return None;
    }
    let value = body[end..].trim_start().strip_prefix('=')?.trim();
    (!value.is_empty()).then_some((name, value))
}
