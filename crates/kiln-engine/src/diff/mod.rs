//! What two images differ in: config, history, layers, files and packages.

mod config;
mod packages;
mod rpm;
mod sides;

use std::ops::ControlFlow;
use std::sync::Arc;

use kiln_fs::layer::{self, Aspect, Difference};
use kiln_oci::{Digest, Platform};
use kiln_report::Reporter;
use kiln_sys::metadata::Metadata;
use kiln_sys::root::Root;
use serde::Serialize;

use crate::blocking::blocking;
use crate::engine::Engine;
use crate::failure::{Context as _, environment};
use crate::job::Result;
pub(crate) use config::{fields, history, layers};
use packages::Packages;
use sides::Side;
pub(crate) use sides::{Candidate, Found, find};

/// Two images to compare.
#[derive(Debug, Clone, Default)]
pub struct DiffRequest {
    /// Names or ids, `oci:DIR[:TAG]`, `oci-archive:FILE`, `docker-archive:FILE`, or names at a registry.
    pub images: [String; 2],
    /// The platforms that are compared; without any, all that either image is for.
    pub platforms: Vec<Platform>,
    /// What does not count.
    pub ignored: Vec<Ignored>,
    /// Whether the first difference is enough.
    pub stops_early: bool,
}

/// What may not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ignored {
    /// This of files.
    File(Aspect),
    /// When the image and its steps were made.
    Created,
    /// The steps that made it.
    History,
    /// How its files are laid into layers.
    Layers,
}

/// What two images differ in, which may be for several platforms each.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Differences {
    /// What each platform differs in, also when that is nothing.
    pub platforms: Vec<ImageDiff>,
    /// Platforms that only one of the two is for.
    pub alone: Vec<PlatformChange>,
}

/// A platform that came or went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlatformChange {
    /// As `linux/amd64`.
    pub platform: String,
    /// The digest of the config of the first image for it.
    pub before: Option<Digest>,
    /// Of the second.
    pub after: Option<Digest>,
}

/// What two images differ in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ImageDiff {
    /// What both are for, as `linux/amd64`; of two that are alone under their names, the first.
    pub platform: String,
    /// Which images these are.
    pub images: Vec<DiffImage>,
    /// Fields of the config.
    pub config: Vec<FieldChange>,
    /// Steps.
    pub history: Vec<HistoryChange>,
    /// Layers that are not in the same place.
    pub layers: Vec<LayerChange>,
    /// Packages.
    pub packages: Vec<PackageChange>,
    /// Files, in the order of their paths.
    pub files: Vec<FileDifference>,
    /// What could not be told.
    pub notes: Vec<String>,
}

/// One of the two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DiffImage {
    /// As it was asked for.
    pub name: String,
    /// The digest of its config.
    pub id: Digest,
    /// How many layers it has.
    pub layers: usize,
}

/// A field that differs; nothing where an image does not have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldChange {
    /// `Env.PATH`, `Labels.a.b`, `Cmd`, …
    pub field: String,
    /// In the first image.
    pub before: Option<String>,
    /// In the second.
    pub after: Option<String>,
}

/// A step that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HistoryChange {
    /// The command.
    pub step: String,
    /// Its position in the first image, from 0.
    pub before: Option<usize>,
    /// Its position in the second.
    pub after: Option<usize>,
    /// When it was done, where only that differs: in the first image and in the second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<[Option<String>; 2]>,
}

/// A layer that only one image has, or that has another place in each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LayerChange {
    /// The digest of its tar.
    pub diff_id: Digest,
    /// Its position in the first image, from 0.
    pub before: Option<usize>,
    /// Its position in the second.
    pub after: Option<usize>,
}

/// A package that came, went, or has another version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct PackageChange {
    /// `deb`, `apk`, `rpm`, `python` or `node`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// Its version in the first image.
    pub before: Option<String>,
    /// In the second.
    pub after: Option<String>,
}

/// A file that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileDifference {
    /// Its path; bytes that are no UTF-8 are replaced.
    pub path: String,
    /// What of it differs, when both images have it: `content`, `mode`, …
    pub differs: Vec<&'static str>,
    /// In the first image.
    pub before: Option<FileLook>,
    /// In the second.
    pub after: Option<FileLook>,
}

/// What a file looks like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileLook {
    /// `file`, `directory`, `link`, …
    pub kind: &'static str,
    /// Permissions, as `0644`.
    pub mode: String,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// Seconds since 1970 of its last change.
    pub mtime: i64,
}

impl ImageDiff {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        let Self { config, history, layers, packages, files, .. } = self;
        config.is_empty() && history.is_empty() && layers.is_empty() && packages.is_empty() && files.is_empty()
    }
}

impl Differences {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.alone.is_empty() && self.platforms.iter().all(ImageDiff::is_empty)
    }
}

