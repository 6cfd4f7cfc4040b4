//! Whether a build gives the same image again; if not, which files differ, which steps make them, and most likely why.

mod again;
mod cause;
mod since;

use std::io::Read as _;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use kiln_fs::layer::{self, Aspect, Difference, Times};
use kiln_oci::{Digest, ImageConfig, Platform};
use kiln_report::{Event, Failure, FailureKind, Reporter};
use kiln_store::{LayerId, Store};
use kiln_sys::root::Root;
use serde::Serialize;

use crate::blocking::blocking;
use crate::diff::{self, Candidate, FieldChange, FileDifference, Found, HistoryChange, LayerChange};
use crate::engine::Engine;
use crate::failure::{Context as _, environment};
use crate::job::Result;
use crate::record::BuildRecord;
use crate::request::{BuildRequest, Context};
use crate::scratch::open_dir;
use crate::session::Session;
pub(crate) use again::Witness;
use again::{Again, StepLayer};
pub use cause::Reason;

/// So much of a file is looked at for the cause.
const LOOKED_AT: u64 = 256 << 10;

/// Whether a build gives the same images again.
#[derive(Debug, Clone, Serialize)]
pub struct Verified {
    /// Whether all images are the same, to the byte.
    pub is_reproducible: bool,
    /// The images, one for each platform.
    pub platforms: Vec<VerifiedImage>,
    /// What is another than it was when the images were built.
    pub notes: Vec<String>,
}

/// Whether an image is the same when it is built again.
#[derive(Debug, Clone, Serialize)]
pub struct VerifiedImage {
    /// What it is for, as `linux/amd64`.
    pub platform: String,
    /// Whether both images are the same, to the byte.
    pub is_reproducible: bool,
    /// The digests of both configs.
    pub images: [Digest; 2],
    /// Fields of the config that differ.
    pub config: Vec<FieldChange>,
    /// Steps that differ, or were done at another time.
    pub history: Vec<HistoryChange>,
    /// Layers that are not in both.
    pub layers: Vec<LayerChange>,
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
        let verify = |(first, second): (&Again, &Again)| {
            let upstream = upstream(&store, first, second)?;
            compare(&store, [first.twin(), second.twin()], (second, &upstream))
        };
        Ok(Verified::of(first.iter().zip(&second).map(verify).collect::<Result<_>>()?))
    })
    .await
}

/// Builds the images that a name stands for again from the records of the builds that made them, and compares: those for
/// the platforms that `given` names, or all. It also adds what no record holds.
pub(crate) async fn verify_image(
    engine: &Engine,
    name: &str,
    given: &BuildRequest,
    session: Arc<dyn Session>,
    reporter: Arc<dyn Reporter>,
) -> Result<Verified> {
    let store = engine.store()?;
    let lease = store.lease().map_err(environment)?;
    let at = (&store, &lease);
    let Found { id, images, .. } = diff::find(engine, at, (name, &given.platforms)).await?;
    let mut builds: Vec<(BuildRecord, Vec<Candidate>)> = Vec::new();
    for image in images {
        let record = crate::explain::made_by(&store, [&image.config.digest(), &id], name)?;
        match builds.iter_mut().find(|(other, _)| other.id == record.id) {
            Some((_, images)) => images.push(image),
            None => builds.push((record, vec![image])),
        }
    }
    let (mut verified, mut notes) = (Vec::new(), Vec::new());
    for (record, images) in builds {
        let request = again_as(&record, (name, &images), given)?;
        reporter.report(Event::Note(format!("building {name} again as build {} did", record.short_id())));
        let made = again::build(engine, &request, (&session, &reporter)).await?;
        notes.extend(made.first().map(|made| since::since(&record, made)).unwrap_or_default());
        for (image, made) in images.into_iter().zip(made) {
            let image = image.open(engine, at, &reporter).await?;
            let store = store.clone();
            let compared = move || {
                let first =
                    Twin { config: image.config.value(), id: image.config.digest(), layers: image.snapshot.layers() };
                compare(&store, [first, made.twin()], (&made, &[]))
            };
            verified.push(blocking(compared).await?);
        }
    }
    Ok(Verified { notes, ..Verified::of(verified) })
}

/// The request that makes these images again.
fn again_as(record: &BuildRecord, (name, images): (&str, &[Candidate]), given: &BuildRequest) -> Result<BuildRequest> {
    let recipe = record.recipe.as_ref().ok_or_else(|| {
        let message = format!("the record of build `{}` does not say how to build `{name}` again", record.short_id());
        Failure::new(FailureKind::Build, message).hint("name its context instead, with all that it was built with")
    })?;
    let platforms: Vec<Platform> = images.iter().map(|image| image.platform.clone()).collect();
    recipe.request((record, &platforms), given)
}

impl Verified {
    fn of(platforms: Vec<VerifiedImage>) -> Self {
        let is_reproducible = platforms.iter().all(|image| image.is_reproducible);
        Self { is_reproducible, platforms, notes: Vec::new() }
    }
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

fn compare(
    store: &Store,
    [one, other]: [Twin<'_>; 2],
    (made, upstream): (&Again, &[Upstream]),
) -> Result<VerifiedImage> {
    let is_reproducible = one.id == other.id;
    let mut verified = VerifiedImage {
        platform: made.platform().to_string(),
        is_reproducible,
        images: [one.id.clone(), other.id.clone()],
        config: diff::fields(one.config, other.config, true),
        history: diff::history(&one.config.history, &other.config.history, true),
        layers: diff::layers(&one.config.rootfs.diff_ids, &other.config.rootfs.diff_ids),
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
    let is_of_context = step.is_some_and(|step| step.is_of_context) && difference.aspects != [Aspect::Mtime];
    let reason = match is_of_context {
        true => cause::CONTEXT,
        false => cause::reason_of(&path, &difference.aspects, contents),
    };
    Finding {
        file: FileDifference::of(difference),
        step: step.map_or_else(|| "a step that is not known".to_owned(), |step| step.name.clone()),
        lines: step.and_then(|step| step.lines),
        reason,
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
