//! The story of a build: causes, and what followed them.

use kiln_solver::{Fate, KeyParts, MissReason, explain};
use serde::Serialize;

use super::advice::{Advice, advise};
use crate::record::{BuildOutcome, BuildRecord, BuildTarget, StepRecord};
use crate::step::place_of;

/// What became of a build, and why.
#[derive(Debug, Clone, Serialize)]
pub struct Story {
    /// The build.
    pub build: Summary,
    /// The build of the same target before it, if that is recorded.
    pub previous: Option<Summary>,
    /// The build it is compared with, when one was asked for. Then causes are what differs from it.
    pub compared_with: Option<Summary>,
    /// How many steps ran, as far as they can be cached.
    pub ran: usize,
    /// How many steps were cached, or not needed because all that reads them was.
    pub cached: usize,
    /// How long the steps ran that ran, all of them added.
    pub milliseconds: u64,
    /// Why steps ran, the most expensive first.
    pub causes: Vec<Cause>,
    /// The steps that were cached or not needed, in their order.
    pub found: Vec<Step>,
    /// The steps that the build came to its end before.
    pub not_reached: Vec<Step>,
    /// What would make it less.
    pub advice: Vec<Advice>,
}

/// A build in short.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Its name.
    pub id: String,
    /// When it began, in milliseconds since 1970.
    pub started: u64,
    /// How long it took.
    pub milliseconds: u64,
    /// What was built.
    pub target: BuildTarget,
    /// How it ended.
    pub outcome: BuildOutcome,
}

/// Something that made steps run.
#[derive(Debug, Clone, Serialize)]
pub struct Cause {
    /// What.
    pub reason: MissReason,
    /// The same in words.
    pub text: String,
    /// The steps it is true of.
    pub steps: Vec<Step>,
    /// The steps that ran only because those did.
    pub followers: Vec<Step>,
    /// How long all of them ran.
    pub milliseconds: u64,
}

/// A step of the story.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What people call it.
    pub name: String,
    /// What became of it.
    pub fate: Fate,
    /// First and last line of its instruction, from 1.
    pub lines: Option<(usize, usize)>,
    /// How long it ran.
    pub milliseconds: u64,
    /// How often it was tried, if more than once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// Whether it ran and gave what it gave before.
    pub same_result: bool,
}

/// Why the steps of a build ran.
pub(super) fn story(build: &BuildRecord, previous: Option<&BuildRecord>) -> Story {
    let reasons: Vec<Option<MissReason>> = build.steps.iter().map(|step| step.reason.clone()).collect();
    let causes = causes(&build.steps, &reasons);
    let advice = advise(build, &reasons);
    Story { previous: previous.map(summary), advice, ..tell(build, causes) }
}

/// What differs from another build.
pub(super) fn difference(
    build: &BuildRecord,
    other: &BuildRecord,
    with_files: &dyn Fn(&KeyParts) -> KeyParts,
) -> Story {
    let reasons: Vec<Option<MissReason>> =
        build.steps.iter().map(|step| differs(step, &build.steps, &other.steps, with_files)).collect();
    let causes = causes(&build.steps, &reasons);
    Story { compared_with: Some(summary(other)), ..tell(build, causes) }
}

/// The build of the same target before the one at a position.
pub(super) fn previous(builds: &[BuildRecord], at: usize) -> Option<&BuildRecord> {
    builds[at + 1..].iter().find(|build| build.target == builds[at].target)
}

fn tell(build: &BuildRecord, causes: Vec<Cause>) -> Story {
    let kept = || build.steps.iter().filter(|step| step.parts.is_some());
    let is_found = |step: &&StepRecord| matches!(step.fate, Fate::Cached | Fate::NotNeeded);
    // What an instruction says, whether or not its key could be made.
    let is_unreached = |step: &&StepRecord| step.fate == Fate::NotReached && step.lines.is_some();
    let ran = || kept().filter(|step| matches!(step.fate, Fate::Ran | Fate::Failed | Fate::Canceled));
    Story {
        build: summary(build),
        previous: None,
        compared_with: None,
        ran: ran().count(),
        cached: kept().filter(is_found).count(),
        milliseconds: ran().map(milliseconds).sum(),
        causes,
        found: kept().filter(is_found).map(line).collect(),
        not_reached: build.steps.iter().filter(is_unreached).map(line).collect(),
        advice: Vec::new(),
    }
}

