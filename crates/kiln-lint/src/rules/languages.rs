//! Installing packages of a language: Python's, Node's, Ruby's and Go's.

use kiln_dockerfile::Instruction;
use kiln_dockerfile::instruction::Command;
use kiln_report::{Level, Safety};

use super::packages::{self, Install};
use crate::finding::Findings;
use crate::rule::{Rule, Scope};
use crate::shell::{Call, Word};
use crate::view::{Step, View};

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "PipUnpinned",
        aliases: &["DL3013"],
        level: Level::Warning,
        scope: Scope::Check,
        summary: "pip installs packages of whatever version there is",
        why: "The same Dockerfile gives another image when somebody publishes a newer package, and nobody has decided that.",
        bad: "FROM python:3.12\nRUN pip install --no-cache-dir flask\n",
        good: "FROM python:3.12\nRUN pip install --no-cache-dir flask==3.0.3\n",
        check: pip_unpinned,
    },
    Rule {
        name: "PipCacheLeft",
        aliases: &["DL3042"],
        level: Level::Warning,
        scope: Scope::Check,
        summary: "the packages that pip fetched stay in the image beside the installed ones",
        why: "pip keeps what it fetched for the next time. In an image there is no next time; with a cache mount for \
              `/root/.cache/pip` there is, and the layer stays small too.",
        bad: "FROM python:3.12\nRUN pip install flask==3.0.3\n",
        good: "FROM python:3.12\nRUN --mount=type=cache,target=/root/.cache/pip pip install flask==3.0.3\n",
        check: pip_cache_left,
    },
    Rule {
        name: "NpmUnpinned",
        aliases: &["DL3016"],
        level: Level::Warning,
        scope: Scope::Check,
        summary: "npm installs packages of whatever version there is",
        why: "The same Dockerfile gives another image when somebody publishes a newer package, and nobody has decided that.",
        bad: "FROM node:22\nRUN npm install -g typescript\n",
        good: "FROM node:22\nRUN npm install -g typescript@5.5.4\n",
        check: npm_unpinned,
    },
    Rule {
        name: "YarnCacheLeft",
        aliases: &["DL3060"],
        level: Level::Info,
        scope: Scope::Check,
        summary: "the packages that yarn fetched stay in the image beside the installed ones",
        why: "yarn keeps what it fetched for the next time. In an image there is no next time.",
        bad: "FROM node:22\nRUN yarn install --frozen-lockfile\n",
        good: "FROM node:22\nRUN yarn install --frozen-lockfile && yarn cache clean\n",
        check: yarn_cache_left,
    },
    Rule {
        name: "GemUnpinned",
        aliases: &["DL3028"],
        level: Level::Warning,
        scope: Scope::Check,
        summary: "gem installs packages of whatever version there is",
        why: "The same Dockerfile gives another image when somebody publishes a newer package, and nobody has decided that.",
        bad: "FROM ruby:3.3\nRUN gem install bundler\n",
        good: "FROM ruby:3.3\nRUN gem install bundler:2.5.17\n",
        check: gem_unpinned,
    },
    Rule {
        name: "GoInstallUnpinned",
        aliases: &["DL3062"],
        level: Level::Warning,
        scope: Scope::Check,
        summary: "go installs a program of whatever version there is",
        why: "The same Dockerfile gives another image when somebody publishes a newer version, and nobody has decided that.",
        bad: "FROM golang:1.23\nRUN go install golang.org/x/tools/cmd/stringer@latest\n",
        good: "FROM golang:1.23\nRUN go install golang.org/x/tools/cmd/stringer@v0.24.0\n",
        check: go_unpinned,
    },
];

/// Options of pip that take the next argument.
const PIP_VALUED: [&str; 36] = [
    "-i",
    "--index-url",
    "--extra-index-url",
    "-r",
    "--requirement",
    "-c",
    "--constraint",
    "-t",
    "--target",
    "--prefix",
    "--root",
    "-f",
    "--find-links",
    "--trusted-host",
    "--platform",
    "--python-version",
    "--upgrade-strategy",
    "--cache-dir",
    "--timeout",
    "--retries",
    "--no-binary",
    "--only-binary",
    "--progress-bar",
    "--proxy",
    "--config-settings",
    "-e",
    "--editable",
    "--src",
    "--log",
    "--report",
    "--abi",
    "--implementation",
    "--group",
    "--global-option",
    "--cert",
    "-m",
];

