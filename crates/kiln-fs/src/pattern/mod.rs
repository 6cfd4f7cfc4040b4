//! Ignore patterns as docker reads them, and Go's wildcards.
//!
//! The law is what `.dockerignore` has meant for a decade: patterns in order, the last that matches decides, `!` takes
//! back, `**` crosses directories, and a pattern that matches a directory covers what is below it.

mod glob;
mod matcher;
mod program;
#[cfg(test)]
mod tests;

pub use glob::{glob_match, has_wildcards};

use crate::clean::clean;
use matcher::Matcher;

/// Says why a pattern cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("pattern `{pattern}` is not usable: {kind}")]
pub struct PatternError {
    /// The pattern as given.
    pub pattern: String,
    /// Its place in the list it came from.
    pub index: Option<usize>,
    /// What is wrong with it.
    pub kind: PatternErrorKind,
}

/// What can be wrong with a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PatternErrorKind {
    /// Brackets, ranges or escapes do not fit together.
    #[error("brackets, ranges or escapes do not fit together")]
    Syntax,
    /// A `!` with nothing behind it.
    #[error("`!` needs a pattern behind it")]
    EmptyException,
}

/// An ordered list of ignore patterns.
///
/// ```
/// use kiln_fs::pattern::PatternSet;
/// let ignore = PatternSet::new(&["**/*.env", "!keep.env", "target"]).unwrap();
/// assert!(ignore.matches("deploy/prod.env"));
/// assert!(!ignore.matches("keep.env"));
/// assert!(ignore.matches("target/debug/app"));
/// assert_eq!(ignore.decided_by("target/debug/app"), Some(2));
/// ```
#[derive(Debug, Clone, Default)]
pub struct PatternSet {
    patterns: Vec<Pattern>,
    has_exceptions: bool,
}

#[derive(Debug, Clone)]
struct Pattern {
    matcher: Matcher,
    is_exception: bool,
    index: usize,
    /// As the user wrote it.
    text: String,
}

/// What is known about a directory while walking: which patterns have matched it or a parent of it.
#[derive(Debug, Clone, Default)]
pub struct MatchState {
    matched: Vec<bool>,
    excluded: bool,
}

impl MatchState {
    /// True when the path this state was made for is matched.
    pub fn is_match(&self) -> bool {
        self.excluded
    }
}

impl PatternSet {
    /// Compiles patterns in order. Blank ones are skipped; indexes keep counting them.
    pub fn new(patterns: &[impl AsRef<str>]) -> Result<Self, PatternError> {
        let mut set = Self::default();
        for (index, text) in patterns.iter().enumerate() {
            let text = text.as_ref();
            let refuse = |kind| PatternError { pattern: text.to_owned(), index: Some(index), kind };
            let trimmed = text.trim();
            if trimmed.is_empty() {
                continue;
            }
            let cleaned = clean(trimmed);
            let (body, is_exception) = match cleaned.strip_prefix('!') {
                Some("") => return Err(refuse(PatternErrorKind::EmptyException)),
                Some(body) => (body, true),
                None => (cleaned.as_str(), false),
            };
            glob::check(body).map_err(refuse)?;
            let matcher = Matcher::compile(body).map_err(refuse)?;
            set.has_exceptions |= is_exception;
            set.patterns.push(Pattern { matcher, is_exception, index, text: text.to_owned() });
        }
        Ok(set)
    }

    /// True when there is no pattern at all.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// True when some pattern begins with `!`.
    pub fn has_exceptions(&self) -> bool {
        self.has_exceptions
    }

    /// Says whether a relative, slash-separated path is matched, looking at its parent directories too.
    pub fn matches(&self, path: &str) -> bool {
        self.matches_bytes(path.as_bytes())
    }

    /// [`PatternSet::matches`] for a path that may not be UTF-8.
    pub fn matches_bytes(&self, path: &[u8]) -> bool {
        self.decide(path).0
    }

    /// The index of the pattern that had the last word on `path`, if any had one.
    ///
    /// For a matched path this is the pattern that hides it, for another the exception that brought it back.
    pub fn decided_by(&self, path: &str) -> Option<usize> {
        self.decide(path.as_bytes()).1
    }

