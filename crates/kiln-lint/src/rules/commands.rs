//! How commands are joined: directories, pipes.

use kiln_report::{Edit, Fix, Level, Safety, Span};

use crate::finding::Findings;
use crate::rule::{Rule, Scope};
use crate::script::{Script, ShellKind};
use crate::shell::{After, Call, ScopeKind, Simple};
use crate::view::{Step, View};

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "CdInRun",
        aliases: &["DL3003"],
        level: Level::Warning,
        scope: Scope::Check,
        summary: "a step changes the directory for all it does, or for nothing",
        why: "WORKDIR says where all that follows happens, makes the directory if need be, and holds for later steps too. A `cd` is \
              forgotten when its RUN ends, so one at the end of it does nothing.",
        bad: "FROM debian:12\nRUN cd /src && make\n",
        good: "FROM debian:12\nWORKDIR /src\nRUN make\n",
        check: cd,
    },
    Rule {
        name: "CdUnchecked",
        aliases: &["SC2164"],
        level: Level::Warning,
        scope: Scope::Check,
        summary: "what follows a cd runs in the wrong directory when the cd fails",
        why: "After `cd dir;` the next command runs whether or not the directory could be entered, perhaps removing the wrong files.",
        bad: "FROM debian:12\nRUN cd /src; rm -rf build\n",
        good: "FROM debian:12\nRUN cd /src && rm -rf build\n",
        check: cd_unchecked,
    },
    Rule {
        name: "PipeWithoutPipefail",
        aliases: &["DL4006"],
        level: Level::Warning,
        scope: Scope::Check,
        summary: "a command's failure is lost in a pipe",
        why: "A pipeline succeeds when its last command does, whatever happened before it: the step goes on with half of the data, or \
              none. `pipefail` makes it fail when any of its commands does. Not every `sh` knows the option; bash does. \
              Nothing is said where the last command fails for want of input, as `tar` in `curl -f … | tar x`, and of commands \
              that hardly fail, such as `echo`; what is fetched into a shell is `DownloadIntoShell`'s.",
        bad: "FROM debian:12\nRUN ./report | tee /report.txt\n",
        good: "FROM debian:12\nSHELL [\"/bin/bash\", \"-o\", \"pipefail\", \"-c\"]\nRUN ./report | tee /report.txt\n",
        check: pipes,
    },
    Rule {
        name: "DownloadIntoShell",
        aliases: &[],
        level: Level::Warning,
        scope: Scope::Check,
        summary: "a script is run while it is fetched, and nobody sees when fetching fails",
        why: "When the connection breaks, the shell has run as much of the script as came, and the step succeeds. When nothing came, it \
              succeeds too. `pipefail` makes the step fail; fetching the script first, and comparing its checksum, is better.",
        bad: "FROM debian:12\nRUN curl -fsSL https://example.com/install.sh | sh\n",
        good: "FROM debian:12\nRUN curl -fsSLo /tmp/install.sh https://example.com/install.sh && sh /tmp/install.sh\n",
        check: downloads,
    },
];

fn is_cd(command: &Simple) -> bool {
    command.words.first().is_some_and(|word| word.text == "cd") && command.words.len() == 2
}

fn cd(view: &View<'_>, findings: &mut Findings<'_>) {
    for step in &view.steps {
        for script in step.scripts.iter().filter(|script| script.shell.is_posix()) {
            let top: Vec<&Simple> = script.code.commands.iter().filter(|command| script.code.is_top(command)).collect();
            let runs = |command: &&&Simple| !command.words.is_empty() && command.words[0].text != "set";
            let count = script
                .code
                .commands
                .iter()
                .filter(|c| c.words.first().is_some_and(|w| ["cd", "pushd"].contains(&&*w.text)))
                .count();
            let (Some(first), Some(last)) = (top.iter().find(runs), top.iter().rfind(runs)) else { continue };
            // Heredocs and other scripts of the step are elsewhere.
            if is_cd(last) && last.end == script.code.commands.iter().map(|c| c.end).max().unwrap_or(0) {
                let message = format!("`cd {}` is forgotten when this step ends", last.words[1].text);
                report_cd(findings, (step, script), last, message);
            } else if is_cd(first) && count == 1 && first.after != After::Or && first.words[1].text.starts_with('/') {
                let message = format!("all of this step happens in `{}`", first.words[1].text);
                report_cd(findings, (step, script), first, message);
                findings.mend(workdir(step, script, first));
            }
        }
    }
}

fn report_cd(findings: &mut Findings<'_>, (step, script): (&Step<'_>, &Script<'_>), cd: &Simple, message: String) {
    let hint = format!("write `WORKDIR {}`", cd.words[1].text);
    findings.report(step.instruction, script.span(cd.start, cd.end), message, hint);
}

/// A fix for a `cd` that begins a step: a WORKDIR before it. Later steps then run there too.
fn workdir(step: &Step<'_>, script: &Script<'_>, cd: &Simple) -> Option<Fix> {
    let next =
        script.code.commands.iter().find(|command| command.start >= cd.end).filter(|_| cd.after == After::And)?;
    let is_first = script.code.commands.first().is_some_and(|first| first.start == cd.start);
    let begins_line = script.text.get(..cd.start)?.trim().is_empty() && step.instruction.heredocs.is_empty();
    if !is_first || !begins_line || next.scope != cd.scope || !cd.words[1].is_literal() || cd.words[1].is_quoted() {
        return None;
    }
    let at = step.instruction.span.start;
    let line = Edit { span: Span::new(at, at), text: format!("WORKDIR {}\n", cd.words[1].text) };
    let gone = Edit { span: script.span(cd.start, next.start), text: String::new() };
    let description = format!("put `WORKDIR {}` before the step", cd.words[1].text);
    Some(Fix { description, edits: vec![line, gone], safety: Safety::Unsafe })
}

