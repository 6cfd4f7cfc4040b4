//! Every folder of `tests/cases` is a Dockerfile and what is found in it.
#![allow(clippy::disallowed_methods, reason = "tests name files of the machine")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fmt::Write as _;
use std::path::Path;

use kiln_lint::{Settings, lint};
use kiln_report::SourceFile;

#[test]
fn every_case_is_found_what_its_snapshot_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut cases: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(!cases.is_empty());
    for case in cases {
        let text = std::fs::read_to_string(case.join("Dockerfile")).unwrap();
        insta::with_settings!({ snapshot_path => &case, prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!("findings", render(&text));
        });
    }
}

fn render(text: &str) -> String {
    let (file, errors) = kiln_dockerfile::parse(text);
    assert!(errors.is_empty(), "{errors:?}");
    let source = SourceFile::new("Dockerfile", text);
    let mut out = String::new();
    for finding in lint(&file, &Settings::default()) {
        let (line, column) = source.position(finding.span.start);
        let rule = finding.rule.unwrap_or_default();
        writeln!(out, "{line}:{column} {}[{rule}]: {}", finding.level.name(), finding.message).unwrap();
        writeln!(out, "    | {:?}", &text[finding.span.range()]).unwrap();
        for hint in &finding.hints {
            writeln!(out, "    hint: {hint}").unwrap();
        }
    }
    out
}
