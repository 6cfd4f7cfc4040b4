//! One ignore pattern: translated as the reference implementation does, then compared or run.

use super::PatternErrorKind;
use super::program::Program;

/// A compiled pattern.
#[derive(Debug, Clone)]
pub(super) struct Matcher {
    text: String,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Exact,
    /// `dir/**`: the text without its two last bytes begins the path.
    Prefix,
    /// `**/name`: the text without its two first bytes ends the path.
    Suffix,
    Expression(Program),
}

impl Matcher {
    pub(super) fn compile(text: &str) -> Result<Self, PatternErrorKind> {
        let kind = match translate(text) {
            Translation::Exact => Kind::Exact,
            Translation::Prefix => Kind::Prefix,
            Translation::Suffix => Kind::Suffix,
            Translation::Expression(expression) => Kind::Expression(Program::compile(&expression)?),
        };
        Ok(Self { text: text.to_owned(), kind })
    }

    pub(super) fn matches(&self, path: &[u8]) -> bool {
        let text = self.text.as_bytes();
        match &self.kind {
            Kind::Exact => path == text,
            Kind::Prefix => path.starts_with(&text[..text.len() - 2]),
            Kind::Suffix => {
                let suffix = &text[2..];
                path.ends_with(suffix) || suffix.strip_prefix(b"/").is_some_and(|name| path == name)
            }
            Kind::Expression(program) => program.matches(path),
        }
    }

    /// Says whether the pattern is one of those that take every name.
    pub(super) fn takes_any_name(&self) -> bool {
        matches!(self.text.as_str(), "*" | "**" | "**/*")
    }

    /// Says whether some path below `directory` may match. May say yes too often, never no.
    pub(super) fn may_match_below(&self, directory: &[u8]) -> bool {
        let mut wanted = self.text.split('/');
        for name in directory.split(|byte| *byte == b'/') {
            // Fewer components than the directory has: it can only match something higher up.
            let Some(component) = wanted.next() else { return false };
            // These may cross a slash, so comparing by component ends here.
            if component.contains(['[', '\\']) || component.contains("**") {
                return true;
            }
            let fits = if component.contains(['*', '?']) {
                super::glob_match(component, name).unwrap_or(true)
            } else {
                component.as_bytes() == name
            };
            if !fits {
                return false;
            }
        }
        wanted.next().is_some()
    }
}

/// What a pattern turns into.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Translation {
    Exact,
    Prefix,
    Suffix,
    Expression(String),
}

/// Translates a cleaned pattern.
///
/// Which of the four forms results, and the text of the expression, follow the reference implementation step by step,
/// since for odd patterns that translation is the only definition there is.
pub(super) fn translate(pattern: &str) -> Translation {
    let mut form = Translation::Exact;
    let mut expression = String::from("^");
    let expressive = || Translation::Expression(String::new());
    // The scanner of the reference implementation skips a mark at the very beginning.
    let mut chars = pattern.strip_prefix('\u{feff}').unwrap_or(pattern).chars().peekable();
    let mut is_first = true;
    while let Some(c) = chars.next() {
        match c {
            '*' if chars.next_if_eq(&'*').is_some() => {
                chars.next_if_eq(&'/');
                if chars.peek().is_some() {
                    expression.push_str("(.*/)?");
                    form = expressive();
                } else if form == Translation::Exact {
                    form = Translation::Prefix;
                } else {
                    expression.push_str(".*");
                    form = expressive();
                }
                if is_first {
                    form = Translation::Suffix;
                }
            }
            '*' => {
                expression.push_str("[^/]*");
                form = expressive();
            }
            '?' => {
                expression.push_str("[^/]");
                form = expressive();
            }
            '.' | '+' | '(' | ')' | '|' | '{' | '}' | '$' => expression.extend(['\\', c]),
            '\\' => {
                expression.push('\\');
                if let Some(escaped) = chars.next() {
                    expression.push(escaped);
                    form = expressive();
                }
            }
            '[' | ']' => {
                expression.push(c);
                form = expressive();
            }
            _ => expression.push(c),
        }
        is_first = false;
    }
    if matches!(form, Translation::Expression(_)) {
        expression.push('$');
        form = Translation::Expression(expression);
    }
    form
}
