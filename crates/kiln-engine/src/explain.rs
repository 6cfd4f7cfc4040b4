//! Tells the story of a build from its record: what ran, why, what that cost, and what would make it less.

mod advice;
pub(crate) mod lookup;
pub(crate) mod story;

pub use advice::Advice;
pub use story::{Cause, Step, Story, Summary};

use kiln_oci::Digest;
use kiln_report::{Failure, FailureKind};
use kiln_solver::KeyParts;
use kiln_store::Store;

use crate::cache;
use crate::job::Result;
use crate::record::{self, BuildOutcome, BuildRecord};

/// The story of a build, by id, offset or image; by default of the last. With `against` it tells what differs from that
/// build, and otherwise why steps ran.
pub(crate) fn explain(store: &Store, wanted: Option<&str>, against: Option<&str>) -> Result<Story> {
    let builds = record::list(store)?;
    let at = lookup::find(&builds, wanted)?;
    let Some(against) = against else { return Ok(story::story(&builds[at], story::previous(&builds, at))) };
    let other = lookup::find(&builds, Some(against))?;
    comparable(&builds[at], &builds[other])?;
    // Records have no names of files; the last sets of ingredients do.
    let with_files = |parts: &KeyParts| {
        let (mut parts, sets) = (parts.clone(), cache::parts(store, &parts.identity));
        for input in &mut parts.inputs {
            let mut listed = sets.iter().flat_map(|set| &set.inputs).filter(|listed| listed.part == input.part);
            input.files =
                listed.find(|listed| !listed.files.is_empty()).map(|listed| listed.files.clone()).unwrap_or_default();
        }
        parts
    };
    Ok(story::difference(&builds[at], &builds[other], &with_files))
}

/// The newest build that made an image, known by its id, or else by that of its index; `name` is what people call it.
pub(crate) fn made_by(store: &Store, [id, whole]: [&Digest; 2], name: &str) -> Result<BuildRecord> {
    let builds = record::list(store)?;
    let by = |id: &Digest| {
        let made = |build: &&BuildRecord| match &build.outcome {
            BuildOutcome::Done { image, images, .. } => image.as_ref() == Some(id) || images.contains(id),
            _ => false,
        };
        builds.iter().find(made).cloned()
    };
    by(id).or_else(|| by(whole)).ok_or_else(|| {
        let failure = Failure::new(FailureKind::Usage, format!("no build is recorded that made `{name}`"));
        failure.hint("name the directory it was built from instead, with all that it was built with")
    })
}

/// Fails where steps of one build are none of the other, or there are none.
fn comparable(build: &BuildRecord, other: &BuildRecord) -> Result<()> {
    for build in [build, other] {
        if build.steps.is_empty() {
            let message = format!("build {} came to no step: there is nothing to compare", build.short_id());
            return Err(Failure::new(FailureKind::Usage, message).hint("`kiln builds` lists the others"));
        }
    }
    if build.target.project == other.target.project {
        return Ok(());
    }
    let place = match other.target.context.as_str() {
        "" => other.target.dockerfile.clone(),
        context => format!("{} of {context}", other.target.dockerfile),
    };
    let message = format!("build {} is of another Dockerfile ({place})", other.short_id());
    Err(Failure::new(FailureKind::Usage, message).hint("name a build of the same one; `kiln builds` lists them"))
}

#[cfg(test)]
mod tests {
    use kiln_solver::MissReason;

    use super::*;
    use story::tests::{build, step};

    #[test]
    fn builds_of_another_dockerfile_and_those_without_steps_are_not_compared() {
        let one = build("0123456789abcdef", &[step(2, MissReason::FirstBuild)]);
        let mut other = BuildRecord { id: "ff".into(), ..one.clone() };
        assert!(comparable(&one, &other).is_ok());
        (other.target.project, other.target.context) = ("other".into(), "/other".into());
        let failure = comparable(&one, &other).unwrap_err();
        assert_eq!(failure.to_string(), "build ff is of another Dockerfile (Dockerfile of /other)");
        assert_eq!(failure.kind, FailureKind::Usage);
        let empty = BuildRecord { steps: vec![], ..one.clone() };
        let failure = comparable(&other, &empty).unwrap_err().to_string();
        assert_eq!(failure, "build 0123456789ab came to no step: there is nothing to compare");
    }
}
