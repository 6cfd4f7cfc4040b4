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

impl ExpandErrorKind {
    /// The way out, as one sentence.
    pub fn hint(&self) -> String {
        match self {
            Self::Quote(quote) => format!("close it with `{quote}`, or escape it if it is meant as itself"),
            Self::TooLong(_) => "look for a variable that holds itself twice, or for one that is far too long".into(),
            Self::Unclosed('/') => "write `${name/pattern/replacement}`".into(),
            Self::Unclosed(_) => "close it, as in `${name}`, or escape `$` if it is meant as itself".into(),
            Self::NoName => "write a name, as in `${name}`, or escape `$` if it is meant as itself".into(),
            Self::Modifier(text) if text == ":=" || text == "=" => {
                "write `:-`: a value can be filled in here, and set only by ARG or ENV".into()
            }
            Self::Modifier(_) => "use one of `:-`, `-`, `:+`, `+`, `:?`, `?`, `#`, `##`, `%`, `%%`, `/`, `//`".into(),
            Self::Required { name, .. } => format!("set it with `--build-arg {name}=…`, or give `ARG {name}` a value"),
            Self::Pattern(_) => "take the backslash away".into(),
            Self::Costly(_) => "use fewer `*` in the pattern, or a shorter value".into(),
            Self::Depth => "set some of them by ARG lines of their own".into(),
        }
    }
}
