//! What is fetched from elsewhere.

use std::collections::BTreeMap;

use kiln_dockerfile::instruction::{Command, CopyKind};
use kiln_report::Level;

use super::copying::is_remote;
use crate::finding::Findings;
use crate::rule::{Rule, Scope};
use crate::shell::Call;
use crate::view::View;

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "AddWithoutChecksum",
        aliases: &[],
        level: Level::Warning,
        scope: Scope::Check,
        summary: "ADD fetches a URL and does not say what should come",
        why: "Whoever controls the server, or the way to it, decides what goes into the image. With `--checksum` anything else than what was \
              meant is an error, and what is kept needs no asking of the server.",
        bad: "FROM debian:12\nADD https://example.com/tool-1.2.tar.gz /tmp/\n",
        good: "FROM debian:12\nADD --checksum=sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 \
               https://example.com/tool-1.2.tar.gz /tmp/\n",
        check: add,
    },
    Rule {
        name: "GitCloneUnpinned",
        aliases: &[],
        level: Level::Info,
        scope: Scope::Check,
        summary: "git clone takes whatever the branch has",
        why: "The same Dockerfile gives another image after the next commit; and as the command stays the same, the cache gives the old \
              one for as long as it lasts. `ADD https://….git#v1.2` follows a tag, and knows when it moves.",
        bad: "FROM debian:12\nRUN git clone https://git.example/tool\n",
        good: "FROM debian:12\nRUN git clone --branch v1.2 https://git.example/tool\n",
        check: git_clone,
    },
    Rule {
        name: "WgetShowsProgress",
        aliases: &["DL3047"],
        level: Level::Info,
        scope: Scope::Check,
        summary: "wget fills the log with its progress",
        why: "wget prints a line for every 50 kB when nobody looks, which buries what matters in the log of the build.",
        bad: "FROM debian:12\nRUN wget https://example.com/tool.tar.gz\n",
        good: "FROM debian:12\nRUN wget -nv https://example.com/tool.tar.gz\n",
        check: wget,
    },
    Rule {
        name: "WgetAndCurl",
        aliases: &["DL4001"],
        level: Level::Warning,
        scope: Scope::Check,
        summary: "a stage fetches with both wget and curl",
        why: "One of them is enough, and the other need not be installed.",
        bad: "FROM debian:12\nRUN wget -q https://example.com/a\nRUN curl -fO https://example.com/b\n",
        good: "FROM debian:12\nRUN curl -fO https://example.com/a\nRUN curl -fO https://example.com/b\n",
        check: wget_and_curl,
    },
];

fn add(view: &View<'_>, findings: &mut Findings<'_>) {
    for (number, stage) in view.stages.iter().enumerate() {
        for (index, instruction) in stage.body.iter().enumerate() {
            let Some(Command::Copy(copy)) = &instruction.command else { continue };
            if copy.kind == CopyKind::Copy || copy.checksum.is_some() {
                continue;
            }
            let is_http = |source: &str| source.starts_with("http://") || source.starts_with("https://");
            let is_git = |source: &str| source.split(['#', '?']).next().is_some_and(|path| path.ends_with(".git"));
            let remote = copy.sources.iter().find(|s| is_http(&s.text) && !is_git(&s.text) && is_remote(&s.text));
            let Some(source) = remote.filter(|_| !is_verified(view, number, index)) else { continue };
            let message = format!("whatever `{}` gives goes into the image", source.text);
            findings.report(instruction, source.span, message, "add `--checksum=sha256:…`");
        }
    }
}

/// Whether a later step of the stage compares checksums or signatures.
fn is_verified(view: &View<'_>, stage: usize, index: usize) -> bool {
    let steps = view.steps_of(stage).iter().filter(|step| step.index > index);
    let verifies = |call: Call<'_>| {
        call.name.ends_with("sum") || ["gpg", "gpgv", "cosign", "minisign", "openssl"].contains(&call.name)
    };
    steps.flat_map(|step| &step.scripts).any(|script| script.code.calls().any(verifies))
}

fn git_clone(view: &View<'_>, findings: &mut Findings<'_>) {
    for step in &view.steps {
        for script in &step.scripts {
            let gits = || script.code.calls().filter(|call| call.name == "git");
            let names =
                |call: &Call<'_>, wanted: &[&str]| call.arguments().iter().any(|word| wanted.contains(&&*word.text));
            for call in gits().filter(|call| names(call, &["clone"])) {
                let chosen = call.value(&["-b", "--branch", "--revision"]);
                let moves = chosen.is_none_or(|branch| ["main", "master", "develop", "dev", "trunk"].contains(&branch));
                let is_chosen_later = gits().any(|later| {
                    names(&later, &["checkout", "reset", "switch"]) && later.command.start > call.command.start
                });
                if !moves || is_chosen_later {
                    continue;
                }
                let span = script.span(call.words[0].start, call.words[call.words.len() - 1].end);
                let message = "this clones whatever the branch has at the time";
                findings.report(step.instruction, span, message, "add `--branch` and a tag");
            }
        }
    }
}

fn wget(view: &View<'_>, findings: &mut Findings<'_>) {
    for (step, script, call) in view.calls().filter(|(_, _, call)| call.name == "wget") {
        let quiet = ["progress", "quiet", "no-verbose", "output-file", "append-output", "version", "help", "spider"];
        let is_quiet = call.has('q', &quiet)
            || call
                .arguments()
                .iter()
                .any(|word| ["-nv", "-o", "-a", "-V", "-h"].contains(&&*word.text) || word.text.starts_with("-nv"));
        if is_quiet || call.arguments().is_empty() || step.covers("/root/.wgetrc") {
            continue;
        }
        let word = &call.words[0];
        let message = "`wget` fills the log with its progress";
        findings.report(step.instruction, script.span(word.start, word.end), message, "add `-nv`, or `-q`");
    }
}

fn wget_and_curl(view: &View<'_>, findings: &mut Findings<'_>) {
    let mut first: BTreeMap<usize, &str> = BTreeMap::new();
    let mut told = Vec::new();
    for (step, script, call) in view.calls().filter(|(_, _, call)| ["wget", "curl"].contains(&call.name)) {
        let known = *first.entry(step.stage).or_insert(call.name);
        if known == call.name || told.contains(&step.stage) {
            continue;
        }
        told.push(step.stage);
        let message = format!("`{}` fetches here, and `{known}` above", call.name);
        let word = &call.words[0];
        findings.report(
            step.instruction,
            script.span(word.start, word.end),
            message,
            format!("use `{known}` here too"),
        );
    }
}
