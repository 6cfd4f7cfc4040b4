//! Comments that were meant to say something to a program: names of rules, and directives.

use kiln_dockerfile::{ItemKind, Word, nearest};
use kiln_report::Level;

use crate::finding::Findings;
use crate::reference;
use crate::rule::{Rule, Scope};
use crate::settings::{Reach, pragma};
use crate::view::View;

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "UnknownRuleName",
        aliases: &[],
        level: Level::Warning,
        scope: Scope::Check,
        summary: "a comment switches off a rule that there is not",
        why: "A misspelt name switches nothing off, and nothing says so. Codes of hadolint and ShellCheck are let pass, also of \
              rules that kiln does not have.",
        bad: "# check=skip=StageNameCase\nFROM debian:12\nCMD [\"server\"]\n",
        good: "# check=skip=StageNameCasing\nFROM debian:12\nCMD [\"server\"]\n",
        check: unknown_names,
    },
    Rule {
        name: "MisspeltDirective",
        aliases: &[],
        level: Level::Warning,
        scope: Scope::Check,
        summary: "a comment at the top of the file is nearly a directive",
        why: "Directives are `syntax`, `escape` and `check`, and stand above everything else. A line with another name is a \
              comment, and ends them: those below it are comments too.",
        bad: "# syntx=docker/dockerfile:1\nFROM debian:12\n",
        good: "# syntax=docker/dockerfile:1\nFROM debian:12\n",
        check: misspelt_directive,
    },
];

fn unknown_names(view: &View<'_>, findings: &mut Findings<'_>) {
    for item in &view.file.items {
        match &item.kind {
            ItemKind::Directive(directive) if directive.name.text == "check" => {
                let value = &directive.value;
                chosen(&value.text).for_each(|name| must_be_known(value, name, findings));
            }
            ItemKind::Comment(comment) => {
                let pragmas = [Reach::Instruction, Reach::File].into_iter().filter_map(|r| pragma(&comment.text, r));
                let check = directive(&comment.text).filter(|(name, _)| name.eq_ignore_ascii_case("check"));
                let checks = check.into_iter().flat_map(|(_, value)| chosen(value));
                pragmas.flatten().chain(checks).for_each(|name| must_be_known(comment, name, findings));
            }
            _ => {}
        }
    }
}

/// The names in `skip=A,B;experimental=C because …`.
fn chosen(settings: &str) -> impl Iterator<Item = &str> {
    let choices = settings.split(' ').next().unwrap_or_default().split(';').filter_map(|part| part.split_once('='));
    let choices = choices.filter(|(key, _)| ["skip", "experimental"].contains(&key.trim()));
    choices.flat_map(|(_, names)| names.split(',')).map(str::trim).filter(|name| !["", "all"].contains(name))
}

/// `name` is a part of the text.
fn must_be_known(text: &Word, name: &str, findings: &mut Findings<'_>) {
    if reference::is_known(name) {
        return;
    }
    let start = name.as_ptr() as usize - text.text.as_ptr() as usize;
    let hint = match reference::nearest(name) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "list the rules with `kiln check --list-rules`".to_owned(),
    };
    let span = text.part(start, start + name.len());
    findings.report_comment(span, format!("no rule is called `{name}`"), hint);
}

fn misspelt_directive(view: &View<'_>, findings: &mut Findings<'_>) {
    let below = view.file.items.iter().enumerate().find(|(at, item)| match &item.kind {
        ItemKind::Directive(_) => false,
        // What starts a script stands above the directives.
        ItemKind::Comment(comment) => *at > 0 || !comment.text.starts_with('!'),
        _ => true,
    });
    let Some(ItemKind::Comment(comment)) = below.map(|(_, item)| &item.kind) else { return };
    let Some((name, _)) = directive(&comment.text) else { return };
    let Some(meant) = nearest(&name.to_lowercase(), ["syntax", "escape", "check"]) else { return };
    let message = format!("there is no directive `{name}`: the line is a comment");
    findings.report_comment(comment.part(0, name.len()), message, format!("did you mean `{meant}`?"));
}

/// Splits `name = value`.
fn directive(comment: &str) -> Option<(&str, &str)> {
    let (name, value) = comment.split_once('=')?;
    let (name, value) = (name.trim_end(), value.trim());
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (is_name && !value.is_empty()).then_some((name, value))
}
