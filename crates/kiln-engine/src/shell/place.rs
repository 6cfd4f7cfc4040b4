//! Which step of which build is meant, and whether its files are still here.

use kiln_graph::llb::Meta;
use kiln_report::{Failure, FailureKind};
use kiln_solver::{Fate, KeyParts, Setting};
use kiln_store::{Lease, Snapshot, Store};

use crate::explain::lookup;
use crate::failure::environment;
use crate::job::Result;
use crate::record::{BuildOutcome, BuildRecord, StepRecord};
use crate::wreck::{self, Scene};

/// A step whose files are here.
pub(super) enum Place<'b> {
    /// It failed.
    Failed { build: &'b BuildRecord, scene: Box<Scene>, lease: Lease },
    /// It ended well, or was found; `at` is its position.
    Done { build: &'b BuildRecord, at: usize, root: Snapshot, lease: Lease },
}

/// What is written in front of the step.
const BEFORE_STEP: char = ':';

/// Finds `BUILD`, `BUILD:STEP` or `:STEP`.
pub(super) fn locate<'b>(store: &Store, builds: &'b [BuildRecord], wanted: Option<&str>) -> Result<Place<'b>> {
    let Some(wanted) = wanted.filter(|wanted| !wanted.is_empty()) else { return last(store, builds) };
    let (build, step) = match wanted.strip_prefix(BEFORE_STEP) {
        Some(step) => (0, Some(step)),
        None => match (lookup::find(builds, Some(wanted)), wanted.split_once(BEFORE_STEP)) {
            (Ok(at), _) => (at, None),
            (Err(_), Some((build, step))) => (lookup::find(builds, Some(build))?, Some(step)),
            (Err(failure), None) => {
                return Err(failure.hint("a container of an image is what `kiln run IMAGE sh` opens"));
            }
        },
    };
    let build = builds.get(build).ok_or_else(nothing)?;
    match step {
        Some(step) => at_step(store, build, named(build, step)?),
        None => match build.steps.iter().position(|step| step.fate == Fate::Failed) {
            Some(at) => at_step(store, build, at),
            None => Err(no_failure(build)),
        },
    }
}

/// The last build that failed, of those whose step is kept.
fn last<'b>(store: &Store, builds: &'b [BuildRecord]) -> Result<Place<'b>> {
    for build in builds.iter().filter(|build| matches!(build.outcome, BuildOutcome::Failed { .. })) {
        if let Some(place) = failed(store, build)? {
            return Ok(place);
        }
    }
    Err(nothing())
}

fn failed<'b>(store: &Store, build: &'b BuildRecord) -> Result<Option<Place<'b>>> {
    let found = wreck::load(store, &build.target.project)?.filter(|(scene, _)| scene.build == build.id);
    Ok(found.map(|(scene, lease)| Place::Failed { build, scene: Box::new(scene), lease }))
}

fn at_step<'b>(store: &Store, build: &'b BuildRecord, at: usize) -> Result<Place<'b>> {
    let step = &build.steps[at];
    let why = match step.fate {
        Fate::Failed => match failed(store, build)? {
            Some(place) => return Ok(place),
            None => "its files are not kept",
        },
        Fate::Canceled => "it was stopped",
        Fate::NotReached => "the build did not come to it",
        Fate::Ran | Fate::Cached | Fate::NotNeeded => match result(store, step)? {
            Some((root, lease)) => return Ok(Place::Done { build, at, root, lease }),
            None => "its result is not kept",
        },
    };
    let message = format!("there is nothing to see of `{}` of build {}: {why}", step.name, build.short_id());
    Err(Failure::new(FailureKind::Build, message).hint("build it again"))
}

fn result(store: &Store, step: &StepRecord) -> Result<Option<(Snapshot, Lease)>> {
    let Some(key) = step.parts.as_ref().and_then(KeyParts::key) else { return Ok(None) };
    let lease = store.lease().map_err(environment)?;
    let value = store.records().get_result(&key.0, &lease).map_err(environment)?;
    let outputs: Option<Vec<Snapshot>> = value.and_then(|value| serde_json::from_slice(&value).ok());
    Ok(outputs.and_then(|outputs| outputs.into_iter().next()).map(|root| (root, lease)))
}

/// The position of the step that a text means: its whole name, what stands in its brackets, or the end of that, with or
/// without how many there are.
fn named(build: &BuildRecord, wanted: &str) -> Result<usize> {
    let steps = || build.steps.iter().enumerate().filter(|(_, step)| step.lines.is_some());
    let found: Vec<usize> = steps().filter(|(_, step)| is_called(&step.name, wanted)).map(|(at, _)| at).collect();
    let usage = |message: String| Failure::new(FailureKind::Usage, message);
    let list = |all: &mut dyn Iterator<Item = &StepRecord>| {
        let places: Vec<&str> = all.filter_map(|step| bracketed(&step.name)).collect();
        places.join("`, `")
    };
    match found.as_slice() {
        [only] => Ok(*only),
        [] => {
            let message = format!("build {} has no step `{wanted}`", build.short_id());
            Err(usage(message).hint(format!("name one of `{}`", list(&mut steps().map(|(_, step)| step)))))
        }
        several => {
            let message = format!("build {} has several steps `{wanted}`", build.short_id());
            let several = list(&mut several.iter().map(|at| &build.steps[*at]));
            Err(usage(message).hint(format!("name one of `{several}`")))
        }
    }
}

