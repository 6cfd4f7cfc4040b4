//! Labels: their keys, and values that have a form.

use std::collections::BTreeMap;

use kiln_dockerfile::instruction::Command;
use kiln_dockerfile::{Instruction, Pair};
use kiln_report::Level;

use super::formats;
use crate::finding::Findings;
use crate::rule::{Rule, Scope};
use crate::settings::OtherLabels;
use crate::view::View;

const WHY_FORM: &str = "Programs read labels: registries show them, scanners sort by them. A value in another form than the \
                        key promises is lost on them. What form a key has is what OCI says of its own keys, and what \
                        `label-schema` of `.hadolint.yaml` says of others.";

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "LabelKeyInvalid",
        aliases: &["DL3048"],
        level: Level::Style,
        scope: Scope::Check,
        summary: "a label's key is not of the form that Docker recommends",
        why: "Keys are lower-case letters, digits, single dots and dashes, and begin and end with a letter or digit; some \
              beginnings are Docker's own. Other keys work, but some programs do not find them.",
        bad: "FROM debian:12\nLABEL Build_Date=\"2026-01-02\"\n",
        good: "FROM debian:12\nLABEL com.example.build-date=\"2026-01-02\"\n",
        check: keys,
    },
    Rule {
        name: "LabelMissing",
        aliases: &["DL3049"],
        level: Level::Info,
        scope: Scope::Check,
        summary: "a label that the configuration asks for is missing",
        why: "Whoever lists labels in `label-schema` of `.hadolint.yaml` wants each image to have them. Without such a list \
              this rule finds nothing.",
        bad: "FROM debian:12\n",
        good: "FROM debian:12\nLABEL contact=\"ada@example.com\"\n",
        check: missing,
    },
    Rule {
        name: "LabelNotInSchema",
        aliases: &["DL3050"],
        level: Level::Info,
        scope: Scope::Check,
        summary: "a label is set that the configuration does not list",
        why: "With `strict-labels` in `.hadolint.yaml` an image has the labels that are listed, and no others.",
        bad: "FROM debian:12\nLABEL note=\"x\"\n",
        good: "FROM debian:12\nLABEL contact=\"ada@example.com\"\n",
        check: not_in_schema,
    },
    Rule {
        name: "LabelEmpty",
        aliases: &["DL3051"],
        level: Level::Warning,
        scope: Scope::Check,
        summary: "a label that should say something is empty",
        why: "An empty label overrules the one of the base image and says nothing instead.",
        bad: "FROM debian:12\nLABEL org.opencontainers.image.title=\"\"\n",
        good: "FROM debian:12\nLABEL org.opencontainers.image.title=\"shop\"\n",
        check: |view, findings| values(view, &["text"], |value| !value.trim().is_empty(), findings),
    },
    Rule {
        name: "LabelNotUrl",
        aliases: &["DL3052"],
        level: Level::Warning,
        scope: Scope::Check,
        summary: "a label that should be a URL is none",
        why: WHY_FORM,
        bad: "FROM debian:12\nLABEL org.opencontainers.image.source=\"our server\"\n",
        good: "FROM debian:12\nLABEL org.opencontainers.image.source=\"https://git.example/shop\"\n",
        check: |view, findings| values(view, &["url"], formats::is_url, findings),
    },
    Rule {
        name: "LabelNotTime",
        aliases: &["DL3053"],
        level: Level::Warning,
        scope: Scope::Check,
        summary: "a label that should be a time is none",
        why: WHY_FORM,
        bad: "FROM debian:12\nLABEL org.opencontainers.image.created=\"yesterday\"\n",
        good: "FROM debian:12\nLABEL org.opencontainers.image.created=\"2026-01-02T03:04:05Z\"\n",
        check: |view, findings| values(view, &["rfc3339"], formats::is_time, findings),
    },
    Rule {
        name: "LabelNotLicense",
        aliases: &["DL3054"],
        level: Level::Warning,
        scope: Scope::Check,
        summary: "a label that should name licences by their SPDX ids does not",
        why: WHY_FORM,
        bad: "FROM debian:12\nLABEL org.opencontainers.image.licenses=\"Apache License, Version 2.0\"\n",
        good: "FROM debian:12\nLABEL org.opencontainers.image.licenses=\"Apache-2.0\"\n",
        check: |view, findings| values(view, &["spdx"], formats::is_license, findings),
    },
    Rule {
        name: "LabelNotCommit",
        aliases: &["DL3055"],
        level: Level::Warning,
        scope: Scope::Check,
        summary: "a label that should be a commit's hash is none",
        why: WHY_FORM,
        bad: "FROM debian:12\nLABEL org.label-schema.vcs-ref=\"main\"\n",
        good: "FROM debian:12\nLABEL org.label-schema.vcs-ref=\"3f786850e387550fdab836ed7e6dc881de23001b\"\n",
        check: |view, findings| values(view, &["hash"], formats::is_commit, findings),
    },
    Rule {
        name: "LabelNotVersion",
        aliases: &["DL3056"],
        level: Level::Warning,
        scope: Scope::Check,
        summary: "a label that should be a semantic version is none",
        why: WHY_FORM,
        bad: "FROM debian:12\nLABEL org.label-schema.schema-version=\"one\"\n",
        good: "FROM debian:12\nLABEL org.label-schema.schema-version=\"1.0.0\"\n",
        check: |view, findings| values(view, &["semver"], formats::is_version, findings),
    },
    Rule {
        name: "LabelNotEmail",
        aliases: &["DL3058"],
        level: Level::Warning,
        scope: Scope::Check,
        summary: "a label that should be an address for mail is none",
        why: WHY_FORM,
        bad: "FROM debian:12\nLABEL contact=\"Ada\"\n",
        good: "FROM debian:12\nLABEL contact=\"ada@example.com\"\n",
        check: |view, findings| values(view, &["email"], formats::is_email, findings),
    },
];

