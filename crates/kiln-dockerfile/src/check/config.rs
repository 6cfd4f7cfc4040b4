//! Which checks run: `# check=skip=A,B;error=true`.

use std::collections::{BTreeMap, BTreeSet};

use kiln_report::Diagnostic;

use super::table::{self, Status};
use crate::instruction::parse_bool;
use crate::parse::{Dockerfile, name_and_value};

/// Which checks run, and what their findings mean.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CheckConfig {
    /// Checks that do not run.
    pub skip: Choice,
    /// Checks that run although they are experimental.
    pub experimental: Choice,
    /// Whether a finding fails the build.
    pub error: bool,
}

/// Some checks, or all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// These.
    Some(BTreeSet<String>),
    /// Every one.
    All,
}

impl Default for Choice {
    fn default() -> Self {
        Self::Some(BTreeSet::new())
    }
}

impl Choice {
    fn read(text: &str) -> Self {
        match text.trim() {
            "all" => Self::All,
            names => Self::Some(names.split(',').map(|name| name.trim().to_owned()).collect()),
        }
    }

    /// Whether a check is among them.
    pub fn has(&self, rule: &str) -> bool {
        match self {
            Self::All => true,
            Self::Some(names) => names.contains(rule),
        }
    }
}

/// Says why check settings cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("check settings have no `{0}`: they are `skip=…`, `experimental=…` and `error=true`, separated by `;`")]
pub struct CheckConfigError(String);

impl CheckConfig {
    /// Reads settings: `skip=JSONArgsRecommended,StageNameCasing;error=true`.
    pub fn parse(text: &str) -> Result<Self, CheckConfigError> {
        let mut config = Self::default();
        for part in text.trim().split(';').map(str::trim).filter(|part| !part.is_empty()) {
            let wrong = || CheckConfigError(part.chars().take(100).collect());
            let (name, value) = part.split_once('=').ok_or_else(wrong)?;
            match name.trim() {
                "skip" => config.skip = Choice::read(value),
                "experimental" => config.experimental = Choice::read(value),
                "error" => config.error = parse_bool(value.trim()).ok_or_else(wrong)?,
                _ => return Err(wrong()),
            }
        }
        Ok(config)
    }

    /// The settings given with a build, which take the place of the file's own: build argument `BUILDKIT_DOCKERFILE_CHECK`.
    pub fn given(build_args: &BTreeMap<String, String>) -> Result<Option<Self>, CheckConfigError> {
        build_args.get("BUILDKIT_DOCKERFILE_CHECK").map(|text| Self::parse(text)).transpose()
    }

    /// The settings at the top of a file; an error when they cannot be read.
    pub fn of(file: &Dockerfile) -> Result<Self, Box<Diagnostic>> {
        let Some(value) = file.directive("check") else { return Ok(Self::default()) };
        let text = value.text.split(' ').next().unwrap_or_default();
        Self::parse(text).map_err(|error| Box::new(Diagnostic::error(value.span, error.to_string())))
    }

    /// Whether a rule's findings are wanted for an instruction with these comments right above it, which may say
    /// `# check=skip=…`. Experimental rules are wanted by name, and not to be skipped.
    pub fn allows(&self, rule: &str, comments: &[String]) -> bool {
        let settings = comments.iter().find_map(|comment| match name_and_value(comment) {
            Some((name, value)) if name.eq_ignore_ascii_case("check") => value.split(' ').next(),
            _ => None,
        });
        let here = settings.and_then(|settings| Self::parse(settings).ok());
        let says = |choice: fn(&Self) -> &Choice| {
            choice(self).has(rule) || here.as_ref().is_some_and(|here| choice(here).has(rule))
        };
        match table::find(rule).map(|rule| rule.status) {
            Some(Status::Experimental) => says(|config| &config.experimental),
            _ => !says(|config| &config.skip),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_and_merged_with_comments() {
        let config = CheckConfig::parse("skip=A, B;error=true").unwrap();
        assert!(config.error && !config.allows("B", &[]) && config.allows("C", &[]));
        assert!(!CheckConfig::parse("skip=all").unwrap().allows("X", &[]));
        let comments = ["note".to_owned(), "check=skip=C because".to_owned()];
        assert!(!config.allows("A", &comments) && !config.allows("C", &comments) && config.allows("D", &comments));
        let experimental = "InvalidDefinitionDescription";
        assert!(
            !config.allows(experimental, &[]) && config.allows(experimental, &["check=experimental=all".to_owned()])
        );
        assert!(CheckConfig::parse("skip=all;experimental=all").unwrap().allows(experimental, &[]));
        for bad in ["skip", "x=y", "error=perhaps"] {
            assert!(CheckConfig::parse(bad).is_err(), "{bad}");
        }
    }
}
