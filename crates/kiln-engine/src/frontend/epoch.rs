//! The time that stands for all others, before the graph is made: what `context` means, and what it is when nobody says.

use kiln_dockerfile::instruction::Command;
use kiln_dockerfile::{Dockerfile, LowerOptions};

use crate::request::BuildRequest;

const NAME: &str = "SOURCE_DATE_EPOCH";

/// Puts seconds in the place of `context`, so that steps see those, too. A build that is to be reproducible has a time in any
/// case: the context's, if it has one, else the beginning of 1970.
pub(crate) fn settle_epoch(
    file: &Dockerfile,
    options: &mut LowerOptions,
    (request, context_time): (&BuildRequest, Option<i64>),
) {
    options.context_time = context_time;
    let given = options.build_args.get(NAME).filter(|value| !value.is_empty());
    let is_of_context = given.is_some_and(|value| value == "context");
    let is_missing = given.is_none() && request.reproducible && !has_default(file);
    if is_of_context || is_missing {
        let fallback = request.reproducible.then_some(request.source_date_epoch.unwrap_or_default());
        let time = context_time.filter(|_| request.source_date_epoch.is_none()).or(fallback);
        let text = time.map_or_else(String::new, |time| time.to_string());
        options.build_args.insert(NAME.to_owned(), text);
    }
}

/// Whether the file itself has a value for it, before its first stage.
fn has_default(file: &Dockerfile) -> bool {
    let commands = file.instructions().filter_map(|instruction| instruction.command.as_ref());
    let mut globals = commands.take_while(|command| !matches!(command, Command::From(_)));
    globals.any(|command| match command {
        Command::Arg(items) => items.iter().any(|item| item.key.text == NAME && item.value.is_some()),
        _ => false,
    })
}
