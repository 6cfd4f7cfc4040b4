//! Conditions on things that are kept, in BuildKit's words.

use regex_lite::Regex;

use crate::inventory::Entry;

/// What a thing must be like.
#[derive(Debug, Clone)]
pub enum Condition {
    /// One of its texts.
    Text(Field, Test),
    /// A live process holds it, or an image with a name needs it: it cannot go.
    InUse,
    /// What is in it may change.
    Mutable,
    /// What is in it never changes.
    Immutable,
    /// An image needs it.
    Shared,
    /// No image needs it.
    Private,
}

/// A text of a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// Its id.
    Id,
    /// Where it comes from.
    Description,
    /// The name of its type.
    Type,
}

/// What a text must be like.
#[derive(Debug, Clone)]
pub enum Test {
    /// This.
    Is(String),
    /// Anything else.
    IsNot(String),
    /// Such.
    Like(Pattern),
}

/// A regular expression.
#[derive(Debug, Clone)]
pub struct Pattern(Regex);

/// Says why a text is no regular expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PatternError(String);

impl std::str::FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        Regex::new(text).map(Self).map_err(|error| PatternError(error.to_string()))
    }
}

impl Condition {
    /// Whether a thing is like that.
    pub fn admits(&self, entry: &Entry) -> bool {
        match self {
            Self::Text(field, test) => {
                let text = match field {
                    Field::Id => &entry.id,
                    Field::Description => &entry.description,
                    Field::Type => entry.record_type.name(),
                };
                match test {
                    Test::Is(wanted) => text == wanted,
                    Test::IsNot(unwanted) => text != unwanted,
                    Test::Like(pattern) => pattern.0.is_match(text),
                }
            }
            Self::InUse => !entry.is_reclaimable(),
            Self::Mutable => entry.is_mutable(),
            Self::Immutable => !entry.is_mutable(),
            Self::Shared => entry.is_shared(),
            Self::Private => !entry.is_shared(),
        }
    }
}
