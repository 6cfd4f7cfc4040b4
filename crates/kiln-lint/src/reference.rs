//! The reference of all rules: those of the language and those of this crate, as one list, each with its page.

use kiln_dockerfile::check::{self, Origin, Status};
use kiln_report::Level;

use crate::rule::{self, Rule, Scope};
use crate::rules::RULES;

/// What there is to know about a rule.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// As in `# check=skip=NAME`.
    pub name: &'static str,
    /// Names by which users of other linters know it.
    pub aliases: &'static [&'static str],
    /// How bad a finding is, unless the settings say otherwise.
    pub level: Level,
    /// Who runs it.
    pub scope: Scope,
    /// Whether BuildKit has it under this name.
    pub origin: Origin,
    /// Whether it runs unasked.
    pub status: Status,
    /// What it finds, in one sentence.
    pub summary: &'static str,
    /// Why that matters, in a paragraph.
    pub why: &'static str,
    /// A Dockerfile in which it finds something.
    pub bad: &'static str,
    /// The same, mended.
    pub good: &'static str,
}

/// All rules, by name.
pub fn entries() -> Vec<Entry> {
    let language = check::RULES.iter().map(Entry::of_language);
    let mut entries: Vec<Entry> = language.chain(RULES.iter().copied().flatten().map(Entry::of_rule)).collect();
    entries.sort_by_key(|entry| entry.name);
    entries
}

/// The rule with a name or an alias, whatever their case.
pub fn entry(name: &str) -> Option<Entry> {
    let is_meant = |entry: &Entry| names_of(entry.name, entry.aliases).any(|known| known.eq_ignore_ascii_case(name));
    entries().into_iter().find(is_meant)
}

/// Whether a name is a rule's, or a code of other linters, which may be of rules that kiln does not have.
pub fn is_known(name: &str) -> bool {
    let (letters, digits) = name.split_at_checked(2).unwrap_or((name, ""));
    let is_code = letters.chars().all(char::is_alphabetic) && digits.parse::<u32>().is_ok();
    is_code || entry(name).is_some()
}

/// The rule that was probably meant by a name.
pub fn nearest(name: &str) -> Option<&'static str> {
    let distance = |known: &str| strsim::damerau_levenshtein(&name.to_lowercase(), &known.to_lowercase());
    let is_short = name.len() <= 64;
    let names = entries().into_iter().filter(|_| is_short).map(|entry| (distance(entry.name), entry.name));
    names.min().filter(|(distance, _)| *distance <= 3).map(|(_, near)| near)
}