/// `build 2/4` of `[build 2/4] RUN make`.
fn bracketed(name: &str) -> Option<&str> {
    name.strip_prefix('[')?.split_once(']').map(|(place, _)| place)
}

fn is_called(name: &str, wanted: &str) -> bool {
    if name == wanted {
        return true;
    }
    let Some(place) = bracketed(name) else { return false };
    let wanted: Vec<&str> = wanted.trim_matches(['[', ']']).split_whitespace().collect();
    let words: Vec<&str> = place.split_whitespace().collect();
    let counted = |word: &str| word.split_once('/').map(|(number, _)| number.to_owned());
    let (Some((last, before)), Some((wanted_last, wanted_before))) = (words.split_last(), wanted.split_last()) else {
        return false;
    };
    before.ends_with(wanted_before) && (last == wanted_last || counted(last).as_deref() == Some(wanted_last))
}

/// What a step stands in: its own settings if it ran something, else those of the next one that did, or the one before.
pub(super) fn meta(steps: &[StepRecord], at: usize) -> Meta {
    let ran = |at: &usize| steps[*at].parts.as_ref().filter(|parts| !parts.env.is_empty());
    let reader = |at: &usize| (at + 1..steps.len()).find(|reader| steps[*reader].inputs.contains(at));
    let mut above = std::iter::successors(Some(at), reader);
    let mut below = std::iter::successors(Some(at), |at| steps[*at].inputs.iter().copied().find(|input| input < at));
    let parts = above.find(|at| ran(at).is_some()).or_else(|| below.find(|at| ran(at).is_some()));
    let Some(parts) = parts.and_then(|at| steps[at].parts.as_ref()) else { return super::bare() };
    let shown = |setting: &Setting| match setting {
        Setting::Shown(value) => Some(value.clone()),
        Setting::Hidden { .. } => None,
    };
    let option = |name: &str| parts.options.get(name).and_then(shown).unwrap_or_default();
    let pairs = parts.env.iter().chain(&parts.args);
    let mut env: Vec<String> = pairs.filter_map(|(name, value)| Some(format!("{name}={}", shown(value)?))).collect();
    if !env.iter().any(|pair| pair.starts_with("PATH=")) {
        env.push(crate::run::PATH.to_owned());
    }
    Meta { env, user: option("user"), cwd: option("working directory"), ..Meta::default() }
}

fn nothing() -> Failure {
    let failure = Failure::new(FailureKind::Build, "no failed step is kept");
    failure.hint("name a build and one of its steps, as in `kiln shell BUILD:2/4`; `kiln builds` lists builds")
}

fn no_failure(build: &BuildRecord) -> Failure {
    let id = build.short_id();
    let failure = Failure::new(FailureKind::Usage, format!("no step of build {id} failed"));
    failure.hint(format!("name the step, as in `kiln shell {id}:2/4`, or run an image with `kiln run`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_called_by_its_name_its_brackets_or_the_end_of_them() {
        let name = "[linux/amd64 build  2/14] RUN make";
        for wanted in [name, "linux/amd64 build 2/14", "[build 2/14]", "build 2", "2/14", "2"] {
            assert!(is_called(name, wanted), "{wanted}");
        }
        for wanted in ["", "4", "14", "2/1", "uild 2", "test 2", "build", "x linux/amd64 build 2", "RUN make"] {
            assert!(!is_called(name, wanted), "{wanted}");
        }
        assert!(is_called("[2/3] RUN x", "2") && !is_called("exporting", "2"));
    }

    #[test]
    fn what_ran_nothing_stands_where_its_reader_does_or_what_it_builds_upon() {
        let step = |inputs: &[usize], env: &[(&str, &str)]| {
            let env = env.iter().map(|(name, value)| ((*name).to_owned(), Setting::shown(value))).collect();
            let options = [("user".to_owned(), Setting::shown("app"))].into();
            let mut step = crate::explain::story::tests::step(1, kiln_solver::MissReason::FirstBuild);
            step.inputs = inputs.to_vec();
            step.parts = Some(KeyParts { env, options, ..KeyParts::default() });
            step
        };
        let copy = |input: usize| step(&[input], &[]);
        let steps = [step(&[], &[("A", "1")]), copy(0), step(&[1], &[("A", "2"), ("PATH", "/x")]), copy(2)];
        let env = |at| meta(&steps, at).env;
        assert_eq!(env(0), ["A=1", crate::run::PATH]);
        assert_eq!([env(1), env(2), env(3)], [(); 3].map(|()| vec!["A=2".to_owned(), "PATH=/x".to_owned()]));
        assert_eq!(meta(&steps, 1).user, "app");
        assert_eq!(meta(&[copy(0)], 0), super::super::bare());
    }
}
