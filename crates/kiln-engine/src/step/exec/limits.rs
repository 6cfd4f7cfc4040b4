//! What a step may take of the machine: what was asked for, and a number of processes that no honest step needs.

use std::sync::Arc;

use kiln_exec::{ControlGroup, Limit, Reached, Resources, Ulimit};
use kiln_report::Event;
use kiln_report::render::decimal_size;

use crate::job::Job;

/// As many processes as a step may have at once when nothing is said.
const PROCESSES: u64 = 8192;

/// The limits of a step, by whatever way this machine has.
pub(super) struct Limited {
    pub(super) group: Option<Arc<ControlGroup>>,
    pub(super) ulimits: Vec<Ulimit>,
}

impl Limited {
    /// Makes them. What was asked for and cannot be is said once a build.
    pub(super) fn new(job: &Job) -> Self {
        let (asked, limits) = (&job.limits.resources, &job.limits);
        let is_asked = *asked != Resources::default();
        let usual = Resources { processes: Some(PROCESSES), ..Resources::default() };
        let group = |wanted: &Resources| ControlGroup::new(wanted).map(Arc::new);
        let made = is_asked.then(|| group(&Resources { processes: usual.processes, ..asked.clone() }));
        if let Some(Err(why)) = &made {
            limits.told.get_or_init(|| {
                let text = format!("warning: steps are not limited as asked: {why}");
                job.reporter.report(Event::Note(text));
            });
        }
        // In the second version a process enters a group in ten milliseconds, which a count alone is not worth.
        let usual = || ControlGroup::is_cheap().then(|| group(&usual).ok()).flatten();
        let group = made.and_then(Result::ok).or_else(usual);
        let mut ulimits = limits.ulimits.clone();
        if group.is_none() && !ulimits.iter().any(|ulimit| ulimit.limit == Limit::NProc) {
            ulimits.push(Ulimit { limit: Limit::NProc, soft: Some(PROCESSES), hard: Some(PROCESSES) });
        }
        Self { group, ulimits }
    }
}

/// What is said of limits that a step reached.
pub(super) fn reached(group: Option<&ControlGroup>, asked: &Resources) -> Option<String> {
    let texts = group?.reached().into_iter().map(|reached| match (reached, asked.memory) {
        (Reached::Processes, _) => format!("it had {PROCESSES} processes, and no more are allowed"),
        (Reached::Memory, Some(bytes)) => {
            format!("it was out of memory: {} are allowed", decimal_size(bytes))
        }
        (Reached::Memory, None) => "it was out of memory".to_owned(),
    });
    let text = texts.collect::<Vec<_>>().join("; ");
    (!text.is_empty()).then_some(text)
}
