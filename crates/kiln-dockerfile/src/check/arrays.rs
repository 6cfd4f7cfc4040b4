//! What was meant for a JSON array and is none: what is wrong with it, and where.

use kiln_report::{Diagnostic, Edit, Fix, Safety};

use super::rules;
use crate::instruction::Keyword;
use crate::parse::{Arguments, Instruction, Word};

/// Why an array is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Unclosed,
    TrailingComma,
    MissingComma,
    SingleQuotes,
    TypographicQuotes,
    Unquoted,
    OpenQuote,
    Escape,
    TextBehind,
}

/// What is wrong with the array that an instruction's arguments begin like. Nothing when they are one, or a shell's own
/// `[`, or a wildcard.
pub(crate) fn broken(instruction: &Instruction) -> Option<Diagnostic> {
    if let Arguments::Trigger(inner) = &instruction.arguments {
        return broken(inner);
    }
    let keyword = Keyword::of(&instruction.keyword.text)?;
    let first = first_word(keyword, &instruction.arguments).filter(|word| word.text.starts_with('['))?;
    let line = &instruction.line;
    let mut brackets = line.text().match_indices('[').map(|(at, _)| at);
    let start = brackets.find(|at| line.span(*at, at + 1).start == first.span.start)?;
    let text = line.text()[start..].trim_end();
    let mut reader = Reader { text, at: 1, ..Reader::default() };
    reader.read();
    let (fault, begin, end) = *reader.faults.first().filter(|_| reader.is_meant())?;
    let span = line.span(start + begin, start + end);
    let finding = rules::broken_array(keyword, fault, &text[begin..end], span);
    // Only what makes an array of all of it was surely meant.
    let mended = reader.mended().filter(|mended| serde_json::from_str::<Vec<String>>(mended).is_ok());
    let Some(mended) = mended else { return Some(finding) };
    let edit = |(begin, end, text): (usize, usize, &str)| Edit {
        span: line.span(start + begin, start + end),
        text: text.to_owned(),
    };
    let edits = reader.edits.into_iter().map(edit).collect();
    Some(finding.fix(Fix { description: format!("write `{mended}`"), edits, safety: Safety::Safe }))
}

/// Where an array would begin, for the instructions that take one.
fn first_word(keyword: Keyword, arguments: &Arguments) -> Option<&Word> {
    use Keyword as K;
    match arguments {
        Arguments::Typed(_, inner) => first_word(keyword, inner),
        Arguments::Text(word) if matches!(keyword, K::Cmd | K::Entrypoint | K::Healthcheck | K::Run | K::Shell) => {
            Some(word)
        }
        Arguments::Words(words) if matches!(keyword, K::Add | K::Copy | K::Volume) => words.first(),
        _ => None,
    }
}

