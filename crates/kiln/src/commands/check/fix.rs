//! `kiln check --fix`: the fixes that findings bring, made in the file or only shown.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use clap::Args;
use kiln_lint::{Consent, Fixed};
use kiln_report::{Diagnostic, Failure, FailureKind, SourceFile, render};

use crate::setting::Setting;
use crate::text_file::TextFile;
use crate::ui::exit::Exit;
use crate::ui::{stdout, terminal};

/// What is asked about fixes.
#[derive(Debug, Args)]
pub(super) struct FixArgs {
    /// Make the safe fixes, and show them; from standard input the mended text goes to standard output
    #[arg(long)]
    fix: bool,

    /// Make fixes too that somebody should look at
    #[arg(long)]
    unsafe_fixes: bool,

    /// With --fix: change nothing, only show what would change
    #[arg(long, requires = "fix")]
    dry_run: bool,

    /// Show what --fix would change, and change nothing
    #[arg(long)]
    diff: bool,
}

impl FixArgs {
    /// Whether fixes are asked for at all.
    pub(super) fn are_wanted(&self) -> bool {
        self.fix || self.diff
    }

    /// Refuses what alone does nothing.
    pub(super) fn must_make_sense(&self) -> Result<(), Failure> {
        if !self.unsafe_fixes || self.are_wanted() {
            return Ok(());
        }
        let failure = Failure::new(FailureKind::Usage, "`--unsafe-fixes` alone fixes nothing");
        Err(failure.hint("add `--fix` to make the fixes, or `--diff` to see them"))
    }

    fn only_shows(&self) -> bool {
        self.diff || self.dry_run
    }

    fn consent(&self) -> Consent {
        if self.unsafe_fixes { Consent::All } else { Consent::Safe }
    }

    /// Whether standard output is taken by a difference or a mended text, and findings are not listed there.
    pub(super) fn takes_stdout(&self, file: &TextFile) -> bool {
        self.are_wanted() && (self.only_shows() || file.is_stdin())
    }
}

/// Makes the fixes, or shows them. Gives the text that is there now. `find` gives what is found in a text.
pub(super) fn run(
    args: &FixArgs,
    file: &TextFile,
    setting: &Setting,
    mut find: impl FnMut(&Arc<SourceFile>) -> Result<Vec<Diagnostic>, Failure>,
) -> Result<String, Exit> {
    let source = |text: &str| Arc::new(SourceFile::new(file.name(), text));
    let fixed = kiln_lint::fix(file.text(), args.consent(), |text| find(&source(text)))?;
    let diff = |color| render::diff(file.name(), file.text(), &fixed.text, color);
    if args.only_shows() {
        stdout::print(&diff(terminal::stdout_color(&setting.environment)))?;
        say(&sum(&fixed, file.name(), "would fix", args.consent()));
        return Ok(file.text().to_owned());
    }
    let mut name = file.name().to_owned();
    if file.is_stdin() {
        stdout::print(&fixed.text)?;
    } else if fixed.text != file.text() {
        name = file.replace(&fixed.text)?;
        say(&diff(terminal::color(&setting.environment)));
    }
    say(&sum(&fixed, &name, "fixed", args.consent()));
    Ok(fixed.text)
}

/// ``fixed 3 findings in `Dockerfile`: 2 of `StageNameCasing`, …``, and what could be fixed yet.
fn sum(fixed: &Fixed, name: &str, done: &str, consent: Consent) -> String {
    let mut rules: BTreeMap<&str, usize> = BTreeMap::new();
    for made in &fixed.made {
        *rules.entry(made.rule.unwrap_or("error")).or_default() += 1;
    }
    let rules: Vec<String> = rules.iter().map(|(rule, count)| format!("{count} {rule}")).collect();
    let colon = if rules.is_empty() { "" } else { ": " };
    let mut text = format!("{done} {} in `{name}`{colon}{}\n", findings(fixed.made.len()), rules.join(", "));
    let fixes = || fixed.left.iter().filter_map(|finding| finding.fix.as_ref());
    let stuck = fixes().filter(|fix| consent.allows(fix)).count();
    if stuck > 0 {
        text.push_str(&format!(
            "not fixed: {}, as the change would not have mended it or broken more\n",
            findings(stuck)
        ));
    }
    let held = fixes().filter(|fix| !consent.allows(fix)).count();
    if held > 0 {
        text.push_str(&format!("{} can be fixed with `--unsafe-fixes`; look at the result\n", findings(held)));
    }
    text
}

fn findings(count: usize) -> String {
    format!("{count} finding{}", if count == 1 { "" } else { "s" })
}

/// Says something on standard error; where nobody listens nobody is told.
fn say(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}
