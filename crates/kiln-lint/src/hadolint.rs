//! hadolint's configuration file, as far as it has a meaning here.

use std::collections::BTreeMap;
use std::fmt;

use kiln_dockerfile::nearest;
use kiln_report::Level;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_saphyr::Spanned;

use crate::reference;

/// What a configuration file of hadolint says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hadolint {
    /// Rules that are switched off.
    pub ignored: Vec<String>,
    /// Rules with another level.
    pub levels: BTreeMap<String, Level>,
    /// The level from which on findings fail the check; `None` when the file does not say.
    pub threshold: Option<Threshold>,
    /// Whether findings never fail the check.
    pub no_fail: bool,
    /// How findings are written.
    pub format: Option<String>,
    /// Whether output carries no colours.
    pub no_color: bool,
    /// Registries that bases may come from; any when empty.
    pub trusted_registries: Vec<String>,
    /// The labels an image should have, and what their values are: `text`, `url`, `semver`, ….
    pub label_schema: BTreeMap<String, String>,
    /// Whether it should have no other labels.
    pub strict_labels: bool,
    /// Whether comments switch no rule off.
    pub disable_ignore_pragma: bool,
    /// What in the file has no meaning here.
    pub unknown: Vec<Unknown>,
}

/// From which level on findings fail a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threshold {
    /// From this one on, as errors are the first.
    Level(Level),
    /// None does.
    Never,
}

/// A key or value that has no meaning here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    /// What it is.
    pub what: String,
    /// Where it stands.
    pub place: Place,
    /// What was probably meant.
    pub nearest: Option<String>,
}

/// A place in a configuration file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Its line, from 1.
    pub line: usize,
    /// How many characters stand before it in the line, and one.
    pub column: usize,
}

impl Place {
    fn of(location: serde_saphyr::Location) -> Self {
        let [line, column] = [location.line(), location.column()].map(|n| usize::try_from(n).unwrap_or(0).max(1));
        Self { line, column }
    }
}

/// Says why a file could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct HadolintError {
    message: String,
    /// The place it is about; the first one when it is about none.
    pub place: Place,
}

impl Hadolint {
    /// Reads a file's text.
    pub fn parse(text: &str) -> Result<Self, HadolintError> {
        let says_nothing = |line: &str| line.is_empty() || line == "---" || line.starts_with('#');
        if text.lines().map(str::trim).all(says_nothing) {
            return Ok(Self::default());
        }
        serde_saphyr::from_str(text).map_err(|error| {
            let place = error.location().map_or(Place { line: 1, column: 1 }, Place::of);
            let error = error.without_snippet().to_string();
            HadolintError { message: error.lines().next().unwrap_or_default().to_owned(), place }
        })
    }
}

impl Threshold {
    /// Reads a name: `error`, `warning`, `info`, `style`, or `never`.
    pub fn read(name: &str) -> Option<Self> {
        match name {
            "never" | "none" | "ignore" => Some(Self::Never),
            name => level(name).map(Self::Level),
        }
    }
}

fn level(name: &str) -> Option<Level> {
    [Level::Error, Level::Warning, Level::Info, Level::Style].into_iter().find(|level| level.name() == name)
}

impl<'de> Deserialize<'de> for Hadolint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Reader)
    }
}

/// The rules of each level; both may be left empty.
#[derive(Default)]
struct Levels(Vec<(Spanned<String>, Names)>);

/// Names of rules.
type Names = Option<Vec<Spanned<String>>>;

impl<'de> Deserialize<'de> for Levels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(LevelsReader)
    }
}

struct LevelsReader;

impl<'de> Visitor<'de> for LevelsReader {
    type Value = Levels;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping of levels to rules")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Levels, A::Error> {
        let mut levels = Levels::default();
        while let Some(level) = map.next_entry()? {
            levels.0.push(level);
        }
        Ok(levels)
    }
}

