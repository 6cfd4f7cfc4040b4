//! Tells the story of a build from its record: what ran, why, what that cost, and what would make it less.

mod advice;
mod lookup;
mod story;

pub use advice::Advice;
pub use story::{Cause, Step, Story, Summary};

use kiln_solver::KeyParts;
use kiln_store::Store;

use crate::cache;
use crate::job::Result;
use crate::record;

/// The story of a build, by id, offset or image; by default of the last. With `against` it tells what differs from that
/// build, and otherwise why steps ran.
pub(crate) fn explain(store: &Store, wanted: Option<&str>, against: Option<&str>) -> Result<Story> {
    let builds = record::list(store)?;
    let at = lookup::find(&builds, wanted)?;
    let Some(against) = against else { return Ok(story::story(&builds[at], story::previous(&builds, at))) };
    let other = lookup::find(&builds, Some(against))?;
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
