//! Diagnostics: what is wrong, or may be, at a place in a source text.

use crate::Span;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// The build cannot go on.
    Error,
    /// It can, but it is probably not what was meant.
    Warning,
}

/// One finding about a source text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The rule's name, as in `# check=skip=NAME`; errors of the language have none.
    pub rule: Option<&'static str>,
    /// How bad it is.
    pub level: Level,
    /// What is wrong: lower case, no full stop, values in backticks.
    pub message: String,
    /// Where.
    pub span: Span,
    /// Ways out, each one imperative sentence.
    pub hints: Vec<String>,
}

impl Diagnostic {
    /// An error at a place.
    pub fn error(span: Span, message: impl Into<String>) -> Self {
        Self { rule: None, level: Level::Error, message: message.into(), span, hints: Vec::new() }
    }

    /// A warning by a named rule.
    pub fn warning(rule: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self { rule: Some(rule), level: Level::Warning, message: message.into(), span, hints: Vec::new() }
    }

    /// Adds a way out.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }
}
