//! Cache mounts as things of their own: listed, removed, sent elsewhere and brought back.

mod chunker;
mod export;
mod format;
mod import;
mod place;
mod returning;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use kiln_image::archive::{ArchiveImage, Format};
use kiln_image::{BlobSink, Layout};
use kiln_report::{Event, Failure, FailureKind, Reporter};
use kiln_store::{CacheMountInfo, Lease, Process, Restored, Store};

pub use export::{ExportedMount, MountExport, MountsExported};
pub use place::MountPlace;
pub(crate) use returning::Returning;

use crate::blocking::blocking;
use crate::export::{OutFile, write_archive};
use crate::failure::{Context as _, environment, registry};
use crate::job::{Job, Result};
use crate::progress::Work;
use crate::registry::Registry;
use crate::scratch::Scratch;
use export::{Entry, Wanted, entries, export};

/// A larger mount does not travel unless it is asked for.
pub const DEFAULT_MAX_SIZE: u64 = 2 << 30;

/// A cache mount of the state directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountSummary {
    /// Its id, as `RUN --mount=type=cache,id=…` has it, with its namespace before it if there is one.
    pub id: String,
    /// Tells it from others of its id.
    pub key: String,
    /// Bytes of disk it takes.
    pub size: u64,
    /// Seconds since 1970.
    pub created: i64,
    /// Seconds since 1970, good to the hour.
    pub used: i64,
    /// The processes that use it now, as `kiln (123)`.
    pub users: Option<String>,
}

/// What could not be done, with which mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Its id.
    pub id: String,
    /// Why.
    pub why: String,
}

/// What is to be brought back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountImport {
    /// Ids; none stands for all there are.
    pub ids: Vec<String>,
    /// A larger mount is skipped.
    pub max_size: u64,
    /// What becomes of one that is here already.
    pub existing: Existing,
}

/// What becomes of a mount that is here already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It stays.
    Keep,
    /// It is removed, unless a step uses it.
    Replace,
}

/// What was brought back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MountsImported {
    /// Ids of mounts.
    pub restored: Vec<String>,
    /// Ids of mounts that are here already, and stay as they are.
    pub kept: Vec<String>,
    /// Those that were not brought back.
    pub skipped: Vec<Skipped>,
}

/// Where a build may find cache mounts that are not here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountsFrom {
    /// Where.
    pub place: MountPlace,
    /// A larger one is not taken.
    pub max_size: u64,
}

/// Where cache mounts go after a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountsTo {
    /// Where.
    pub place: MountPlace,
    /// Which. Ids that there are none of are no failure: their steps need not have run.
    pub mounts: MountExport,
    /// Whether the build is good without it.
    pub ignore_error: bool,
}

/// All cache mounts, by id.
pub(crate) fn list(store: &Store) -> Result<Vec<MountSummary>> {
    let mounts = store.cache_mounts();
    let summary = |info: CacheMountInfo| MountSummary {
        size: mounts.disk_usage(&info.key),
        users: if info.is_used { name_processes(&mounts.users(&info.key)) } else { None },
        id: shown(&info.id),
        key: info.key,
        created: info.created,
        used: info.used,
    };
    Ok(mounts.list().map_err(environment)?.into_iter().map(summary).collect())
}

/// Removes cache mounts by id, or by key; without any, all. One in use is a failure, before any is removed.
pub(crate) fn remove(store: &Store, ids: &[String]) -> Result<Vec<MountSummary>> {
    let all = list(store)?;
    if let Some(id) = ids.iter().find(|id| !all.iter().any(|mount| mount.is(id))) {
        return Err(unknown(id, all.iter().map(|mount| mount.id.as_str())));
    }
    let wanted: Vec<MountSummary> =
        all.into_iter().filter(|mount| ids.is_empty() || ids.iter().any(|id| mount.is(id))).collect();
    if let Some(used) = wanted.iter().find(|mount| mount.users.is_some()) {
        return Err(in_use(used));
    }
    let lease = store.lease().map_err(environment)?;
    for mount in &wanted {
        if !store.cache_mounts().remove_key(&mount.key, &lease).map_err(environment)? {
            let users = name_processes(&store.cache_mounts().users(&mount.key));
            return Err(in_use(&MountSummary { users, ..mount.clone() }));
        }
    }
    Ok(wanted)
}

impl MountSummary {
    /// Whether it is meant by an id or a key.
    fn is(&self, text: &str) -> bool {
        self.id == text || self.key == text
    }
}

fn in_use(mount: &MountSummary) -> Failure {
    let users = mount.users.as_deref().unwrap_or("another process");
    Failure::new(FailureKind::Environment, format!("cache mount `{}` is in use by {users}", mount.id))
        .hint("wait until its step is over, or stop it")
}