/// Folds steps that have reasons under their causes.
fn causes(steps: &[StepRecord], reasons: &[Option<MissReason>]) -> Vec<Cause> {
    let mut causes: Vec<Cause> = Vec::new();
    let mut cause_of: Vec<Option<usize>> = vec![None; steps.len()];
    for (at, step) in steps.iter().enumerate() {
        let Some(reason) = &reasons[at] else { continue };
        let followed = followed(steps, step, reason).and_then(|input| cause_of[input]);
        let shared = || causes.iter().position(|cause| is_shared(reason) && cause.reason == *reason);
        let cause = followed.or_else(shared).unwrap_or_else(|| {
            let text = reason.to_string();
            causes.push(Cause { reason: reason.clone(), text, steps: vec![], followers: vec![], milliseconds: 0 });
            causes.len() - 1
        });
        cause_of[at] = Some(cause);
        let cause = &mut causes[cause];
        if followed.is_some() { &mut cause.followers } else { &mut cause.steps }.push(line(step));
        cause.milliseconds += milliseconds(step);
    }
    // Stable, so that of equals the first in the Dockerfile comes first.
    causes.sort_by_key(|cause| std::cmp::Reverse(cause.milliseconds));
    causes
}

/// The input that a step followed, if it did.
pub(super) fn followed(steps: &[StepRecord], step: &StepRecord, reason: &MissReason) -> Option<usize> {
    let name = match reason {
        MissReason::InputChanged { input } => input,
        MissReason::FilesChanged { input, files, .. } if files.is_empty() => input,
        _ => return None,
    };
    step.inputs.iter().copied().find(|input| steps.get(*input).is_some_and(|input| input.name == *name))
}

/// Whether steps that have this reason have it together. A command is each step's own.
fn is_shared(reason: &MissReason) -> bool {
    use MissReason as M;
    let is_shared = |reason: &M| {
        matches!(
            reason,
            M::FirstBuild
                | M::ArgChanged(_)
                | M::EnvChanged(_)
                | M::BaseMoved { .. }
                | M::PlatformChanged
                | M::NoCacheAsked
                | M::ResultPruned
                | M::ResultLost
        )
    };
    reason.each().iter().all(is_shared)
}

/// How a step differs from those of the same instruction, or else from the one whose place it has taken; of those the one
/// that it differs least from. Nothing if it does not.
fn differs(
    step: &StepRecord,
    steps: &[StepRecord],
    others: &[StepRecord],
    with_files: &dyn Fn(&KeyParts) -> KeyParts,
) -> Option<MissReason> {
    let parts = step.parts.as_ref()?;
    // Whoever did not come so far cannot be compared with.
    let is_open = |other: &StepRecord| other.parts.is_none() && other.fate == Fate::NotReached;
    if others.iter().any(|other| other.name == step.name && is_open(other)) {
        return None;
    }
    let mut like: Vec<&KeyParts> = others.iter().filter(|other| is_same(step, other)).filter_map(parts_of).collect();
    let mut unknown = MissReason::FirstBuild;
    if like.is_empty() {
        let in_place = |other: &&StepRecord| place_of(&other.name) == place_of(&step.name) && other.parts.is_some();
        let (moved, gone): (Vec<_>, Vec<_>) =
            others.iter().filter(in_place).partition(|other| steps.iter().any(|step| is_same(step, other)));
        like = gone.into_iter().filter_map(parts_of).collect();
        if !moved.is_empty() {
            unknown = MissReason::NewInstruction;
        }
    }
    if like.iter().any(|other| other.key() == parts.key()) {
        return None;
    }
    let like: Vec<KeyParts> = like.into_iter().map(with_files).collect();
    let parts = with_files(parts);
    Some(kiln_solver::nearest(&like, &parts).map_or(unknown, |other| explain(other, &parts)))
}

fn parts_of(step: &StepRecord) -> Option<&KeyParts> {
    step.parts.as_ref()
}

/// Whether two steps are of the same instruction in the same stage.
fn is_same(one: &StepRecord, other: &StepRecord) -> bool {
    let command = |step: &StepRecord| parts_of(step).and_then(|parts| parts.command.clone());
    place_of(&one.name).0 == place_of(&other.name).0 && command(one).is_some() && command(one) == command(other)
}

fn line(step: &StepRecord) -> Step {
    Step {
        name: step.name.clone(),
        fate: step.fate,
        lines: step.lines,
        milliseconds: milliseconds(step),
        attempts: step.attempts,
        same_result: step.is_same,
    }
}

fn milliseconds(step: &StepRecord) -> u64 {
    match step.fate {
        Fate::Cached | Fate::NotNeeded | Fate::NotReached => 0,
        Fate::Ran | Fate::Failed | Fate::Canceled => u64::try_from(step.time.as_millis()).unwrap_or(u64::MAX),
    }
}

