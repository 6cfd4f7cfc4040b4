//! What a rule is.

use kiln_report::Level;

use crate::finding::Findings;
use crate::rules::RULES;
use crate::view::View;

/// A rule: its name, its reason, its examples, and how it is found.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// As in `# check=skip=NAME`, in PascalCase.
    pub name: &'static str,
    /// Names by which users of other linters know it: `DL3004`, `SC2164`.
    pub aliases: &'static [&'static str],
    /// How bad a finding is, unless the settings say otherwise.
    pub level: Level,
    /// Who runs it.
    pub scope: Scope,
    /// What it finds, in one sentence.
    pub summary: &'static str,
    /// Why that matters, in a paragraph for its page of the reference.
    pub why: &'static str,
    /// A Dockerfile in which it finds something.
    pub bad: &'static str,
    /// The same, mended: it finds nothing.
    pub good: &'static str,
    /// Reports what it finds.
    pub check: fn(&View<'_>, &mut Findings<'_>),
}

/// Who runs a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Scope {
    /// Every build, as a mistake is near certain.
    Build,
    /// `kiln check` only, as it is advice.
    #[default]
    Check,
    /// Who gives it a level, as few want it.
    Asked,
}

/// The rule of this crate with a name or an alias.
pub fn find(name: &str) -> Option<&'static Rule> {
    RULES.iter().copied().flatten().find(|rule| rule.name == name || rule.aliases.contains(&name))
}
