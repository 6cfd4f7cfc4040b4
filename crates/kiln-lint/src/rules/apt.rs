//! Installing packages of Debian and Ubuntu.

use kiln_dockerfile::instruction::Command;
use kiln_report::{Edit, Level, Safety};

use super::packages::{self, Install};
use crate::finding::Findings;
use crate::rule::{Rule, Scope};
use crate::script::Script;
use crate::shell::{Call, Word};
use crate::view::{Since, Step, View};

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "AptUnpinned",
        aliases: &["DL3008"],
        level: Level::Warning,
        scope: Scope::Check,
        summary: "apt-get installs packages of whatever version there is",
        why: "The same Dockerfile gives another image when the distribution has a newer package, and nobody has decided that.",
        bad: "FROM debian:12\nRUN apt-get update && apt-get install -y curl\n",
        good: "FROM debian:12\nRUN apt-get update && apt-get install -y curl=7.88.*\n",
        check: unpinned,
    },
    Rule {
        name: "AptAsks",
        aliases: &["DL3014"],
        level: Level::Warning,
        scope: Scope::Check,
        summary: "apt-get install asks before it installs",
        why: "Nobody is there to answer while an image is built, so apt-get gives up as soon as it would install something \
              that was not named.",
        bad: "FROM debian:12\nRUN apt-get update && apt-get install curl\n",
        good: "FROM debian:12\nRUN apt-get update && apt-get install -y curl\n",
        check: asks,
    },
    Rule {
        name: "AptRecommends",
        aliases: &["DL3015"],
        level: Level::Info,
        scope: Scope::Check,
        summary: "apt-get installs recommended packages too",
        why: "Recommended packages make an image larger and give an attacker more to work with, and few are needed.",
        bad: "FROM debian:12\nRUN apt-get update && apt-get install -y curl\n",
        good: "FROM debian:12\nRUN apt-get update && apt-get install -y --no-install-recommends curl\n",
        check: recommends,
    },
    Rule {
        name: "AptListsLeft",
        aliases: &["DL3009"],
        level: Level::Info,
        scope: Scope::Check,
        summary: "the package lists that apt-get fetched stay in the image",
        why: "The lists are some 20 MB and stale by the time anybody could use them. Removing them in a later step does not \
              help, as the layer that has them stays. A cache mount for `/var/lib/apt/lists` keeps them out too, and then \
              they need not be fetched every time. Debian's and Ubuntu's images remove the packages themselves.",
        bad: "FROM debian:12\nRUN apt-get update && apt-get install -y curl\n",
        good: "FROM debian:12\nRUN apt-get update && apt-get install -y curl && rm -rf /var/lib/apt/lists/*\n",
        check: lists_left,
    },
    Rule {
        name: "AptInsteadOfAptGet",
        aliases: &["DL3027"],
        level: Level::Warning,
        scope: Scope::Check,
        summary: "apt is run, which is made for people",
        why: "`apt` says itself that its command line may change from one version to the next. `apt-get` and `apt-cache` do \
              the same and stay as they are.",
        bad: "FROM debian:12\nRUN apt update\n",
        good: "FROM debian:12\nRUN apt-get update\n",
        check: apt,
    },
];

/// Options of apt-get that take the next argument.
const VALUED: [&str; 9] = [
    "-o",
    "--option",
    "-t",
    "--target-release",
    "--default-release",
    "-c",
    "--config-file",
    "-a",
    "--host-architecture",
];

fn is_apt(call: &Call<'_>) -> bool {
    ["apt-get", "apt", "aptitude"].contains(&call.name)
}

fn installs<'v>(view: &'v View<'_>) -> impl Iterator<Item = Install<'v>> {
    packages::installs(view, |call| is_apt(call).then_some(&["install"][..]), &VALUED)
}

fn unpinned(view: &View<'_>, findings: &mut Findings<'_>) {
    for install in installs(view) {
        // `name=version`, `name/release`, a path, and `name-`, which removes.
        let is_pinned = |word: &Word| word.text.contains(['=', '/']) || word.text.ends_with(['-', '+']);
        install.report_unpinned(is_pinned, "write `name=version`, as in `curl=7.88.*`", findings);
    }
}

fn asks(view: &View<'_>, findings: &mut Findings<'_>) {
    let configured = configured(view, "assume-yes");
    for install in installs(view) {
        let call = &install.call;
        let quiet = call.arguments().iter().filter(|word| ["-q", "--quiet"].contains(&word.text.as_str())).count();
        let is_quiet = quiet > 1 || call.arguments().iter().any(|word| is_very_quiet(&word.text));
        let is_answered = call.has('y', &["yes", "assume-yes", "force-yes", "simulate", "download-only"])
            || ["-s", "-d"].iter().any(|flag| call.arguments().iter().any(|word| word.text == *flag))
            || is_fed(install.script, call)
            || configured.holds(install.step.stage, install.step.index)
            || says(install.step, "assume-yes");
        if is_quiet || is_answered {
            continue;
        }
        let message = format!("`{} install` asks before it installs, and nobody answers", call.name);
        let fix = install.insert_option("add `-y`", "-y", Safety::Safe);
        findings.report(install.step.instruction, install.head_span(), message, "add `-y`");
        findings.mend(fix);
    }
}

