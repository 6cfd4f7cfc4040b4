//! `kiln prune`.

use std::fmt::Write as _;

use clap::Args;
use kiln_engine::{Amount, PruneAnswer, PruneRequest, SpaceLimits};
use kiln_report::Failure;

use super::login::ask;
use crate::args::space::{Filters, amount};
use crate::setting::Setting;
use crate::ui::age::size;
use crate::ui::exit::Outcome;
use crate::ui::stdout;
use crate::ui::table::table;

/// Remove what nothing needs: images without a name, layers, old results
#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// Remove the whole cache, too
    #[arg(short, long)]
    all: bool,

    /// Do not ask
    #[arg(short, long)]
    force: bool,

    /// Remove only what is like this, as `until=24h`, `type=exec.cachemount`, `description~=apt`
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,

    /// Always keep so much, as `2GB` or `10%` of the disk
    #[arg(long, alias = "keep-storage", value_name = "SIZE", value_parser = amount)]
    reserved_space: Option<Amount>,

    /// Keep so much at most; what was not used for longest goes first
    #[arg(long, value_name = "SIZE", value_parser = amount)]
    max_used_space: Option<Amount>,

    /// Remove until so much is free on the disk
    #[arg(long, value_name = "SIZE", value_parser = amount)]
    min_free_space: Option<Amount>,

    /// Say how much each thing gives back
    #[arg(long)]
    verbose: bool,

    /// Only say what would go
    #[arg(long)]
    dry_run: bool,
}

/// Asks, prunes, and prints what is gone.
pub(crate) fn run(args: &PruneArgs, setting: &Setting) -> Outcome {
    let request = args.request()?;
    if !args.force && !args.dry_run && !args.is_sure(&request)? {
        return Ok(0);
    }
    let answer = setting.engine()?.prune(&request)?;
    stdout::print(&report(&answer, args))?;
    Ok(0)
}

impl PruneArgs {
    fn request(&self) -> Result<PruneRequest, Failure> {
        let filters = Filters::parse(&self.filter)?;
        Ok(PruneRequest {
            all: self.all,
            unused_for: filters.unused_for,
            filter: filters.conditions,
            limits: SpaceLimits {
                reserved: self.reserved_space,
                max_used: self.max_used_space,
                min_free: self.min_free_space,
            },
            dry_run: self.dry_run,
        })
    }

    fn is_sure(&self, request: &PruneRequest) -> Result<bool, Failure> {
        let is_limited = !self.filter.is_empty() || request.limits != SpaceLimits::default();
        let what = match self.all {
            _ if is_limited => "what these options say of the cache",
            true => "every image without a name and the whole cache",
            false => "every image without a name and every result that nothing needs",
        };
        let answer = ask(&format!("WARNING! This will remove {what}.\nAre you sure you want to continue? [y/N] "))?;
        Ok(matches!(answer.to_ascii_lowercase().as_str(), "y" | "yes"))
    }
}

fn report(answer: &PruneAnswer, args: &PruneArgs) -> String {
    let mut text = String::new();
    if args.verbose {
        let rows =
            answer.removed.iter().map(|thing| vec![thing.kind.to_owned(), thing.id.clone(), size(thing.bytes, 4)]);
        let heading = ["TYPE", "ID", "SIZE"].map(str::to_owned).to_vec();
        text = table(&std::iter::once(heading).chain(rows).collect::<Vec<_>>());
    } else {
        for thing in &answer.removed {
            writeln!(text, "{} {}", thing.kind, thing.id).expect("writing to a string");
        }
    }
    let total = if args.dry_run { "Total reclaimable space" } else { "Total reclaimed space" };
    writeln!(text, "{total}: {}", size(answer.bytes(), 4)).expect("writing to a string");
    text
}