/// The arguments of `pip install`, also by way of `python -m pip`.
fn pip_installs<'v>(view: &'v View<'_>) -> impl Iterator<Item = Install<'v>> {
    packages::installs(view, |call| is_pip(call).then_some(&["install"][..]), &PIP_VALUED)
}

fn is_pip(call: &Call<'_>) -> bool {
    let is_version = |rest: &str| rest.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let is_module = || matches!(call.arguments(), [m, pip, ..] if m.text == "-m" && pip.text == "pip");
    call.name.strip_prefix("pip").is_some_and(is_version)
        || call.name.strip_prefix("python").is_some_and(is_version) && is_module()
}

fn pip_unpinned(view: &View<'_>, findings: &mut Findings<'_>) {
    let constrained = view.since(|instruction| sets_variable(instruction, "PIP_CONSTRAINT"));
    for install in pip_installs(view) {
        // Constraints may pin what is named here.
        if install.call.value(&["-c", "--constraint"]).is_some()
            || constrained.holds(install.step.stage, install.step.index)
        {
            continue;
        }
        let is_pinned = |word: &Word| {
            let text = &word.text;
            text.contains(['=', '~', '<', '>', '/', '@', ':'])
                || text.starts_with('.')
                || [".whl", ".zip", ".gz"].iter().any(|end| text.ends_with(end))
        };
        install.report_unpinned(is_pinned, "write `name==version`, or install a file with `-r`", findings);
    }
}

fn pip_cache_left(view: &View<'_>, findings: &mut Findings<'_>) {
    let configured = view.since(|instruction| configures(instruction.line.text()));
    let sets = view.since(|instruction| sets_variable(instruction, "PIP_NO_CACHE_DIR"));
    for install in pip_installs(view).filter(|install| view.stages[install.step.stage].ships) {
        let step = install.step;
        let is_off = install.call.has('\0', &["no-cache-dir"])
            || is_set(install.call.command.assignments.iter().find(|a| a.name == "PIP_NO_CACHE_DIR").map(|_| "1"))
            || install.script.code.assigned.iter().any(|assignment| assignment.name == "PIP_NO_CACHE_DIR")
            || sets.holds(step.stage, step.index) && is_set(view.env(step, "PIP_NO_CACHE_DIR"))
            || configured.holds(step.stage, step.index)
            || step.scripts.iter().any(|script| configures(&script.text));
        if is_off || caches_in_mount(step) || removes(step, ".cache", "pip cache purge") {
            continue;
        }
        let fix = install.insert_option("add `--no-cache-dir`", "--no-cache-dir", Safety::Safe);
        let message = "the packages that `pip install` fetches stay in the image's layer".to_owned();
        findings.report(step.instruction, install.head_span(), message, "add `--no-cache-dir`");
        findings.mend(fix);
    }
}

fn sets_variable(instruction: &Instruction, name: &str) -> bool {
    matches!(&instruction.command, Some(Command::Env(pairs)) if pairs.iter().any(|pair| pair.key.text == name))
}

/// Whether the value of a variable switches something on, as pip sees it.
fn is_set(value: Option<&str>) -> bool {
    value.is_some_and(|value| {
        !["0", "false", "no", "n", "f", ""].contains(&value.trim_matches(['"', '\'']).to_lowercase().as_str())
    })
}

/// Whether a text makes or brings a configuration of pip that keeps nothing.
fn configures(text: &str) -> bool {
    text.contains("pip") && text.contains("no-cache-dir") && text.contains("config") || text.contains("pip.conf")
}

/// Whether a mount holds a cache, wherever the user's home is.
fn caches_in_mount(step: &Step<'_>) -> bool {
    step.mounts
        .iter()
        .any(|mount| mount.target.contains("cache") || mount.target == "/root" || mount.target.contains("yarn"))
}

