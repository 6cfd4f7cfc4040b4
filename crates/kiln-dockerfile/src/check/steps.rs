//! Checks of what a `RUN` step does: servers that never end, secrets that stay.

use kiln_report::Span;

use super::shell::{After, Simple, commands};
use super::{Findings, rules, servers};
use crate::instruction::{Command, Form, Mount, MountKind, Run};
use crate::parse::{Instruction, Word};
use crate::path;

pub(super) fn check(instruction: &Instruction, findings: &mut Findings<'_>) {
    let Some(Command::Run(run)) = &instruction.command else { return };
    for script in scripts(instruction, run) {
        let commands = commands(&script.text);
        for command in &commands {
            let is_alone = command.after != After::Background;
            if let Some(server) = servers::never_ends(command.program()).filter(|_| is_alone) {
                let span = script.span(command.start, command.end);
                findings.push(instruction, rules::long_running(&server.join(" "), span));
            }
        }
        written_secrets(instruction, run, (&script, &commands), findings);
    }
}

/// A script with the way back to the file.
struct Script<'a> {
    text: String,
    instruction: &'a Instruction,
    place: Place,
}

/// Where a script's text stands.
enum Place {
    /// In the instruction's joined line, from here on.
    Line(usize),
    /// In the file, from here on, byte by byte.
    File(usize),
    /// Put together from arguments.
    Whole(Span),
}

impl Script<'_> {
    fn span(&self, start: usize, end: usize) -> Span {
        match self.place {
            Place::Line(at) => self.instruction.line.span(at + start, at + end),
            Place::File(at) => Span::new(at + start, at + end),
            Place::Whole(span) => span,
        }
    }
}

fn scripts<'a>(instruction: &'a Instruction, run: &Run) -> Vec<Script<'a>> {
    let mut scripts = Vec::new();
    match (run.command.form, run.command.words.as_slice()) {
        (Form::Shell, [word]) => {
            let at = instruction.line.text().trim_end().len().saturating_sub(word.text.len());
            scripts.push(Script { text: word.text.clone(), instruction, place: Place::Line(at) });
        }
        (_, words) => {
            let quoted = |word: &Word| format!("'{}'", word.text.replace('\'', "'\\''"));
            let text = words.iter().map(quoted).collect::<Vec<_>>().join(" ");
            scripts.push(Script { text, instruction, place: Place::Whole(instruction.span) });
        }
    }
    for heredoc in &instruction.heredocs {
        let place = Place::File(heredoc.content_span.start);
        scripts.push(Script { text: heredoc.content.clone(), instruction, place });
    }
    scripts
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
    let mounts: Vec<Mount> =
        run.mounts.iter().filter_map(|flag| Mount::read(flag, &mut |word| Ok(word.text.clone())).ok()).collect();
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
            findings.push(instruction, rules::secret_written(&secret.id, dest, script.span(first.start, last.end)));
        }
    }
}

fn secret(mount: &Mount) -> Secret {
    let id = [&mount.id, &mount.source].into_iter().find(|id| !id.is_empty()).cloned();
    let id = id.unwrap_or_else(|| path::base_name(&mount.target).to_owned());
    let path = match (mount.target.as_str(), &mount.env) {
        ("", Some(_)) => None,
        ("", None) => Some(format!("/run/secrets/{}", path::base_name(&id))),
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
