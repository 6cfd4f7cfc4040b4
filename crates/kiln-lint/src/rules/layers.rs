//! What layers hold, and what they hold twice or not at all.

use std::collections::BTreeSet;

use kiln_dockerfile::instruction::{Command, Mount, MountKind};
use kiln_report::Level;

use crate::finding::Findings;
use crate::rule::{Rule, Scope};
use crate::shell::Call;
use crate::view::{Step, View};

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "ChownDoublesLayer",
        aliases: &[],
        level: Level::Warning,
        scope: Scope::Check,
        summary: "files are copied, and then changed by a step, which stores them again",
        why: "A layer stores whole files. Changing the owner or the mode of a file that an earlier instruction made puts all of it into \
              another layer, so the image has it twice. COPY and ADD can give files the right owner and mode at once.",
        bad: "FROM debian:12\nCOPY app /srv/app\nRUN chown -R 1000:1000 /srv/app\n",
        good: "FROM debian:12\nCOPY --chown=1000:1000 app /srv/app\n",
        check: chown,
    },
    Rule {
        name: "CacheMountReadLater",
        aliases: &[],
        level: Level::Warning,
        scope: Scope::Check,
        summary: "what a step wrote into a cache mount is needed without the mount",
        why: "A cache mount is there for its step alone and is no part of any layer. What the step builds there must be copied out of it \
              by the same RUN.",
        bad: "FROM rust:1.80\nWORKDIR /src\nRUN --mount=type=cache,target=/src/target cargo build --release\n\
              RUN cp /src/target/release/app /usr/local/bin/app\n",
        good: "FROM rust:1.80\nWORKDIR /src\nRUN --mount=type=cache,target=/src/target cargo build --release && \
               cp /src/target/release/app /usr/local/bin/app\n",
        check: cache,
    },
];

/// The working directory at a place, as far as the file tells.
fn workdir(view: &View<'_>, stage: usize, index: usize) -> String {
    let mut path = String::new();
    for instruction in view.lineage(stage, index) {
        let Some(Command::Workdir(word)) = &instruction.command else { continue };
        path = join(&word.text, &path);
        if path.starts_with(['/', '$']) {
            break;
        }
    }
    join("/", &path)
}

/// A path as seen from a directory, without dots and slashes that mean nothing.
fn join(dir: &str, path: &str) -> String {
    let is_whole = path.starts_with(['/', '$']);
    let whole = if is_whole { path.to_owned() } else { format!("{dir}/{path}") };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." {
            parts.pop();
        } else {
            parts.push(part);
        }
    }
    let root = if whole.starts_with('/') { "/" } else { "" };
    format!("{root}{}", parts.join("/"))
}

fn is_within(path: &str, dir: &str) -> bool {
    dir != "/" && path.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn chown(view: &View<'_>, findings: &mut Findings<'_>) {
    for (step, script, call) in view.calls().filter(|(_, _, call)| ["chown", "chgrp", "chmod"].contains(&call.name)) {
        let is_moved =
            script.code.commands.iter().any(|command| command.words.first().is_some_and(|word| word.text == "cd"));
        if !call.has('R', &["recursive"]) {
            continue;
        }
        let here = workdir(view, step.stage, step.index);
        let operands = call.operands(&["--from"]);
        let is_reference = call.value(&["--reference"]).is_some();
        for target in operands.iter().skip(usize::from(!is_reference)) {
            let path = join(&here, &target.text);
            let is_unknown = is_moved && !target.text.starts_with('/') || step.covers(&path);
            let Some(copied) = copied_to(view, step, &path).filter(|_| !is_unknown) else { continue };
            let flag = if call.name == "chmod" { "--chmod" } else { "--chown" };
            let message = format!("`{} -R` stores what was copied to `{copied}` a second time", call.name);
            let span = script.span(call.words[0].start, call.words[call.words.len() - 1].end);
            findings.report(step.instruction, span, message, format!("give `{flag}` to the instruction that copies"));
            break;
        }
    }
}

/// Where an earlier COPY or ADD of the stage put something at or below a path.
fn copied_to(view: &View<'_>, step: &Step<'_>, path: &str) -> Option<String> {
    let stage = &view.stages[step.stage];
    stage.body[..step.index].iter().enumerate().rev().find_map(|(index, instruction)| match &instruction.command {
        Some(Command::Copy(copy)) => {
            let dest = join(&workdir(view, step.stage, index), &copy.dest.text);
            is_within(&dest, path).then_some(dest)
        }
        _ => None,
    })
}

/// Programs that cannot do without the files they are given.
const READING: [&str; 9] = ["cp", "mv", "install", "ln", "cat", "tar", "strip", "source", "."];

fn cache(view: &View<'_>, findings: &mut Findings<'_>) {
    for stage in 0..view.stages.len() {
        // Directories that were a cache in an earlier step.
        let mut caches = BTreeSet::new();
        for step in view.steps_of(stage) {
            for target in caches.iter().filter(|target: &&String| !step.covers(target)) {
                read_by_step(view, step, target, findings);
            }
            let is_cache = |mount: &&Mount| mount.kind == MountKind::Cache && !mount.target.contains('$');
            let targets = step.mounts.iter().filter(is_cache);
            caches.extend(targets.map(|mount| join(&workdir(view, stage, step.index), &mount.target)));
        }
        if !caches.is_empty() {
            copied_from(view, stage, &caches, findings);
        }
    }
}

/// Reports the first file of a cache that a step cannot do without.
fn read_by_step(view: &View<'_>, step: &Step<'_>, target: &str, findings: &mut Findings<'_>) {
    let here = workdir(view, step.stage, step.index);
    // A step may make the directory anew.
    let fills = |call: &Call<'_>| ["mkdir", "cargo", "npm", "yarn", "make", "go"].contains(&call.name);
    for script in &step.scripts {
        if script.code.calls().any(|call| fills(&call)) {
            continue;
        }
        for call in script.code.calls() {
            let arguments = call.arguments().iter().filter(|_| READING.contains(&call.name));
            // The last operand is where a copy goes to.
            let is_copy = ["cp", "mv", "install", "ln"].contains(&call.name);
            let skipped = is_copy.then(|| call.words.last().map(|word| word.start)).flatten();
            let used = call.words.iter().take(1).filter(|word| word.text.contains('/')).chain(arguments);
            let found = used.filter(|word| Some(word.start) != skipped && word.text.contains('/')).find(|word| {
                let path = join(&here, &word.text);
                is_within(&path, target) && path != target
            });
            if let Some(word) = found {
                let message = format!("`{}` lies in a cache mount of an earlier step, which is not here", word.text);
                let hint = "copy it out of the mount in the step that makes it";
                return findings.report(step.instruction, script.span(word.start, word.end), message, hint);
            }
        }
    }
}

/// Reports what other stages take out of caches of a stage.
fn copied_from(view: &View<'_>, stage: usize, caches: &BTreeSet<String>, findings: &mut Findings<'_>) {
    for number in stage + 1..view.stages.len() {
        for instruction in &view.stages[number].body {
            let Some(Command::Copy(copy)) = &instruction.command else { continue };
            let from = copy.from.as_ref().and_then(|from| view.source(number, &from.text));
            let is_cached = |path: &str| caches.iter().any(|target| is_within(&join("/", path), target));
            let Some(source) = copy.sources.iter().find(|source| from == Some(stage) && is_cached(&source.text)) else {
                continue;
            };
            let message = format!("`{}` lies in a cache mount, which is no part of the stage", source.text);
            let hint = "copy it out of the mount in the step that makes it";
            findings.report(instruction, source.span, message, hint);
        }
    }
}
