//! `kiln build --dry-run`: says what would run, and why.

use std::fmt::Write as _;
use std::sync::Arc;

use kiln_engine::{Engine, Forecast, ForecastStep, Verdict};

use super::lend::Lender;
use crate::args::build::{BuildPlan, DryRun};
use crate::setting::Setting;
use crate::ui::exit::Outcome;
use crate::ui::progress::Progress;
use crate::ui::{run as ui_run, stdout};

/// Asks, and prints the answer.
pub(super) fn run(
    format: DryRun,
    plan: &BuildPlan,
    lender: Arc<Lender>,
    (setting, engine): (&Setting, &Engine),
) -> Outcome {
    let progress = Progress::start(plan.progress, &setting.environment)?;
    let outcome = ui_run::block_on(engine.forecast(&plan.request, lender, progress.reporter()));
    progress.finish();
    let forecast = outcome?;
    stdout::print(&match format {
        DryRun::Json => format!("{}\n", serde_json::to_string_pretty(&forecast).expect("plain data serialises")),
        DryRun::Text | DryRun::No => tell(&forecast),
    })?;
    Ok(0)
}

fn tell(forecast: &Forecast) -> String {
    let mut text: String = forecast.steps.iter().map(line).collect();
    let Forecast { would_run, may_hit, cached, .. } = forecast;
    let may_hit = if *may_hit > 0 { format!("{may_hit} may hit, ") } else { String::new() };
    writeln!(text, "{would_run} would run, {may_hit}{cached} cached").expect("writing to a string");
    text
}

fn line(step: &ForecastStep) -> String {
    let verdict = match step.verdict {
        Verdict::WouldRun => "would run",
        Verdict::MayHit => "may hit",
        Verdict::Cached | Verdict::NotNeeded | Verdict::AtHand => "cached",
    };
    let name = step.name.replace(['\n', '\t', '\r'], " ");
    let why = step.text.as_ref().map(|text| format!("  # {text}")).unwrap_or_default();
    format!("{verdict:<9}  {name}{why}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_has_a_line_and_the_sum_comes_last() {
        let step = |name: &str, verdict, text: Option<&str>| ForecastStep {
            name: name.into(),
            verdict,
            reason: None,
            text: text.map(str::to_owned),
            lines: None,
        };
        let steps = vec![
            step("[1/3] FROM a", Verdict::NotNeeded, None),
            step("[2/3] RUN a\nb", Verdict::WouldRun, Some("command changed")),
            step("[3/3] COPY", Verdict::MayHit, Some("depends on what [x 1/1] makes")),
        ];
        let forecast = Forecast { would_run: 1, may_hit: 1, cached: 1, steps };
        assert_eq!(
            tell(&forecast),
            "cached     [1/3] FROM a\nwould run  [2/3] RUN a b  # command changed\n\
             may hit    [3/3] COPY  # depends on what [x 1/1] makes\n1 would run, 1 may hit, 1 cached\n"
        );
        let none = Forecast { would_run: 0, may_hit: 0, cached: 3, steps: vec![] };
        assert_eq!(tell(&none), "0 would run, 3 cached\n");
    }
}
