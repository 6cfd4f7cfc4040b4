//! What a linter found as SARIF 2.1.0, the format code scanners exchange.
//!
//! <https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html>

use std::io::{self, Write};

use serde_json::{Value, json};

use crate::checked::note;
use crate::{Checked, Diagnostic, Edit, Fix, Level, RuleNote, SourceFile, Span};

const SCHEMA: &str = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

/// Writes findings as SARIF. `version` is the program's own.
pub fn sarif(files: &[Checked], rules: &[RuleNote], version: &str, out: &mut dyn Write) -> io::Result<()> {
    let found = files.iter().flat_map(|file| file.findings.iter().map(|finding| (&*file.source, finding)));
    let results: Vec<Value> = found.map(|(source, finding)| result(source, finding, rules)).collect();
    let driver = json!({
        "name": "kiln",
        "semanticVersion": version,
        "rules": rules.iter().map(descriptor).collect::<Vec<_>>(),
    });
    let run = json!({
        "tool": { "driver": driver },
        "columnKind": "unicodeCodePoints",
        "results": results,
    });
    let log = json!({ "$schema": SCHEMA, "version": "2.1.0", "runs": [run] });
    serde_json::to_writer_pretty(&mut *out, &log).map_err(io::Error::other)?;
    writeln!(out)
}

fn descriptor(rule: &RuleNote) -> Value {
    let mut descriptor = json!({
        "id": rule.name,
        "shortDescription": { "text": rule.summary },
        "help": { "text": rule.page, "markdown": rule.page },
        "defaultConfiguration": { "level": level(rule.level) },
    });
    if let Some(url) = &rule.url {
        descriptor["helpUri"] = json!(url);
    }
    if !rule.aliases.is_empty() {
        descriptor["properties"] = json!({ "tags": rule.aliases });
    }
    descriptor
}

fn result(source: &SourceFile, finding: &Diagnostic, rules: &[RuleNote]) -> Value {
    let mut text = finding.message.clone();
    finding.hints.iter().for_each(|hint| text.push_str(&format!("\nhint: {hint}")));
    let mut result = json!({
        "ruleId": finding.rule.unwrap_or("Syntax"),
        "level": level(finding.level),
        "message": { "text": text },
        "locations": [{ "physicalLocation": { "artifactLocation": artifact(source), "region": region(source, finding.span) } }],
    });
    if let Some((index, _)) = note(rules, finding) {
        result["ruleIndex"] = json!(index);
    }
    if let Some(fix) = &finding.fix {
        result["fixes"] = json!([change(source, fix)]);
    }
    result
}

fn change(source: &SourceFile, fix: &Fix) -> Value {
    let replacement =
        |edit: &Edit| json!({ "deletedRegion": region(source, edit.span), "insertedContent": { "text": edit.text } });
    json!({
        "description": { "text": fix.description },
        "artifactChanges": [{
            "artifactLocation": artifact(source),
            "replacements": fix.edits.iter().map(replacement).collect::<Vec<_>>(),
        }],
    })
}

fn level(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warning => "warning",
        Level::Info | Level::Style => "note",
    }
}

fn region(source: &SourceFile, span: Span) -> Value {
    let ((line, column), (end_line, end_column)) = (source.position(span.start), source.position(span.end));
    json!({ "startLine": line, "startColumn": column, "endLine": end_line, "endColumn": end_column })
}

/// Where a text is, as a URI reference; one that is relative stays so.
fn artifact(source: &SourceFile) -> Value {
    let name = source.name();
    let mut uri = String::new();
    if name.starts_with('/') {
        uri.push_str("file://");
    } else if name.split('/').next().is_some_and(|first| first.contains(':')) {
        // Else it would be taken for a scheme.
        uri.push_str("./");
    }
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => uri.push(char::from(byte)),
            byte => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    json!({ "uri": uri })
}

#[cfg(test)]
mod tests {
    use super::super::lint_sample::sample;
    use super::*;