/// Reads what resembles an array, and goes on where JSON would not.
#[derive(Default)]
struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// What is wrong, and from where to where.
    faults: Vec<(Fault, usize, usize)>,
    edits: Vec<(usize, usize, &'static str)>,
    is_list: bool,
    strings: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn skip_space(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
    }

    fn fault(&mut self, fault: Fault, begin: usize, end: usize) {
        self.faults.push((fault, begin, end));
    }

    /// Whether an array was meant, and not the shell's `[ "$a" = b ]`.
    fn is_meant(&self) -> bool {
        let is_spaced = self.text[1..].starts_with(char::is_whitespace);
        let is_open = self.faults.iter().any(|(fault, ..)| *fault == Fault::Unclosed);
        self.is_list || self.strings > 0 && (is_open || !is_spaced)
    }

    fn read(&mut self) {
        self.skip_space();
        while self.string().is_some() {
            self.skip_space();
            match self.peek() {
                None => return self.end(),
                Some(']') => return self.behind(),
                Some(',') if self.is_last_comma() => return,
                Some(',') => {}
                Some(c) if closing(c).is_some() => {
                    self.fault(Fault::MissingComma, self.at, self.at + c.len_utf8());
                    self.edits.push((self.at, self.at, ", "));
                }
                // A `[` of the shell, as far as can be told.
                Some(_) if !self.is_list => return self.faults.clear(),
                Some(_) => return self.unreadable(Fault::Unquoted),
            }
        }
    }

    /// Passes a comma. One behind the last string ends the reading.
    fn is_last_comma(&mut self) -> bool {
        self.is_list = true;
        let comma = self.at;
        self.at += 1;
        self.skip_space();
        let next = self.peek();
        if !matches!(next, None | Some(']')) {
            return false;
        }
        self.fault(Fault::TrailingComma, comma, comma + 1);
        self.edits.push((comma, comma + 1, ""));
        if next.is_none() {
            self.end()
        } else {
            self.behind()
        }
        true
    }

    /// Passes the `]`, and looks at what follows.
    fn behind(&mut self) {
        self.at += 1;
        self.skip_space();
        match self.peek() {
            None => {}
            // A comment is told about as such.
            Some('#') => self.edits.clear(),
            Some(_) if self.is_list => self.fault(Fault::TextBehind, self.at, self.text.len()),
            Some(_) => self.faults.clear(),
        }
    }

    fn end(&mut self) {
        let last = self.text.len() - self.text.chars().next_back().map_or(0, char::len_utf8);
        self.fault(Fault::Unclosed, last, self.text.len());
        self.edits.push((self.text.len(), self.text.len(), "]"));
    }

    /// A word that cannot be read; nothing is said about what follows it.
    fn unreadable(&mut self, fault: Fault) {
        let rest = &self.text[self.at..];
        let length = rest.find(|c: char| c.is_whitespace() || c == ',' || c == ']').unwrap_or(rest.len());
        self.fault(fault, self.at, self.at + length.max(rest.chars().next().map_or(0, char::len_utf8)));
        self.edits.clear();
    }

    fn string(&mut self) -> Option<()> {
        let Some((open, close)) = self.peek().and_then(|c| Some((c, closing(c)?))) else {
            if self.strings > 0 {
                self.unreadable(Fault::Unquoted);
            }
            return None;
        };
        let start = self.at;
        let inner = start + open.len_utf8();
        let Some(length) = self.inside(inner, open, close) else {
            if self.strings > 0 {
                self.fault(Fault::OpenQuote, start, self.text.len());
            }
            return None;
        };
        self.at = inner + length + close.len_utf8();
        self.strings += 1;
        if open != '"' {
            let is_single = open == '\'';
            self.fault(if is_single { Fault::SingleQuotes } else { Fault::TypographicQuotes }, start, self.at);
            self.edits.push((start, inner, "\""));
            self.edits.push((inner + length, self.at, "\""));
        }
        Some(())
    }

    /// How long what stands between quotes is.
    fn inside(&mut self, start: usize, open: char, close: char) -> Option<usize> {
        let mut chars = self.text[start..].char_indices();
        while let Some((at, c)) = chars.next() {
            if c == close {
                return Some(at);
            }
            if c == '\\' && open == '"' {
                let (next, escaped) = chars.next()?;
                if !"\"\\/bfnrtu".contains(escaped) {
                    self.faults.push((Fault::Escape, start + at, start + next + escaped.len_utf8()));
                }
            }
        }
        None
    }

    /// The text with all edits made.
    fn mended(&self) -> Option<String> {
        let (mut text, mut at) = (String::new(), 0);
        for (begin, end, new) in &self.edits {
            text.push_str(self.text.get(at..*begin)?);
            text.push_str(new);
            at = *end;
        }
        text.push_str(&self.text[at..]);
        Some(text).filter(|_| !self.edits.is_empty())
    }
}

