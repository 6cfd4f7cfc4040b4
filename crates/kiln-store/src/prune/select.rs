//! Decides which things go when not all may: those that a filter admits, longest unused first, until limits are met.

use std::cmp::Reverse;

use rusqlite::{Transaction, params};

use super::mark::{self, Marked};
use super::{PruneOptions, PruneScope};
use crate::image::column;
use crate::inventory::{Entry, EntryKind, Mount, Need, RecordType, describe, others, things};
use crate::lease::Live;

/// What is weighed although it has no row among layers and content, and how full the disk is.
#[derive(Default)]
pub(super) struct Aside {
    pub(super) mounts: Vec<Mount>,
    /// Bytes that cannot be given back: the database, the reserve.
    pub(super) fixed: u64,
    /// Bytes that are free on the disk.
    pub(super) free: u64,
}

/// What was selected.
pub(super) fn select(
    db: &Transaction<'_>,
    options: &PruneOptions,
    live: &Live,
    aside: &Aside,
) -> rusqlite::Result<Marked> {
    let mut marked = mark::known(db)?;
    if options.filter.is_empty() && options.limits.is_none() {
        marked.images = mark::images(db, options)?;
    }
    let mut all = things(db, live)?;
    if !options.filter.is_empty() {
        describe(db, &mut all)?;
    }
    all.extend(others(&aside.mounts, &options.foreign));
    let total = all.iter().map(|entry| entry.bytes).sum::<u64>() + aside.fixed;
    marked.named = all.iter().filter(|entry| entry.need == Need::Named).map(|entry| entry.bytes).sum();
    let excess = options.limits.excess(total, aside.free);
    all.retain(|entry| may_go(entry, options));
    // Of things used together the one that fewer results need goes first: it stands upon the others.
    all.sort_by(|a, b| a.order().cmp(&b.order()));
    let mut freed = 0;
    for entry in &all {
        if freed >= excess {
            break;
        }
        freed += remove(db, entry, live, &mut marked)?;
    }
    marked.left = total.saturating_sub(freed);
    mark::facts(db, options)?;
    if options.limits.max_used.is_some_and(|most| aside.fixed > most / 8) {
        forget_half(db)?;
    }
    Ok(marked)
}

impl Entry {
    /// A layer that neither an image nor a result needs is found by nobody, however young it is.
    fn last_of_use(&self) -> i64 {
        let is_lost = self.kind == EntryKind::Layer && self.results == 0 && self.need == Need::None;
        if is_lost { 0 } else { self.used }
    }

    fn order(&self) -> (i64, u64, Reverse<i64>, &str) {
        (self.last_of_use(), self.results, Reverse(self.created), &self.id)
    }
}

fn may_go(entry: &Entry, options: &PruneOptions) -> bool {
    let is_admitted = entry.is_reclaimable()
        && entry.last_of_use() < options.cutoff()
        && options.filter.iter().all(|condition| condition.admits(entry));
    let is_only_cache = !entry.is_shared() && !matches!(entry.record_type, RecordType::Internal | RecordType::Frontend);
    is_admitted && (options.scope != PruneScope::Dangling || is_only_cache)
}

/// Removes a thing's row with what cannot be without it; says how many bytes that gives back.
fn remove(db: &Transaction<'_>, entry: &Entry, live: &Live, marked: &mut Marked) -> rusqlite::Result<u64> {
    let before = marked.bytes();
    match entry.kind {
        EntryKind::Layer => {
            let packed = column(db, "SELECT digest FROM layer_blobs WHERE layer = ?1", [&entry.id])?;
            let holders = "SELECT image FROM image_layers WHERE layer = ?1";
            release(db, entry, (holders, "SELECT result FROM result_layers WHERE layer = ?1"), marked)?;
            mark::delete_layers(db, "DELETE FROM layers WHERE id = ?1 RETURNING id, disk", [&entry.id], marked)?;
            for blob in packed {
                let is_held = blob.parse().is_ok_and(|digest| live.blobs.contains(&digest));
                if !is_held {
                    mark::delete_blobs(db, FREE_BLOB, params![blob], marked)?;
                }
            }
        }
        // Content that packs a layer goes with it.
        EntryKind::Blob if entry.packs.is_empty() => {
            let holders = "SELECT image FROM image_blobs WHERE blob = ?1";
            release(db, entry, (holders, "SELECT result FROM result_blobs WHERE blob = ?1"), marked)?;
            mark::delete_blobs(db, FREE_BLOB, [&entry.id], marked)?;
        }
        EntryKind::Blob => {}
        EntryKind::CacheMount => marked.mounts.push((entry.id.clone(), entry.bytes)),
        EntryKind::Foreign => marked.foreign.push((entry.id.clone(), entry.bytes)),
    }
    Ok(marked.bytes() - before)
}

const FREE_BLOB: &str = "DELETE FROM blobs WHERE digest = ?1
    AND NOT EXISTS (SELECT 1 FROM image_blobs WHERE blob = digest)
    AND NOT EXISTS (SELECT 1 FROM result_blobs WHERE blob = digest)
    AND NOT EXISTS (SELECT 1 FROM layer_blobs WHERE layer_blobs.digest = blobs.digest)
    RETURNING digest, size";

/// Removes the images and results that hold a thing. The images have no names, or it would not go.
fn release(
    db: &Transaction<'_>,
    entry: &Entry,
    (images, results): (&str, &str),
    marked: &mut Marked,
) -> rusqlite::Result<()> {
    for image in column(db, images, [&entry.id])? {
        db.prepare_cached("DELETE FROM images WHERE id = ?1")?.execute([&image])?;
        marked.images.push(image);
    }
    for key in column(db, results, [&entry.id])? {
        db.prepare_cached("DELETE FROM results WHERE key = ?1")?.execute([&key])?;
        marked.results.push(key);
    }
    Ok(())
}

/// Where little may be kept, what is known takes its share of it: the half that was not asked for longest goes.
fn forget_half(db: &Transaction<'_>) -> rusqlite::Result<()> {
    for (table, key) in [("facts", "kind, key"), ("stat_pages", "dev, page")] {
        let oldest = format!("SELECT {key} FROM {table} ORDER BY used LIMIT (SELECT count(*) / 2 FROM {table})");
        db.execute(&format!("DELETE FROM {table} WHERE ({key}) IN ({oldest})"), [])?;
    }
    Ok(())
}
