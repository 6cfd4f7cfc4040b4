//! Checks: what is allowed but probably not meant.
//!
//! [`check()`] finds what the text alone can tell. What needs the build's options or the base image's config is found
//! while lowering and comes with its result.

mod arguments;
pub(crate) mod arrays;
mod config;
mod context;
mod descriptions;
pub(crate) mod fixes;
mod from;
pub(crate) mod rules;
mod slips;
mod table;

use std::collections::BTreeMap;

use fixes::mend;
use kiln_report::Diagnostic;

pub use arguments::sounds_secret;
pub use config::{CheckConfig, CheckConfigError, Choice};
pub use context::{IgnoreRule, SourceFact, ignored_source, missing_source, unfiltered_context};
pub(crate) use descriptions::description;
pub use table::{Origin, RULES, Rule, Status};

use crate::instruction::{Command, Keyword};
use crate::parse::{Dockerfile, Instruction, Word};

/// Checks a file. Gives the findings that the settings let through, in the order of the file.
pub fn check(file: &Dockerfile, config: &CheckConfig) -> Vec<Diagnostic> {
    let mut findings = Findings { config, all: Vec::new() };
    from::check(file, &mut findings);
    casing(file, &mut findings);
    let mut in_stage = false;
    for instruction in file.instructions() {
        in_stage |= matches!(instruction.command, Some(Command::From(_)));
        line(instruction, file.escape, &mut findings);
        descriptions::check(instruction, &mut findings);
        if in_stage {
            slips::check(instruction, &mut findings);
            arguments::check(instruction, file.escape, &mut findings);
        }
    }
    stages(file, &mut findings);
    findings.all.sort_by_key(|finding| finding.span);
    findings.all
}

/// The findings so far.
struct Findings<'a> {
    config: &'a CheckConfig,
    all: Vec<Diagnostic>,
}

impl Findings<'_> {
    /// Keeps a finding about an instruction, unless it is switched off for the file or right above the instruction.
    fn push(&mut self, instruction: &Instruction, finding: Diagnostic) {
        if finding.rule.is_none_or(|rule| self.config.allows(rule, &instruction.comments)) {
            self.all.push(finding);
        }
    }
}

/// What concerns the text of an instruction.
fn line(instruction: &Instruction, escape: char, findings: &mut Findings<'_>) {
    if let Some(line) = instruction.empty_continuations.first() {
        let fix = fixes::without_blank_lines(instruction);
        findings.push(instruction, rules::empty_continuation(line.span).fix(fix));
    }
    if let Some(Command::Maintainer(name)) = &instruction.command {
        let fix = fixes::label_of_maintainer(instruction, name, escape);
        findings.push(instruction, mend(rules::maintainer(instruction.span), fix));
    }
}

/// Keywords in the case of the minority. `ARG`s before the first stage have no say.
fn casing(file: &Dockerfile, findings: &mut Findings<'_>) {
    let is_from = |i: &&Instruction| Keyword::of(&i.keyword.text) == Some(Keyword::From);
    let keyworded: Vec<&Instruction> =
        file.instructions().skip_while(|i| !is_from(i)).filter(|i| Keyword::of(&i.keyword.text).is_some()).collect();
    let count = |is: fn(&char) -> bool| keyworded.iter().filter(|i| i.keyword.text.chars().all(|c| is(&c))).count();
    let is_lower = count(char::is_ascii_lowercase) > count(char::is_ascii_uppercase);
    for instruction in keyworded {
        let written = instruction.keyword.text.as_str();
        let wanted = if is_lower { written.to_lowercase() } else { written.to_uppercase() };
        if wanted != written {
            let fix = fixes::respell(&instruction.keyword, &wanted);
            let finding = rules::inconsistent_casing(written, wanted, instruction.keyword.span);
            findings.push(instruction, mend(finding, fix));
        }
    }
}

/// What a stage has too many of, and commands that go through a shell nobody chose.
fn stages(file: &Dockerfile, findings: &mut Findings<'_>) {
    let mut last: [Option<&Instruction>; 3] = [None; 3];
    // Whether a stage has chosen a shell, by its name; and whether the current one has.
    let mut shells: BTreeMap<String, bool> = BTreeMap::new();
    let (mut name, mut has_shell) = (None, false);
    for instruction in file.instructions() {
        let slot = match &instruction.command {
            Some(Command::From(from)) => {
                last = [None; 3];
                shells.extend(std::mem::replace(&mut name, from.stage_name()).map(|name| (name, has_shell)));
                has_shell = shells.get(&from.image.text.to_lowercase()).copied().unwrap_or(false);
                continue;
            }
            Some(Command::Shell(_)) => {
                has_shell = true;
                continue;
            }
            Some(Command::Cmd(_)) => 0,
            Some(Command::Entrypoint(_)) => 1,
            Some(Command::Healthcheck(_)) => 2,
            _ => continue,
        };
        let keyword = [Keyword::Cmd, Keyword::Entrypoint, Keyword::Healthcheck][slot].name();
        if let Some(overruled) = last[slot].replace(instruction) {
            findings.push(overruled, rules::multiple_instructions(keyword, overruled.span));
        }
        if let Some(command) = shell_form(instruction).filter(|_| !has_shell) {
            let span = command.map_or(instruction.span, |command| command.span);
            let is_broken = arrays::broken(instruction).is_some();
            let finding = if is_broken { rules::json_args_of_broken_array } else { rules::json_args }(keyword, span);
            let fix = command.filter(|_| !is_broken).and_then(fixes::json_command);
            findings.push(instruction, mend(finding, fix));
        }
    }
}

/// The command, if there is any, of an instruction that hands it to a shell.
fn shell_form(instruction: &Instruction) -> Option<Option<&Word>> {
    match &instruction.command {
        Some(Command::Cmd(line) | Command::Entrypoint(line)) if line.form == crate::instruction::Form::Shell => {
            Some(line.words.first())
        }
        _ => None,
    }
}