/// Forms of keys that are known without a configuration: OCI's, and those of its predecessor.
const KNOWN: [(&str, &str); 9] = [
    ("org.opencontainers.image.created", "rfc3339"),
    ("org.opencontainers.image.url", "url"),
    ("org.opencontainers.image.documentation", "url"),
    ("org.opencontainers.image.source", "url"),
    ("org.opencontainers.image.licenses", "spdx"),
    ("org.opencontainers.image.title", "text"),
    ("org.label-schema.build-date", "rfc3339"),
    ("org.label-schema.vcs-ref", "hash"),
    ("org.label-schema.schema-version", "semver"),
];

/// A label with its quotes taken off.
struct Label<'a> {
    instruction: &'a Instruction,
    pair: &'a Pair,
    key: String,
    /// `None` when variables make it.
    value: Option<String>,
}

fn labels<'a>(view: &View<'a>) -> Vec<Label<'a>> {
    let unquoted = |text: &str| match text.as_bytes() {
        [open @ (b'"' | b'\''), .., close] if open == close => text[1..text.len() - 1].to_owned(),
        _ => text.to_owned(),
    };
    let mut labels = Vec::new();
    for instruction in view.instructions() {
        let Some(Command::Label(pairs)) = &instruction.command else { continue };
        for pair in pairs {
            let value = (!pair.value.text.contains('$')).then(|| unquoted(&pair.value.text));
            labels.push(Label { instruction, pair, key: unquoted(&pair.key.text), value });
        }
    }
    labels
}

fn keys(view: &View<'_>, findings: &mut Findings<'_>) {
    for label in labels(view).iter().filter(|label| !label.key.contains('$') && !formats::is_label_key(&label.key)) {
        let message = format!("label `{}` has a key that programs may not find", label.key);
        let hint = "use lower-case letters, digits, single dots and dashes, and a domain of your own in front";
        findings.report(label.instruction, label.pair.key.span, message, hint);
    }
}

fn missing(view: &View<'_>, findings: &mut Findings<'_>) {
    let schema = &findings.settings().label_schema;
    let (false, Some(last)) = (schema.is_empty(), view.stages.len().checked_sub(1)) else { return };
    let head = view.stages[last].head;
    let lineage = view.lineage(last, view.stages[last].body.len());
    let set: Vec<&str> = lineage
        .flat_map(|instruction| match &instruction.command {
            Some(Command::Label(pairs)) => pairs.iter().map(|pair| pair.key.text.trim_matches(['"', '\''])).collect(),
            _ => Vec::new(),
        })
        .collect();
    for key in schema.keys().filter(|key| !set.contains(&key.as_str())) {
        let message = format!("the image has no label `{key}`, which the configuration asks for");
        findings.report(head, view.stages[last].from.image.span, message, format!("add `LABEL {key}=\"…\"`"));
    }
}

fn not_in_schema(view: &View<'_>, findings: &mut Findings<'_>) {
    let settings = findings.settings();
    if settings.other_labels == OtherLabels::Allowed {
        return;
    }
    for label in labels(view).iter().filter(|label| !settings.label_schema.contains_key(&label.key)) {
        let message = format!("label `{}` is not in the configuration's list", label.key);
        findings.report(label.instruction, label.pair.key.span, message, "leave it out, or add it to `label-schema`");
    }
}

/// Reports labels of a form whose values are not of it.
fn values(view: &View<'_>, forms: &[&str], is_it: fn(&str) -> bool, findings: &mut Findings<'_>) {
    let mut known: BTreeMap<&str, &str> = KNOWN.into_iter().collect();
    known.extend(findings.settings().label_schema.iter().map(|(key, form)| (key.as_str(), form.as_str())));
    for label in labels(view) {
        let Some(form) = known.get(label.key.as_str()) else { continue };
        let Some(value) = label.value.filter(|value| !is_it(value)) else { continue };
        // An empty value is told about as such, whatever its form.
        let is_about_empty = forms == ["text"];
        if value.trim().is_empty() != is_about_empty || !is_about_empty && !forms.contains(form) {
            continue;
        }
        let (message, hint) = match *form {
            _ if is_about_empty => (format!("label `{}` is empty", label.key), "give it a value, or leave it out"),
            "url" => (not_a("URL", &label.key, &value), "write all of it, as in `https://example.com/shop`"),
            "rfc3339" => (not_a("time", &label.key, &value), "write it as in `2026-01-02T03:04:05Z`"),
            "spdx" => (not_a("licence's SPDX id", &label.key, &value), "write it as in `Apache-2.0 OR MIT`"),
            "hash" => (not_a("commit's hash", &label.key, &value), "write all of it or its first seven digits"),
            "semver" => (not_a("semantic version", &label.key, &value), "write it as in `1.2.3`"),
            _ => (not_a("mail address", &label.key, &value), "write it as in `ada@example.com`"),
        };
        findings.report(label.instruction, label.pair.value.span, message, hint);
    }
}

fn not_a(thing: &str, key: &str, value: &str) -> String {
    format!("label `{key}` is `{value}`, which is no {thing}")
}