const KEYS: [&str; 10] = [
    "ignored",
    "override",
    "failure-threshold",
    "no-fail",
    "format",
    "no-color",
    "trustedRegistries",
    "label-schema",
    "strict-labels",
    "disable-ignore-pragma",
];

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Hadolint;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping of settings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Hadolint, A::Error> {
        let mut found = Hadolint::default();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            match key.value.as_str() {
                "ignored" => {
                    let rules: Vec<Spanned<String>> = map.next_value::<Option<_>>()?.unwrap_or_default();
                    found.ignored = rules.into_iter().map(|rule| found.rule(rule)).collect();
                }
                "override" => found.read_levels(map.next_value::<Option<Levels>>()?.unwrap_or_default()),
                "failure-threshold" => {
                    let value: Spanned<String> = map.next_value()?;
                    found.threshold = Threshold::read(&value.value);
                    if found.threshold.is_none() {
                        let near = nearest(&value.value, ["error", "warning", "info", "style", "none"]);
                        found.note(format!("threshold `{}`", value.value), &value, near);
                    }
                }
                "no-fail" => found.no_fail = map.next_value()?,
                "format" => found.format = map.next_value()?,
                "no-color" => found.no_color = map.next_value()?,
                "trustedRegistries" => found.trusted_registries = list(&mut map)?,
                "label-schema" => {
                    found.label_schema = map.next_value::<Option<BTreeMap<String, String>>>()?.unwrap_or_default();
                }
                "strict-labels" => found.strict_labels = map.next_value()?,
                "disable-ignore-pragma" => found.disable_ignore_pragma = map.next_value()?,
                other => {
                    found.note(format!("key `{other}`"), &key, nearest(other, KEYS));
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }
}

/// A list that may be left empty.
fn list<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Vec<String>, A::Error> {
    Ok(map.next_value::<Option<Vec<String>>>()?.unwrap_or_default())
}

impl Hadolint {
    fn read_levels(&mut self, levels: Levels) {
        for (name, rules) in levels.0 {
            let Some(level) = level(&name.value) else {
                let near = nearest(&name.value, ["error", "warning", "info", "style"]);
                self.note(format!("level `{}`", name.value), &name, near);
                continue;
            };
            for rule in rules.into_iter().flatten() {
                let rule = self.rule(rule);
                self.levels.insert(rule, level);
            }
        }
    }

    /// The name of a rule, which should be one.
    fn rule(&mut self, name: Spanned<String>) -> String {
        if !reference::is_known(&name.value) {
            self.note(format!("rule `{}`", name.value), &name, reference::nearest(&name.value));
        }
        name.value
    }

    fn note<T>(&mut self, what: String, place: &Spanned<T>, nearest: Option<&str>) {
        let place = Place::of(place.referenced);
        self.unknown.push(Unknown { what, place, nearest: nearest.map(str::to_owned) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_read() {
        let text = "---\nfailure-threshold: warning\nformat: json\nignored:\n  - DL3008\n  - SC2046\nlabel-schema:\n  \
                    author: text\n  created: rfc3339\nno-color: true\nno-fail: true\noverride:\n  error:\n    - DL3001\n  \
                    style: [DL3015]\n  info:\nstrict-labels: true\ndisable-ignore-pragma: true\ntrustedRegistries:\n  \
                    - docker.io\n";
        let found = Hadolint::parse(text).unwrap();
        let levels = [("DL3001".to_owned(), Level::Error), ("DL3015".to_owned(), Level::Style)];
        let wanted = Hadolint {
            ignored: vec!["DL3008".into(), "SC2046".into()],
            levels: levels.into(),
            threshold: Some(Threshold::Level(Level::Warning)),
            no_fail: true,
            format: Some("json".into()),
            no_color: true,
            trusted_registries: vec!["docker.io".into()],
            label_schema: [("author".into(), "text".into()), ("created".into(), "rfc3339".into())].into(),
            strict_labels: true,
            disable_ignore_pragma: true,
            unknown: Vec::new(),
        };
        assert_eq!(found, wanted);
    }

    #[test]
    fn an_empty_file_says_nothing() {
        for text in ["", "---\n", "# nothing\n\n", "ignored:\n", "ignored: []\noverride:\n"] {
            assert_eq!(Hadolint::parse(text), Ok(Hadolint::default()), "{text:?}");
        }
    }

    #[test]
    fn what_is_not_understood_is_told_with_its_line() {
        let text = "ignored: [DL3008, StageNameCase]\nignore: [DL3000]\nfailure-threshold: high\noverride:\n  bad: [A]\n  \
                    info:\n    - Nothing\n";
        let unknown = Hadolint::parse(text).unwrap().unknown.into_iter();
        let at = |place: Place| (place.line, place.column);
        let unknown: Vec<_> = unknown.map(|unknown| (unknown.what, at(unknown.place), unknown.nearest)).collect();
        let wanted = [
            ("rule `StageNameCase`", (1, 19), Some("StageNameCasing")),
            ("key `ignore`", (2, 1), Some("ignored")),
            ("threshold `high`", (3, 20), None),
            ("level `bad`", (5, 3), None),
            ("rule `Nothing`", (7, 7), None),
        ];
        assert_eq!(unknown, wanted.map(|(what, at, near)| (what.to_owned(), at, near.map(str::to_owned))));
        for (text, place) in [
            ("ignored:\n  a: b\n", (2, 3)),
            ("\n- a\n- b: c\n", (2, 1)),
            ("a: [\n", (1, 4)),
            ("no-color: true\nno-fail: perhaps\n", (2, 10)),
            ("ignored: DL3008\n", (1, 10)),
        ] {
            assert_eq!(at(Hadolint::parse(text).unwrap_err().place), place, "{text:?}: {:?}", Hadolint::parse(text));
        }
    }
}