    /// [`PatternSet::decided_by`] for a path that may not be UTF-8.
    pub fn decided_by_bytes(&self, path: &[u8]) -> Option<usize> {
        self.decide(path).1
    }

    /// The index of the pattern that hides every name at the top of a tree, if there is one: `*`, `**` or `**/*`.
    pub fn hides_all(&self) -> Option<usize> {
        let hides_all = |pattern: &&Pattern| !pattern.is_exception && pattern.matcher.takes_any_name();
        self.patterns.iter().find(hides_all).map(|pattern| pattern.index)
    }

    /// The index and text of the pattern that hides `path`, if one does: what a message should quote.
    pub fn hides(&self, path: &[u8]) -> Option<(usize, String)> {
        let (hidden, index) = self.decide(path);
        let index = index.filter(|_| hidden)?;
        let pattern = self.patterns.iter().find(|pattern| pattern.index == index)?;
        Some((index, pattern.text.clone()))
    }

    /// Walks down to `path`, as a listing does: what a directory made of the patterns is not asked again below it.
    pub(crate) fn decide(&self, path: &[u8]) -> (bool, Option<usize>) {
        let above = parents(path).fold(self.root(), |state, parent| self.descend(&state, parent));
        self.judge(&above, path)
    }

    /// Says whether `path` is matched, given its parent's state, and which pattern had the last word.
    pub(crate) fn judge(&self, parent: &MatchState, path: &[u8]) -> (bool, Option<usize>) {
        let mut excluded = false;
        let mut decided_by = None;
        for (at, pattern) in self.patterns.iter().enumerate() {
            let known = parent.matched.get(at).copied().unwrap_or(false);
            if known || (pattern.is_exception == excluded && pattern.matcher.matches(path)) {
                excluded = !pattern.is_exception;
                decided_by = Some(pattern.index);
            }
        }
        (excluded, decided_by)
    }

    /// The state above the first component of a walk.
    pub fn root(&self) -> MatchState {
        MatchState { matched: vec![false; self.patterns.len()], excluded: false }
    }

    /// The state of `path`, whose parent directory has the state `parent`.
    pub fn descend(&self, parent: &MatchState, path: &[u8]) -> MatchState {
        let mut state = self.root();
        self.step(parent, path, &mut state);
        state
    }

    /// Says whether `path` is matched, given its parent's state; cheaper than [`PatternSet::descend`] for files.
    pub fn is_match(&self, parent: &MatchState, path: &[u8]) -> bool {
        self.judge(parent, path).0
    }

    fn step(&self, parent: &MatchState, path: &[u8], state: &mut MatchState) {
        for (at, pattern) in self.patterns.iter().enumerate() {
            let known = parent.matched.get(at).copied().unwrap_or(false);
            let matched = known || (pattern.is_exception == state.excluded && pattern.matcher.matches(path));
            state.matched[at] = matched;
            if matched {
                state.excluded = !pattern.is_exception;
            }
        }
    }

    /// Says whether nothing below a matched directory can come back, so that it need not be opened.
    ///
    /// `state` is the directory's own. The answer errs on the side of looking.
    pub fn can_prune(&self, state: &MatchState, directory: &[u8]) -> bool {
        if !state.excluded {
            return false;
        }
        let reaches = |(at, pattern): (usize, &Pattern)| {
            pattern.is_exception && !state.matched[at] && pattern.matcher.may_match_below(directory)
        };
        !(self.has_exceptions && self.patterns.iter().enumerate().any(reaches))
    }

    /// Says whether a pattern without `!` may match something below `directory`. May say yes too often, never no.
    pub(crate) fn may_match_below(&self, directory: &[u8]) -> bool {
        self.patterns.iter().any(|pattern| !pattern.is_exception && pattern.matcher.may_match_below(directory))
    }
}

/// The parent directories of a path, outermost first.
fn parents(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.iter().enumerate().filter(|(at, byte)| **byte == b'/' && *at > 0).map(|(at, _)| &path[..at])
}
