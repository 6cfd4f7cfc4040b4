//! All rules of this crate, by group.

mod apt;
mod commands;
mod copying;
mod environment;
mod expansions;
mod fetching;
mod formats;
mod images;
mod labels;
mod languages;
mod layers;
mod packages;
mod pragmas;
mod secrets;
mod servers;
mod shape;
mod users;

use crate::rule::Rule;

/// All rules of this crate, a table for each group.
pub const RULES: &[&[Rule]] = &[
    apt::RULES,
    commands::RULES,
    copying::RULES,
    environment::RULES,
    expansions::RULES,
    fetching::RULES,
    images::RULES,
    labels::RULES,
    languages::RULES,
    layers::RULES,
    packages::RULES,
    pragmas::RULES,
    secrets::RULES,
    servers::RULES,
    shape::RULES,
    users::RULES,
];

#[cfg(test)]
mod tests {
    use super::RULES;
    use crate::{OtherLabels, Scope, Settings, lint};

    /// Settings with which every rule may find something.
    fn settings() -> Settings {
        Settings {
            scope: Scope::Asked,
            trusted_registries: vec!["docker.io".to_owned()],
            label_schema: [("contact".to_owned(), "email".to_owned())].into(),
            other_labels: OtherLabels::Refused,
            ..Settings::default()
        }
    }

    #[test]
    fn every_rule_finds_its_bad_example_and_lets_the_good_one_pass() {
        let names = |text: &str| -> Vec<&'static str> {
            let (file, errors) = kiln_dockerfile::parse(text);
            assert!(errors.is_empty(), "{text}: {errors:?}");
            lint(&file, &settings()).iter().filter_map(|finding| finding.rule).collect()
        };
        for rule in RULES.iter().copied().flatten() {
            assert!(names(rule.bad).contains(&rule.name), "{}: nothing found in\n{}", rule.name, rule.bad);
            assert!(!names(rule.good).contains(&rule.name), "{}: found in\n{}", rule.name, rule.good);
        }
    }

    #[test]
    fn names_and_aliases_are_unique_and_names_in_pascal_case() {
        let all = || RULES.iter().copied().flatten();
        assert!(all().all(|rule| rule.name.starts_with(|c: char| c.is_ascii_uppercase()) && !rule.name.contains('_')));
        let mut names: Vec<&str> =
            all().flat_map(|rule| std::iter::once(&rule.name).chain(rule.aliases)).copied().collect();
        names.extend(
            kiln_dockerfile::check::RULES
                .iter()
                .flat_map(|rule| std::iter::once(&rule.name).chain(rule.aliases))
                .copied(),
        );
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
