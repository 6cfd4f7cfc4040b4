//! The time that stands for all others, before the graph is made: whose it is, and what it is when nobody says.

use kiln_dockerfile::instruction::Command;
use kiln_dockerfile::{Dockerfile, LowerOptions};
use kiln_report::{Event, Reporter};

use crate::request::BuildRequest;

const NAME: &str = "SOURCE_DATE_EPOCH";

/// Whose time stands for all others.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum TimeOf {
    /// That of a number, a stage or the clock: nothing is to be looked for.
    Nothing,
    /// The main context's.
    Context,
    /// The time of a named context.
    Named(String),
}

/// Whose time a build wants. One that is to be reproducible has a time in any case: if nobody names one, the context's.
pub(crate) fn time_of(file: &Dockerfile, options: &LowerOptions, request: &BuildRequest) -> TimeOf {
    let given = options.build_args.get(NAME).map(String::as_str).filter(|value| !value.is_empty());
    match given.or_else(|| default(file)) {
        None | Some("") if request.reproducible => TimeOf::Context,
        Some("context") => TimeOf::Context,
        Some(value) => named(request, value).map_or(TimeOf::Nothing, TimeOf::Named),
        None => TimeOf::Nothing,
    }
}

/// The named context that a value of `SOURCE_DATE_EPOCH` means.
pub(crate) fn named(request: &BuildRequest, value: &str) -> Option<String> {
    request.contexts.keys().find(|name| name.eq_ignore_ascii_case(value)).cloned()
}

/// Puts seconds in the place of names, so that steps see those, too; without a time the clock counts, or the beginning of 1970
/// where the clock must not.
pub(crate) fn settle_epoch(
    options: &mut LowerOptions,
    (request, whose, time): (&BuildRequest, &TimeOf, Option<i64>),
    reporter: &dyn Reporter,
) {
    let whose = match whose {
        TimeOf::Nothing => return,
        TimeOf::Context => "context",
        TimeOf::Named(name) => name,
    };
    options.context_time = time;
    let fallback = request.reproducible.then_some(request.source_date_epoch.unwrap_or_default());
    let settled = time.filter(|_| request.source_date_epoch.is_none()).or(fallback);
    if settled.is_none() && request.source_date_epoch.is_none() {
        let note = format!("warning: `{NAME}={whose}` names nothing that has a time, so that the clock's counts");
        reporter.report(Event::Note(note));
    }
    options.build_args.insert(NAME.to_owned(), settled.map_or_else(String::new, |time| time.to_string()));
}

/// What the file itself says, before its first stage.
fn default(file: &Dockerfile) -> Option<&str> {
    let commands = file.instructions().filter_map(|instruction| instruction.command.as_ref());
    let globals = commands.take_while(|command| !matches!(command, Command::From(_)));
    let items = globals.filter_map(|command| if let Command::Arg(items) = command { Some(items) } else { None });
    let found = items.flatten().filter(|item| item.key.text == NAME).filter_map(|item| item.value.as_ref());
    found.last().map(|value| value.text.as_str())
}
