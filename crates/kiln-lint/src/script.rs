//! What a `RUN` hands to a shell, with the way back to the file.

use kiln_dockerfile::instruction::{Form, Run};
use kiln_dockerfile::{Instruction, Word};
use kiln_report::Span;

/// A script with the way back to the file.
pub(crate) struct Script<'a> {
    pub(crate) text: String,
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
    /// The place of a part of the text.
    pub(crate) fn span(&self, start: usize, end: usize) -> Span {
        match self.place {
            Place::Line(at) => self.instruction.line.span(at + start, at + end),
            Place::File(at) => Span::new(at + start, at + end),
            Place::Whole(span) => span,
        }
    }
}

/// The scripts of a step: its command, and its heredocs.
pub(crate) fn scripts<'a>(instruction: &'a Instruction, run: &Run) -> Vec<Script<'a>> {
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
