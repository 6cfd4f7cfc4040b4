//! `kiln doctor`.

use std::fmt::Write as _;

use clap::Args;
use kiln_engine::{Check, Diagnosis, DoctorRequest, Mark};
use serde_json::json;

use crate::setting::Setting;
use crate::ui::exit::Outcome;
use crate::ui::run as ui_run;
use crate::ui::stdout;
use crate::ui::table::table;

/// Say what this machine allows, what is in the way of the rest, and how to mend it
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Print text, or one JSON document
    #[arg(long, value_name = "FORMAT", value_parser = ["text", "json"], default_value = "text", hide_default_value = true, hide_possible_values = true)]
    format: String,
}

/// The machine is in the way of builds.
const ENVIRONMENT: u8 = 3;

/// Looks, and says with the exit code whether a build can run.
pub(crate) fn run(args: &DoctorArgs, setting: &Setting) -> Outcome {
    let engine = setting.engine()?;
    let request = DoctorRequest { arrival: setting.arrival.clone(), ..setting.environment.for_doctor() };
    let diagnosis = ui_run::block_on(async { Ok(engine.doctor(&request).await) })?;
    let text = if args.format == "json" { format!("{:#}\n", document(&diagnosis)) } else { report(&diagnosis) };
    stdout::print(&text)?;
    Ok(if diagnosis.can_build() { 0 } else { ENVIRONMENT })
}

fn document(diagnosis: &Diagnosis) -> serde_json::Value {
    let check = |check: &Check| {
        let Check { name, mark, found, lost, mend, is_needed } = check;
        json!({ "check": name, "state": mark.name(), "found": found, "lost": lost, "mend": mend, "needed": is_needed })
    };
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "builds": diagnosis.can_build(),
        "checks": diagnosis.checks.iter().map(check).collect::<Vec<_>>(),
    })
}

fn report(diagnosis: &Diagnosis) -> String {
    let row = |check: &Check| [check.name, check.mark.name(), &check.found].map(str::to_owned).to_vec();
    let heading = ["CHECK", "STATE", "FOUND"].map(str::to_owned).to_vec();
    let rows: Vec<_> = std::iter::once(heading).chain(diagnosis.checks.iter().map(row)).collect();
    let mut text = table(&rows);
    for check in &diagnosis.checks {
        let (Some(lost), Some(mend)) = (&check.lost, &check.mend) else { continue };
        write!(text, "\n{}: will not work: {lost}\n  {mend}\n", check.name).expect("writing to a string");
    }
    let stops = diagnosis.checks.iter().filter(|check| check.is_needed && check.mark == Mark::Missing);
    let stops: Vec<&str> = stops.map(|check| check.name).collect();
    let end = match stops.as_slice() {
        [] => "builds run here".to_owned(),
        stops => format!("builds cannot run here: see {}", stops.join(", ")),
    };
    text + "\n" + &end + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &'static str, mark: Mark, is_needed: bool) -> Check {
        let bad = |text: &str| (mark != Mark::Ok).then(|| text.to_owned());
        Check { name, mark, found: "as it is".into(), lost: bad("this"), mend: bad("run `that`"), is_needed }
    }

    #[test]
    fn what_is_not_well_is_told_below_the_table_with_its_way_out() {
        let checks = vec![check("kernel", Mark::Ok, true), check("network", Mark::Degraded, false)];
        insta::assert_snapshot!(report(&Diagnosis { checks }), @"
        CHECK     STATE      FOUND
        kernel    ok         as it is
        network   degraded   as it is

        network: will not work: this
          run `that`

        builds run here
        ");
        let checks = vec![check("overlay", Mark::Missing, true), check("ssh agent", Mark::Missing, false)];
        assert!(report(&Diagnosis { checks }).ends_with("\nbuilds cannot run here: see overlay\n"));
    }

    #[test]
    fn the_document_has_all_of_it() {
        let document = document(&Diagnosis { checks: vec![check("overlay", Mark::Missing, true)] });
        assert_eq!((&document["builds"], &document["checks"][0]["state"]), (&json!(false), &json!("missing")));
        assert_eq!(document["checks"][0]["mend"], "run `that`");
    }
}
