//! `tests/rules.txt` lists, rule by rule, what it finds and what it lets pass.
//!
//! A line is a Dockerfile, with `¶` between its lines; `+` is found, `-` is not. One without a
//! `FROM` stands behind `FROM debian:12`.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use kiln_lint::{OtherLabels, Scope, Settings, find, lint};

const CASES: &str = include_str!("rules.txt");

#[test]
fn rules_find_what_their_cases_say_and_nothing_else() {
    let mut rule = "";
    let mut wrong = Vec::new();
    for line in CASES.lines().filter(|line| !line.is_empty()) {
        if let Some(name) = line.strip_prefix("## ") {
            rule = name;
            assert!(find(rule).is_some(), "no rule `{rule}`");
            continue;
        }
        let is_found = found(&line[2..]).contains(&rule);
        if is_found != line.starts_with("+ ") {
            wrong.push(format!("{rule}: {line}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_rule_has_cases_of_both_kinds() {
    for rule in kiln_lint::RULES.iter().copied().flatten() {
        let section = CASES.split("## ").find_map(|section| section.strip_prefix(rule.name)?.strip_prefix('\n'));
        let section = section.unwrap_or_else(|| panic!("{} has no cases", rule.name));
        assert!(section.contains("+ ") && section.contains("- "), "{} lacks cases of a kind", rule.name);
    }
}

#[test]
fn a_fix_leaves_nothing_for_its_rule_to_find() {
    let mut count = 0;
    for rule in kiln_lint::RULES.iter().copied().flatten() {
        let (file, _) = kiln_dockerfile::parse(rule.bad);
        let findings = lint(&file, &Settings::default());
        let Some(fix) = findings.iter().find(|finding| finding.rule == Some(rule.name)).and_then(|f| f.fix.clone())
        else {
            continue;
        };
        let mut text = rule.bad.to_owned();
        let mut edits = fix.edits;
        edits.sort_by_key(|edit| std::cmp::Reverse(edit.span));
        edits.iter().for_each(|edit| text.replace_range(edit.span.range(), &edit.text));
        assert!(!found(text.trim_end()).contains(&rule.name), "{}: {text}", rule.name);
        count += 1;
    }
    assert!(count >= 10, "{count}");
}

fn found(case: &str) -> Vec<&'static str> {
    let mut text = case.replace('¶', "\n");
    if !text.lines().any(|line| line.starts_with("FROM ")) {
        text = format!("FROM debian:12\n{text}");
    }
    text.push('\n');
    let (file, errors) = kiln_dockerfile::parse(&text);
    assert!(errors.is_empty(), "{text}: {errors:?}");
    let settings = Settings {
        scope: Scope::Asked,
        trusted_registries: vec!["docker.io".to_owned(), "*.example.com".to_owned()],
        label_schema: [("contact".to_owned(), "email".to_owned()), ("release".to_owned(), "semver".to_owned())].into(),
        other_labels: OtherLabels::Refused,
        ..Settings::default()
    };
    let findings = lint(&file, &settings);
    for finding in &findings {
        assert!(text.get(finding.span.range()).is_some(), "{text}: {finding:?}");
    }
    findings.iter().filter_map(|finding| finding.rule).collect()
}
