//! `SOURCE_DATE_EPOCH`: the time that stands in for the clock.

use kiln_report::{Diagnostic, Span};

use super::{Globals, LowerOptions};
use crate::expand::Variables as _;
use crate::instruction::Command;
use crate::parse::Dockerfile;

const NAME: &str = "SOURCE_DATE_EPOCH";

/// From the year -9999 to 9999: no other can be written into an image.
const TIMES: std::ops::RangeInclusive<i64> = -377_705_023_201..=253_402_207_200;

/// Reads it: seconds since 1970, or the name of something that has a time. A build argument comes before a default
/// in the file; nothing means the clock.
pub(super) fn read(
    file: &Dockerfile,
    options: &LowerOptions,
    globals: &Globals,
) -> Result<Option<i64>, Box<Diagnostic>> {
    let given = options.build_args.get(NAME).map(String::as_str);
    let value = given.or(globals.env.value(NAME));
    let Some(value) = value.filter(|value| !value.is_empty()) else { return Ok(None) };
    if let Ok(seconds) = value.parse()
        && TIMES.contains(&seconds)
    {
        return Ok(Some(seconds));
    }
    // A named context that has a time is given as seconds.
    if value == "context" || options.contexts.keys().any(|name| name.eq_ignore_ascii_case(value)) {
        return Ok(options.context_time.filter(|_| value == "context"));
    }
    let stage = file.instructions().find_map(|instruction| match &instruction.command {
        Some(Command::From(from)) if from.stage_name().is_some_and(|name| name.eq_ignore_ascii_case(value)) => {
            Some(instruction.span)
        }
        _ => None,
    });
    Err(Box::new(match stage {
        Some(span) => {
            Diagnostic::error(span, format!("`{NAME}={value}` takes the time of a stage, which is not possible yet"))
                .hint("give seconds since 1970, as in `git log -1 --format=%ct`")
        }
        None => {
            let (span, place) = match given {
                Some(_) => (Span::default(), " of a build argument or the environment"),
                None => (declared(file), ""),
            };
            Diagnostic::error(span, format!("`{NAME}={value}`{place} is no time"))
                .hint("give seconds since 1970, as in `date +%s`, or `context`")
        }
    }))
}

/// Where the file gives it a value.
fn declared(file: &Dockerfile) -> Span {
    let is_it =
        |command: &Command| matches!(command, Command::Arg(items) if items.iter().any(|item| item.key.text == NAME));
    let found = file.instructions().find(|instruction| instruction.command.as_ref().is_some_and(is_it));
    found.map(|instruction| instruction.span).unwrap_or_default()
}
