//! What is checked, and how strictly: what the file says, what a configuration says, and what was typed.

use std::collections::{BTreeMap, BTreeSet};

use kiln_dockerfile::{CheckConfig, Dockerfile, Instruction, ItemKind};
use kiln_report::{Diagnostic, Level};

use crate::hadolint::Hadolint;
use crate::reference;
use crate::rule::{Rule, Scope};

/// What is checked, and how strictly.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// What `# check=` says: names of rules to skip, and whether findings fail the build.
    pub check: CheckConfig,
    /// Which rules run.
    pub scope: Scope,
    /// Rules that are switched off, by name or alias.
    pub ignored: BTreeSet<String>,
    /// Rules with another level, by name or alias.
    pub levels: BTreeMap<String, Level>,
    /// Whether comments `# hadolint ignore=` count.
    pub pragmas: Pragmas,
    /// Registries that bases may come from; any when empty.
    pub trusted_registries: Vec<String>,
    /// The labels an image should have, and what their values are: `text`, `url`, `semver`, ….
    pub label_schema: BTreeMap<String, String>,
    /// Whether it may have other labels.
    pub other_labels: OtherLabels,
}

/// Whether comments `# hadolint ignore=` count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pragmas {
    /// They do.
    #[default]
    Honoured,
    /// They are comments like others.
    Disregarded,
}

/// Whether an image may have labels that are not in the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OtherLabels {
    /// It may.
    #[default]
    Allowed,
    /// It may not.
    Refused,
}

impl Settings {
    /// The settings of a file: its own `# check=` line, unless one was given that takes its place. An error when the line
    /// cannot be read.
    pub fn of(file: &Dockerfile, scope: Scope, given: Option<&CheckConfig>) -> Result<Self, Box<Diagnostic>> {
        let check = given.cloned().map_or_else(|| CheckConfig::of(file), Ok)?;
        Ok(Self { check, scope, ..Self::default() })
    }

    /// Adds what a configuration file says.
    pub fn configure(&mut self, file: &Hadolint) {
        self.ignored.extend(file.ignored.iter().cloned());
        self.levels.extend(file.levels.clone());
        self.trusted_registries.extend(file.trusted_registries.iter().cloned());
        self.label_schema.extend(file.label_schema.clone());
        if file.strict_labels {
            self.other_labels = OtherLabels::Refused;
        }
        if file.disable_ignore_pragma {
            self.pragmas = Pragmas::Disregarded;
        }
    }

    /// Adds what the file's comments switch off everywhere: `# hadolint global ignore=DL3008`. `text` is what the file was
    /// parsed from.
    pub fn read_comments(&mut self, file: &Dockerfile, text: &str) {
        if self.pragmas == Pragmas::Disregarded {
            return;
        }
        let comments = file.items.iter().filter(|item| matches!(item.kind, ItemKind::Comment(_)));
        let lines = comments.filter_map(|item| text.get(item.span.range()));
        let names = lines.filter_map(|line| pragma(line.trim().trim_start_matches('#'), Reach::File));
        self.ignored.extend(names.flatten().map(str::to_owned));
    }

    /// The findings that are wanted, at the levels they are wanted at. Findings without a rule are errors of the language,
    /// and always wanted.
    pub fn admit(&self, file: &Dockerfile, findings: Vec<Diagnostic>) -> Vec<Diagnostic> {
        let instructions: Vec<&Instruction> = file.instructions().collect();
        let mut admitted = Vec::new();
        for mut finding in findings {
            if let Some(rule) = finding.rule {
                let next = instructions.partition_point(|instruction| instruction.span.start <= finding.span.start);
                let comments = next.checked_sub(1).map_or(&[][..], |at| &instructions[at].comments);
                let names = reference::names(rule);
                if names.iter().any(|name| !self.allows(name, comments)) {
                    continue;
                }
                let level = names.iter().find_map(|name| self.levels.get(*name));
                finding.level = level.copied().unwrap_or(finding.level);
            }
            admitted.push(finding);
        }
        admitted
    }

    /// Whether a rule runs: it is in scope, or a level is asked for.
    pub(crate) fn runs(&self, rule: &Rule) -> bool {
        let is_asked = || std::iter::once(&rule.name).chain(rule.aliases).any(|name| self.levels.contains_key(*name));
        rule.scope <= self.scope || self.scope == Scope::Check && is_asked()
    }

    fn allows(&self, name: &str, comments: &[String]) -> bool {
        let mut pragmas = comments.iter().filter_map(|comment| pragma(comment, Reach::Instruction)).flatten();
        let is_ignored_here = self.pragmas == Pragmas::Honoured && pragmas.any(|ignored| ignored == name);
        !self.ignored.contains(name) && !is_ignored_here && self.check.allows(name, comments)
    }
}

/// What a pragma is about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    Instruction,
    File,
}

