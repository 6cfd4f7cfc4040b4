//! What can be read, and was surely meant otherwise.

use super::fixes::{self, mend};
use super::{Findings, rules};
use crate::instruction::{Command, Form, flags};
use crate::parse::{Arguments, Instruction, Word, parse_trigger};

pub(super) fn check(instruction: &Instruction, findings: &mut Findings<'_>) {
    if instruction.command.is_none() {
        return;
    }
    let dashed = flags::dashed(instruction);
    for (word, flag) in &dashed {
        let finding = rules::typographic_dash(&word.text, flag, word.span);
        findings.push(instruction, mend(finding, fixes::with_hyphens(word, flag)));
    }
    match (&instruction.command, &instruction.arguments) {
        (Some(Command::Onbuild(trigger)), Arguments::Trigger(inner)) => {
            let wrong = parse_trigger(trigger).err().and_then(|errors| errors.into_iter().next());
            if let Some(error) = wrong {
                findings.push(instruction, rules::broken_trigger(&error, inner.span));
            }
        }
        (Some(Command::Run(run)), _) if run.command.form == Form::Shell && run.command.words.is_empty() => {
            findings.push(instruction, rules::empty_run(instruction.keyword.span));
        }
        (Some(Command::User(word)), _) if is_several(word) => {
            findings.push(instruction, rules::several_users(&word.text, word.span));
        }
        _ => {}
    }
}

/// Whether a name has a space, and not one of a variable's, of quotes, or before what was meant for a comment.
fn is_several(word: &Word) -> bool {
    word.text.contains(char::is_whitespace) && !word.text.contains(['$', '"', '\'', '\\', '`', '#'])
}
