//! What may stand between two tokens of an instruction: white space, the ends of continued lines, comments.

/// The stretch between two tokens.
#[derive(Debug, Default)]
pub(super) struct Gap<'a> {
    /// Where the next token begins.
    pub(super) end: usize,
    /// Whether a line ends in it.
    pub(super) breaks: bool,
    /// The comments in it.
    pub(super) comments: Vec<&'a str>,
    /// The white space before the next token, on its own line.
    pub(super) indent: &'a str,
}

impl Gap<'_> {
    /// Writes it: one space, or a line break and so much white space.
    pub(super) fn write(&self, out: &mut String, escape: char, indent: &str) {
        out.push(' ');
        if !self.breaks {
            return;
        }
        out.extend([escape, '\n']);
        for comment in &self.comments {
            out.push_str(indent);
            out.push_str(comment);
            out.push('\n');
        }
        out.push_str(indent);
    }
}

/// Reads what stands at `at`, at most up to `end`. Looks no further than it must, as a line may hold a million tokens.
pub(super) fn read(text: &str, at: usize, end: usize, escape: char) -> Gap<'_> {
    let mut gap = Gap { end: at, ..Gap::default() };
    loop {
        let rest = &text[gap.end..end];
        let indent = rest.find(|c: char| c == '\n' || !c.is_whitespace()).unwrap_or(rest.len());
        let body = &rest[indent..];
        if gap.breaks && body.starts_with('#') {
            let comment = body.split('\n').next().unwrap_or(body);
            gap.comments.push(comment.trim_end());
            gap.end = (gap.end + indent + comment.len() + 1).min(end);
        } else if let Some(length) = continuation(body, escape) {
            gap.breaks = true;
            gap.end += indent + length;
        } else if gap.breaks && (body.starts_with('\n') || body.is_empty() && indent > 0) {
            gap.end = (gap.end + indent + 1).min(end);
        } else {
            gap.indent = &rest[..indent];
            gap.end += indent;
            return gap;
        }
    }
}

/// How long the sign is that a line goes on, line break included, when there is nothing but it.
fn continuation(body: &str, escape: char) -> Option<usize> {
    let rest = body.strip_prefix(escape)?;
    let rest = rest.trim_start_matches([' ', '\t']).trim_start_matches('\r');
    let rest = if rest.is_empty() { rest } else { rest.strip_prefix('\n')? };
    Some(body.len() - rest.len())
}
