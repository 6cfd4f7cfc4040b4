//! What a linter found as one JSON object, in fields of our own that stay.

use std::io::{self, Write};

use serde::Serialize;

use crate::checked::note;
use crate::{Checked, Diagnostic, Edit, Fix, RuleNote, Safety, SourceFile, Span};

/// Writes findings as JSON.
pub fn lint_json(files: &[Checked], rules: &[RuleNote], out: &mut dyn Write) -> io::Result<()> {
    let finding = |(file, found)| Finding::of(file, found, rules);
    let findings = files.iter().flat_map(|file| file.findings.iter().map(move |found| (&*file.source, found)));
    let report = Report { version: 1, findings: findings.map(finding).collect() };
    serde_json::to_writer_pretty(&mut *out, &report).map_err(io::Error::other)?;
    writeln!(out)
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    /// Grows when a field changes its meaning or goes.
    version: u32,
    findings: Vec<Finding<'a>>,
}

#[derive(Debug, Serialize)]
struct Finding<'a> {
    rule: Option<&'a str>,
    aliases: &'a [&'a str],
    level: &'a str,
    message: &'a str,
    file: &'a str,
    range: Range,
    hints: &'a [String],
    fix: Option<Mending<'a>>,
    url: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct Range {
    start: Position,
    end: Position,
}

#[derive(Debug, Serialize)]
struct Position {
    line: usize,
    column: usize,
    byte: usize,
}

#[derive(Debug, Serialize)]
struct Mending<'a> {
    description: &'a str,
    safe: bool,
    edits: Vec<Change<'a>>,
}

#[derive(Debug, Serialize)]
struct Change<'a> {
    range: Range,
    text: &'a str,
}

impl<'a> Finding<'a> {
    fn of(file: &'a SourceFile, found: &'a Diagnostic, rules: &'a [RuleNote]) -> Self {
        let rule = note(rules, found).map(|(_, rule)| rule);
        Self {
            rule: found.rule,
            aliases: rule.map_or(&[], |rule| rule.aliases),
            level: found.level.name(),
            message: &found.message,
            file: file.name(),
            range: Range::of(file, found.span),
            hints: &found.hints,
            fix: found.fix.as_ref().map(|fix| Mending::of(file, fix)),
            url: rule.and_then(|rule| rule.url.as_deref()),
        }
    }
}

impl<'a> Mending<'a> {
    fn of(file: &SourceFile, fix: &'a Fix) -> Self {
        let change = |edit: &'a Edit| Change { range: Range::of(file, edit.span), text: &edit.text };
        Self {
            description: &fix.description,
            safe: fix.safety == Safety::Safe,
            edits: fix.edits.iter().map(change).collect(),
        }
    }
}

impl Range {
    fn of(file: &SourceFile, span: Span) -> Self {
        let position = |byte| {
            let (line, column) = file.position(byte);
            Position { line, column, byte }
        };
        Self { start: position(span.start), end: position(span.end) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::lint_sample::sample;
    use super::*;

    #[test]
    fn a_finding_has_all_its_fields() {
        let (files, rules) = sample();
        let mut out = Vec::new();
        lint_json(&files, &rules, &mut out).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        let position = |line: u32, column: u32, byte: u32| json!({ "line": line, "column": column, "byte": byte });
        let range = json!({ "start": position(2, 8, 24), "end": position(2, 10, 26) });
        let fix = json!({
            "description": "write `AS`",
            "safe": true,
            "edits": [{ "range": range, "text": "AS" }],
        });
        let first = json!({
            "rule": "Casing",
            "aliases": ["DL1"],
            "level": "warning",
            "message": "`as` is small",
            "file": "a dir/Dockerfile",
            "range": range,
            "hints": ["write `AS`"],
            "fix": fix,
            "url": "https://example.com/casing",
        });
        let last = json!({
            "rule": null,
            "aliases": [],
            "level": "error",
            "message": "`XYZ` is no instruction",
            "file": "b:c,d",
            "range": { "start": position(1, 1, 0), "end": position(1, 4, 3) },
            "hints": ["did you mean `ENV`?"],
            "fix": null,
            "url": null,
        });
        assert_eq!((&value["version"], &value["findings"][0], &value["findings"][2]), (&json!(1), &first, &last));
    }

    #[test]
    fn nothing_found_is_an_empty_list() {
        let mut out = Vec::new();
        lint_json(&[], &[], &mut out).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value, json!({"version": 1, "findings": []}));
    }
}