/// `-qq` and `-q=2` answer yes.
fn is_very_quiet(word: &str) -> bool {
    let letters = word.strip_prefix('-').filter(|rest| rest.chars().all(|c| c.is_ascii_lowercase()));
    letters.is_some_and(|letters| letters.matches('q').count() > 1) || word == "-q=2" || word == "-q2"
}

/// Whether something answers, as in `yes | apt-get install`.
fn is_fed(script: &Script<'_>, call: &Call<'_>) -> bool {
    script.code.pipelines().any(|pipeline| pipeline.iter().skip(1).any(|command| std::ptr::eq(command, call.command)))
}

/// Since when a setting of apt may be in a file.
fn configured(view: &View<'_>, setting: &str) -> Since {
    let has = |text: &str| text.to_ascii_lowercase().contains(setting);
    view.since(|instruction| {
        let line = instruction.line.text();
        let is_copied = line.contains("/etc/apt/apt.conf") && matches!(instruction.command, Some(Command::Copy(_)));
        is_copied
            || line.contains("::") && has(line)
            || instruction.heredocs.iter().any(|heredoc| has(&heredoc.content))
    })
}

/// Whether a step says a setting of apt itself.
fn says(step: &Step<'_>, setting: &str) -> bool {
    let mut texts = step.scripts.iter().map(|script| &script.text).filter(|text| text.contains("::"));
    texts.any(|text| text.to_ascii_lowercase().contains(setting))
}

fn recommends(view: &View<'_>, findings: &mut Findings<'_>) {
    let configured = configured(view, "install-recommends");
    for install in installs(view) {
        let call = &install.call;
        let is_off = call.has('\0', &["no-install-recommends", "without-recommends"])
            || call.arguments().iter().any(|word| word.text == "-R" && call.name == "aptitude")
            || configured.holds(install.step.stage, install.step.index)
            || says(install.step, "install-recommends");
        if is_off || install.packages.is_empty() {
            continue;
        }
        let hint = "add `--no-install-recommends`";
        let message = format!("`{} install` installs recommended packages too", call.name);
        let fix = install.insert_option(hint, "--no-install-recommends", Safety::Unsafe);
        findings.report(install.step.instruction, install.head_span(), message, hint);
        findings.mend(fix);
    }
}

fn lists_left(view: &View<'_>, findings: &mut Findings<'_>) {
    for step in view.steps.iter().filter(|step| view.stages[step.stage].ships) {
        let is_clean = step.covers("/var/lib/apt/lists") || step.scripts.iter().any(cleans_lists);
        let update = step.scripts.iter().find_map(|script| Some((script, script.code.calls().find(updates)?)));
        let Some((script, update)) = update.filter(|_| !is_clean) else { continue };
        let span = script.span(update.command.start, update.command.end);
        let message = "the package lists that this fetches stay in the image's layer";
        let hint = "end the same RUN with `rm -rf /var/lib/apt/lists/*`";
        findings.report(step.instruction, span, message, hint);
    }
}

fn updates(call: &Call<'_>) -> bool {
    is_apt(call) && call.subcommand(&VALUED).is_some_and(|word| word.text == "update")
}

fn cleans_lists(script: &Script<'_>) -> bool {
    let is_clean = |word: &Word| ["distclean", "dist-clean"].contains(&word.text.as_str());
    script.code.calls().any(|call| {
        is_apt(&call) && call.arguments().iter().any(is_clean)
            || !is_apt(&call) && call.arguments().iter().any(|word| word.text.contains("/var/lib/apt"))
    })
}

fn apt(view: &View<'_>, findings: &mut Findings<'_>) {
    for (step, script, call) in view.calls().filter(|(_, _, call)| call.name == "apt") {
        let Some(subcommand) = call.subcommand(&VALUED) else { continue };
        let better = match subcommand.text.as_str() {
            "search" | "show" | "policy" | "depends" | "rdepends" | "madison" => "apt-cache",
            "list" => continue,
            _ => "apt-get",
        };
        let program = &call.words[0];
        let span = script.span(program.start, program.end);
        let hint = format!("run `{better} {}`", subcommand.text);
        let is_plain = program.text == "apt" && subcommand.text != "full-upgrade";
        let edit = Edit { span, text: better.to_owned() };
        let fix = is_plain.then(|| packages::fix(format!("write `{better}`"), edit, Safety::Safe));
        findings.report(step.instruction, span, "`apt` is made for people, not for scripts".to_owned(), &hint);
        findings.mend(fix);
    }
}
