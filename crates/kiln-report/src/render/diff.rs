//! The difference of two texts, as `diff -u` writes it and `patch` reads it.

use std::fmt::Write as _;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use similar::{ChangeTag, TextDiff};

use super::Color;
use super::sanitize::{Escapes, sanitize};

/// After this long a difference is told more coarsely than it could be.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many lines are shown around a change.
const AROUND: usize = 3;

/// The difference of two states of a file; empty when there is none. With colours it is for a terminal, and control
/// characters are left out; without, it is a patch to the byte.
pub fn diff(name: &str, before: &str, after: &str, color: Color) -> String {
    let diff = TextDiff::configure().timeout(PATIENCE).diff_lines(before, after);
    let mut unified = diff.unified_diff();
    unified.context_radius(AROUND);
    let mut out = String::new();
    for hunk in unified.iter_hunks() {
        if out.is_empty() {
            line(&mut out, Style::new().bold(), &format!("--- {name}"), color);
            line(&mut out, Style::new().bold(), &format!("+++ {name}"), color);
        }
        line(&mut out, AnsiColor::Cyan.on_default(), &hunk.header().to_string(), color);
        for change in hunk.iter_changes() {
            let (sign, style) = match change.tag() {
                ChangeTag::Delete => ('-', AnsiColor::Red.on_default()),
                ChangeTag::Insert => ('+', AnsiColor::Green.on_default()),
                ChangeTag::Equal => (' ', Style::new()),
            };
            let text = change.value();
            line(&mut out, style, &format!("{sign}{}", text.strip_suffix('\n').unwrap_or(text)), color);
            if change.missing_newline() {
                line(&mut out, Style::new(), "\\ No newline at end of file", color);
            }
        }
    }
    out
}

fn line(out: &mut String, style: Style, text: &str, color: Color) {
    let written = match color {
        Color::Off => writeln!(out, "{text}"),
        Color::On => {
            let text = sanitize(text.as_bytes(), Escapes::Strip);
            writeln!(out, "{style}{text}{style:#}")
        }
    };
    written.expect("writing to a string");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_reads_as_a_patch() {
        let (before, after) = ("a\nb\nc\nd\ne\nf\ng\nh\ni", "a\nB\nc\nd\ne\nf\ng\nh\ni\n");
        let wanted =
            "--- x\n+++ x\n@@ -1,9 +1,9 @@\n a\n-b\n+B\n c\n d\n e\n f\n g\n h\n-i\n\\ No newline at end of file\n+i\n";
        assert_eq!(diff("x", before, after, Color::Off), wanted);
        assert_eq!(diff("x", before, before, Color::Off), "");
        assert_eq!(diff("x", "a\r\n", "b\r\n", Color::Off), "--- x\n+++ x\n@@ -1 +1 @@\n-a\r\n+b\r\n");
    }

    #[test]
    fn on_a_terminal_it_has_colours_and_no_control_characters_of_the_texts() {
        let shown = diff("x", "\u{1b}[2Ja\n", "b\n", Color::On);
        assert!(shown.contains("\u{1b}[31m-a\u{1b}[0m\n\u{1b}[32m+b\u{1b}[0m\n"), "{shown:?}");
        assert!(!shown.contains("[2J"));
    }
}