    fn written() -> Value {
        let (files, rules) = sample();
        let mut out = Vec::new();
        sarif(&files, &rules, "1.2.3", &mut out).unwrap();
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn rules_and_findings_are_written() {
        let log = written();
        let run = &log["runs"][0];
        let region = json!({ "startLine": 2, "startColumn": 8, "endLine": 2, "endColumn": 10 });
        let file = json!({ "uri": "a%20dir/Dockerfile" });
        let replacement = json!({ "deletedRegion": region, "insertedContent": { "text": "AS" } });
        let change = json!({ "artifactLocation": file, "replacements": [replacement] });
        let first = json!({
            "ruleId": "Casing",
            "ruleIndex": 0,
            "level": "warning",
            "message": { "text": "`as` is small\nhint: write `AS`" },
            "locations": [{ "physicalLocation": { "artifactLocation": file, "region": region } }],
            "fixes": [{ "description": { "text": "write `AS`" }, "artifactChanges": [change] }],
        });
        assert_eq!(run["results"][0], first);
        assert_eq!((&run["results"][2]["ruleId"], &run["results"][2]["ruleIndex"]), (&json!("Syntax"), &Value::Null));
        let help = "# Casing\n\nBecause.\n";
        let rule = json!({
            "id": "Casing",
            "shortDescription": { "text": "something is odd" },
            "help": { "text": help, "markdown": help },
            "defaultConfiguration": { "level": "warning" },
            "helpUri": "https://example.com/casing",
            "properties": { "tags": ["DL1"] },
        });
        let driver = &run["tool"]["driver"];
        assert_eq!((&driver["rules"][0], &driver["semanticVersion"]), (&rule, &json!("1.2.3")));
    }

    /// What the public schema asks of the objects used here: the fields they must and may have.
    const SHAPES: &[(&str, &[&str], &[&str])] = &[
        ("log", &["version", "runs"], &["$schema"]),
        ("run", &["tool"], &["columnKind", "results"]),
        ("tool", &["driver"], &[]),
        ("driver", &["name"], &["semanticVersion", "rules"]),
        ("rule", &["id"], &["shortDescription", "help", "defaultConfiguration", "helpUri", "properties"]),
        ("result", &["message"], &["ruleId", "ruleIndex", "level", "locations", "fixes"]),
        ("message", &["text"], &["markdown"]),
        ("location", &[], &["physicalLocation"]),
        ("physicalLocation", &[], &["artifactLocation", "region"]),
        ("artifactLocation", &[], &["uri"]),
        ("region", &[], &["startLine", "startColumn", "endLine", "endColumn"]),
        ("fix", &["artifactChanges"], &["description"]),
        ("artifactChange", &["artifactLocation", "replacements"], &[]),
        ("replacement", &["deletedRegion"], &["insertedContent"]),
        ("insertedContent", &[], &["text"]),
        ("defaultConfiguration", &[], &["level"]),
        ("properties", &[], &["tags"]),
    ];

    /// The objects within an object: by the field they are in, and the shape they have.
    const PARTS: &[(&str, &str)] = &[
        ("runs", "run"),
        ("tool", "tool"),
        ("driver", "driver"),
        ("rules", "rule"),
        ("results", "result"),
        ("message", "message"),
        ("shortDescription", "message"),
        ("description", "message"),
        ("help", "message"),
        ("locations", "location"),
        ("physicalLocation", "physicalLocation"),
        ("artifactLocation", "artifactLocation"),
        ("region", "region"),
        ("deletedRegion", "region"),
        ("fixes", "fix"),
        ("artifactChanges", "artifactChange"),
        ("replacements", "replacement"),
        ("insertedContent", "insertedContent"),
        ("defaultConfiguration", "defaultConfiguration"),
        ("properties", "properties"),
    ];

    fn check(value: &Value, shape: &str) {
        let (_, must, may) = SHAPES.iter().find(|(name, ..)| *name == shape).unwrap();
        let object = value.as_object().unwrap_or_else(|| panic!("{shape} is {value}"));
        assert!(must.iter().all(|field| object.contains_key(*field)), "{shape} lacks a field: {value}");
        for (field, inner) in object {
            assert!(must.contains(&field.as_str()) || may.contains(&field.as_str()), "{shape} has no {field}");
            let Some((_, part)) = PARTS.iter().find(|(name, _)| name == field) else { continue };
            match inner.as_array() {
                Some(items) => items.iter().for_each(|item| check(item, part)),
                None => check(inner, part),
            }
        }
    }

    #[test]
    fn every_object_has_the_fields_that_the_schema_asks_for() {
        let log = written();
        check(&log, "log");
        assert_eq!(log["version"], "2.1.0");
        let run = &log["runs"][0];
        for result in run["results"].as_array().unwrap() {
            assert!(["none", "note", "warning", "error"].contains(&result["level"].as_str().unwrap()));
            if let Some(index) = result["ruleIndex"].as_u64() {
                assert_eq!(run["tool"]["driver"]["rules"][index as usize]["id"], result["ruleId"]);
            }
            let region = &result["locations"][0]["physicalLocation"]["region"];
            for field in ["startLine", "startColumn", "endLine", "endColumn"] {
                assert!(region[field].as_u64().is_some_and(|number| number >= 1), "{field}: {region}");
            }
        }
    }

    #[test]
    fn columns_count_characters() {
        let region = &written()["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["region"];
        assert_eq!((&region["startColumn"], &region["endColumn"]), (&json!(8), &json!(10)));
    }

    #[test]
    fn names_are_uri_references() {
        let uri = |name: &str| artifact(&SourceFile::new(name, ""))["uri"].as_str().unwrap().to_owned();
        assert_eq!(uri("a b/Dockerfile"), "a%20b/Dockerfile");
        assert_eq!(uri("/a/é"), "file:///a/%C3%A9");
        assert_eq!(uri("c:d"), "./c%3Ad");
    }
}