/// Compares two images, or those of two indexes that are for the same platforms.
pub(crate) async fn diff(engine: &Engine, request: &DiffRequest, reporter: &Arc<dyn Reporter>) -> Result<Differences> {
    let [one, other] = &request.images;
    let store = engine.store()?;
    let lease = Arc::new(store.lease().map_err(environment)?);
    let at = (&store, lease.as_ref());
    let one = find(engine, at, (one, &request.platforms)).await?;
    let other = find(engine, at, (other, &request.platforms)).await?;
    let Paired { pairs, alone } = Paired::of(one, other, !request.platforms.is_empty());
    let mut differences = Differences { platforms: Vec::new(), alone };
    for [one, other] in pairs {
        if request.stops_early && !differences.is_empty() {
            break;
        }
        let request = request.clone();
        // One config has one list of layers: their files need not come.
        if one.config.digest() == other.config.digest() {
            let images = [&one, &other].map(Candidate::told).to_vec();
            differences.platforms.push(ImageDiff {
                platform: one.platform.to_string(),
                images,
                ..ImageDiff::default()
            });
            continue;
        }
        let (one, other) = (one.open(engine, at, reporter).await?, other.open(engine, at, reporter).await?);
        let (store, held) = (store.clone(), Arc::clone(&lease));
        let compared = blocking(move || {
            let _held = held;
            compare(&store, [&one, &other], &request)
        });
        differences.platforms.push(compared.await?);
    }
    Ok(differences)
}

/// Which images are compared with which.
struct Paired {
    pairs: Vec<[Candidate; 2]>,
    alone: Vec<PlatformChange>,
}

impl Paired {
    /// Pairs images of the same platform. Two that are alone under their names are a pair in any case, unless platforms were
    /// named.
    fn of(one: Found, other: Found, is_chosen: bool) -> Self {
        let is_by_platform = is_chosen || one.is_index || other.is_index;
        let mut others = other.images;
        let mut paired = Self { pairs: Vec::new(), alone: Vec::new() };
        let change =
            |image: &Candidate| PlatformChange { platform: image.platform.to_string(), before: None, after: None };
        for image in one.images {
            match others.iter().position(|other| !is_by_platform || other.platform == image.platform) {
                Some(at) => paired.pairs.push([image, others.remove(at)]),
                None => paired.alone.push(PlatformChange { before: Some(image.config.digest()), ..change(&image) }),
            }
        }
        let added = |image: &Candidate| PlatformChange { after: Some(image.config.digest()), ..change(image) };
        paired.alone.extend(others.iter().map(added));
        paired
    }
}

fn compare(store: &kiln_store::Store, sides: [&Side; 2], request: &DiffRequest) -> Result<ImageDiff> {
    let counts = |ignored| !request.ignored.contains(&ignored);
    let [one, other] = sides.map(|side| side.config.value());
    let platform = sides[0].platform.to_string();
    let mut diff = ImageDiff { platform, images: sides.map(Side::told).to_vec(), ..ImageDiff::default() };
    diff.config = config::fields(one, other, counts(Ignored::Created));
    if counts(Ignored::History) {
        diff.history = config::history(&one.history, &other.history, counts(Ignored::Created));
    }
    if counts(Ignored::Layers) {
        diff.layers = config::layers(&one.rootfs.diff_ids, &other.rootfs.diff_ids);
    }
    if sides[0].snapshot == sides[1].snapshot || (request.stops_early && !diff.is_empty()) {
        return Ok(diff);
    }
    let views = [sides[0].view(store)?, sides[1].view(store)?];
    files([&views[0], &views[1]], request, &mut diff)?;
    Ok(diff)
}

/// Compares files, and the packages that are seen in them.
fn files(roots: [&Root; 2], request: &DiffRequest, diff: &mut ImageDiff) -> Result<()> {
    let ignored: Vec<Aspect> = request.ignored.iter().filter_map(|ignored| ignored.aspect()).collect();
    let mut packages = Packages::installed(roots);
    let mut hear = |difference: Difference| {
        packages.hear(&difference);
        diff.files.push(FileDifference::of(&difference));
        if request.stops_early { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    layer::compare(roots, &ignored, &mut hear).or_environment(|| "cannot compare the images".into())?;
    (diff.packages, diff.notes) = packages.told();
    Ok(())
}

impl Ignored {
    fn aspect(self) -> Option<Aspect> {
        match self {
            Self::File(aspect) => Some(aspect),
            Self::Created | Self::History | Self::Layers => None,
        }
    }
}

impl FileDifference {
    pub(crate) fn of(difference: &Difference) -> Self {
        let [before, after] = difference.sides.map(|side| side.map(|file| FileLook::of(&file)));
        let path = format!("/{}", String::from_utf8_lossy(&difference.path));
        Self { path, differs: difference.aspects.iter().map(|aspect| aspect.name()).collect(), before, after }
    }
}

impl FileLook {
    fn of(file: &Metadata) -> Self {
        Self {
            kind: layer::kind_name(file),
            mode: format!("{:04o}", file.mode),
            uid: file.uid,
            gid: file.gid,
            // The size of a directory says how its file system keeps it.
            size: if file.is_dir() { 0 } else { file.size },
            mtime: file.mtime.secs,
        }
    }
}
