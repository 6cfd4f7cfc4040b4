//! Secrets that a step writes into the image.

use kiln_dockerfile::instruction::{Mount, MountKind};
use kiln_report::Level;

use crate::finding::Findings;
use crate::rule::{Rule, Scope};
use crate::script::Script;
use crate::shell::{Simple, base_name};
use crate::view::{Step, View};

pub(super) const RULES: &[Rule] = &[Rule {
    name: "SecretWrittenByStep",
    aliases: &[],
    level: Level::Warning,
    scope: Scope::Build,
    summary: "a step writes a secret into the image",
    why: "A secret mount is no part of the image, but what a step writes is: a copy of the secret, printed into a file, \
          stays in the layer for everybody who has the image, whatever later steps remove.",
    bad: "FROM alpine:3.20\nRUN --mount=type=secret,id=token cat /run/secrets/token > /app/token.txt\n",
    good: "FROM alpine:3.20\nRUN --mount=type=secret,id=token TOKEN=$(cat /run/secrets/token) fetch-sources\n",
    check,
}];

fn check(view: &View<'_>, findings: &mut Findings<'_>) {
    for step in &view.steps {
        let secrets: Vec<Secret> =
            step.mounts.iter().filter(|mount| mount.kind == MountKind::Secret).map(secret).collect();
        for script in step.scripts.iter().filter(|_| !secrets.is_empty()) {
            written_secrets(step, script, &secrets, findings);
        }
    }
}

/// A secret as a step sees it.
struct Secret {
    id: String,
    /// Its file, if it is one.
    path: Option<String>,
    /// Its variable, if it is one.
    variable: Option<String>,
}

impl Secret {
    fn is_in(&self, word: &str) -> bool {
        let variable = |name: &String| word.contains(&format!("${name}")) || word.contains(&format!("${{{name}}}"));
        self.path.as_ref().is_some_and(|path| word.contains(path.as_str()))
            || self.variable.as_ref().is_some_and(variable)
    }
}

/// Programs that pass on what they read.
const PASSING: [&str; 14] =
    ["cat", "echo", "printf", "tee", "base64", "tr", "head", "tail", "cut", "sed", "grep", "sort", "envsubst", "rev"];

/// Programs whose last argument is a copy of the others.
const COPYING: [&str; 4] = ["cp", "mv", "install", "rsync"];

fn written_secrets(step: &Step<'_>, script: &Script<'_>, secrets: &[Secret], findings: &mut Findings<'_>) {
    let stays = |dest: &str| {
        let is_mount = |mount: &Mount| matches!(mount.kind, MountKind::Tmpfs | MountKind::Cache);
        let covered = step.mounts.iter().any(|mount| is_mount(mount) && is_below(dest, &mount.target));
        !dest.starts_with("/dev/") && !dest.starts_with("/proc/") && !covered
    };
    for pipeline in script.code.pipelines() {
        let (Some(first), Some(last)) = (pipeline.first(), pipeline.last()) else { continue };
        let words = || {
            pipeline.iter().flat_map(|command| command.words.iter().chain(command.redirects.iter().map(|r| &r.target)))
        };
        let Some(secret) = secrets.iter().find(|secret| words().any(|word| secret.is_in(&word.text))) else { continue };
        for dest in destinations(pipeline) {
            if !stays(dest) || is_removed(&script.code.commands, dest) {
                continue;
            }
            let message = format!("secret `{}` is written to `{dest}`, which stays in the image's layer", secret.id);
            let hint = "use the secret where it is mounted, or write to a `--mount=type=tmpfs`";
            findings.report(step.instruction, script.span(first.start, last.end), message, hint);
        }
    }
}

fn is_below(path: &str, dir: &str) -> bool {
    path.strip_prefix(dir.trim_end_matches('/')).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn secret(mount: &Mount) -> Secret {
    let id = [&mount.id, &mount.source].into_iter().find(|id| !id.is_empty()).cloned();
    let id = id.unwrap_or_else(|| base_name(&mount.target).to_owned());
    let path = match (mount.target.as_str(), &mount.env) {
        ("", Some(_)) => None,
        ("", None) => Some(format!("/run/secrets/{}", base_name(&id))),
        (target, _) => Some(target.to_owned()),
    };
    Secret { path, variable: mount.env.clone(), id }
}

/// The files a pipeline writes what it reads to.
fn destinations(pipeline: &[Simple]) -> Vec<&str> {
    let name = |command: &Simple| command.program().first().map(|word| base_name(&word.text).to_owned());
    let is_one_of = |command: &Simple, names: &[&str]| name(command).is_some_and(|name| names.contains(&name.as_str()));
    if let [copy] = pipeline
        && is_one_of(copy, &COPYING)
        && copy.program().len() > 2
    {
        return copy.program().last().map(|word| word.text.as_str()).into_iter().collect();
    }
    if !pipeline.iter().all(|command| is_one_of(command, &PASSING)) {
        return Vec::new();
    }
    let redirects = pipeline.iter().flat_map(Simple::writes);
    let tees =
        pipeline.iter().filter(|command| is_one_of(command, &["tee"])).flat_map(|command| &command.program()[1..]);
    redirects.chain(tees.filter(|word| !word.text.starts_with('-'))).map(|word| word.text.as_str()).collect()
}

/// Whether the same step takes the file away again.
fn is_removed(commands: &[Simple], dest: &str) -> bool {
    commands.iter().any(|command| match command.program() {
        [program, rest @ ..] if ["rm", "shred"].contains(&program.text.as_str()) => {
            rest.iter().any(|word| word.text == dest)
        }
        _ => false,
    })
}