/// A rule's name and its aliases.
pub(crate) fn names(rule: &'static str) -> Vec<&'static str> {
    let language = || check::RULES.iter().find(|known| known.name == rule).map(|known| known.aliases);
    let aliases = rule::find(rule).map(|known| known.aliases).or_else(language).unwrap_or_default();
    names_of(rule, aliases).collect()
}

fn names_of(name: &'static str, aliases: &'static [&'static str]) -> impl Iterator<Item = &'static str> {
    std::iter::once(name).chain(aliases.iter().copied())
}

impl Entry {
    fn of_language(rule: &'static check::Rule) -> Self {
        Self {
            name: rule.name,
            aliases: rule.aliases,
            level: Level::Warning,
            scope: Scope::Build,
            origin: rule.origin,
            status: rule.status,
            summary: rule.summary,
            why: rule.why,
            bad: rule.bad,
            good: rule.good,
        }
    }

    fn of_rule(rule: &'static Rule) -> Self {
        Self {
            name: rule.name,
            aliases: rule.aliases,
            level: rule.level,
            scope: rule.scope,
            origin: Origin::Kiln,
            status: Status::Stable,
            summary: rule.summary,
            why: rule.why,
            bad: rule.bad,
            good: rule.good,
        }
    }

    /// BuildKit's page about it, when it is BuildKit's.
    pub fn url(&self) -> Option<String> {
        if self.origin == Origin::Kiln || self.name == "InvalidBaseImagePlatform" {
            return None;
        }
        let mut path = String::new();
        let letters: Vec<char> = self.name.chars().collect();
        for (at, letter) in letters.iter().enumerate() {
            let begins_word = letter.is_uppercase()
                && (at > 0 && letters[at - 1].is_lowercase() || letters.get(at + 1).is_some_and(|c| c.is_lowercase()));
            if begins_word && at > 0 {
                path.push('-');
            }
            path.extend(letter.to_lowercase());
        }
        Some(format!("https://docs.docker.com/go/dockerfile/rule/{path}/"))
    }

    /// When it runs, in one sentence.
    pub fn when(&self) -> &'static str {
        match (self.status, self.scope) {
            (Status::Experimental, _) => "only when asked for, with `# check=experimental=NAME`",
            (Status::Stable, Scope::Build) => "in every build, in `kiln build --check` and in `kiln check`",
            (Status::Stable, Scope::Check) => "in `kiln check`",
            (Status::Stable, Scope::Asked) => "in `kiln check`, when a configuration gives it a level",
        }
    }

    /// Its page, as Markdown; `heading` begins its title, as `##`.
    pub fn page(&self, heading: &str) -> String {
        let Self { name, summary, why, bad, good, .. } = self;
        let mut head = self.level.name().to_owned();
        if self.origin == Origin::BuildKit {
            head.push_str("; BuildKit has it too");
        }
        for (at, alias) in self.aliases.iter().enumerate() {
            head.push_str(if at == 0 { "; also known as " } else { ", " });
            head.push_str(&format!("`{alias}`"));
        }
        let when = self.when().replace("NAME", name);
        let off = match self.status {
            Status::Stable => {
                format!("Switch it off with `# check=skip={name}`, at the top of the file or above one instruction.")
            }
            Status::Experimental => format!("Switch it on with `# check=experimental={name}` at the top of the file."),
        };
        format!(
            "{heading} {name}\n\n{}: {summary}. Runs {when}.\n\n{why}\n\nFound:\n\n```dockerfile\n{bad}```\n\nNot found:\n\n\
             ```dockerfile\n{good}```\n\n{off}\n",
            head,
        )
    }
}

/// All pages and how to use them, as Markdown.
pub fn document() -> String {
    let entries = entries();
    let mut text = include_str!("reference.md").to_owned();
    text.push_str("\n| rule | level | what it finds |\n|---|---|---|\n");
    for entry in &entries {
        let aliases: String = entry.aliases.iter().map(|alias| format!(" {alias}")).collect();
        let link = entry.name.to_lowercase();
        let level = entry.level.name();
        text.push_str(&format!(
            "| [{}](#{link}){aliases} | {level} | {} |\n",
            entry.name,
            entry.summary.replace('|', "\\|")
        ));
    }
    for entry in &entries {
        text.push('\n');
        text.push_str(&entry.page("##"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_found_by_all_their_names() {
        for name in ["JSONArgsRecommended", "DL3025", "dl3025"] {
            assert_eq!(entry(name).map(|entry| entry.name), Some("JSONArgsRecommended"), "{name}");
        }
        assert!(entry("DL9999").is_none());
        assert_eq!(names("JSONArgsRecommended"), ["JSONArgsRecommended", "DL3025"]);
        assert_eq!(names("Unknown"), ["Unknown"]);
    }

    #[test]
    fn buildkits_pages_have_its_addresses() {
        let path =
            |name| entry(name).and_then(|entry| entry.url()).map(|url| url.rsplit('/').nth(1).unwrap().to_owned());
        assert_eq!(path("JSONArgsRecommended").as_deref(), Some("json-args-recommended"));
        assert_eq!(path("SecretsUsedInArgOrEnv").as_deref(), Some("secrets-used-in-arg-or-env"));
        assert_eq!(path("FromPlatformFlagConstDisallowed").as_deref(), Some("from-platform-flag-const-disallowed"));
        assert_eq!(path("UnusedBuildArg"), None);
    }

    #[test]
    fn every_rule_has_a_whole_page() {
        for entry in entries() {
            let page = entry.page("##");
            assert!(!entry.summary.is_empty() && !entry.summary.ends_with('.') && entry.why.ends_with('.'), "{page}");
            assert!(entry.bad.ends_with('\n') && entry.good.ends_with('\n'), "{page}");
        }
    }
}
