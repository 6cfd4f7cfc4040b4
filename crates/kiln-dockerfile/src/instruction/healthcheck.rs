//! `HEALTHCHECK`.

use kiln_oci::Healthcheck;
use kiln_report::Diagnostic;

use super::duration;
use super::flags::{self, Flags, Kind};
use crate::parse::{Arguments, Instruction, Word};

/// What a `HEALTHCHECK` puts into the config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthcheckCommand {
    /// The check.
    pub check: Healthcheck,
}

impl HealthcheckCommand {
    /// The check as Go prints such a struct, which is how it stands in the history.
    pub(crate) fn printed(&self) -> String {
        let c = &self.check;
        let [interval, timeout, start_period, start_interval] =
            [c.interval, c.timeout, c.start_period, c.start_interval].map(duration::print);
        format!(
            "{{Test:[{}] Interval:{interval} Timeout:{timeout} StartPeriod:{start_period} \
             StartInterval:{start_interval} Retries:{}}}",
            c.test.join(" "),
            c.retries
        )
    }
}

const FLAGS: [(&str, Kind); 5] = [
    ("interval", Kind::Value),
    ("timeout", Kind::Value),
    ("start-period", Kind::Value),
    ("start-interval", Kind::Value),
    ("retries", Kind::Value),
];

/// Reads it.
pub(super) fn read(instruction: &Instruction, diagnostics: &mut Vec<Diagnostic>) -> Option<HealthcheckCommand> {
    let flags = flags::read(instruction, &FLAGS, diagnostics);
    let (kind, command) = match &instruction.arguments {
        Arguments::Typed(kind, command) => (kind, &**command),
        _ => {
            let hint = "write `HEALTHCHECK CMD command` or `HEALTHCHECK NONE`";
            diagnostics.push(Diagnostic::error(instruction.keyword.span, "HEALTHCHECK has no arguments").hint(hint));
            return None;
        }
    };
    let test = test(kind, command).map_err(|diagnostic| diagnostics.push(diagnostic)).ok();
    if test.as_ref().is_some_and(|test| test == &["NONE"]) {
        let test = test.unwrap_or_default();
        return Some(HealthcheckCommand { check: Healthcheck { test, ..Healthcheck::default() } });
    }
    let mut time = |name| interval(&flags, name, diagnostics);
    let check = Healthcheck {
        test: test.clone().unwrap_or_default(),
        interval: time("interval"),
        timeout: time("timeout"),
        start_period: time("start-period"),
        start_interval: time("start-interval"),
        retries: retries(&flags, diagnostics),
    };
    test.map(|_| HealthcheckCommand { check })
}

fn test(kind: &Word, command: &Arguments) -> Result<Vec<String>, Diagnostic> {
    match (kind.text.to_ascii_uppercase().as_str(), command) {
        ("NONE", Arguments::None) => Ok(vec!["NONE".into()]),
        ("NONE", _) => {
            Err(Diagnostic::error(kind.span, "`HEALTHCHECK NONE` takes no arguments").hint("leave out what follows"))
        }
        ("CMD", Arguments::Json(words)) if !words.is_empty() => {
            Ok(std::iter::once("CMD".into()).chain(words.iter().map(|word| word.text.clone())).collect())
        }
        ("CMD", Arguments::Text(text)) => Ok(vec!["CMD-SHELL".into(), text.text.clone()]),
        ("CMD", _) => {
            Err(Diagnostic::error(kind.span, "`HEALTHCHECK CMD` has no command").hint("write the command after `CMD`"))
        }
        _ => {
            let message = format!("`{}` is no kind of health check", kind.text);
            Err(Diagnostic::error(kind.span, message).hint("write `HEALTHCHECK CMD command` or `HEALTHCHECK NONE`"))
        }
    }
}

/// A duration of at least a millisecond, or 0 for the default.
fn interval(flags: &Flags<'_>, name: &str, diagnostics: &mut Vec<Diagnostic>) -> i64 {
    let Some(value) = flags.value(name) else { return 0 };
    match duration::parse(&value.text) {
        Some(time) if time == 0 || time >= 1_000_000 => return time,
        Some(_) => {
            let message = format!("`--{name}={}` is shorter than a millisecond", value.text);
            diagnostics.push(Diagnostic::error(value.span, message).hint("use at least `1ms`, or `0` for the default"));
        }
        None => {
            let message = format!("`{}` is no duration", value.text);
            diagnostics
                .push(Diagnostic::error(value.span, message).hint("write it with a unit: `30s`, `1m30s`, `500ms`"));
        }
    }
    0
}

fn retries(flags: &Flags<'_>, diagnostics: &mut Vec<Diagnostic>) -> i64 {
    let Some(value) = flags.value("retries") else { return 0 };
    match value.text.parse::<i32>() {
        Ok(count) if count >= 0 => i64::from(count),
        _ => {
            let message = format!("`--retries={}` is no number of attempts", value.text);
            diagnostics.push(Diagnostic::error(value.span, message).hint("use a whole number, 0 or more"));
            0
        }
    }
}
