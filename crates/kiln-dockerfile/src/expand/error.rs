//! Why a word cannot be expanded.

/// Says why a word cannot be expanded, and where in the word.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}")]
pub struct ExpandError {
    /// Why.
    pub kind: ExpandErrorKind,
    /// First byte of what is wrong.
    pub start: usize,
    /// One past its last.
    pub end: usize,
}

/// Why a word cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpandErrorKind {
    /// A quote that nothing ends.
    #[error("quote `{0}` is never closed")]
    Quote(char),
    /// Values within values grow without end.
    #[error("variables fill in more than {0} bytes")]
    TooLong(usize),
    /// `${` without its end.
    #[error("`${{` is never closed by `{0}`")]
    Unclosed(char),
    /// `${}`, `${{`, `${:`.
    #[error("no variable name follows `${{`")]
    NoName,
    /// `${a!b}`.
    #[error("`{0}` is no way to modify a variable")]
    Modifier(String),
    /// `${a?b}` and `a` is missing.
    #[error("variable `{name}` {reason}")]
    Required {
        /// The variable.
        name: String,
        /// What the author says, or that it is not set or empty.
        reason: String,
    },
    /// `${a#\x}`.
    #[error("pattern `{0}` escapes what needs no escape: only `*`, `?`, `\\`, `}}` and `/` do")]
    Pattern(String),
    /// Too much work.
    #[error("pattern `{0}` takes too long to match")]
    Costly(String),
    /// Too deep.
    #[error("variables are nested more than 100 deep")]
    Depth,
}
