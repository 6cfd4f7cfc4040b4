//! What a container may take of the machine: what was asked for, and limits that no honest step meets.

use std::io;
use std::sync::{Arc, LazyLock};

use kiln_exec::{ControlGroup, Limit, Reached, Resources, Ulimit};
use kiln_report::Event;
use kiln_report::render::decimal_size;

use crate::job::Job;

/// As many processes as a step may have at once when nothing is said.
const PROCESSES: u64 = 8192;

/// As much memory as a step may have then: four fifths of what there is for us, so that a step that wants all of it ends
/// before others do.
static MEMORY: LazyLock<Option<u64>> = LazyLock::new(|| Some(kiln_exec::memory_budget()? / 5 * 4));

/// The limits of a container, by whatever way this machine has.
pub(crate) struct Limited {
    pub(crate) group: Option<Arc<ControlGroup>>,
    pub(crate) ulimits: Vec<Ulimit>,
}

impl Limited {
    /// Makes those of a step. What was asked for and cannot be is said once a build.
    pub(crate) fn step(job: &Job) -> Self {
        let limits = &job.limits;
        let (group, refused) = usual(&limits.resources);
        if let Some(why) = refused {
            limits.told.get_or_init(|| {
                let text = format!(
                    "warning: steps are not limited as asked: {why}; `kiln doctor` says what this machine allows"
                );
                job.reporter.report(Event::Note(text));
            });
        }
        let mut ulimits = limits.ulimits.clone();
        if group.is_none() && !ulimits.iter().any(|ulimit| ulimit.limit == Limit::NProc) {
            ulimits.push(Ulimit { limit: Limit::NProc, soft: Some(PROCESSES), hard: Some(PROCESSES) });
        }
        Self { group: group.map(Arc::new), ulimits }
    }
}

/// As much as there can be of what is asked for and of what is usual; and why it is not all that is asked for.
fn usual(asked: &Resources) -> (Option<ControlGroup>, Option<io::Error>) {
    let with = |asked: &Resources, memory: Option<u64>| {
        let processes = asked.processes.or(Some(PROCESSES));
        ControlGroup::new(&Resources { processes, memory: asked.memory.or(memory), ..asked.clone() })
    };
    let most = |asked: &Resources| with(asked, *MEMORY).or_else(|_| with(asked, None));
    let nothing = Resources::default();
    match most(asked) {
        Ok(group) => (Some(group), None),
        Err(_) if *asked == nothing => (None, None),
        Err(why) => {
            let mut kept = nothing;
            for part in PARTS {
                let mut more = kept.clone();
                part(&mut more, asked);
                kept = if most(&more).is_ok() { more } else { kept };
            }
            (most(&kept).ok(), Some(why))
        }
    }
}

/// Limits that stand or fall together, taken over from what is asked for: one that cannot be takes no others with it.
const PARTS: [fn(&mut Resources, &Resources); 6] = [
    |to, from| to.parent.clone_from(&from.parent),
    |to, from| (to.memory, to.memory_and_swap) = (from.memory, from.memory_and_swap),
    |to, from| to.cpu_shares = from.cpu_shares,
    |to, from| (to.cpu_period, to.cpu_quota) = (from.cpu_period, from.cpu_quota),
    |to, from| to.cpus.clone_from(&from.cpus),
    |to, from| to.mems.clone_from(&from.mems),
];

/// What is said of limits that were reached, and the way out.
pub(crate) fn reached(group: Option<&ControlGroup>) -> Option<(String, String)> {
    let mut reached = group?.reached();
    Some(match reached.pop()? {
        Reached::Memory(bytes) => (
            format!("a process was killed by the memory limit of {}", decimal_size(bytes)),
            "raise the limit with `--memory`, if the machine has more".to_owned(),
        ),
        Reached::MachineMemory => (
            "a process was killed because the machine was out of memory".to_owned(),
            "run fewer steps at once with `--jobs`, or give the machine more memory".to_owned(),
        ),
        Reached::Processes(count) => (
            format!("it had {count} processes, and no more are allowed"),
            "have the command start fewer at once".to_owned(),
        ),
    })
}
