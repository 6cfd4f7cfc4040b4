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

/// The image a file wants as its frontend, with its place: from `# syntax=`, `// syntax=` or JSON.
///
/// A first line `#!…` is passed over.
pub fn detect_syntax(text: &str) -> Option<Word> {
    let bom = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    let mut start = bom;
    if text[start..].starts_with("#!") {
        start = text[start..].find('\n').map_or(text.len(), |at| start + at + 1);
    }
    let body = &text[start..];
    ["#", "//"].iter().find_map(|prefix| syntax_line(body, start, prefix)).or_else(|| syntax_json(body, start))
}

fn syntax_line(body: &str, start: usize, prefix: &str) -> Option<Word> {
    let mut seen: Vec<String> = Vec::new();
    let mut at = start;
    for raw in body.split_inclusive('\n') {
        let (name, value) = name_and_value(raw.strip_prefix(prefix)?.trim())?;
        let name = name.to_ascii_lowercase();
        if seen.contains(&name) {
            return None;
        }
        if name == "syntax" {
            let offset = at + (value.as_ptr() as usize - raw.as_ptr() as usize);
            let image = value.split(' ').next().unwrap_or(value);
            return Some(Word { text: image.to_owned(), span: Span::new(offset, offset + image.len()) });
        }
        seen.push(name);
        at += raw.len();
    }
    None
}

fn syntax_json(body: &str, start: usize) -> Option<Word> {
    if !body.trim_start().starts_with('{') {
        return None;
    }
    let value: serde_json::Value = serde_json::from_str(body).ok()?;
    let text = value.get("syntax")?.as_str()?.to_owned();
    Some(Word { text, span: Span::new(start, start + body.len()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frontend_is_found_in_all_its_spellings() {
        for (text, wanted) in [
            ("# syntax=docker/dockerfile:1\nFROM x", Some("docker/dockerfile:1")),
            ("\u{feff}#SYNTAX = a/b  \r\n", Some("a/b")),
            ("# escape=`\n# syntax=a", Some("a")),
            ("#!/usr/bin/env x\n# syntax=a extra words", Some("a")),
            ("// syntax=hcl/front\n", Some("hcl/front")),
            ("{\"syntax\": \"j\"}", Some("j")),
            ("# note\n# syntax=a", None),
            ("\n# syntax=a", None),
            ("FROM x\n# syntax=a", None),
        ] {
            let found = detect_syntax(text);
            assert_eq!(found.as_ref().map(|w| w.text.as_str()), wanted, "{text:?}");
            if let Some(word) = found.filter(|_| !text.starts_with('{')) {
                assert_eq!(&text[word.span.range()], word.text);
            }
        }
    }
}
