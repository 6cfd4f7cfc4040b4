//! What is wrong with the paths that instructions take from contexts, given what the contexts say about them.

use kiln_report::{Diagnostic, render};

use super::rules;
use crate::lower::ContextRead;

/// What a context has at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceFact {
    /// Something.
    Present,
    /// Nothing; these names look alike.
    Missing(Vec<String>),
    /// Something that an ignore rule hides.
    Ignored(IgnoreRule),
    /// A wildcard that matches nothing.
    Unmatched,
    /// A socket.
    Socket,
}

/// A rule of an ignore file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IgnoreRule {
    /// The pattern.
    pub pattern: String,
    /// Where it stands: `.dockerignore:3`.
    pub place: String,
}

/// A path that an ignore rule hides: BuildKit's finding, from the patterns alone.
pub fn ignored_source(read: &ContextRead, rule: &IgnoreRule) -> Diagnostic {
    let what = if read.takes_all() { "the whole context".to_owned() } else { format!("`{}`", read.path) };
    let message = format!("{what} is left out by the pattern `{}` at {}", rule.pattern, rule.place);
    Diagnostic::warning(rules::COPY_IGNORED, read.span, message).hint(narrow(rule))
}

/// A path that is not in its context, or hidden there. `context` is what people call the context.
pub fn missing_source(read: &ContextRead, fact: &SourceFact, context: &str) -> Option<Diagnostic> {
    let path = &read.path;
    let (message, hint) = match fact {
        SourceFact::Present => return None,
        SourceFact::Missing(near) if near.is_empty() => {
            (format!("`{path}` is not in {context}"), format!("check the path; paths are relative to {context}"))
        }
        SourceFact::Missing(near) => {
            (format!("`{path}` is not in {context}"), format!("did you mean `{}`?", near.join("` or `")))
        }
        SourceFact::Ignored(rule) => {
            (format!("`{path}` is left out by the pattern `{}` at {}", rule.pattern, rule.place), narrow(rule))
        }
        SourceFact::Unmatched => {
            let hint = "change the wildcard, or leave it out: nothing is copied for it".to_owned();
            (format!("`{path}` matches nothing in {context}"), hint)
        }
        SourceFact::Socket => {
            let hint = "leave it out: whoever listens at a socket makes it anew".to_owned();
            (format!("`{path}` is a socket, and an image cannot hold one"), hint)
        }
    };
    Some(Diagnostic::warning(rules::COPY_SOURCE_MISSING, read.span, message).hint(hint))
}

/// A whole context that is taken with what hardly anybody wants in an image; names and bytes of that.
pub fn unfiltered_context(read: &ContextRead, waste: &[(String, u64)]) -> Diagnostic {
    let sized = waste.iter().map(|(name, bytes)| format!("`{name}` ({})", render::decimal_size(*bytes)));
    let message = format!("the whole context is taken, with {}", sized.collect::<Vec<_>>().join(" and "));
    let names: Vec<&str> = waste.iter().map(|(name, _)| name.as_str()).collect();
    let hint = format!("list what is not needed in a `.dockerignore`: `{}`", names.join("`, `"));
    Diagnostic::warning(rules::CONTEXT_NOT_FILTERED, read.span, message).hint(hint)
}

fn narrow(rule: &IgnoreRule) -> String {
    format!("remove or narrow the pattern, or take files back in with `!` below {}", rule.place)
}
