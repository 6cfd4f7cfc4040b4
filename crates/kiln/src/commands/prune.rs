//! `kiln prune`.

use std::fmt::Write as _;

use clap::Args;
use kiln_engine::{PruneAnswer, PruneRequest};

use super::login::ask;
use crate::setting::Setting;
use crate::ui::age::size;
use crate::ui::exit::Outcome;
use crate::ui::stdout;

/// Remove what nothing needs: images without a name, layers, old results
#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// Remove the whole cache, too
    #[arg(short, long)]
    all: bool,

    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

/// Asks, prunes, and prints what is gone.
pub(crate) fn run(args: &PruneArgs, setting: &Setting) -> Outcome {
    if !args.force && !is_sure(args)? {
        return Ok(0);
    }
    let answer = setting.engine()?.prune(&PruneRequest { all: args.all })?;
    stdout::print(&report(&answer))?;
    Ok(0)
}

fn is_sure(args: &PruneArgs) -> Result<bool, kiln_report::Failure> {
    let what = match args.all {
        true => "every image without a name and the whole cache",
        false => "every image without a name and every result that nothing needs",
    };
    let answer = ask(&format!("WARNING! This will remove {what}.\nAre you sure you want to continue? [y/N] "))?;
    Ok(matches!(answer.to_ascii_lowercase().as_str(), "y" | "yes"))
}

fn report(answer: &PruneAnswer) -> String {
    let mut text = String::new();
    for line in &answer.removed {
        writeln!(text, "{line}").expect("writing to a string");
    }
    writeln!(text, "Total reclaimed space: {}", size(answer.bytes, 4)).expect("writing to a string");
    text
}