fn summary(build: &BuildRecord) -> Summary {
    Summary {
        id: build.id.clone(),
        started: build.started,
        milliseconds: u64::try_from(build.time.as_millis()).unwrap_or(u64::MAX),
        target: build.target.clone(),
        outcome: build.outcome.clone(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use kiln_oci::Digest;
    use kiln_solver::{Became, Change, FileChange, InputPart, Part, Setting};

    use super::*;
    use crate::record::BuildOptions;

    /// A record of these steps, each reading the one before it if it reads any.
    pub(in super::super) fn build(id: &str, steps: &[StepRecord]) -> BuildRecord {
        let mut steps = steps.to_vec();
        for at in 0..steps.len() {
            // What a step follows is known by name.
            let named = steps[at].inputs.first().map(|input| steps[*input].name.clone());
            if let (Some(name), Some(MissReason::InputChanged { input })) = (named, &mut steps[at].reason) {
                *input = name;
            }
        }
        BuildRecord {
            id: id.to_owned(),
            started: 0,
            time: Duration::from_secs(1),
            target: BuildTarget {
                project: "app".into(),
                context: "/app".into(),
                dockerfile: "Dockerfile".into(),
                stage: None,
                platform: "linux/amd64".into(),
            },
            options: BuildOptions::default(),
            outcome: BuildOutcome::Done { image: None, images: vec![], names: vec![] },
            steps,
            dockerfile: String::new(),
            recipe: None,
        }
    }

    /// A step of a line that ran for 100 ms.
    pub(crate) fn step(line: usize, reason: MissReason) -> StepRecord {
        StepRecord {
            name: format!("[build {line}/9] RUN {line}"),
            inputs: vec![],
            fate: Fate::Ran,
            reason: Some(reason),
            is_same: false,
            time: Duration::from_millis(100),
            attempts: None,
            lines: Some((line, line)),
            parts: Some(KeyParts { digest: Some(Digest::sha256(line.to_string())), ..KeyParts::default() }),
        }
    }

    /// A step of a line that follows the one at a position.
    pub(in super::super) fn follows(line: usize, input: usize) -> StepRecord {
        StepRecord { inputs: vec![input], ..step(line, MissReason::InputChanged { input: String::new() }) }
    }

    pub(in super::super) fn arg(name: &str) -> MissReason {
        let setting = |value| Some(Setting::shown(value));
        MissReason::ArgChanged(Change { name: name.to_owned(), old: setting("1"), new: setting("2") })
    }

    pub(in super::super) fn files(paths: &[&str]) -> MissReason {
        let changed = |path: &&str| FileChange { path: (*path).to_owned(), became: Became::Changed };
        let input = "[internal] load build context".to_owned();
        MissReason::FilesChanged { input, files: paths.iter().map(changed).collect(), count: paths.len() }
    }

    fn shown(story: &Story) -> Vec<String> {
        let lines =
            |steps: &[Step]| steps.iter().map(|step| step.lines.unwrap().0.to_string()).collect::<Vec<_>>().join(" ");
        let cause = |cause: &Cause| {
            let (steps, followers) = (lines(&cause.steps), lines(&cause.followers));
            format!("{}: {steps}; then {followers}; {} ms", cause.text, cause.milliseconds)
        };
        story.causes.iter().map(cause).collect()
    }

    #[test]
    fn followers_are_folded_under_their_cause_and_the_expensive_cause_comes_first() {
        let mut copy = step(7, MissReason::FilesChanged { input: "[build 4/9] RUN 4".into(), files: vec![], count: 0 });
        copy.inputs = vec![2, 3];
        let mut cached = step(9, MissReason::FirstBuild);
        (cached.fate, cached.reason) = (Fate::Cached, None);
        let steps = [
            step(2, arg("A")),
            step(3, MissReason::CommandChanged),
            follows(4, 1),
            follows(5, 2),
            copy,
            step(8, arg("A")),
            cached,
        ];
        let story = story(&build("x", &steps), None);
        assert_eq!(shown(&story), ["command changed: 3; then 4 5 7; 400 ms", "ARG A 1 → 2: 2 8; then ; 200 ms",]);
        assert_eq!((story.ran, story.cached, story.milliseconds, story.found.len()), (6, 1, 600, 1));
    }

    #[test]
    fn each_command_is_a_cause_of_its_own_and_a_first_build_is_one() {
        let first = || MissReason::FirstBuild;
        let steps = [
            step(1, first()),
            step(2, first()),
            step(3, MissReason::CommandChanged),
            step(4, MissReason::CommandChanged),
        ];
        let causes = story(&build("x", &steps), None).causes.len();
        assert_eq!(causes, 3);
    }

    #[test]
    fn a_difference_is_told_whether_or_not_steps_ran() {
        let with_arg = |line, value: &str| {
            let mut step = step(line, MissReason::FirstBuild);
            let parts = step.parts.as_mut().unwrap();
            parts.args = [("A".to_owned(), Setting::shown(value))].into();
            parts.digest = Some(Digest::sha256(format!("{line} {value}")));
            (step.fate, step.reason) = (Fate::Cached, None);
            step
        };
        let read = |mut step: StepRecord, input: usize, name: &str, content: &str| {
            let part = Part::Content(Digest::sha256(content));
            step.parts.as_mut().unwrap().inputs =
                vec![InputPart { name: name.to_owned(), part, files: Default::default() }];
            step.inputs = vec![input];
            step
        };
        let steps = |value: &str, content: &str| {
            let run = with_arg(2, value);
            let copy = read(step(3, MissReason::FirstBuild), 0, "[build 2/9] RUN 2", content);
            [run, copy, step(4, MissReason::FirstBuild)]
        };
        let (one, two) = (build("1", &steps("1", "x")), build("2", &steps("2", "y")));
        let told = difference(&two, &one, &KeyParts::clone);
        assert_eq!(shown(&told), ["ARG A 1 → 2: 2; then 3; 100 ms"]);
        assert!(told.compared_with.is_some() && told.advice.is_empty());
        assert!(shown(&difference(&two, &two, &KeyParts::clone)).is_empty());
        let listed = |parts: &KeyParts| {
            let mut parts = parts.clone();
            for input in &mut parts.inputs {
                let Part::Content(digest) = &input.part else { continue };
                input.files = [("f".to_owned(), u64::from(*digest == Digest::sha256("x")))].into();
            }
            parts
        };
        assert_eq!(shown(&difference(&two, &one, &listed))[0], "f changed: 3; then ; 100 ms");
    }

    #[test]
    fn an_instruction_put_between_others_is_new_and_they_are_compared_with_themselves() {
        let line = |commands: &[&str]| {
            let mut above = "base".to_owned();
            let step = |(at, command): (usize, &&str)| {
                let mut step = step(at + 1, MissReason::FirstBuild);
                let parts = step.parts.as_mut().unwrap();
                parts.command = Some((*command).to_owned());
                parts.digest = Some(Digest::sha256(command));
                let part = Part::Content(Digest::sha256(above.as_str()));
                let name = format!("[build {at}/9] RUN {at}");
                parts.inputs = vec![InputPart { name, part, files: Default::default() }];
                step.inputs = at.checked_sub(1).into_iter().collect();
                above = format!("{above} {command}");
                step
            };
            commands.iter().enumerate().map(step).collect::<Vec<_>>()
        };
        let told = |new: &[&str], old: &[&str]| {
            shown(&difference(&build("2", &line(new)), &build("1", &line(old)), &KeyParts::clone))
        };
        let old = ["a", "b", "c"];
        assert_eq!(told(&["a", "new", "b", "c"], &old), ["first build (new instruction): 2; then 3 4; 300 ms"]);
        assert_eq!(told(&["a", "other", "c"], &old), ["command changed: 2; then 3; 200 ms"]);
        assert_eq!(told(&["a", "b", "c", "d"], &old), ["first build: 4; then ; 100 ms"]);
        assert!(told(&old, &old).is_empty());
    }

    #[test]
    fn what_another_build_did_not_come_to_is_no_difference() {
        let (mut open, mut done) = (step(3, MissReason::FirstBuild), step(2, MissReason::FirstBuild));
        (open.fate, open.parts) = (Fate::NotReached, None);
        let new = [done.clone(), step(3, MissReason::FirstBuild)];
        assert!(shown(&difference(&build("2", &new), &build("1", &[done.clone(), open]), &KeyParts::clone)).is_empty());
        done.parts = None;
        let told = difference(&build("2", &new), &build("1", &[done]), &KeyParts::clone);
        assert_eq!(shown(&told), ["first build: 2 3; then ; 200 ms"]);
    }

    #[test]
    fn steps_that_were_not_reached_are_told() {
        let mut open = step(3, MissReason::FirstBuild);
        (open.fate, open.parts, open.reason) = (Fate::NotReached, None, None);
        let mut canceled = step(2, MissReason::FirstBuild);
        canceled.fate = Fate::Canceled;
        let told = story(&build("1", &[canceled, open]), None);
        assert_eq!((told.ran, told.not_reached.len(), told.not_reached[0].name.as_str()), (1, 1, "[build 3/9] RUN 3"));
        assert_eq!(told.causes[0].steps[0].fate, Fate::Canceled);
    }

    #[test]
    fn the_previous_build_is_of_the_same_target() {
        let mut builds = vec![build("3", &[]), build("2", &[]), build("1", &[])];
        builds[1].target.stage = Some("test".into());
        assert_eq!(previous(&builds, 0).map(|build| build.id.as_str()), Some("1"));
        assert!(previous(&builds, 1).is_none());
    }
}
