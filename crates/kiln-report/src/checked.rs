//! What a linter found, for renderers: the texts, the findings in each, and what is known about their rules.

use std::sync::Arc;

use crate::{Diagnostic, Excerpt, Level, SourceFile};

/// A text and what was found in it.
#[derive(Debug, Clone)]
pub struct Checked {
    /// The text.
    pub source: Arc<SourceFile>,
    /// What was found, in the order of the text.
    pub findings: Vec<Diagnostic>,
}

/// What a reader may want to know about a rule.
#[derive(Debug, Clone)]
pub struct RuleNote {
    /// Its name.
    pub name: &'static str,
    /// Its other names.
    pub aliases: &'static [&'static str],
    /// How bad a finding is, unless the settings say otherwise.
    pub level: Level,
    /// What it finds, in one sentence.
    pub summary: &'static str,
    /// Its page, as Markdown.
    pub page: String,
    /// Where to read more.
    pub url: Option<String>,
}

impl Checked {
    /// The place of a finding.
    pub fn excerpt(&self, finding: &Diagnostic) -> Excerpt {
        Excerpt { file: Arc::clone(&self.source), span: finding.span }
    }
}

/// The note on a finding's rule.
pub(crate) fn note<'a>(rules: &'a [RuleNote], finding: &Diagnostic) -> Option<(usize, &'a RuleNote)> {
    rules.iter().enumerate().find(|(_, rule)| Some(rule.name) == finding.rule)
}