fn unknown<'a>(id: &str, known: impl Iterator<Item = &'a str>) -> Failure {
    let mut known: Vec<String> = known.map(|id| format!("`{id}`")).collect();
    known.dedup();
    let failure = Failure::new(FailureKind::Build, format!("there is no cache mount `{id}`"));
    if known.is_empty() { failure } else { failure.hint(format!("choose from {}", known.join(", "))) }
}

/// An id as it was written: the one kept has its namespace and a slash before it.
pub(crate) fn shown(id: &str) -> String {
    id.strip_prefix('/').unwrap_or(id).to_owned()
}

/// Processes for a message. Some for one that cannot be named, too: it was seen using something.
pub(crate) fn name_processes(all: &[Process]) -> Option<String> {
    let own = std::process::id();
    let named: Vec<String> =
        all.iter().filter(|process| process.id != own).map(|p| format!("{} ({})", p.name, p.id)).collect();
    Some(if named.is_empty() { "another process".to_owned() } else { named.join(", ") })
}

/// The mounts of the store that are to be exported: of each id the directory that steps share.
pub(crate) fn wanted(store: &Store, ids: &[String]) -> Result<Vec<Wanted>> {
    let all = store.cache_mounts().list().map_err(environment)?;
    let is = |info: &CacheMountInfo, id: &String| shown(&info.id) == *id || info.key == *id;
    if let Some(id) = ids.iter().find(|id| !all.iter().any(|info| is(info, id))) {
        let known: Vec<String> = all.iter().map(|info| shown(&info.id)).collect();
        return Err(unknown(id, known.iter().map(String::as_str)));
    }
    let chosen = all.into_iter().filter(|info| ids.is_empty() || ids.iter().any(|id| is(info, id)));
    let wanted = chosen.filter_map(|info| {
        let name = info.name().filter(|_| !info.id.is_empty())?;
        Some(Wanted { id: info.id, name, key: info.key })
    });
    Ok(wanted.collect())
}

/// Sends the mounts that a build is to send. What is skipped is a warning.
pub(crate) async fn after_build(job: &Arc<Job>, wanted: &[MountsTo]) -> Result<()> {
    for MountsTo { place, mounts, ignore_error } in wanted {
        let known: Vec<String> = list_ids(&job.store)?;
        let (ids, missing): (Vec<_>, Vec<_>) = mounts.ids.iter().cloned().partition(|id| known.contains(id));
        for id in missing {
            warn(job, format!("there is no cache mount `{id}` to export"));
        }
        if ids.is_empty() && !mounts.ids.is_empty() {
            continue;
        }
        let request = MountExport { ids, max_size: mounts.max_size };
        match export_to(&job.store, &request, place, (&job.registry, &job.reporter)).await {
            Ok(exported) => {
                for Skipped { id, why } in exported.skipped {
                    warn(job, format!("cache mount `{id}` was not exported: {why}"));
                }
            }
            Err(failure) if *ignore_error => warn(job, format!("cache mounts were not exported: {failure}")),
            Err(failure) => return Err(failure),
        }
    }
    Ok(())
}

fn list_ids(store: &Store) -> Result<Vec<String>> {
    Ok(store.cache_mounts().list().map_err(environment)?.iter().map(|info| shown(&info.id)).collect())
}

fn warn(job: &Job, message: String) {
    job.reporter.report(Event::Note(format!("warning: {message}")));
}

/// Sends mounts to a place.
pub(crate) async fn export_to(
    store: &Store,
    request: &MountExport,
    place: &MountPlace,
    (client, reporter): (&Registry, &Arc<dyn Reporter>),
) -> Result<MountsExported> {
    let work = Work::start(reporter, format!("exporting cache mounts to {}", place.label()));
    let exported = export_quietly(store, request, place, client).await;
    work.end(exported)
}

async fn export_quietly(
    store: &Store,
    request: &MountExport,
    place: &MountPlace,
    client: &Registry,
) -> Result<MountsExported> {
    let mounts = {
        let (store, ids) = (store.clone(), request.ids.clone());
        blocking(move || wanted(&store, &ids)).await?
    };
    let mounts = (&mounts[..], request.max_size);
    let sink: Box<dyn BlobSink> = match place {
        MountPlace::Archive(path) => return export_archive(store, mounts, path).await,
        MountPlace::Layout(path) => {
            let layout = Layout::create(path).await.map_err(registry)?;
            Box::new(layout.sink([place::LAYOUT_NAME.to_owned()]).await.map_err(registry)?)
        }
        MountPlace::Objects(options) => place::sink(options, client)?,
        MountPlace::Registry { reference, may_be_insecure } => {
            let client = client.client_for(&reference.registry, *may_be_insecure);
            Box::new(client.sink(&place::tagged(reference)?))
        }
    };
    let before = place.find(client).await?;
    Ok(export(store, mounts, before.as_ref(), sink.as_ref()).await?.0)
}

