//! Users: who runs the image, who is made, who is asked to become another.

use kiln_dockerfile::instruction::Command;
use kiln_report::Level;

use crate::finding::Findings;
use crate::rule::{Rule, Scope};
use crate::shell::base_name;
use crate::view::View;

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "LastUserIsRoot",
        aliases: &["DL3002"],
        level: Level::Warning,
        scope: Scope::Check,
        summary: "the image goes back to root at its end",
        why: "What breaks out of a program in a container has the rights of its user, and root has all. A `USER root` for some \
              steps needs another `USER` after them.",
        bad: "FROM debian:12\nUSER app\nUSER root\nRUN make install\n",
        good: "FROM debian:12\nUSER root\nRUN make install\nUSER app\n",
        check: last_is_root,
    },
    Rule {
        name: "UserByName",
        aliases: &["DL3066"],
        level: Level::Info,
        scope: Scope::Check,
        summary: "USER names a user instead of giving its number",
        why: "Kubernetes cannot tell by a name that a user is not root, so `runAsNonRoot` refuses the image.",
        bad: "FROM debian:12\nUSER app\n",
        good: "FROM debian:12\nUSER 1000:1000\n",
        check: by_name,
    },
    Rule {
        name: "SudoInRun",
        aliases: &["DL3004"],
        level: Level::Error,
        scope: Scope::Check,
        summary: "a step runs sudo",
        why: "Steps run as root until USER says something else, so sudo only adds a program that gives out rights, and it treats \
              signals and terminals in its own way.",
        bad: "FROM debian:12\nRUN sudo make install\n",
        good: "FROM debian:12\nRUN make install\n",
        check: sudo,
    },
    Rule {
        name: "UseraddHighUid",
        aliases: &["DL3046"],
        level: Level::Warning,
        scope: Scope::Check,
        summary: "useradd with a high number makes a huge file",
        why: "useradd writes `/var/log/lastlog` and `/var/log/faillog`, in which a user's entry stands at its number. The files \
              are sparse on disk, but a layer may hold gigabytes of zeros.",
        bad: "FROM debian:12\nRUN useradd -u 1000000 app\n",
        good: "FROM debian:12\nRUN useradd -l -u 1000000 app\n",
        check: useradd,
    },
];

fn last_is_root(view: &View<'_>, findings: &mut Findings<'_>) {
    let Some(last) = view.stages.len().checked_sub(1) else { return };
    let mut lineage = view.lineage(last, view.stages[last].body.len());
    let user = lineage.find_map(|instruction| match &instruction.command {
        Some(Command::User(word)) => Some((instruction, word)),
        _ => None,
    });
    let Some((instruction, word)) = user else { return };
    let name = word.text.split(':').next().unwrap_or_default();
    if ["root", "0"].contains(&name) {
        let message = format!("the image runs as `{name}`");
        findings.report(instruction, word.span, message, "end the last stage with a USER that is not root");
    }
}

fn by_name(view: &View<'_>, findings: &mut Findings<'_>) {
    let Some(last) = view.stages.len().checked_sub(1) else { return };
    let mut lineage = view.lineage(last, view.stages[last].body.len());
    let user = lineage.find_map(|instruction| match &instruction.command {
        Some(Command::User(word)) => Some((instruction, word)),
        _ => None,
    });
    let Some((instruction, word)) = user else { return };
    let name = word.text.split(':').next().unwrap_or_default().trim_matches(['"', '\'']);
    let is_number = name.bytes().all(|b| b.is_ascii_digit());
    if !is_number && !name.contains('$') && name != "root" {
        let message = format!("nobody can tell from outside that `{name}` is not root");
        findings.report(instruction, word.span, message, format!("write the number of `{name}`"));
    }
}

fn sudo(view: &View<'_>, findings: &mut Findings<'_>) {
    for (step, script, call) in view.calls() {
        let prefix = call.command.words.len() - call.words.len();
        let is_asked = call.name == "sudo" && call.words.len() == 1;
        let words = call.command.words.iter().take(prefix + usize::from(is_asked));
        for word in words.filter(|word| base_name(&word.text) == "sudo") {
            let message = "`sudo` only gives the rights that a step has anyway";
            let hint = "leave it out, and put a `USER root` before the step if it is not root";
            findings.report(step.instruction, script.span(word.start, word.end), message, hint);
        }
    }
}

fn useradd(view: &View<'_>, findings: &mut Findings<'_>) {
    for (step, script, call) in view.calls().filter(|(_, _, call)| call.name == "useradd") {
        let Some(uid) = call.value(&["-u", "--uid"]) else { continue };
        let is_high = uid.len() > 5 && uid.bytes().all(|b| b.is_ascii_digit());
        if is_high && !call.has('l', &["no-log-init"]) {
            let message = format!("`useradd` with the number {uid} writes log files as long as it is high");
            let span = script.span(call.words[0].start, call.words[call.words.len() - 1].end);
            findings.report(step.instruction, span, message, "add `--no-log-init`");
        }
    }
}
