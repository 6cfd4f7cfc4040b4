//! `--call`: what is asked about a build instead of building.

use std::str::FromStr;

use super::value::{Wrong, did_you_mean, fields, go_bool};

/// What is asked, and how the answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    /// What is asked.
    pub(crate) kind: CallKind,
    /// How the answer is written.
    pub(crate) format: CallFormat,
    /// Whether the exit code says nothing about the answer.
    pub(crate) ignores_status: bool,
}

/// What is asked about a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum CallKind {
    /// Nothing: it is built.
    #[default]
    Build,
    /// What is wrong with the Dockerfile.
    Check,
    /// What the target can be given.
    Outline,
    /// What can be built.
    Targets,
    /// What can be asked.
    Describe,
}

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum CallFormat {
    /// For people.
    #[default]
    Text,
    /// For programs, as buildx writes it.
    Json,
}

const NAMES: [&str; 5] = ["build", "check", "outline", "targets", "subrequests.describe"];

impl Call {
    /// A question, answered as text.
    pub(crate) fn of(kind: CallKind) -> Self {
        Self { kind, format: CallFormat::Text, ignores_status: false }
    }
}

impl FromStr for Call {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let mut call = Self::of(CallKind::Build);
        let mut name = None;
        for field in fields(text)? {
            match field.split_once('=') {
                None if name.is_none() => name = Some(field),
                None => return Err(Wrong(format!("`{text}` asks twice"))),
                Some(("format", "json")) => call.format = CallFormat::Json,
                Some(("format", "text" | "")) => call.format = CallFormat::Text,
                Some(("format", other)) => {
                    return Err(Wrong(format!("`{other}` is no format: expected `text` or `json`")));
                }
                Some(("ignorestatus", value)) => call.ignores_status = go_bool(value)?,
                Some((key, _)) => {
                    return Err(Wrong(format!("there is no `{key}`: expected `format` or `ignorestatus`")));
                }
            }
        }
        call.kind = match name.as_deref().unwrap_or("build") {
            "" | "build" => CallKind::Build,
            "check" | "lint" => CallKind::Check,
            "outline" => CallKind::Outline,
            "targets" => CallKind::Targets,
            "subrequests.describe" => CallKind::Describe,
            other => {
                let near = did_you_mean(other, NAMES);
                return Err(Wrong(format!("`{other}` is nothing to call: expected `{}`{near}", NAMES.join("`, `"))));
            }
        };
        Ok(call)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_read_as_buildx_reads_them() {
        let of = |text: &str| text.parse::<Call>();
        assert_eq!(of("check"), Ok(Call::of(CallKind::Check)));
        assert_eq!(of("lint"), Ok(Call::of(CallKind::Check)));
        assert_eq!(of(""), Ok(Call::of(CallKind::Build)));
        let json = Call { format: CallFormat::Json, ignores_status: true, ..Call::of(CallKind::Outline) };
        assert_eq!(of("format=json,outline,ignorestatus=1"), Ok(json));
        for (text, why) in [
            (
                "outlines",
                "`outlines` is nothing to call: expected `build`, `check`, `outline`, `targets`, `subrequests.describe`; did you mean `outline`?",
            ),
            ("check,outline", "`check,outline` asks twice"),
            ("check,format=xml", "`xml` is no format: expected `text` or `json`"),
            ("check,color=no", "there is no `color`: expected `format` or `ignorestatus`"),
        ] {
            assert_eq!(of(text).unwrap_err().0, why);
        }
    }
}
