//! Whether a build gives the same image again; if not, which files differ, which steps make them, and most likely why.

mod again;
mod cause;

use std::io::Read as _;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use kiln_fs::layer::{self, Aspect, Difference, Times};
use kiln_oci::{Digest, ImageConfig};
use kiln_report::{Event, Failure, FailureKind, Reporter};
use kiln_store::{LayerId, Store};
use kiln_sys::root::Root;
use serde::Serialize;

use crate::blocking::blocking;
use crate::diff::{self, FieldChange, FileDifference, HistoryChange};
use crate::engine::Engine;
use crate::failure::{Context as _, environment};
use crate::job::Result;
use crate::request::{BuildRequest, Context};
use crate::scratch::open_dir;
use crate::session::Session;
pub(crate) use again::Witness;
use again::{Again, StepLayer};
pub use cause::Reason;

/// So much of a file is looked at for the cause.
const LOOKED_AT: u64 = 256 << 10;

/// Whether a build gives the same image again.
#[derive(Debug, Clone, Serialize)]
pub struct Verified {
    /// Whether both images are the same, to the byte.
    pub is_reproducible: bool,
    /// The digests of both configs.
    pub images: [Digest; 2],
    /// Fields of the config that differ.
    pub config: Vec<FieldChange>,
    /// Steps that differ, or were done at another time.
    pub history: Vec<HistoryChange>,
    /// Files that differ, those of the first step first.
    pub findings: Vec<Finding>,
}

/// A file that came out differently.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// Which, and in what.
    #[serde(flatten)]
    pub file: FileDifference,
    /// The step that made it.
    pub step: String,
    /// First and last line of its instruction, from 1.
    pub lines: Option<(usize, usize)>,
    /// The likely cause, and the way out.
    #[serde(flatten)]
    pub reason: Reason,
}

/// One of two images that should be one.
struct Twin<'a> {
    config: &'a ImageConfig,
    id: Digest,
    layers: &'a [LayerId],
}

/// Builds twice, without what was kept, and compares.
pub(crate) async fn verify(
    engine: &Engine,
    request: &BuildRequest,
    session: Arc<dyn Session>,
    reporter: Arc<dyn Reporter>,
) -> Result<Verified> {
    if matches!(request.context, Context::Stdin) {
        let failure = Failure::new(FailureKind::Usage, "a context from standard input cannot be read twice");
        return Err(failure.hint("name a directory or a URL"));
    }
    let first = again::build(engine, request, (&session, &reporter)).await?;
    // What is made of whole seconds must not be the same by chance.
    let until = Duration::from_secs(1).saturating_sub(since_second());
    tokio::time::sleep(until).await;
    let second = again::build(engine, request, (&session, &reporter)).await?;
    let store = engine.store()?;
    blocking(move || {
        let upstream = upstream(&store, &first, &second)?;
        let twins = [first.twin(), second.twin()];
        compare(&store, twins, (&second, &upstream))
    })
    .await
}

/// Builds an image again from the record of the build that made it, and compares. `given` adds what no record holds.
pub(crate) async fn verify_image(
    engine: &Engine,
    name: &str,
    given: &BuildRequest,
    session: Arc<dyn Session>,
    reporter: Arc<dyn Reporter>,
) -> Result<Verified> {
    let store = engine.store()?;
    let lease = store.lease().map_err(environment)?;
    let image = diff::open(engine, (&store, &lease), (name, None), &reporter).await?;
    let record = crate::explain::made_by(&store, &image.config.digest(), name)
        .map_err(|failure| if is_index(&store, name) { several_platforms(name) } else { failure })?;
    let recipe = record.recipe.as_ref().ok_or_else(|| {
        let message = format!("the record of build `{}` does not say how to build `{name}` again", record.short_id());
        Failure::new(FailureKind::Build, message).hint("name its context instead, with all that it was built with")
    })?;
    let request = recipe.request(&record, given)?;
    let text = format!("building {name} again as build {} did", record.short_id());
    reporter.report(Event::Note(text));
    let made = again::build(engine, &request, (&session, &reporter)).await?;
    blocking(move || {
        let _held = lease;
        let first = Twin { config: image.config.value(), id: image.config.digest(), layers: image.snapshot.layers() };
        compare(&store, [first, made.twin()], (&made, &[]))
    })
    .await
}

fn is_index(store: &Store, name: &str) -> bool {
    store.images().find(name).is_ok_and(|image| image.record.is_index())
}