/// An archive is a tar of a layout that is made for it.
async fn export_archive(store: &Store, mounts: (&[Wanted], u64), path: &Path) -> Result<MountsExported> {
    let lease = store.lease().map_err(environment)?;
    let scratch = Scratch::layer(store, &lease)?;
    let layout = Layout::create(&scratch.tree()).await.map_err(registry)?;
    let sink = layout.sink([]).await.map_err(registry)?;
    let (report, root) = export(store, mounts, None, &sink).await?;
    let Some(descriptor) = root else { return Ok(report) };
    let image = ArchiveImage { descriptor, names: vec![place::LAYOUT_NAME.to_owned()] };
    let file = OutFile::replacing(path)?;
    write_archive(Format::Oci, &[image], &layout, file).await?;
    Ok(report)
}

/// Brings mounts back from a place.
pub(crate) async fn import_from(
    store: &Store,
    request: &MountImport,
    place: &MountPlace,
    (client, reporter): (&Registry, &Arc<dyn Reporter>),
) -> Result<MountsImported> {
    let work = Work::start(reporter, format!("importing cache mounts from {}", place.label()));
    let imported = import_quietly(store, request, place, client).await;
    work.end(imported)
}

async fn import_quietly(
    store: &Store,
    request: &MountImport,
    place: &MountPlace,
    client: &Registry,
) -> Result<MountsImported> {
    let Some(found) = place.find(client).await? else {
        let message = format!("there are no cache mounts at `{}`", place.label());
        return Err(Failure::new(FailureKind::Build, message)
            .hint("export some with `kiln cache mounts export --to`, to the same place"));
    };
    let all = entries(&found).await?;
    let is = |entry: &Entry, id: &String| shown(&entry.id) == *id || entry.name.as_str() == id;
    if let Some(id) = request.ids.iter().find(|id| !all.iter().any(|entry| is(entry, id))) {
        let known: Vec<String> = all.iter().map(|entry| shown(&entry.id)).collect();
        return Err(unknown(id, known.iter().map(String::as_str)));
    }
    let chosen = |entry: &Entry| request.ids.is_empty() || request.ids.iter().any(|id| is(entry, id));
    let mut report = MountsImported::default();
    for entry in all.into_iter().filter(chosen) {
        let id = shown(&entry.id);
        match import(store, request, &found, entry).await {
            Ok(Came::Restored) => report.restored.push(id),
            Ok(Came::Kept) => report.kept.push(id),
            Ok(Came::Skipped(why)) => report.skipped.push(Skipped { id, why }),
            Err(failure) => report.skipped.push(Skipped { id, why: failure.to_string() }),
        }
    }
    Ok(report)
}

/// What became of one.
enum Came {
    Restored,
    Kept,
    Skipped(String),
}

/// Brings one back.
async fn import(store: &Store, request: &MountImport, found: &place::Found, entry: Entry) -> Result<Came> {
    let key = format!("{}.0", entry.name.as_str());
    let is_here = store.cache_mounts().list().map_err(environment)?.iter().any(|info| info.key == key);
    if is_here && request.existing == Existing::Keep {
        return Ok(Came::Kept);
    }
    let spool = store.root().join("tmp");
    let fetched = import::fetch(found.blobs.as_ref(), &entry.manifest, request.max_size, &spool).await?;
    let (store, existing) = (store.clone(), request.existing);
    blocking(move || {
        let lease: Lease = store.lease().map_err(environment)?;
        let mounts = store.cache_mounts();
        let users = || format!("{} uses it", name_processes(&mounts.users(&key)).unwrap_or_default());
        if existing == Existing::Replace && !mounts.remove_key(&key, &lease).map_err(environment)? {
            return Ok(Came::Skipped(users()));
        }
        let fill = |dir: &Path| fetched.unpack(dir).map_err(std::io::Error::other);
        let restored = mounts.restore(&entry.name, &entry.id, &lease, &fill);
        let restored = restored.or_build(|| format!("cannot restore cache mount `{}`", shown(&entry.id)))?;
        Ok(match restored {
            Restored::Made => Came::Restored,
            Restored::Kept => Came::Kept,
            Restored::InUse => Came::Skipped(users()),
        })
    })
    .await
}