/// Whether a step removes a directory, or says a command that does.
fn removes(step: &Step<'_>, dir: &str, command: &str) -> bool {
    step.scripts.iter().any(|script| {
        let is_command = |call: &Call<'_>| {
            let words: Vec<&str> = call.words.iter().map(|word| word.text.as_str()).collect();
            words.join(" ").contains(command)
        };
        script.code.calls().any(|call| {
            is_command(&call) || call.name == "rm" && call.arguments().iter().any(|word| word.text.contains(dir))
        })
    })
}

fn npm_unpinned(view: &View<'_>, findings: &mut Findings<'_>) {
    const INSTALL: &[&str] = &["install", "i", "add"];
    let valued = &["--prefix", "--registry", "--cache", "-w", "--workspace", "--userconfig", "-C", "--loglevel"];
    for install in packages::installs(view, |call| (call.name == "npm").then_some(INSTALL), valued) {
        let is_pinned = |word: &Word| {
            let version = word.text.rsplit_once('@').filter(|(name, _)| !name.is_empty()).map(|(_, version)| version);
            let is_path = word.text.starts_with(['.', '/', '~']) || word.text.ends_with(".tgz");
            let is_repository = word.text.contains(':') || !word.text.starts_with('@') && word.text.contains('/');
            is_path || is_repository || version.is_some_and(|version| !["latest", "next", "*", ""].contains(&version))
        };
        install.report_unpinned(
            is_pinned,
            "write `name@version`, or install what a lock file says with `npm ci`",
            findings,
        );
    }
}

fn yarn_cache_left(view: &View<'_>, findings: &mut Findings<'_>) {
    let moved = view.since(|instruction| sets_variable(instruction, "YARN_CACHE_FOLDER"));
    for (step, script, call) in view.calls().filter(|(_, _, call)| call.name == "yarn") {
        let subcommand = call.subcommand(&["--cwd", "--cache-folder", "--modules-folder"]);
        let fetches = subcommand.is_none_or(|word| ["install", "add", "global"].contains(&word.text.as_str()));
        let asks =
            call.arguments().iter().any(|word| ["--version", "-v", "--help", "-h"].contains(&word.text.as_str()));
        let is_elsewhere =
            caches_in_mount(step) || call.value(&["--cache-folder"]).is_some() || moved.holds(step.stage, step.index);
        let is_clean = || removes(step, "cache", "cache clean");
        if !fetches || asks || is_elsewhere || !view.stages[step.stage].ships || is_clean() {
            continue;
        }
        let span = script.span(call.words[0].start, call.words[call.words.len() - 1].end);
        let message = "the packages that `yarn` fetches stay in the image's layer";
        findings.report(step.instruction, span, message, "end the same RUN with `yarn cache clean`");
    }
}

fn gem_unpinned(view: &View<'_>, findings: &mut Findings<'_>) {
    let valued = &["-v", "--version", "-i", "--install-dir", "-n", "--bindir", "-s", "--source", "-P", "--platform"];
    const INSTALL: &[&str] = &["install"];
    for install in packages::installs(view, |call| (call.name == "gem").then_some(INSTALL), valued) {
        if install.call.value(&["-v", "--version", "-g", "--file"]).is_some() {
            continue;
        }
        let is_pinned = |word: &Word| word.text.contains(':') || word.text.ends_with(".gem");
        install.report_unpinned(is_pinned, "write `name:version`", findings);
    }
}

fn go_unpinned(view: &View<'_>, findings: &mut Findings<'_>) {
    for (step, script, call) in view.calls().filter(|(_, _, call)| call.name == "go") {
        let operands = call.operands(&["-ldflags", "-tags", "-mod", "-o", "-gcflags", "-p", "-C"]);
        let [subcommand, packages @ ..] = operands.as_slice() else { continue };
        if !["install", "get", "run"].contains(&subcommand.text.as_str()) {
            continue;
        }
        for package in packages {
            let Some((name, version)) = package.text.split_once('@') else { continue };
            if !["latest", "master", "main", "upgrade", "HEAD"].contains(&version) {
                continue;
            }
            let message = format!("`{name}` is fetched in whatever version is `{version}`");
            let span = script.span(package.start, package.end);
            findings.report(step.instruction, span, message, format!("write `{name}@` and a version"));
        }
    }
}
