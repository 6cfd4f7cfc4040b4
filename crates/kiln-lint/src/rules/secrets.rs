//! Secrets that a step writes into the image.

use kiln_dockerfile::Instruction;
use kiln_dockerfile::instruction::{Command, Mount, MountKind, Run};
use kiln_report::Level;

use crate::finding::Findings;
use crate::rule::{Rule, Scope};
use crate::script::{Script, scripts};
use crate::shell::{After, Simple, commands};
use crate::view::View;

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
    for instruction in view.instructions() {
        let Some(Command::Run(run)) = &instruction.command else { continue };
        for script in scripts(instruction, run) {
            let commands = commands(&script.text);
            written_secrets(instruction, run, (&script, &commands), findings);
        }
    }
}

/// The last part of a path.
fn base_name(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or(path)
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

fn written_secrets(
    instruction: &Instruction,
    run: &Run,
    (script, commands): (&Script<'_>, &[Simple]),
    findings: &mut Findings<'_>,
) {
    let mounts: Vec<Mount> = run.mounts.iter().filter_map(|flag| Mount::as_written(flag).ok()).collect();
    let secrets: Vec<Secret> = mounts.iter().filter(|mount| mount.kind == MountKind::Secret).map(secret).collect();
    if secrets.is_empty() {
        return;
    }
    let covered: Vec<&str> = mounts
        .iter()
        .filter(|mount| matches!(mount.kind, MountKind::Tmpfs | MountKind::Cache))
        .map(|mount| mount.target.trim_end_matches('/'))
        .collect();
    let stays = |dest: &str| {
        let is_covered = |dir: &&str| dest == *dir || dest.starts_with(&format!("{dir}/"));
        !dest.starts_with("/dev/") && !dest.starts_with("/proc/") && !covered.iter().any(is_covered)
    };
    for pipeline in commands.split_inclusive(|command| command.after != After::Pipe) {
        let (Some(first), Some(last)) = (pipeline.first(), pipeline.last()) else { continue };
        let Some(secret) =
            secrets.iter().find(|secret| pipeline.iter().any(|c| c.words.iter().any(|w| secret.is_in(w))))
        else {
            continue;
        };
        for dest in destinations(pipeline).into_iter().filter(|dest| stays(dest) && !is_removed(commands, dest)) {
            let message = format!("secret `{}` is written to `{dest}`, which stays in the image's layer", secret.id);
            let hint = "use the secret where it is mounted, or write to a `--mount=type=tmpfs`";
            findings.report(instruction, script.span(first.start, last.end), message, hint);
        }
    }
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
    let name = |command: &Simple| {
        let word = command.program().first().map(String::as_str).unwrap_or_default();
        word.rsplit('/').next().unwrap_or(word).to_owned()
    };
    if let [copy] = pipeline
        && COPYING.contains(&name(copy).as_str())
        && copy.program().len() > 2
    {
        return copy.program().last().map(String::as_str).into_iter().collect();
    }
    if !pipeline.iter().all(|command| PASSING.contains(&name(command).as_str())) {
        return Vec::new();
    }
    let redirects = pipeline.iter().flat_map(|command| command.redirects.iter().map(String::as_str));
    let tees = pipeline.iter().filter(|command| name(command) == "tee").flat_map(|command| &command.program()[1..]);
    redirects.chain(tees.map(String::as_str).filter(|word| !word.starts_with('-'))).collect()
}

/// Whether the same step takes the file away again.
fn is_removed(commands: &[Simple], dest: &str) -> bool {
    commands.iter().any(|command| match command.program() {
        [program, rest @ ..] if program == "rm" || program == "shred" => rest.iter().any(|word| word == dest),
        _ => false,
    })
}