/// What closes a quote.
fn closing(open: char) -> Option<char> {
    Some(match open {
        '"' | '\'' => open,
        '“' | '„' | '”' => '”',
        '‘' | '’' => '’',
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    /// What is wrong, the place, and what the fix makes of it.
    fn found(line: &str) -> Option<(String, String, String)> {
        let text = format!("FROM scratch\n{line}\n");
        let (file, _) = parse(&text);
        let finding = broken(file.instructions().last()?)?;
        let mut mended = text.clone();
        for edit in finding.fix.iter().flat_map(|fix| &fix.edits).rev() {
            mended.replace_range(edit.span.range(), &edit.text);
        }
        let mended = mended.strip_prefix("FROM scratch\n")?.trim_end().to_owned();
        let mended = if finding.fix.is_some() { mended } else { String::new() };
        Some((finding.message.split(':').next()?.to_owned(), text[finding.span.range()].to_owned(), mended))
    }

    #[test]
    fn the_fault_of_a_broken_array_is_named_marked_and_mended() {
        for (line, message, place, mended) in [
            (r#"CMD ["a", "b""#, "`]` is missing", "\"", r#"CMD ["a", "b"]"#),
            (r#"ENTRYPOINT ["a",]"#, "a comma", ",", r#"ENTRYPOINT ["a"]"#),
            (r#"CMD ["a","#, "a comma", ",", r#"CMD ["a"]"#),
            (r#"CMD ["a", 'b']"#, "`'b'` is in single", "'b'", r#"CMD ["a", "b"]"#),
            (r#"RUN ["a", "b",]"#, "a comma", ",", r#"RUN ["a", "b"]"#),
            (r#"HEALTHCHECK CMD ["a""#, "`]` is missing", "\"", r#"HEALTHCHECK CMD ["a"]"#),
            (r#"RUN ['echo', 'hi']"#, "`'echo'` is in single", "'echo'", r#"RUN ["echo", "hi"]"#),
            (r#"COPY ["a", '/x']"#, "`'/x'` is in single", "'/x'", r#"COPY ["a", "/x"]"#),
            (r#"VOLUME ["/a" "/b"]"#, "a comma is missing", "\"", r#"VOLUME ["/a" , "/b"]"#),
            (r#"ONBUILD CMD ["a",]"#, "a comma", ",", r#"ONBUILD CMD ["a"]"#),
            (r#"SHELL ["a", 'b']"#, "`'b'` is in single", "'b'", r#"SHELL ["a", "b"]"#),
            ("CMD [“a”, “b”]", "`“a”` is in typographic", "“a”", r#"CMD ["a", "b"]"#),
            ("CMD [\"a\", \\\n  'b',\\\n]", "`'b'` is in single", "'b'", "CMD [\"a\", \\\n  \"b\"\\\n]"),
            (r#"CMD ["a", b]"#, "`b` is not in", "b", ""),
            (r#"CMD ["a", "b]"#, "a quote is never", "\"b]", ""),
            (r#"CMD ["c:\windows"]"#, "`\\w` is no", "\\w", ""),
            (r#"CMD ["a", "b"] && c"#, "`&& c` stands behind", "&& c", ""),
            (r#"CMD ["a", 'say "b"']"#, "`'say \"b\"'` is in single", "'say \"b\"'", ""),
        ] {
            let (what, at, fixed) = found(line).unwrap_or_else(|| panic!("nothing found in {line}"));
            assert!(what.starts_with(message), "{line}: {what}");
            assert_eq!((at.as_str(), fixed.as_str()), (place, mended), "{line}");
        }
    }

    #[test]
    fn arrays_and_what_begins_like_one_for_a_reason_are_left_alone() {
        for line in [
            r#"CMD ["a", "b"]"#,
            "RUN [ -f x ] && y",
            r#"RUN [ "$a" = b ] && c"#,
            r#"RUN [ "$a" ] && c"#,
            "RUN [ 'a' ]",
            r#"RUN [ "a" -a -n "b" ]"#,
            "RUN [[ $a == b ]]",
            "COPY [a-z]* /x/",
            "CMD [",
            r#"CMD ["a"] # comment"#,
            r#"RUN ["$a" = b ] || c"#,
            "EXPOSE [80,]",
        ] {
            assert_eq!(found(line), None, "{line}");
        }
    }
}
