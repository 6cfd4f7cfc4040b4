//! Findings and failures as text, in the manner of rustc: what, where with the source, why, and the way out.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Renderer, Snippet};
use anstyle::{AnsiColor, Style};

use super::Color;
use super::sanitize::{Escapes, one_line, sanitize};
use crate::credentials::{covered_credentials, without_credentials};
use crate::{Diagnostic, Excerpt, Failure, Level, SourceFile, Span};

/// Nobody reads more findings than these before the first are mended.
const MAX_SHOWN: usize = 50;
/// How many bytes before a place in a long line are looked at, and half of those behind it; more than a line can show.
const AROUND: usize = 1_000;

const ERROR: Style = AnsiColor::BrightRed.on_default().bold();
const WARNING: Style = AnsiColor::Yellow.on_default().bold();
const HINT: Style = AnsiColor::BrightCyan.on_default().bold();
const ARROW: Style = AnsiColor::BrightBlue.on_default().bold();
const QUIET: Style = Style::new().dimmed();
const BOLD: Style = Style::new().bold();

/// A finding at its place: title, source, hints. Ends with a line break.
pub fn diagnostic(diagnostic: &Diagnostic, excerpt: &Excerpt, color: Color) -> String {
    let title = match diagnostic.rule {
        Some(rule) => format!("{}[{rule}]: ", diagnostic.level.name()),
        None => format!("{}: ", diagnostic.level.name()),
    };
    let mut text = String::new();
    let message = without_credentials(&diagnostic.message);
    push_title(&mut text, &title, level_style(diagnostic.level), &message, color);
    text.push_str(&source(excerpt, diagnostic.level, color));
    push_hints(&mut text, &diagnostic.hints, color);
    text
}

/// A failure, whole: what could not be done, why, where, the last output, the ways out. Ends with a line break.
pub fn failure(failure: &Failure, color: Color) -> String {
    let mut text = String::new();
    for (finding, excerpt) in failure.diagnostics.iter().take(MAX_SHOWN) {
        text.push_str(&diagnostic(finding, excerpt, color));
        text.push('\n');
    }
    if let Some(more @ 1..) = failure.diagnostics.len().checked_sub(MAX_SHOWN) {
        push_line(&mut text, &format!("… and {more} more like these"), BOLD, "\n", color);
    }
    push_title(&mut text, "error: ", ERROR, &without_credentials(&failure.message), color);
    if let Some(excerpt) = &failure.excerpt {
        text.push_str(&source(excerpt, Level::Error, color));
    }
    for cause in &failure.causes {
        push_line(&mut text, "  caused by: ", QUIET, &without_credentials(&one_line(cause)), color);
    }
    if !failure.output.is_empty() {
        push_line(&mut text, "  last output:", QUIET, "", color);
    }
    for line in &failure.output {
        let line = sanitize(line.trim_end_matches(['\r', '\n']).as_bytes(), Escapes::Strip);
        push_line(&mut text, "  | ", QUIET, &line, color);
    }
    push_hints(&mut text, &failure.hints, color);
    text
}

/// The warnings of a build, counted, then each at its place. Empty when there are none.
pub fn warnings(found: &[(Diagnostic, Excerpt)], color: Color) -> String {
    let mut text = String::new();
    let counted = match found.len() {
        0 => return text,
        1 => "1 warning found".to_owned(),
        many => format!("{many} warnings found"),
    };
    push_line(&mut text, &counted, BOLD, ":", color);
    for (finding, excerpt) in found {
        text.push('\n');
        text.push_str(&diagnostic(finding, excerpt, color));
    }
    text
}

pub(super) fn write_warnings(found: &[(Diagnostic, Excerpt)], color: Color, out: &mut dyn Write) -> io::Result<()> {
    if found.is_empty() {
        return Ok(());
    }
    write!(out, "\n{}", warnings(found, color))
}

/// The lines of the place, marked.
fn source(excerpt: &Excerpt, level: Level, color: Color) -> String {
    let Excerpt { file, span } = excerpt;
    let part = file.part(span.start);
    let (lines, first) = lines_of(file, *span);
    let shown = stretch(file.text(), &lines, *span);
    let place = span.start.saturating_sub(shown.start)..span.end.saturating_sub(shown.start);
    let covered = covered_credentials(&file.text()[lines.clone()]);
    let (text, range) = visible(&covered[shown.start - lines.start..shown.end - lines.start], place);
    let level = match level {
        Level::Error => annotate_snippets::Level::ERROR,
        Level::Warning => annotate_snippets::Level::WARNING,
        Level::Info | Level::Style => annotate_snippets::Level::INFO,
    };
    let name = one_line(part.name);
    let mark = AnnotationKind::Primary.span(range);
    let snippet = Snippet::source(text.as_str()).line_start(first).annotation(mark);
    let mut drawn = String::new();
    let snippet = if shown == lines {
        snippet.path(name.as_str())
    } else {
        // What is left out counts in the column, so the place is not the renderer's to write.
        let (line, column) = file.position(span.start);
        let arrow = format!("{:width$}--> ", "", width = first.to_string().len());
        push_line(&mut drawn, &arrow, ARROW, &format!("{name}:{line}:{column}"), color);
        snippet
    };
    let renderer = if color == Color::On { Renderer::styled() } else { Renderer::plain() };
    drawn.push_str(renderer.render(&[Group::with_level(level).element(snippet)]).trim_end());
    drawn.push('\n');
    drawn
}

