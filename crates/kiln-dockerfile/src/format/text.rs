//! Text that goes over several lines, kept as it is but for what the language passes over.

/// Writes lines with a given line break.
pub(super) fn push(out: &mut String, text: &str, newline: &str) {
    for (index, line) in text.split('\n').enumerate() {
        if index > 0 {
            out.push_str(newline);
        }
        out.push_str(line);
    }
}

/// How far a command's further lines are indented.
#[derive(Debug, Clone, Copy)]
pub(super) enum Indent {
    /// As far as they are.
    Kept,
    /// This far, where a shell does not care.
    Set(usize),
}

/// A token's text, perhaps of several lines: without blank lines and white space behind the continuation, with comments
/// where their lines begin.
pub(super) fn tidy(raw: &str, escape: char, indent: Indent) -> String {
    if !raw.contains('\n') {
        return raw.to_owned();
    }
    let mut out = String::with_capacity(raw.len());
    let mut shell = Shell::default();
    let mut comments: Vec<&str> = Vec::new();
    // Whether white space may be changed where the last line ended.
    let mut is_free = false;
    let last = raw.matches('\n').count();
    for (index, line) in raw.split('\n').enumerate() {
        let body = line.trim_start();
        if index > 0 && (body.is_empty() || body.starts_with('#')) {
            comments.extend((!body.is_empty()).then(|| body.trim_end()));
            continue;
        }
        let content = continued(body, escape).filter(|_| index < last);
        if is_free && content.is_some_and(str::is_empty) {
            continue;
        }
        let kept = &line[..line.len() - body.len()];
        let margin = match indent {
            Indent::Set(width) if index > 0 && is_free => " ".repeat(width),
            _ => kept.to_owned(),
        };
        if index > 0 {
            out.push('\n');
        }
        for comment in comments.drain(..) {
            out.push_str(&margin);
            out.push_str(comment);
            out.push('\n');
        }
        out.push_str(&margin);
        let Some(content) = content else {
            out.push_str(body);
            continue;
        };
        shell.read(content);
        let next = raw_after(raw, line);
        is_free = matches!(indent, Indent::Set(_)) && !content.is_empty() && shell.is_between_words(content, next);
        out.push_str(if is_free { content.trim_end_matches([' ', '\t']) } else { content });
        out.extend(is_free.then_some(' '));
        out.push(escape);
    }
    out
}

/// A line without the sign that it goes on.
fn continued(line: &str, escape: char) -> Option<&str> {
    line.trim_end_matches('\r').trim_end_matches([' ', '\t']).strip_suffix(escape)
}

/// What comes behind a line, from the next one on that says something.
fn raw_after<'a>(raw: &'a str, line: &str) -> &'a str {
    let end = line.as_ptr() as usize - raw.as_ptr() as usize + line.len();
    let mut rest = raw.get(end + 1..).unwrap_or("");
    while let Some((first, more)) = rest.split_once('\n') {
        let body = first.trim_start();
        if !body.is_empty() && !body.starts_with('#') {
            break;
        }
        rest = more;
    }
    rest
}

/// As much of a shell's reading as tells where white space is only that.
#[derive(Debug, Default)]
struct Shell {
    quote: Option<char>,
}

impl Shell {
    fn read(&mut self, content: &str) {
        let mut chars = content.chars();
        while let Some(c) = chars.next() {
            match (self.quote, c) {
                (Some('\''), '\\') => {}
                (_, '\\') => drop(chars.next()),
                (None, '\'' | '"' | '`') => self.quote = Some(c),
                (Some(open), c) if c == open => self.quote = None,
                _ => {}
            }
        }
    }

    /// Whether the line break behind `content` stands where a shell wants any white space at all.
    fn is_between_words(&self, content: &str, next: &str) -> bool {
        let word = content.trim_end_matches([' ', '\t']);
        let has_space = word.len() < content.len() || next.starts_with([' ', '\t']);
        self.quote.is_none() && has_space && !word.ends_with('\\')
    }
}
