//! One way to write a Dockerfile: spaces, line breaks and the case of keywords, and nothing that means something.
//!
//! The rule above all others: what is built stays what it was, to the byte. So the text of a command is not touched, as
//! white space within it is part of the step's cache key, and neither are heredocs, quoted values and triggers.

mod gap;
mod instruction;
mod law;
mod text;

use kiln_report::Diagnostic;

use crate::instruction::Command;
use crate::parse::{Dockerfile, Instruction, Item, ItemKind, parse};

/// How a file is formatted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Style {
    /// How far the lines are indented on which a command goes on; `None` leaves them as they are, so that no step's text
    /// changes.
    pub command_indent: Option<usize>,
}

/// Formats a file; a file with errors stays what it is, and they are given.
///
/// ```
/// use kiln_dockerfile::format::{Style, format};
///
/// let text = "from  busybox as  base\n\n\n\ncmd [\"a\",\"b\"]";
/// assert_eq!(format(text, Style::default()).unwrap(), "FROM busybox AS base\n\nCMD [\"a\", \"b\"]\n");
/// ```
pub fn format(text: &str, style: Style) -> Result<String, Vec<Diagnostic>> {
    let (file, errors) = parse(text);
    if !errors.is_empty() {
        return Err(errors);
    }
    let formatted = rewrite(&file, text, style);
    // The tests hold that this is always so; were it not, the text is worth more than its looks.
    let is_same = law::is_same(&file, text, &formatted, style);
    Ok(if is_same { formatted } else { text.to_owned() })
}

fn rewrite(file: &Dockerfile, text: &str, style: Style) -> String {
    let newline = newline(file, text);
    let bom = if text.starts_with('\u{feff}') { "\u{feff}" } else { "" };
    let mut out = String::with_capacity(text.len() + text.len() / 16);
    out.push_str(bom);
    let mut layout = Layout::default();
    for (index, item) in file.items.iter().enumerate() {
        if matches!(item.kind, ItemKind::Blank) {
            layout.has_blank = true;
            continue;
        }
        if layout.wants_blank(&file.items[index..]) {
            out.push_str(newline);
        }
        layout.pass(item);
        let raw = text[item.span.range()].trim_start_matches('\u{feff}');
        match &item.kind {
            ItemKind::Instruction(instruction) => {
                let head = instruction::head(text, instruction, file.escape, style);
                text::push(&mut out, &head, newline);
                heredocs(&mut out, text, instruction, newline);
            }
            // What stands above the first instruction may be a directive, by where it begins.
            ItemKind::Comment(_) if layout.has_instruction => out.push_str(raw.trim()),
            _ => out.push_str(raw.trim_end()),
        }
        out.push_str(newline);
    }
    out
}

fn heredocs(out: &mut String, text: &str, instruction: &Instruction, newline: &str) {
    let (Some(first), Some(last)) = (instruction.heredocs.first(), instruction.heredocs.last()) else { return };
    out.push_str(newline);
    out.push_str(&text[first.content_span.start..last.end_span.end]);
}

/// Where blank lines go: one where there were some, and one above each stage but the first.
#[derive(Debug, Default)]
struct Layout {
    has_blank: bool,
    has_item: bool,
    has_instruction: bool,
    has_stage: bool,
    /// Whether the last item was a comment, to which what follows belongs.
    after_comment: bool,
}

impl Layout {
    /// Whether a blank line goes above the first of these items.
    fn wants_blank(&self, items: &[Item]) -> bool {
        if !self.has_item {
            // Without the blank line a comment could become a directive.
            return self.has_blank && matches!(items[0].kind, ItemKind::Comment(_));
        }
        // Looked for once per run of comments, however long it is.
        let next = || items.iter().find(|item| !matches!(item.kind, ItemKind::Comment(_)));
        self.has_blank || self.has_stage && !self.after_comment && next().is_some_and(is_from)
    }

    fn pass(&mut self, item: &Item) {
        self.has_item = true;
        self.has_blank = false;
        self.has_instruction |= matches!(item.kind, ItemKind::Instruction(_));
        self.has_stage |= is_from(item);
        self.after_comment = matches!(item.kind, ItemKind::Comment(_));
    }
}

fn is_from(item: &Item) -> bool {
    matches!(&item.kind, ItemKind::Instruction(instruction) if matches!(instruction.command, Some(Command::From(_))))
}

/// The line break most lines outside of heredocs have.
fn newline(file: &Dockerfile, text: &str) -> &'static str {
    let count = |text: &str| (text.matches("\r\n").count(), text.matches('\n').count());
    let (mut windows, mut all) = count(text);
    for heredoc in file.instructions().flat_map(|instruction| &instruction.heredocs) {
        let (inner_windows, inner_all) = count(&text[heredoc.content_span.range()]);
        windows -= inner_windows;
        all -= inner_all;
    }
    if windows * 2 > all { "\r\n" } else { "\n" }
}

#[cfg(test)]
mod tests;
