//! Looks at each thing that has a row.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use kiln_oci::Digest;

use super::{FsckOptions, FsckReport, Problem, ProblemKind};
use crate::clean::remove_dir;
use crate::content::Rot;
use crate::db::locked;
use crate::doubt::Dropped;
use crate::error::Result;
use crate::image::{ImageRecord, column};
use crate::lease::{Item, Live};
use crate::snapshot::LayerId;
use crate::store::Store;

pub(super) fn all(store: &Store, options: FsckOptions, report: &mut FsckReport) -> Result<()> {
    let rows = |sql: &str| store.shared.db.read(|db| column(db, sql, []));
    let mut broken = Vec::new();
    let digests: Vec<Digest> = parsed(&rows("SELECT digest FROM blobs ORDER BY digest")?);
    let layers: Vec<LayerId> = parsed(&rows("SELECT id FROM layers ORDER BY id")?);
    (report.blobs, report.layers) = (digests.len(), layers.len());
    broken.extend(each(digests, |digest| blob(store, digest)));
    broken.extend(each(layers, |id| tree(store, id, options.deep)));
    for (item, what) in broken {
        report.problems.extend(take_out(store, &item, what, options.repair)?);
    }
    report.images = rows("SELECT id FROM images")?.len();
    images(store, options.repair, report)?;
    let results = rows("SELECT key FROM results")?;
    report.results = results.len();
    Ok(())
}

fn parsed<T: std::str::FromStr>(rows: &[String]) -> Vec<T> {
    rows.iter().filter_map(|text| text.parse().ok()).collect()
}

/// Examines things on as many threads as there are cores; gives those with which something is wrong, in their order.
fn each<T: Sync + Clone + Into<Item>>(
    things: Vec<T>,
    examine: impl Fn(&T) -> Option<String> + Sync,
) -> Vec<(Item, String)> {
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some((index, thing)) =
            Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|i| Some((i, things.get(i)?)))
        {
            if let Some(what) = examine(thing) {
                locked(&found).push((index, what));
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let mut found = std::mem::take(&mut *locked(&found));
    found.sort_unstable();
    found.into_iter().map(|(index, what)| (things[index].clone().into(), what)).collect()
}

fn blob(store: &Store, digest: &Digest) -> Option<String> {
    match store.content().examine(digest) {
        Ok(None) => None,
        Ok(Some(Rot::Missing)) => Some("its file is gone".to_owned()),
        Ok(Some(Rot::Changed)) => Some("its bytes are not what its digest says".to_owned()),
        Err(error) => Some(format!("it cannot be read: {}", whole(&error))),
    }
}

#[expect(clippy::disallowed_methods, reason = "the state directory is ours alone")]
fn tree(store: &Store, id: &LayerId, deep: bool) -> Option<String> {
    let tree = store.layer_dir(id);
    match std::fs::symlink_metadata(&tree) {
        Ok(found) if !found.is_dir() => return Some("it is not a directory".to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Some("its directory is gone".to_owned()),
        Err(error) => return Some(format!("it cannot be read: {error}")),
    }
    let info = match store.layer(id) {
        Ok(info) => info,
        Err(error) => return Some(whole(&error)),
    };
    let is_broken = deep && matches!(store.proves_whole(id, &info), Ok(Some(false)));
    is_broken.then(|| "its files are not what its digest says".to_owned())
}

fn images(store: &Store, repair: bool, report: &mut FsckReport) -> Result<()> {
    let rows = store.shared.db.read(|db| {
        let mut select = db.prepare_cached(
            "SELECT id, record, (SELECT group_concat(layer) FROM image_layers WHERE image = id),
                (SELECT group_concat(blob) FROM image_blobs WHERE image = id) FROM images ORDER BY id",
        )?;
        let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
        rows.collect::<rusqlite::Result<Vec<(String, String, Option<String>, Option<String>)>>>()
    })?;
    for (id, record, layers, blobs) in rows {
        let Some(what) = image(&id, &record, &layers.unwrap_or_default(), &blobs.unwrap_or_default()) else { continue };
        let names = store.shared.db.read(|db| column(db, "SELECT name FROM names WHERE image = ?1", [&id]))?;
        let lost = names.iter().map(|name| format!("image `{name}`")).collect();
        if repair {
            store.shared.db.write(|db| db.execute("DELETE FROM images WHERE id = ?1", [&id]))?;
        }
        report.problems.push(Problem { kind: ProblemKind::Image, id, what, lost, is_repaired: repair });
    }
    Ok(())
}

fn image(id: &str, record: &str, layers: &str, blobs: &str) -> Option<String> {
    let Ok(record) = serde_json::from_str::<ImageRecord>(record) else {
        return Some("its record is damaged".to_owned());
    };
    if record.id.as_str() != id {
        return Some("its record is of another image".to_owned());
    }
    let (layers, blobs): (HashSet<&str>, HashSet<&str>) = (layers.split(',').collect(), blobs.split(',').collect());
    if let Some(layer) = record.layers().find(|layer| !layers.contains(layer.as_str())) {
        return Some(format!("it does not hold its layer {layer}"));
    }
    let missing = record.contents().find(|blob| !blobs.contains(blob.as_str()))?;
    Some(format!("it does not hold its content {missing}"))
}

/// Reports something broken; takes it out when that is wanted and no running build holds it.
fn take_out(store: &Store, item: &Item, what: String, repair: bool) -> Result<Option<Problem>> {
    let (kind, id) = match item {
        Item::Layer(id) => (ProblemKind::Layer, id.to_string()),
        Item::Blob(digest) => (ProblemKind::Blob, digest.to_string()),
    };
    let _alone = store.shared.sweeper()?;
    if !store.shared.db.read(|db| item.exists(db))? {
        return Ok(None); // pruned meanwhile
    }
    let live = Live::read(&store.shared.layout.leases())?;
    let is_held = match item {
        Item::Layer(id) => live.layers.contains(id),
        Item::Blob(digest) => live.blobs.contains(digest),
    };
    let is_repaired = repair && !is_held;
    let dropped: Dropped = match is_repaired {
        true => store.shared.db.write(|db| item.forget(db))?,
        false => store.shared.db.read(|db| item.dependents(db))?,
    };
    if is_repaired {
        match item {
            Item::Layer(id) => remove_dir(&store.shared.layout.layer(id))?,
            Item::Blob(digest) => remove_dir(&store.shared.layout.blob(digest))?,
        }
    }
    let what = if is_held && repair { format!("{what}; a running build uses it") } else { what };
    Ok(Some(Problem { kind, id, what, lost: dropped.lines(), is_repaired }))
}

fn whole(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source()).map(|cause| format!(": {cause}"));
    error.to_string() + &causes.collect::<String>()
}
