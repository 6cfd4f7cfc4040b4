//! What a linter says about a Dockerfile, beyond the checks of the language itself.
//!
//! A rule is a row of a table: a name, a reason, a bad and a good example, and a function over a [`View`] of the file.
//! [`lint()`] runs the rules that the settings let through. This crate must never know the network, the disk, or how an
//! image is built.
//!
//! ```
//! let (file, _) = kiln_dockerfile::parse("FROM alpine:3.20\nRUN flask run\n");
//! let found = kiln_lint::lint(&file, &kiln_lint::Settings::default());
//! assert!(found.iter().any(|finding| finding.rule == Some("LongRunningProcessInRun")));
//! ```
#![forbid(unsafe_code)]

mod finding;
mod fix;
mod hadolint;
pub mod reference;
mod rule;
mod rules;
mod script;
mod settings;
mod shell;
mod view;

pub use finding::Findings;
pub use fix::{Consent, Fixed, Made, fix};
pub use hadolint::{Hadolint, HadolintError, Place, Threshold, Unknown};
pub use rule::{Rule, Scope, find};
pub use rules::RULES;
pub use settings::{OtherLabels, Pragmas, Settings};
pub use view::{Stage, View};

use kiln_dockerfile::Dockerfile;
use kiln_report::Diagnostic;

/// Runs the rules over a file: the language's own checks and those of this crate. Gives what the settings let through,
/// in the order of the file.
pub fn lint(file: &Dockerfile, settings: &Settings) -> Vec<Diagnostic> {
    let view = View::of(file);
    let mut findings = Findings::new(settings);
    for rule in RULES.iter().copied().flatten().filter(|rule| settings.runs(rule)) {
        findings.run(rule, &view);
    }
    let mut all = kiln_dockerfile::check(file, &settings.check);
    all.extend(findings.into_all());
    let mut all = settings.admit(file, all);
    all.sort_by_key(|finding| finding.span);
    all
}
