//! What a linter found as annotations of GitHub's workflow commands.
//!
//! <https://docs.github.com/en/actions/reference/workflow-commands-for-github-actions>

use std::io::{self, Write};

use super::sanitize::is_control;
use crate::{Checked, Diagnostic, Level, SourceFile};

/// Writes a line for each finding.
pub fn github(files: &[Checked], out: &mut dyn Write) -> io::Result<()> {
    for file in files {
        file.findings.iter().try_for_each(|finding| annotation(&file.source, finding, out))?;
    }
    Ok(())
}

fn annotation(source: &SourceFile, finding: &Diagnostic, out: &mut dyn Write) -> io::Result<()> {
    let command = match finding.level {
        Level::Error => "error",
        Level::Warning => "warning",
        Level::Info | Level::Style => "notice",
    };
    let (line, column) = source.position(finding.span.start);
    let (end_line, end_column) = source.position(finding.span.end);
    write!(out, "::{command} file={},line={line},endLine={end_line}", property(source.name()))?;
    // Columns are for places within one line.
    if line == end_line {
        write!(out, ",col={column},endColumn={end_column}")?;
    }
    let title = finding.rule.unwrap_or("Syntax");
    let mut message = finding.message.clone();
    finding.hints.iter().for_each(|hint| message.push_str(&format!("\nhint: {hint}")));
    writeln!(out, ",title={}::{}", property(title), data(&message))
}

fn data(text: &str) -> String {
    let visible = |c| if is_control(c) && !matches!(c, '\t' | '\n' | '\r') { char::REPLACEMENT_CHARACTER } else { c };
    let text: String = text.chars().map(visible).collect();
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::super::lint_sample::sample;
    use super::*;

    #[test]
    fn what_would_end_a_command_is_escaped() {
        let mut out = Vec::new();
        github(&sample().0, &mut out).unwrap();
        insta::assert_snapshot!(String::from_utf8(out).unwrap(), @r#"
        ::warning file=a dir/Dockerfile,line=2,endLine=2,col=8,endColumn=10,title=Casing::`as` is small%0Ahint: write `AS`
        ::notice file=a dir/Dockerfile,line=2,endLine=3,title=Other::two lines:%0A100%25, <all> "of" it
        ::error file=b%3Ac%2Cd,line=1,endLine=1,col=1,endColumn=4,title=Syntax::`XYZ` is no instruction%0Ahint: did you mean `ENV`?
        "#);
    }

    #[test]
    fn what_would_move_the_cursor_is_not_written() {
        assert_eq!(data("a\u{1b}[2J\u{202e}\tb\r\n"), "a\u{fffd}[2J\u{fffd}\tb%0D%0A");
        assert_eq!(property("a\0:b"), "a\u{fffd}%3Ab");
    }
}
