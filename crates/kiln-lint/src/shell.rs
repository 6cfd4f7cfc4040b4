//! A shell command seen from afar: simple commands with their words, good enough for a suspicion.

/// A simple command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Simple {
    /// Its words, quotes taken off; variables and substitutions as they are written.
    pub(crate) words: Vec<String>,
    /// Where it begins and ends.
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// The files it writes to.
    pub(crate) redirects: Vec<String>,
    /// What comes after it.
    pub(crate) after: After,
}

/// What separates a command from the next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum After {
    /// `;`, `&&`, `||`, a line break or the end.
    #[default]
    End,
    /// `|`.
    Pipe,
    /// `&`.
    Background,
}

impl Simple {
    /// The words without what only prepares the command: assignments, `exec`, `sudo`, `env`.
    pub(crate) fn program(&self) -> &[String] {
        let is_assignment = |word: &String| {
            let name = word.split('=').next().unwrap_or_default();
            name.len() < word.len() && !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        let prepares = |word: &String| is_assignment(word) || ["exec", "sudo", "env", "nohup"].contains(&word.as_str());
        let first = self.words.iter().position(|word| !prepares(word)).unwrap_or(self.words.len());
        &self.words[first..]
    }
}

/// Splits a script into simple commands.
pub(crate) fn commands(script: &str) -> Vec<Simple> {
    let mut splitter = Splitter { script, at: 0, all: Vec::new(), current: Simple::default(), redirect: false };
    splitter.run();
    splitter.all
}

struct Splitter<'a> {
    script: &'a str,
    at: usize,
    all: Vec<Simple>,
    current: Simple,
    /// Whether the next word is a file to write to.
    redirect: bool,
}

impl Splitter<'_> {
    fn rest(&self) -> &str {
        &self.script[self.at..]
    }

    fn run(&mut self) {
        while let Some(c) = self.rest().chars().next() {
            match c {
                '\n' | ';' | '(' | ')' | '{' | '}' => self.end(1, After::End),
                '&' if self.rest().starts_with("&&") => self.end(2, After::End),
                '&' if self.rest().starts_with("&>") => self.write_to(2),
                '&' => self.end(1, After::Background),
                '|' if self.rest().starts_with("||") => self.end(2, After::End),
                '|' => self.end(1, After::Pipe),
                '#' => self.at += self.rest().find('\n').unwrap_or(self.rest().len()),
                '>' => self.write_to(self.rest().len() - self.rest().trim_start_matches(['>', '|']).len()),
                '<' => self.at += 1,
                c if c.is_whitespace() => self.at += c.len_utf8(),
                _ => self.word(),
            }
        }
        self.end(0, After::End);
    }

    fn end(&mut self, length: usize, after: After) {
        self.at += length;
        self.redirect = false;
        let mut done = std::mem::take(&mut self.current);
        if !done.words.is_empty() || !done.redirects.is_empty() {
            done.after = after;
            self.all.push(done);
        }
    }

    fn write_to(&mut self, length: usize) {
        self.at += length;
        if let Some(rest) = self.rest().strip_prefix('&') {
            // `>&2` writes to no file.
            self.at += 1 + rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '-').len();
            return;
        }
        self.redirect = true;
    }

    fn word(&mut self) {
        let start = self.at;
        let mut word = String::new();
        let mut quote = None;
        let mut depth = 0usize;
        let mut length = self.rest().len();
        let mut chars = self.script[start..].char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            match (quote, c) {
                (Some('\''), '\'') | (Some('"'), '"') if depth == 0 => quote = None,
                (None, '\'' | '"') if depth == 0 => quote = Some(c),
                (None | Some('"'), '\\') => word.extend(chars.next().map(|(_, c)| c)),
                (None | Some('"'), '$') if chars.peek().is_some_and(|(_, c)| *c == '(') => {
                    depth += 1;
                    word.push(c);
                }
                (_, ')') if depth > 0 => {
                    depth -= 1;
                    word.push(c);
                }
                (None, c) if depth == 0 && (c.is_whitespace() || ";&|<>()\n".contains(c)) => {
                    length = at;
                    break;
                }
                (_, c) => word.push(c),
            }
        }
        self.at = start + length;
        // `2>file`: the digit belongs to the arrow.
        let is_descriptor =
            !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit()) && self.rest().starts_with('>');
        if is_descriptor {
            return;
        }
        if std::mem::take(&mut self.redirect) {
            self.current.redirects.push(word);
        } else {
            if self.current.words.is_empty() {
                self.current.start = start;
            }
            self.current.words.push(word);
        }
        self.current.end = self.at;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_split_into_simple_commands() {
        let script = "a b && FOO=1 c 'd e' >out 2>&1; f | g\"h\" # x\ni & echo \"$(j k; l)\" >>\"p q\" 2>/dev/null";
        let found: Vec<_> = commands(script).into_iter().map(|c| (c.words.join("|"), c.redirects, c.after)).collect();
        let none = Vec::<String>::new;
        assert_eq!(
            found,
            [
                ("a|b".to_owned(), none(), After::End),
                ("FOO=1|c|d e".to_owned(), vec!["out".to_owned()], After::End),
                ("f".to_owned(), none(), After::Pipe),
                ("gh".to_owned(), none(), After::End),
                ("i".to_owned(), none(), After::Background),
                ("echo|$(j k; l)".to_owned(), vec!["p q".to_owned(), "/dev/null".to_owned()], After::End),
            ]
        );
    }

    #[test]
    fn what_only_prepares_a_command_is_passed_over() {
        let program = |script: &str| commands(script)[0].program().join(" ");
        assert_eq!(program("A=b exec sudo nginx -g x"), "nginx -g x");
        assert_eq!(program("./a=b"), "./a=b");
    }
}