/// The whole lines that a place is in, and the number of the first: a file may be long, and its findings many.
fn lines_of(file: &SourceFile, span: Span) -> (Range<usize>, usize) {
    let text = file.text();
    let part = file.part(span.start);
    let limit = part.start + part.text.len();
    let start = floor(text, span.start.min(limit));
    let end = floor(text, span.end.clamp(start, limit));
    let from = text[..start].rfind('\n').map_or(0, |at| at + 1);
    let to = text[end..limit].find('\n').map_or(limit, |at| end + at);
    (from..to, file.position(from).0)
}

/// The part of a line around a place, all of it when it is not long: a line may be long, too, and full of findings.
fn stretch(text: &str, lines: &Range<usize>, span: Span) -> Range<usize> {
    if lines.len() <= 3 * AROUND || text[lines.clone()].contains('\n') {
        return lines.clone();
    }
    let start = span.start.clamp(lines.start, lines.end);
    let from = floor(text, start.saturating_sub(AROUND)).max(lines.start);
    from..floor(text, start + 2 * AROUND).min(lines.end)
}

/// The boundary between characters at a place, or the last before it.
fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// The text without what would disturb the terminal, byte for byte as long as before; and the range, inside it, on
/// character boundaries, without white space at its ends.
fn visible(text: &str, range: Range<usize>) -> (String, Range<usize>) {
    let start = floor(text, range.start);
    let end = floor(text, range.end).max(start);
    let marked = &text[start..end];
    let trimmed = marked.trim();
    let (start, end) = if trimmed.is_empty() {
        (start, end)
    } else {
        let start = start + (marked.len() - marked.trim_start().len());
        (start, start + trimmed.len())
    };
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        let is_safe = matches!(c, ' '..='~' | '\n' | '\t')
            || !sanitize(c.encode_utf8(&mut [0; 4]).as_bytes(), Escapes::Strip).is_empty();
        match is_safe {
            true => clean.push(c),
            false => clean.extend(std::iter::repeat_n(' ', c.len_utf8())),
        }
    }
    (clean, start..end)
}

fn level_style(level: Level) -> Style {
    match level {
        Level::Error => ERROR,
        Level::Warning => WARNING,
        Level::Info | Level::Style => HINT,
    }
}

/// A title may be of several lines; those after the first are indented.
fn push_title(text: &mut String, label: &str, style: Style, message: &str, color: Color) {
    let mut lines = message.lines().map(|line| sanitize(line.as_bytes(), Escapes::Strip));
    let first = lines.next().unwrap_or_default();
    match color {
        Color::On => writeln!(text, "{style}{label}{style:#}{BOLD}{first}{BOLD:#}"),
        Color::Off => writeln!(text, "{label}{first}"),
    }
    .expect("writing to a string");
    for line in lines {
        writeln!(text, "  {line}").expect("writing to a string");
    }
}

fn push_line(text: &mut String, label: &str, style: Style, rest: &str, color: Color) {
    match color {
        Color::On => writeln!(text, "{style}{label}{style:#}{rest}"),
        Color::Off => writeln!(text, "{label}{rest}"),
    }
    .expect("writing to a string");
}

