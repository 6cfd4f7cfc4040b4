//! Checks of arguments: secrets by their names, pairs of old, comments that are none.

use kiln_report::Span;

use super::fixes::{self, mend};
use super::{Findings, arrays, rules};
use crate::instruction::{Command, CopyKind, Form};
use crate::parse::{Arguments, Instruction, Pair, PairForm, Word};

pub(super) fn check(instruction: &Instruction, escape: char, findings: &mut Findings<'_>) {
    match &instruction.command {
        Some(Command::Env(pairs)) => {
            legacy(instruction, pairs, escape, findings);
            for pair in pairs.iter().filter(|pair| sounds_secret(&pair.key.text)) {
                findings.push(instruction, rules::secret_in_env("ENV", &pair.key.text, pair.key.span));
            }
        }
        Some(Command::Label(pairs)) => legacy(instruction, pairs, escape, findings),
        Some(Command::Arg(items)) => {
            for item in items.iter().filter(|item| sounds_secret(&item.key.text)) {
                findings.push(instruction, rules::secret_in_env("ARG", &item.key.text, item.key.span));
            }
        }
        _ => {}
    }
    if let Some(finding) = arrays::broken(instruction).filter(|_| instruction.command.is_some()) {
        findings.push(instruction, finding);
    }
    if let Some((effect, span)) = inline_comment(instruction) {
        let fix = fixes::comment_above(instruction, span.start);
        findings.push(instruction, mend(rules::inline_comment(&effect, span), fix));
    }
}

fn legacy(instruction: &Instruction, pairs: &[Pair], escape: char, findings: &mut Findings<'_>) {
    for pair in pairs.iter().filter(|pair| pair.form == PairForm::Space) {
        let span = Span::new(pair.key.span.start, pair.value.span.end);
        let fix = fixes::pair_of_old(instruction, pair, escape);
        let (keyword, key) = (&instruction.keyword.text, &pair.key.text);
        let other = || format!("{key}=\"…\"");
        let new = fix.as_ref().and_then(|fix| fix.edits.first()).map_or_else(other, |edit| edit.text.clone());
        findings.push(instruction, mend(rules::legacy_pair(keyword, key, &new, span), fix));
    }
}

/// Words of a name that make it a secret's.
const SECRET: [&str; 10] =
    ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];

/// Words that make it harmless again.
const HARMLESS: [&str; 3] = ["public", "file", "version"];

/// Whether a variable of this name probably holds a secret.
pub fn sounds_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    let has = |words: &[&str]| name.split('_').any(|part| words.contains(&part));
    has(&SECRET) && !has(&HARMLESS)
}

/// Where a `#` stands that was meant to begin a comment, and what it does instead.
fn inline_comment(instruction: &Instruction) -> Option<(String, Span)> {
    let end = instruction.line.span(instruction.line.text().trim_end().len(), 0).end;
    let from = |start: usize| Span::new(start, end.max(start + 1));
    match (&instruction.command, &instruction.arguments) {
        (Some(Command::Copy(copy)), Arguments::Words(words)) => {
            // A source and a destination stand before any comment.
            let at = words.iter().skip(2).find(|word| word.text.starts_with('#'))?;
            let verb = if copy.kind == CopyKind::Add { "ADD" } else { "COPY" };
            let effect = format!("{verb} takes `{}` for the destination and all before it for sources", copy.dest.text);
            Some((effect, from(at.span.start)))
        }
        (_, Arguments::Words(words)) => {
            let at = words.iter().skip(1).find(|word| word.text.starts_with('#'))?;
            Some(("each word after it is one more argument".to_owned(), from(at.span.start)))
        }
        (Some(Command::User(word) | Command::Workdir(word) | Command::StopSignal(word)), _) => {
            let at = comment_start(word)?;
            Some(("it becomes part of the value".to_owned(), from(at)))
        }
        (Some(Command::Cmd(line) | Command::Entrypoint(line)), Arguments::Text(word)) if line.form == Form::Shell => {
            after_array(word, from)
        }
        (Some(Command::Run(_)), Arguments::Text(word)) => after_array(word, from),
        _ => None,
    }
}

fn comment_start(word: &Word) -> Option<usize> {
    let at = word.text.match_indices('#').find(|(at, _)| word.text[..*at].ends_with([' ', '\t']))?.0;
    Some(word.part(at, at + 1).start)
}

/// A comment behind a JSON array makes the whole line a shell command.
fn after_array(word: &Word, from: impl Fn(usize) -> Span) -> Option<(String, Span)> {
    let array = word.text.rfind(']').filter(|_| word.text.starts_with("[\""))?;
    let tail = word.text[array + 1..].trim_start();
    // The last bracket may stand in the comment itself.
    let at = if tail.starts_with('#') { word.text.len() - tail.len() } else { word.text.find("] #")? + 2 };
    let effect = "the JSON array is no longer one, and the shell gets the whole line".to_owned();
    Some((effect, from(word.part(at, at + 1).start)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_known_by_whole_words() {
        for name in ["API_KEY", "password", "GITHUB_TOKEN", "secret_message", "AUTH", "DB_PASSWORD_OLD"] {
            assert!(sounds_secret(name), "{name}");
        }
        for name in ["KEYBOARD", "PUBLIC_KEY", "TOKEN_FILE", "KEY_VERSION", "AUTHOR", "MONKEY", "PATH"] {
            assert!(!sounds_secret(name), "{name}");
        }
    }
}
