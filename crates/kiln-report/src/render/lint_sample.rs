//! Findings for the tests of renderers: one with a fix behind characters of several bytes, one over lines, one without a
//! rule in another file.

use std::sync::Arc;

use crate::{Checked, Diagnostic, Edit, Fix, Level, RuleNote, Safety, SourceFile, Span};

pub(super) fn sample() -> (Vec<Checked>, Vec<RuleNote>) {
    let text = "FROM scratch\nRUN é🦀 as \\\n  b, 100%: <x>\n";
    let span = |of: &str| {
        let start = text.find(of).unwrap();
        Span::new(start, start + of.len())
    };
    let fix = Fix {
        description: "write `AS`".into(),
        edits: vec![Edit { span: span("as"), text: "AS".into() }],
        safety: Safety::Safe,
    };
    let first = Diagnostic::warning("Casing", span("as"), "`as` is small").hint("write `AS`").fix(fix);
    let mut second =
        Diagnostic::warning("Other", span("RUN é🦀 as \\\n  b, 100%"), "two lines:\n100%, <all> \"of\" it");
    second.level = Level::Style;
    let third = Diagnostic::error(Span::new(0, 3), "`XYZ` is no instruction").hint("did you mean `ENV`?");
    let files = vec![
        Checked { source: Arc::new(SourceFile::new("a dir/Dockerfile", text)), findings: vec![first, second] },
        Checked { source: Arc::new(SourceFile::new("b:c,d", "XYZ\n")), findings: vec![third] },
    ];
    let rule = |name, aliases, level, url: Option<&str>| RuleNote {
        name,
        aliases,
        level,
        summary: "something is odd",
        page: format!("# {name}\n\nBecause.\n"),
        url: url.map(str::to_owned),
    };
    let rules = vec![
        rule("Casing", &["DL1"], Level::Warning, Some("https://example.com/casing")),
        rule("Other", &[], Level::Style, None),
    ];
    (files, rules)
}