fn cd_unchecked(view: &View<'_>, findings: &mut Findings<'_>) {
    for step in &view.steps {
        for script in step.scripts.iter().filter(|script| script.shell.is_posix()) {
            let commands = &script.code.commands;
            for (index, command) in commands.iter().enumerate() {
                let is_last = !commands[index + 1..]
                    .iter()
                    .any(|next| next.scope == command.scope || !script.code.is_top(command));
                let is_checked = command.after != After::End || script.stops_on_error(command.start);
                let is_asked = script.code.is_within(command, ScopeKind::Condition);
                if !is_cd(command)
                    || is_last
                    || is_checked
                    || is_asked
                    || ["/", ".", "..", "-"].contains(&&*command.words[1].text)
                {
                    continue;
                }
                let message = format!("when `cd {}` fails, what follows runs elsewhere", command.words[1].text);
                let span = script.span(command.start, command.end);
                findings.report(step.instruction, span, message, "write `&&` after it, or begin with `set -e`");
            }
        }
    }
}

/// Commands whose failure in a pipe says nothing.
const HARMLESS: [&str; 10] =
    ["echo", "printf", "yes", "true", ":", "cat", "debconf-set-selections", "env", "ls", "seq"];

/// Programs that fetch.
const FETCHING: [&str; 3] = ["curl", "wget", "aria2c"];

/// Programs that run what they read.
const RUNNING: [&str; 10] = ["sh", "bash", "ash", "dash", "zsh", "python", "python3", "perl", "node", "php"];

fn is_one_of(command: &Simple, names: &[&str]) -> bool {
    Call::of(command).is_some_and(|call| names.contains(&call.name))
}

/// Whether a command fails by itself when what it should read does not come.
fn fails_without_input(command: &Simple) -> bool {
    Call::of(command).is_some_and(|call| match call.name {
        "tar" | "gpg" | "patch" => true,
        "grep" | "egrep" | "fgrep" => !call.has('v', &["invert-match"]) && !call.has('c', &["count"]),
        name => name.ends_with("sum") && call.has('c', &["check"]),
    })
}

fn is_fetched_and_run(pipeline: &[Simple]) -> bool {
    let (Some(first), Some(last)) = (pipeline.first(), pipeline.last()) else { return false };
    is_one_of(first, &FETCHING) && is_one_of(last, &RUNNING)
}

/// Pipelines whose status counts and is only that of their last command.
fn lossy<'v>(view: &'v View<'_>) -> impl Iterator<Item = (&'v Step<'v>, &'v Script<'v>, &'v [Simple])> {
    let scripts = view.steps.iter().flat_map(|step| step.scripts.iter().map(move |script| (step, script)));
    let posix = scripts.filter(|(_, script)| matches!(script.shell.kind, ShellKind::Sh | ShellKind::Bash));
    posix.flat_map(|(step, script)| {
        let code = &script.code;
        let pipelines = code.pipelines().filter(move |pipeline| {
            let (Some(first), Some(last)) = (pipeline.first(), pipeline.last()) else { return false };
            let is_asked =
                [ScopeKind::Condition, ScopeKind::Substitution].iter().any(|kind| code.is_within(first, *kind));
            let is_forgiven = matches!(last.after, After::Or | After::Background);
            pipeline.len() > 1 && !is_asked && !is_forgiven && !script.has_pipefail(first.start)
        });
        pipelines.map(move |pipeline| (step, script, pipeline))
    })
}

fn pipes(view: &View<'_>, findings: &mut Findings<'_>) {
    for (step, script, pipeline) in lossy(view) {
        let [before @ .., _] = pipeline else { continue };
        let risky = before.iter().find(|command| !is_one_of(command, &HARMLESS) && Call::of(command).is_some());
        let Some(risky) = risky.filter(|_| !is_fetched_and_run(pipeline)) else { continue };
        if pipeline.last().is_some_and(fails_without_input) {
            continue;
        }
        let name = Call::of(risky).map_or("", |call| call.name);
        let message = format!("when `{name}` fails in this pipe, the step goes on");
        let hint = "put `SHELL [\"/bin/bash\", \"-o\", \"pipefail\", \"-c\"]` before the step";
        findings.report(
            step.instruction,
            script.span(pipeline[0].start, pipeline[pipeline.len() - 1].end),
            message,
            hint,
        );
    }
}

fn downloads(view: &View<'_>, findings: &mut Findings<'_>) {
    for (step, script, pipeline) in lossy(view).filter(|(.., pipeline)| is_fetched_and_run(pipeline)) {
        let message = "when fetching this script fails, the step goes on as if it had run";
        let hint =
            "fetch it into a file first, or put `SHELL [\"/bin/bash\", \"-o\", \"pipefail\", \"-c\"]` before the step";
        findings.report(
            step.instruction,
            script.span(pipeline[0].start, pipeline[pipeline.len() - 1].end),
            message,
            hint,
        );
    }
}
