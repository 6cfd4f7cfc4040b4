//! `kiln fsck`.

use std::fmt::Write as _;

use clap::Args;
use kiln_engine::{FsckAnswer, FsckProblem, FsckRequest};
use serde_json::json;

use crate::setting::Setting;
use crate::ui::age::size;
use crate::ui::exit::Outcome;
use crate::ui::stdout;

/// Check that all that is kept is whole
#[derive(Debug, Args)]
pub(crate) struct FsckArgs {
    /// Take out what is broken, and what needs it: the next build makes it again
    #[arg(long)]
    repair: bool,

    /// Read every layer, too
    #[arg(long)]
    deep: bool,

    /// Print text, or one JSON document
    #[arg(long, value_name = "FORMAT", value_parser = ["text", "json"], default_value = "text", hide_default_value = true, hide_possible_values = true)]
    format: String,
}

/// Looks, and says what is broken; that it still is, too, with the exit code.
pub(crate) fn run(args: &FsckArgs, setting: &Setting) -> Outcome {
    let answer = setting.engine()?.fsck(&FsckRequest { repair: args.repair, deep: args.deep })?;
    let text = if args.format == "json" { format!("{:#}\n", document(&answer)) } else { report(&answer, args.repair) };
    stdout::print(&text)?;
    Ok(u8::from(!answer.problems.iter().all(|problem| problem.is_repaired)))
}

fn document(answer: &FsckAnswer) -> serde_json::Value {
    let problem = |problem: &FsckProblem| {
        let FsckProblem { kind, id, what, lost, is_repaired } = problem;
        json!({ "kind": kind, "id": id, "problem": what, "lost": lost, "repaired": is_repaired })
    };
    let leftover = |(id, bytes): &(String, u64)| json!({ "id": id, "bytes": bytes });
    let checked: serde_json::Map<_, _> =
        answer.checked.iter().map(|(kind, count)| ((*kind).to_owned(), json!(count))).collect();
    json!({
        "problems": answer.problems.iter().map(problem).collect::<Vec<_>>(),
        "leftovers": answer.leftovers.iter().map(leftover).collect::<Vec<_>>(),
        "checked": checked,
    })
}

fn report(answer: &FsckAnswer, repair: bool) -> String {
    let mut lines: Vec<String> = Vec::new();
    for problem in &answer.problems {
        let name = [problem.kind, &problem.id].join(" ");
        lines.push(format!("{}: {}", name.trim_end(), problem.what));
        let lost = if problem.is_repaired { "lost" } else { "would be lost" };
        lines.extend(problem.lost.iter().map(|what| format!("  {lost}: {what}")));
    }
    if !answer.leftovers.is_empty() {
        let bytes = answer.leftovers.iter().map(|(_, bytes)| bytes).sum();
        let (count, bytes) = (counted(answer.leftovers.len(), "leftover"), size(bytes, 4));
        let what = if repair { "removed" } else { "harmless, and gone after the next prune" };
        lines.push(format!("{count} of stopped builds ({bytes}): {what}"));
    }
    let checked = answer
        .checked
        .iter()
        .map(|(kind, count)| counted(*count, kind.trim_end_matches('s')))
        .collect::<Vec<_>>()
        .join(", ");
    let left = answer.problems.iter().filter(|problem| !problem.is_repaired).count();
    let repaired = answer.problems.len() - left;
    let found = match (left, repaired) {
        (0, 0) => "no problems".to_owned(),
        (0, repaired) => format!("{} repaired", counted(repaired, "problem")),
        (left, 0) => counted(left, "problem"),
        (left, repaired) => format!("{}, {repaired} repaired", counted(left, "problem")),
    };
    lines.push(format!("{found}; checked {checked}"));
    if left > 0 && !repair {
        lines.push("run `kiln fsck --repair` to take out what is broken".to_owned());
    }
    let mut text = String::new();
    lines.iter().for_each(|line| writeln!(text, "{line}").expect("writing to a string"));
    text
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
