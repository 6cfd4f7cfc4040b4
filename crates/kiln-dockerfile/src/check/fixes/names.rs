//! Names of stages, and where they are used.

use std::collections::BTreeMap;

use kiln_report::{Edit, Fix, Safety};

use super::{edit, fix, is_exact};
use crate::instruction::Command;
use crate::parse::{Dockerfile, Instruction, Word};

/// Where stages are named in other than lower case, by the name in lower case.
#[derive(Debug, Default)]
pub(in crate::check) struct StageUses(BTreeMap<String, Vec<Edit>>);

impl StageUses {
    /// Finds them: in `FROM`, `--from` and mounts.
    pub(in crate::check) fn of(file: &Dockerfile) -> Self {
        let mut uses = Self::default();
        for instruction in file.instructions() {
            uses.read(instruction);
        }
        uses
    }

    fn read(&mut self, instruction: &Instruction) {
        match &instruction.command {
            Some(Command::From(from)) => self.add(&from.image),
            Some(Command::Copy(copy)) => copy.from.iter().for_each(|word| self.add(word)),
            Some(Command::Run(run)) => run.mounts.iter().filter_map(mount_source).for_each(|word| self.add(&word)),
            _ => {}
        }
    }

    fn add(&mut self, word: &Word) {
        let lower = word.text.to_lowercase();
        if lower != word.text && is_exact(word) && !word.text.contains('$') {
            self.0.entry(lower.clone()).or_default().push(edit(word.span, lower));
        }
    }

    /// Puts a stage's name into lower case, here and wherever it is used. Stages that share a name share its uses, which
    /// the first of them mends.
    pub(in crate::check) fn in_lower_case(&mut self, name: &Word) -> Option<Fix> {
        let lower = name.text.to_lowercase();
        let mut edits = self.0.remove(&lower).unwrap_or_default();
        edits.push(edit(name.span, lower.clone()));
        is_exact(name).then(|| fix(format!("call it `{lower}`"), Safety::Safe, edits))
    }
}

/// The value of `from` of a mount.
fn mount_source(flag: &Word) -> Option<Word> {
    if flag.text.contains('"') {
        return None;
    }
    let mut at = 0;
    for field in flag.text.split(',') {
        if let Some((key, value)) = field.split_once('=')
            && key.eq_ignore_ascii_case("from")
        {
            let end = at + field.len();
            return is_exact(flag).then(|| Word { text: value.to_owned(), span: flag.part(end - value.len(), end) });
        }
        at += field.len() + 1;
    }
    None
}
