//! What a linter found in Checkstyle's XML, which many servers read.

use std::io::{self, Write};

use crate::Checked;

/// Writes findings as XML.
pub fn checkstyle(files: &[Checked], out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<checkstyle version=\"4.3\">")?;
    for file in files.iter().filter(|file| !file.findings.is_empty()) {
        writeln!(out, "  <file name=\"{}\">", escape(file.source.name()))?;
        for finding in &file.findings {
            let (line, column) = file.source.position(finding.span.start);
            let (severity, message) = (finding.level.name(), escape(&finding.message));
            // Checkstyle knows no style.
            let severity = if severity == "style" { "info" } else { severity };
            let rule = finding.rule.unwrap_or("Syntax");
            write!(out, "    <error line=\"{line}\" column=\"{column}\" severity=\"{severity}\"")?;
            writeln!(out, " message=\"{message}\" source=\"{rule}\"/>")?;
        }
        writeln!(out, "  </file>")?;
    }
    writeln!(out, "</checkstyle>")
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' => escaped.push_str("&#10;"),
            '\t' => escaped.push_str("&#9;"),
            // XML has no way to say them.
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::super::lint_sample::sample;
    use super::*;

    #[test]
    fn findings_are_elements_and_texts_are_escaped() {
        let mut out = Vec::new();
        checkstyle(&sample().0, &mut out).unwrap();
        insta::assert_snapshot!(String::from_utf8(out).unwrap(), @r#"
        <?xml version="1.0" encoding="UTF-8"?>
        <checkstyle version="4.3">
          <file name="a dir/Dockerfile">
            <error line="2" column="8" severity="warning" message="`as` is small" source="Casing"/>
            <error line="2" column="1" severity="info" message="two lines:&#10;100%, &lt;all&gt; &quot;of&quot; it" source="Other"/>
          </file>
          <file name="b:c,d">
            <error line="1" column="1" severity="error" message="`XYZ` is no instruction" source="Syntax"/>
          </file>
        </checkstyle>
        "#);
        assert_eq!(escape("a\u{1b}b\tc"), "a\u{fffd}b&#9;c");
    }
}