/// The rules that a comment `hadolint ignore=DL3008,SC2046` switches off.
pub(crate) fn pragma(comment: &str, reach: Reach) -> Option<impl Iterator<Item = &str>> {
    let rest = comment.trim().strip_prefix("hadolint")?;
    let rest = rest.strip_prefix(char::is_whitespace)?.trim_start();
    let rest = match reach {
        Reach::Instruction => rest,
        Reach::File => rest.strip_prefix("global")?.strip_prefix(char::is_whitespace)?.trim_start(),
    };
    let names = rest.strip_prefix("ignore")?.trim_start().strip_prefix('=')?;
    Some(names.split(',').filter_map(|name| name.split_whitespace().next()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lint;

    /// What is found in a file, with its lines.
    fn found(text: &str, change: impl Fn(&mut Settings)) -> Vec<(usize, &'static str, Level)> {
        let (file, errors) = kiln_dockerfile::parse(text);
        assert!(errors.is_empty(), "{errors:?}");
        let mut settings = Settings::of(&file, Scope::Build, None).unwrap();
        change(&mut settings);
        settings.read_comments(&file, text);
        let place = |finding: Diagnostic| {
            (text[..finding.span.start].split('\n').count(), finding.rule.unwrap_or(""), finding.level)
        };
        lint(&file, &settings).into_iter().map(place).collect()
    }

    const SHELL: &str = "JSONArgsRecommended";
    const ENV: &str = "LegacyKeyValueFormat";

    #[test]
    fn pragmas_are_read_as_hadolint_reads_them() {
        let read = |comment, reach| pragma(comment, reach).map(|names| names.collect::<Vec<_>>());
        let wanted = Some(vec!["DL3008", "SC2046"]);
        for comment in [
            "hadolint ignore=DL3008,SC2046",
            " hadolint  ignore = DL3008 , SC2046 because",
            "hadolint\tignore=DL3008,SC2046",
        ] {
            assert_eq!(read(comment, Reach::Instruction), wanted, "{comment}");
            assert_eq!(read(comment, Reach::File), None, "{comment}");
        }
        assert_eq!(read("hadolint global ignore=DL3008,SC2046", Reach::File), wanted);
        for comment in
            ["hadolint ignored=DL3008", "hadolintignore=DL3008", "see hadolint ignore=DL3008", "hadolint shell=sh"]
        {
            assert_eq!(read(comment, Reach::Instruction), None, "{comment}");
        }
    }

    #[test]
    fn a_rule_is_switched_off_by_any_of_its_names_for_the_file_or_one_instruction() {
        let file = "FROM scratch\nENV a b\nCMD x\n";
        let all = [(2, ENV, Level::Warning), (3, SHELL, Level::Warning)];
        assert_eq!(found(file, |_| ()), all);
        for (change, left) in [
            ("# hadolint ignore=DL3025\nCMD", vec![all[0]]),
            ("# hadolint ignore=JSONArgsRecommended\nCMD", vec![all[0]]),
            ("# check=skip=DL3025\nCMD", vec![all[0]]),
            ("# check=skip=JSONArgsRecommended\nCMD", vec![all[0]]),
            ("# hadolint ignore=DL3026\nCMD", vec![all[0], (4, SHELL, Level::Warning)]),
        ] {
            assert_eq!(found(&file.replace("CMD", change), |_| ()), left, "{change}");
        }
        for top in
            ["# hadolint global ignore=DL3025\n", "# check=skip=DL3025\n", "# hadolint global ignore=DL3025\n#\n"]
        {
            let found = found(&format!("{top}{file}"), |_| ());
            assert_eq!(found.iter().map(|(_, name, _)| *name).collect::<Vec<_>>(), [ENV], "{top}");
        }
    }

    #[test]
    fn a_configuration_ignores_and_ranks_rules_and_may_disregard_pragmas() {
        let configured = |yaml: &str, text: &str| {
            let file = Hadolint::parse(yaml).unwrap();
            found(text, |settings| settings.configure(&file))
        };
        let file = "FROM scratch\n# hadolint ignore=LegacyKeyValueFormat\nENV a b\nCMD x\n";
        assert_eq!(configured("ignored: [DL3025]\n", file), []);
        assert_eq!(configured("override:\n  error: [DL3025]\n", file), [(4, SHELL, Level::Error)]);
        assert_eq!(configured("override:\n  style: [JSONArgsRecommended]\n", file), [(4, SHELL, Level::Style)]);
        assert_eq!(configured("disable-ignore-pragma: true\n", file).len(), 2);
    }

    #[test]
    fn what_is_given_takes_the_place_of_the_files_own_line() {
        let (file, _) = kiln_dockerfile::parse("# check=skip=all\nFROM scratch\nCMD x\n");
        let given = CheckConfig::parse("error=true").unwrap();
        let settings = Settings::of(&file, Scope::Build, Some(&given)).unwrap();
        assert!(settings.check.error);
        assert_eq!(lint(&file, &settings).len(), 1);
        let (broken, _) = kiln_dockerfile::parse("# check=skip\nFROM scratch\n");
        assert!(
            Settings::of(&broken, Scope::Build, None).is_err()
                && Settings::of(&broken, Scope::Build, Some(&given)).is_ok()
        );
    }
}
