//! Diagnostics: what is wrong, or may be, at a place in a source text.

use crate::Span;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// The build cannot go on.
    Error,
    /// It can, but it is probably not what was meant.
    Warning,
    /// It is fine, and could be better.
    Info,
    /// It is fine, and others write it in another way.
    Style,
}

impl Level {
    /// As users write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
            Self::Style => "style",
        }
    }
}

/// A change that mends what was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fix {
    /// What it does, one imperative sentence.
    pub description: String,
    /// Its parts; they do not overlap.
    pub edits: Vec<Edit>,
    /// Whether it may be made unasked.
    pub safety: Safety,
}

/// Whether a fix may be made unasked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Safety {
    /// The image stays what it was, or becomes what was surely meant.
    Safe,
    /// Somebody should look at it.
    Unsafe,
}

/// A place and what to write there instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// What is replaced; may be empty.
    pub span: Span,
    /// What comes instead; may be empty.
    pub text: String,
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
    /// A change that mends it, if there is one.
    pub fix: Option<Fix>,
}

impl Diagnostic {
    /// An error at a place.
    pub fn error(span: Span, message: impl Into<String>) -> Self {
        Self { rule: None, level: Level::Error, message: message.into(), span, hints: Vec::new(), fix: None }
    }

    /// A warning by a named rule.
    pub fn warning(rule: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self { rule: Some(rule), level: Level::Warning, message: message.into(), span, hints: Vec::new(), fix: None }
    }

    /// Adds a way out.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Adds a change that mends it.
    #[must_use]
    pub fn fix(mut self, fix: Fix) -> Self {
        self.fix = Some(fix);
        self
    }
}
