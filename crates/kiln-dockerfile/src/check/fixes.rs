//! Changes that mend what the checks find. Each is made only where the file has the text as the tree has it, so that
//! nothing the tree does not know, such as a comment between two words, is lost.

mod names;
mod values;

use kiln_report::{Diagnostic, Edit, Fix, Safety, Span};

pub(super) use names::StageUses;
pub(super) use values::{comment_above, json_command, label_of_maintainer, pair_of_old};

use crate::parse::{Instruction, Word};

/// A finding with the change that mends it, if there is one.
pub(crate) fn mend(finding: Diagnostic, fix: Option<Fix>) -> Diagnostic {
    Diagnostic { fix, ..finding }
}

fn fix(description: impl Into<String>, safety: Safety, edits: Vec<Edit>) -> Fix {
    Fix { description: description.into(), edits, safety }
}

fn edit(span: Span, text: impl Into<String>) -> Edit {
    Edit { span, text: text.into() }
}

/// Whether the file has a word as it is, without continuations, quotes or escapes that were undone.
fn is_exact(word: &Word) -> bool {
    word.span.end - word.span.start == word.text.len()
}

/// Another spelling of a word that means the same.
pub(crate) fn respell(word: &Word, text: &str) -> Option<Fix> {
    is_exact(word).then(|| fix(format!("write `{text}`"), Safety::Safe, vec![edit(word.span, text)]))
}

/// A flag with the hyphens that were meant. The build does something else then.
pub(super) fn with_hyphens(word: &Word, flag: &str) -> Option<Fix> {
    is_exact(word).then(|| fix(format!("write `{flag}`"), Safety::Unsafe, vec![edit(word.span, flag)]))
}

/// Takes blank lines out.
pub(super) fn without_blank_lines(instruction: &Instruction) -> Fix {
    let lines = instruction.empty_continuations.iter();
    fix("take it out", Safety::Safe, lines.map(|line| edit(Span::new(line.span.start, line.end), "")).collect())
}

/// Takes a flag out, and the white space behind it.
pub(super) fn without_flag(instruction: &Instruction, value: &Word) -> Option<Fix> {
    let is_meant = |flag: &&crate::parse::Flag| flag.value.as_ref().is_some_and(|found| found.span == value.span);
    let flag = instruction.flags.iter().find(is_meant).filter(|_| !instruction.line.is_continued())?;
    let start = instruction.line.span(0, 1).start;
    let rest = &instruction.line.text()[flag.span.end - start..];
    let end = flag.span.end + rest.len() - rest.trim_start().len();
    Some(fix("leave it out", Safety::Safe, vec![edit(Span::new(flag.span.start, end), "")]))
}

/// Another name for a variable that is used at a place of a word. Which one was meant is a guess.
pub(crate) fn rename_variable(word: &Word, start: usize, name: &str, new: &str) -> Option<Fix> {
    let sigil = if word.text[start..].starts_with("${") { 2 } else { 1 };
    let (start, end) = (start + sigil, start + sigil + name.len());
    let is_there = is_exact(word) && word.text.get(start..end) == Some(name);
    is_there.then(|| fix(format!("write `${new}`"), Safety::Unsafe, vec![edit(word.part(start, end), new)]))
}

/// A directory that begins at the root. Where the base image's begins, nobody knows here.
pub(crate) fn absolute(word: &Word) -> Option<Fix> {
    let is_plain = word.text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    let at = Span::new(word.span.start, word.span.start);
    is_plain.then(|| fix(format!("write `/{}`", word.text), Safety::Unsafe, vec![edit(at, "/")]))
}

/// A port as EXPOSE has it: without what concerns the host. The image stays what it was.
pub(crate) fn port_alone(word: &Word, spec: &str) -> Option<Fix> {
    respell(word, spec.rsplit_once(':')?.1).filter(|_| word.text == spec)
}

/// A port with its protocol in lower case.
pub(crate) fn port_in_lower_case(word: &Word, spec: &str) -> Option<Fix> {
    respell(word, &spec.to_lowercase()).filter(|_| word.text == spec)
}