fn several_platforms(name: &str) -> Failure {
    let message = format!("image `{name}` is of several platforms: such images are not verified by name yet");
    let hint = "verify what it was built from, with all that it was built with, one platform at a time: \
                `kiln verify --platform PLATFORM CONTEXT`";
    Failure::new(FailureKind::Usage, message).hint(hint)
}

fn since_second() -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Duration::from_nanos(now.subsec_nanos().into())
}

/// A file that differs between two runs of a step whose files are not in the image themselves.
struct Upstream {
    path: Vec<u8>,
    step: StepLayer,
}

/// What differs in steps of other stages: copies of it differ because of them.
fn upstream(store: &Store, first: &Again, second: &Again) -> Result<Vec<Upstream>> {
    let mut found = Vec::new();
    if first.id() == second.id() {
        return Ok(found);
    }
    for (one, other) in first.steps.iter().filter(|step| !step.is_in_image).filter_map(|one| {
        let other = second.steps.iter().find(|other| other.vertex == one.vertex)?;
        Some((one, other))
    }) {
        let mut hear = |difference: Difference| {
            found.push(Upstream { path: difference.path, step: one.clone() });
            ControlFlow::Continue(())
        };
        differences(store, [&one.layer, &other.layer], first.times, &mut hear)?;
    }
    Ok(found)
}

fn compare(store: &Store, [one, other]: [Twin<'_>; 2], (made, upstream): (&Again, &[Upstream])) -> Result<Verified> {
    let is_reproducible = one.id == other.id;
    let mut verified = Verified {
        is_reproducible,
        images: [one.id.clone(), other.id.clone()],
        config: diff::fields(one.config, other.config, true),
        history: diff::history(&one.config.history, &other.config.history, true),
        findings: Vec::new(),
    };
    if is_reproducible {
        return Ok(verified);
    }
    for (place, (layer, twin)) in
        one.layers.iter().zip(other.layers).enumerate().filter(|(_, (one, other))| one != other)
    {
        let step = made.step_of(place);
        let roots = [root(store, layer)?, root(store, twin)?];
        let mut hear = |difference: Difference| {
            verified.findings.push(finding(&roots, &difference, step, upstream));
            ControlFlow::Continue(())
        };
        differences(store, [layer, twin], made.times, &mut hear)?;
    }
    Ok(verified)
}

/// Tells what differs between two layers, but for times that are rewritten anyway.
fn differences(
    store: &Store,
    layers: [&LayerId; 2],
    times: Times,
    hear: &mut dyn FnMut(Difference) -> ControlFlow<()>,
) -> Result<()> {
    let roots = [root(store, layers[0])?, root(store, layers[1])?];
    let mut untimed = |mut difference: Difference| {
        if let [Some(one), Some(other)] = &difference.sides {
            let is_same = times.of(one.mtime) == times.of(other.mtime);
            difference.aspects.retain(|aspect| *aspect != Aspect::Mtime || !is_same);
            if difference.aspects.is_empty() {
                return ControlFlow::Continue(());
            }
        }
        hear(difference)
    };
    layer::compare([&roots[0], &roots[1]], &[], &mut untimed).or_environment(|| "cannot compare the images".into())
}

fn root(store: &Store, layer: &LayerId) -> Result<Root> {
    open_dir(&store.layer_dir(layer))
}

fn finding(roots: &[Root; 2], difference: &Difference, step: Option<&StepLayer>, upstream: &[Upstream]) -> Finding {
    let path = String::from_utf8_lossy(&difference.path).into_owned();
    let are_files = difference.sides.iter().all(|side| side.is_some_and(|file| file.is_file()));
    let contents = are_files.then(|| [beginning(&roots[0], &path), beginning(&roots[1], &path)]);
    let contents = contents.as_ref().map(|[one, other]| [one.as_slice(), other.as_slice()]);
    // A copy differs because what was copied does.
    let name = |path: &[u8]| path.rsplit(|byte| *byte == b'/').next().map(<[u8]>::to_vec);
    let is_copy = step.is_some_and(|step| step.is_copy);
    let origin = upstream.iter().rev().find(|file| is_copy && name(&file.path) == name(&difference.path));
    let step = origin.map(|file| &file.step).or(step);
    Finding {
        file: FileDifference::of(difference),
        step: step.map_or_else(|| "a step that is not known".to_owned(), |step| step.name.clone()),
        lines: step.and_then(|step| step.lines),
        reason: cause::reason_of(&path, &difference.aspects, contents),
    }
}

/// The beginning of a file; nothing when it cannot be read.
fn beginning(root: &Root, path: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Ok(file) = root.open_file(path) {
        let _ = file.take(LOOKED_AT).read_to_end(&mut bytes);
    }
    bytes
}
