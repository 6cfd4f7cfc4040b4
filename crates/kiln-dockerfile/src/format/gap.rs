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

/// Reads what stands at `at`, at most up to `end`.
pub(super) fn read(text: &str, at: usize, end: usize, escape: char) -> Gap<'_> {
    let mut gap = Gap { end: at, ..Gap::default() };
    loop {
        let rest = &text[gap.end..end];
        let line = rest.split('\n').next().unwrap_or(rest);
        let body = line.trim_start();
        let next = (gap.end + line.len() + 1).min(end);
        if gap.breaks && body.starts_with('#') {
            gap.comments.push(body.trim_end());
            gap.end = next;
        } else if goes_on(body, escape) {
            gap.breaks = true;
            gap.end = next;
        } else if gap.breaks && body.is_empty() && next > gap.end {
            gap.end = next;
        } else {
            gap.indent = &line[..line.len() - body.len()];
            gap.end += gap.indent.len();
            return gap;
        }
    }
}

/// Whether a line holds nothing but the sign that it goes on.
fn goes_on(body: &str, escape: char) -> bool {
    body.strip_prefix(escape).is_some_and(|rest| rest.trim_end_matches('\r').trim_end_matches([' ', '\t']).is_empty())
}
