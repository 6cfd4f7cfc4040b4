//! Variables.

use kiln_dockerfile::Pair;
use kiln_dockerfile::expand::{Env, Lexer};
use kiln_dockerfile::instruction::Command;
use kiln_report::{Level, Span};

use crate::finding::Findings;
use crate::rule::{Rule, Scope};
use crate::view::View;

pub(super) const RULES: &[Rule] = &[Rule {
    name: "EnvRefersToItself",
    aliases: &["DL3044"],
    level: Level::Error,
    scope: Scope::Check,
    summary: "ENV uses a variable that it sets itself",
    why: "All values of one ENV are filled in before any of them is set, so the variable is empty or has the value of before.",
    bad: "FROM debian:12\nENV HOME_DIR=/srv/app BIN_DIR=$HOME_DIR/bin\n",
    good: "FROM debian:12\nENV HOME_DIR=/srv/app\nENV BIN_DIR=$HOME_DIR/bin\n",
    check,
}];

/// Variables that every image has.
const ALWAYS: [&str; 2] = ["PATH", "HOME"];

fn check(view: &View<'_>, findings: &mut Findings<'_>) {
    for (number, stage) in view.stages.iter().enumerate() {
        for (index, instruction) in stage.body.iter().enumerate() {
            let Some(Command::Env(pairs)) = &instruction.command else { continue };
            for (name, span) in too_early(view, pairs) {
                if is_known(view, (number, index), &name) {
                    continue;
                }
                let message = format!("`${name}` is not set yet: the same ENV sets it");
                findings.report(instruction, span, message, format!("set `{name}` in an ENV of its own before"));
            }
        }
    }
}

/// Variables that values use and other pairs of the same instruction set.
fn too_early(view: &View<'_>, pairs: &[Pair]) -> Vec<(String, Span)> {
    let lexer = Lexer::new(view.file.escape);
    let mut found = Vec::new();
    for pair in pairs.iter().filter(|_| pairs.len() > 1) {
        let uses = lexer.expand(&pair.value.text, &Env::new()).map(|expansion| expansion.uses).unwrap_or_default();
        for used in uses.into_iter().filter(|used| !ALWAYS.contains(&used.name.as_str())) {
            if pairs.iter().any(|other| other.key.text == used.name && other.key != pair.key) {
                found.push((used.name, pair.value.part(used.start, used.end)));
            }
        }
    }
    found
}

/// Whether an earlier instruction sets a variable.
fn is_known(view: &View<'_>, (stage, index): (usize, usize), name: &str) -> bool {
    view.lineage(stage, index).any(|instruction| match &instruction.command {
        Some(Command::Env(pairs)) => pairs.iter().any(|pair| pair.key.text == name),
        Some(Command::Arg(items)) => items.iter().any(|item| item.key.text == name),
        _ => false,
    })
}