fn push_hints(text: &mut String, hints: &[String], color: Color) {
    for hint in hints {
        push_line(text, "hint: ", HINT, &without_credentials(&one_line(hint)), color);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{FailureKind, SourceFile, Span};

    const TEXT: &str = "FROM busybox\nRUN make \\\n    --jobs 4 \\\n    all\nCOPY a b\n";

    fn excerpt(of: &str) -> Excerpt {
        let start = TEXT.find(of).unwrap();
        Excerpt { file: Arc::new(SourceFile::new("Dockerfile", TEXT)), span: Span::new(start, start + of.len()) }
    }

    #[test]
    fn a_failed_step_says_where_why_and_what_next() {
        let mut broken = Failure::new(FailureKind::Build, "process `/bin/sh -c make` ended with exit code 2")
            .hint("run the step with `--progress=plain` to see all of its output")
            .at(excerpt("RUN make \\\n    --jobs 4 \\\n    all\n"));
        broken.causes = vec!["no rule to make target `all`".into()];
        broken.output = vec!["cc -c main.c".into(), "\u{1b}[31mmake: *** stop\u{1b}[2J".into()];
        insta::assert_snapshot!(failure(&broken, Color::Off), @r"
        error: process `/bin/sh -c make` ended with exit code 2
         --> Dockerfile:2:1
          |
        2 | / RUN make \
        3 | |     --jobs 4 \
        4 | |     all
          | |_______^
          caused by: no rule to make target `all`
          last output:
          | cc -c main.c
          | make: *** stop
        hint: run the step with `--progress=plain` to see all of its output
        ");
    }

    #[test]
    fn a_finding_names_its_rule_and_marks_its_place() {
        let finding = Diagnostic::warning("CopyIgnoredFile", excerpt("a b").span, "`a` is hidden by `.dockerignore`")
            .hint("remove line 3 of `.dockerignore`");
        insta::assert_snapshot!(diagnostic(&finding, &excerpt("a b"), Color::Off), @"
        warning[CopyIgnoredFile]: `a` is hidden by `.dockerignore`
         --> Dockerfile:5:6
          |
        5 | COPY a b
          |      ^^^
        hint: remove line 3 of `.dockerignore`
        ");
        insta::assert_snapshot!(warnings(&[(finding, excerpt("a b"))], Color::Off).lines().next().unwrap(), @"1 warning found:");
    }

    #[test]
    fn of_a_long_line_the_part_around_the_place_is_drawn() {
        let text = format!("FROM a\nRUN {} here {}\n", "é ".repeat(5_000), "x ".repeat(5_000));
        let at = text.find("here").unwrap();
        let file = Arc::new(SourceFile::new("f", text));
        let drawn = source(&Excerpt { file, span: Span::new(at, at + 4) }, Level::Error, Color::Off);
        assert!(drawn.starts_with(" --> f:2:10006\n  |\n2 | ...é"), "{drawn}");
        assert!(drawn.contains(" here x x") && drawn.ends_with(" ^^^^\n"), "{drawn}");
        assert_eq!(drawn.lines().count(), 4);
        // Thousands of findings in one line are drawn in time.
        let file = Arc::new(SourceFile::new("f", "a ".repeat(50_000)));
        for at in (0..100_000).step_by(20) {
            let file = Arc::clone(&file);
            assert!(!source(&Excerpt { file, span: Span::new(at, at + 1) }, Level::Error, Color::Off).is_empty());
        }
    }

    #[test]
    fn passwords_in_urls_are_covered_and_the_mark_stays_at_its_place() {
        let text = "FROM a\nADD http://u:p/w@h/f /to\n";
        let (file, at) = (Arc::new(SourceFile::new("f", text)), text.find("/to").unwrap());
        let why = "cannot read `http://u:p/w@h/f`";
        let mut broken =
            Failure::new(FailureKind::Build, why).hint(why).at(Excerpt { file, span: Span::new(at, at + 3) });
        broken.causes = vec![why.into()];
        insta::assert_snapshot!(failure(&broken, Color::Off), @"
        error: cannot read `http://****@h/f`
         --> f:2:22
          |
        2 | ADD http://*****@h/f /to
          |                      ^^^
          caused by: cannot read `http://****@h/f`
        hint: cannot read `http://****@h/f`
        ");
        assert!(!broken.to_string().contains("p/w"));
    }

    #[test]
    fn colour_changes_no_letter() {
        let finding = Diagnostic::error(excerpt("COPY").span, "no").hint("do");
        let colored = diagnostic(&finding, &excerpt("COPY"), Color::On);
        assert!(colored.contains('\u{1b}'));
        let stripped: Vec<String> = colored.lines().map(|line| sanitize(line.as_bytes(), Escapes::Strip)).collect();
        assert_eq!(stripped.join("\n") + "\n", diagnostic(&finding, &excerpt("COPY"), Color::Off));
    }

    #[test]
    fn hostile_places_and_texts_are_shown_harmlessly() {
        let text = "RUN é\u{1b}[2J\r\n\u{202e}x";
        let file = Arc::new(SourceFile::new("bad\u{1b}[2Jname\n", text));
        for (start, end) in [(0, 0), (5, 6), (6, 5), (99, 200), (text.len(), text.len()), (0, text.len())] {
            let drawn = source(&Excerpt { file: file.clone(), span: Span::new(start, end) }, Level::Error, Color::Off);
            assert!(!drawn.contains(['\u{1b}', '\u{202e}', '\r']), "{drawn:?}");
        }
        let empty = Excerpt { file: Arc::new(SourceFile::new("", "")), span: Span::new(0, 3) };
        assert!(!source(&empty, Level::Warning, Color::Off).is_empty());
    }
}
