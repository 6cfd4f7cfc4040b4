//! Patterns of `${v#p}`, `${v%p}` and `${v/p/r}`: `*`, `?` and escapes, in bounded time.

/// Steps one expansion may take; a hostile pattern over a hostile value ends here instead of taking minutes.
const FUEL: usize = 10_000_000;

/// Says why a pattern cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PatternError {
    /// Only `*`, `?`, `\`, `}` and `/` can be escaped.
    Escape(Option<char>),
    /// Matching would take too long.
    TooCostly,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Star,
    Any,
    Char(char),
}

/// A parsed pattern.
#[derive(Debug)]
pub(crate) struct Pattern {
    tokens: Vec<Token>,
    fuel: usize,
}

/// Which of several matches is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    Shortest,
    Longest,
}

impl Pattern {
    pub(crate) fn new(text: &str) -> Result<Self, PatternError> {
        let mut tokens = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' => Token::Star,
                '?' => Token::Any,
                '\\' => match chars.next() {
                    Some(c @ ('*' | '?' | '\\')) => Token::Char(c),
                    // These end parts of the expansion, so they are escaped for its sake and not the pattern's.
                    Some(c @ ('}' | '/')) => Token::Char(c),
                    other => return Err(PatternError::Escape(other)),
                },
                c => Token::Char(c),
            });
        }
        Ok(Self { tokens, fuel: FUEL })
    }

    /// Takes a match off the front.
    pub(crate) fn trim_prefix(mut self, value: &str, length: Length) -> Result<String, PatternError> {
        let chars: Vec<char> = value.chars().collect();
        let end = self.match_at(&chars, 0, length)?.unwrap_or(0);
        Ok(chars[end..].iter().collect())
    }

    /// Takes a match off the end.
    pub(crate) fn trim_suffix(mut self, value: &str, length: Length) -> Result<String, PatternError> {
        self.tokens.reverse();
        let mut chars: Vec<char> = value.chars().rev().collect();
        let end = self.match_at(&chars, 0, length)?.unwrap_or(0);
        chars.drain(..end);
        Ok(chars.iter().rev().collect())
    }

    /// Puts `with` in the place of the first match.
    pub(crate) fn replace_first(mut self, value: &str, with: &str) -> Result<String, PatternError> {
        let chars: Vec<char> = value.chars().collect();
        for start in 0..=chars.len() {
            if let Some(end) = self.match_at(&chars, start, Length::Longest)? {
                let (before, after) = (chars[..start].iter(), chars[end..].iter());
                return Ok(before.copied().chain(with.chars()).chain(after.copied()).collect());
            }
        }
        Ok(value.to_owned())
    }

    /// Puts `with` in the place of every match. An empty match counts where no match has just ended.
    pub(crate) fn replace_all(mut self, value: &str, with: &str) -> Result<String, PatternError> {
        let chars: Vec<char> = value.chars().collect();
        let (mut out, mut at, mut last_end) = (String::new(), 0, None);
        while at <= chars.len() {
            match self.match_at(&chars, at, Length::Longest)? {
                Some(end) if end > at => {
                    out.push_str(with);
                    (at, last_end) = (end, Some(end));
                    continue;
                }
                Some(_) if last_end != Some(at) => out.push_str(with),
                _ => {}
            }
            out.extend(chars.get(at));
            at += 1;
        }
        Ok(out)
    }

    /// Where a match that begins at `start` ends: all states the pattern can be in are followed at once.
    fn match_at(&mut self, chars: &[char], start: usize, length: Length) -> Result<Option<usize>, PatternError> {
        let count = self.tokens.len();
        let mut states = vec![false; count + 1];
        self.enter(&mut states, 0);
        let mut found = None;
        for at in start..=chars.len() {
            if states[count] {
                found = Some(at);
                if length == Length::Shortest {
                    break;
                }
            }
            let Some(&c) = chars.get(at) else { break };
            self.fuel = self.fuel.checked_sub(count + 1).ok_or(PatternError::TooCostly)?;
            let mut next = vec![false; count + 1];
            for state in (0..count).filter(|state| states[*state]) {
                match self.tokens[state] {
                    Token::Star if c != '\n' => self.enter(&mut next, state),
                    Token::Any if c != '\n' => self.enter(&mut next, state + 1),
                    Token::Char(wanted) if wanted == c => self.enter(&mut next, state + 1),
                    _ => {}
                }
            }
            if !next.contains(&true) {
                break;
            }
            states = next;
        }
        Ok(found)
    }

    /// Enters a state, and those behind stars that match nothing.
    fn enter(&self, states: &mut [bool], from: usize) {
        let mut state = from;
        loop {
            if std::mem::replace(&mut states[state], true) || self.tokens.get(state) != Some(&Token::Star) {
                return;
            }
            state += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::new(text).unwrap()
    }

    #[test]
    fn prefixes_and_suffixes_are_trimmed_shortest_or_longest() {
        let value = "abcabc";
        for (text, short, long) in
            [("a*c", "abc", ""), ("*", "abcabc", ""), ("?", "bcabc", "bcabc"), ("x", value, value), ("", value, value)]
        {
            assert_eq!(pattern(text).trim_prefix(value, Length::Shortest).unwrap(), short, "{text}");
            assert_eq!(pattern(text).trim_prefix(value, Length::Longest).unwrap(), long, "{text}");
        }
        for (text, short, long) in [("a*c", "abc", ""), ("b?", "abca", "abca"), ("*b*", "abca", ""), ("*", value, "")] {
            assert_eq!(pattern(text).trim_suffix(value, Length::Shortest).unwrap(), short, "{text}");
            assert_eq!(pattern(text).trim_suffix(value, Length::Longest).unwrap(), long, "{text}");
        }
        assert_eq!(pattern("\\*").trim_prefix("*a", Length::Shortest).unwrap(), "a");
        assert_eq!(pattern("a\\*").trim_suffix("xa*", Length::Shortest).unwrap(), "x");
    }

    #[test]
    fn matches_are_replaced_once_or_everywhere() {
        for (text, first, all) in [
            ("b", "aXcabc", "aXcaXc"),
            ("?c", "aXabc", "aXaX"),
            ("*", "X", "X"),
            ("", "Xabcabc", "XaXbXcXaXbXcX"),
            ("q", "abcabc", "abcabc"),
        ] {
            assert_eq!(pattern(text).replace_first("abcabc", "X").unwrap(), first, "{text}");
            assert_eq!(pattern(text).replace_all("abcabc", "X").unwrap(), all, "{text}");
        }
        assert_eq!(pattern("a").replace_all("aé", "$1").unwrap(), "$1é");
    }

    #[test]
    fn hostile_patterns_end() {
        let value = "a".repeat(100_000);
        let result = pattern(&format!("{}b", "*a".repeat(10_000))).trim_prefix(&value, Length::Longest);
        assert_eq!(result, Err(PatternError::TooCostly));
        assert_eq!(Pattern::new("a\\b").unwrap_err(), PatternError::Escape(Some('b')));
        assert_eq!(Pattern::new("a\\").unwrap_err(), PatternError::Escape(None));
    }
}
