//! What was found, written in one of several formats; data goes to standard output, the sum to standard error.

use std::io::Write;
use std::str::FromStr;

use kiln_lint::{Hadolint, reference};
use kiln_report::render::{self, Color};
use kiln_report::{Checked, Failure, FailureKind, Level, RuleNote};

use crate::args::Environment;
use crate::args::value::{Wrong, did_you_mean};
use crate::ui::exit::{Exit, Outcome};
use crate::ui::table::table;
use crate::ui::{stdout, terminal};

/// A format of findings, or of the list of rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Format {
    /// For people.
    #[default]
    Tty,
    /// One object.
    Json,
    /// For code scanners.
    Sarif,
    /// For GitHub's workflows.
    Github,
    /// For build servers.
    Checkstyle,
    /// The reference of rules.
    Markdown,
}

impl FromStr for Format {
    type Err = Wrong;

    fn from_str(name: &str) -> Result<Self, Wrong> {
        match name {
            "tty" => Ok(Self::Tty),
            "json" => Ok(Self::Json),
            "sarif" => Ok(Self::Sarif),
            "github" => Ok(Self::Github),
            "checkstyle" => Ok(Self::Checkstyle),
            "markdown" => Ok(Self::Markdown),
            other => {
                let near = did_you_mean(other, ["tty", "json", "sarif", "github", "checkstyle"]);
                let expected = "expected `tty`, `json`, `sarif`, `github` or `checkstyle`";
                Err(Wrong(format!("`{other}` is no format: {expected}{near}")))
            }
        }
    }
}

impl Format {
    /// The format, if findings can be written in it.
    pub(super) fn of_findings(self) -> Result<Self, Failure> {
        match self {
            Self::Markdown => Err(Failure::new(FailureKind::Usage, "findings are not written as `markdown`")
                .hint("use it with `--list-rules`")),
            format => Ok(format),
        }
    }
}

/// Writes what was found.
pub(super) fn write(
    files: &[Checked],
    format: Format,
    config: &Hadolint,
    environment: &Environment,
) -> Result<(), Exit> {
    let mut out = Vec::new();
    let written = match format {
        Format::Tty | Format::Markdown => {
            let color = if config.no_color { Color::Off } else { terminal::stdout_color(environment) };
            tty(files, color, &mut out)
        }
        Format::Json => render::lint_json(files, &notes(), &mut out),
        Format::Sarif => render::sarif(files, &notes(), env!("CARGO_PKG_VERSION"), &mut out),
        Format::Github => render::github(files, &mut out),
        Format::Checkstyle => render::checkstyle(files, &mut out),
    };
    written.expect("writing to memory");
    stdout::print(&String::from_utf8_lossy(&out))?;
    // Where nobody listens nobody is told.
    let _ = writeln!(std::io::stderr(), "{}", sum(files));
    Ok(())
}

/// Findings as people read them, a blank line behind each.
pub(crate) fn tty(files: &[Checked], color: Color, out: &mut dyn Write) -> std::io::Result<()> {
    for (file, finding) in files.iter().flat_map(|file| file.findings.iter().map(move |finding| (file, finding))) {
        writeln!(out, "{}", render::diagnostic(finding, &file.excerpt(finding), color))?;
    }
    Ok(())
}

/// `3 findings in 2 files: 1 error, 2 warnings`.
fn sum(files: &[Checked]) -> String {
    let count = |number: usize, name: &str| match number {
        1 => format!("1 {name}"),
        _ => format!("{number} {name}s"),
    };
    let levels = files.iter().flat_map(|file| &file.findings).map(|finding| finding.level).collect::<Vec<_>>();
    let checked = count(files.len(), "file");
    if levels.is_empty() {
        return format!("nothing found in {checked}");
    }
    let of = |level: Level| levels.iter().filter(|found| **found == level).count();
    let named = |(level, name)| Some(of(level)).filter(|number| *number > 0).map(|number| (number, name));
    let counted = [(Level::Error, "error"), (Level::Warning, "warning")].into_iter().filter_map(named);
    let mut parts: Vec<String> = counted.map(|(number, name)| count(number, name)).collect();
    let mere = [(Level::Info, "info"), (Level::Style, "style")].into_iter().filter_map(named);
    parts.extend(mere.map(|(number, name)| format!("{number} {name}")));
    format!("{} in {checked}: {}", count(levels.len(), "finding"), parts.join(", "))
}

/// Lists all rules.
pub(super) fn list_rules(format: Format) -> Outcome {
    let entries = reference::entries();
    let text = match format {
        Format::Tty => {
            let head = ["RULE", "ALSO", "LEVEL", "FINDS"].map(str::to_owned).to_vec();
            let row = |entry: &reference::Entry| {
                vec![entry.name.into(), entry.aliases.join(","), entry.level.name().into(), entry.summary.into()]
            };
            table(&std::iter::once(head).chain(entries.iter().map(row)).collect::<Vec<_>>())
        }
        Format::Json => {
            let rule = |entry: &reference::Entry| {
                serde_json::json!({
                    "rule": entry.name,
                    "aliases": entry.aliases,
                    "level": entry.level.name(),
                    "summary": entry.summary,
                    "why": entry.why,
                    "bad": entry.bad,
                    "good": entry.good,
                    "url": entry.url(),
                })
            };
            let rules: Vec<serde_json::Value> = entries.iter().map(rule).collect();
            serde_json::to_string_pretty(&rules).expect("plain data serialises") + "\n"
        }
        Format::Markdown => reference::document(),
        Format::Sarif | Format::Github | Format::Checkstyle => {
            let failure = Failure::new(FailureKind::Usage, "rules are listed as `tty`, `json` or `markdown`");
            return Err(failure.into());
        }
    };
    stdout::print(&text)?;
    Ok(0)
}

/// What formats for programs say about rules.
fn notes() -> Vec<RuleNote> {
    let note = |entry: reference::Entry| RuleNote {
        name: entry.name,
        aliases: entry.aliases,
        level: entry.level,
        summary: entry.summary,
        page: entry.page("#"),
        url: entry.url(),
    };
    reference::entries().into_iter().map(note).collect()
}
