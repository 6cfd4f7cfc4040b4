//! How long RUN steps may run, and how often they are tried: `--timeout [STAGE=]DURATION`, `--retry [STAGE=]N`.

use std::time::Duration;

use clap::Args;
use kiln_engine::PerStage;

use super::space::duration;
use super::value::Wrong;

/// More attempts than these nobody waits for.
const MOST: u32 = 100;

#[derive(Debug, Clone, Args)]
pub(crate) struct PatienceArgs {
    /// Stop a RUN step that runs longer, as 90s or 10m; 0 is no limit; for one stage: STAGE=DURATION
    #[arg(long, value_name = "[STAGE=]DURATION", value_parser = |text: &str| of_stage(text, time))]
    timeout: Vec<OfStage<Duration>>,

    /// Try a RUN step that failed so many times more; for one stage: STAGE=N
    #[arg(long, value_name = "[STAGE=]N", value_parser = |text: &str| of_stage(text, times))]
    retry: Vec<OfStage<u32>>,
}

/// A setting, and the stage that has it if not all have.
type OfStage<T> = (Option<String>, T);

impl PatienceArgs {
    pub(crate) fn timeouts(&self) -> PerStage<Duration> {
        collect(&self.timeout)
    }

    pub(crate) fn retries(&self) -> PerStage<u32> {
        collect(&self.retry)
    }
}

fn collect<T: Copy>(typed: &[OfStage<T>]) -> PerStage<T> {
    let mut settings = PerStage::default();
    for (stage, setting) in typed {
        match stage {
            Some(stage) => drop(settings.stages.insert(stage.clone(), *setting)),
            None => settings.all = Some(*setting),
        }
    }
    settings
}

fn of_stage<T>(text: &str, parse: impl Fn(&str) -> Result<T, Wrong>) -> Result<OfStage<T>, Wrong> {
    match text.split_once('=') {
        Some(("", _)) => Err(Wrong("the stage has no name".into())),
        Some((stage, value)) => Ok((Some(stage.to_owned()), parse(value)?)),
        None => Ok((None, parse(text)?)),
    }
}

fn time(text: &str) -> Result<Duration, Wrong> {
    let time = if text == "0" { Some(Duration::ZERO) } else { duration(text) };
    time.ok_or_else(|| Wrong("expected a duration, as in `90s`, `10m` or `1h30m`".into()))
}

fn times(text: &str) -> Result<u32, Wrong> {
    let times = text.parse().ok().filter(|times| *times <= MOST);
    times.ok_or_else(|| Wrong(format!("expected a number up to {MOST}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_for_all_stages_or_for_one() {
        let time = |text| of_stage(text, time);
        assert_eq!(time("90s"), Ok((None, Duration::from_secs(90))));
        assert_eq!(time("build=1h30m"), Ok((Some("build".into()), Duration::from_secs(5400))));
        assert_eq!(time("0"), Ok((None, Duration::ZERO)));
        assert!(["", "90", "=1s", "build=", "build=x", "-1s"].iter().all(|text| time(text).is_err()));
        assert_eq!(of_stage("test=3", times), Ok((Some("test".into()), 3)));
        assert!(["", "x", "-1", "101"].iter().all(|text| of_stage(text, times).is_err()));
    }

    #[test]
    fn the_last_of_each_counts() {
        let some = |name: &str| Some(name.to_owned());
        let settings = collect(&[(None, 1), (some("a"), 2), (None, 3), (some("a"), 4)]);
        assert_eq!(settings, PerStage { all: Some(3), stages: [("a".to_owned(), 4)].into() });
    }
}
