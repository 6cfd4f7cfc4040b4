//! Digests of files by what `stat` says of them, so that an unchanged context is walked and not read.
//!
//! Entries of neighbouring inodes share a page, since the files of a context were mostly made together: a context of
//! twenty thousand files is read with some hundred rows.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use kiln_fs::StatKey;
use kiln_oci::Digest;
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use crate::db::{locked, now};
use crate::store::Shared;

/// The persistent stat cache of a store. Cheap to clone, used by many threads at once.
#[derive(Clone)]
pub struct StatCache {
    shared: Arc<Shared>,
}

/// Inodes to a page.
const PAGE_BITS: u32 = 8;

/// Bytes of an entry on disk: low byte of the inode, size, mtime, ctime, digest.
const ENTRY: usize = 1 + 8 + 8 + 8 + 32;

/// A file changed so shortly ago may change again within the same tick of its clock, unseen. Two seconds are the
/// coarsest tick there is (FAT), and the wall clock may be set while files are not rewritten: later is racy too.
const RACY_NS: i128 = 2_000_000_000;

impl StatCache {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The page of an inode, read when it is first asked for. A cache that cannot be read is an empty one.
    fn page<'p>(&self, pages: &'p mut HashMap<Place, Page>, key: &StatKey) -> &'p mut Page {
        let place = Place::of(key);
        pages.entry(place).or_insert_with(|| self.shared.db.read(|db| Page::load(db, place)).unwrap_or_default())
    }
}

impl kiln_fs::StatCache for StatCache {
    fn get(&self, key: &StatKey) -> Option<Digest> {
        let mut pages = locked(&self.shared.pages.0);
        let entry = *self.page(&mut pages, key).entries.get(&key.ino.to_le_bytes()[0])?;
        drop(pages);
        entry.matches(key).then(|| entry.digest())
    }

    fn put(&self, key: &StatKey, digest: Digest) {
        let Some(entry) = Entry::new(key, &digest).filter(|_| !is_racy(key)) else { return };
        let mut pages = locked(&self.shared.pages.0);
        let page = self.page(&mut pages, key);
        page.entries.insert(entry.low, entry);
        if !page.dirty.contains(&entry.low) {
            page.dirty.push(entry.low);
        }
    }
}

/// Pages in memory.
#[derive(Default)]
pub(crate) struct Pages(Mutex<HashMap<Place, Page>>);

/// What of them is to be written.
pub(crate) struct Dirty(Vec<(Place, Vec<Entry>)>);

/// Where a page is in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Place {
    dev: i64,
    page: i64,
}

#[derive(Default)]
struct Page {
    entries: HashMap<u8, Entry>,
    dirty: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    low: u8,
    size: u64,
    mtime_ns: i64,
    ctime_ns: i64,
    sha256: [u8; 32],
}

impl Pages {
    pub(crate) fn take_dirty(&self) -> Dirty {
        let mut pages = locked(&self.0);
        let changed = pages.iter_mut().filter(|(_, page)| !page.dirty.is_empty());
        Dirty(changed.map(|(place, page)| (*place, page.take_dirty())).collect())
    }

    /// Forgets what is in memory; the table is emptied by the caller.
    pub(crate) fn clear(&self) {
        locked(&self.0).clear();
    }
}

impl Dirty {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Merges into the pages as they are now: other processes add to them too.
    pub(crate) fn write(&self, db: &Transaction<'_>) -> rusqlite::Result<()> {
        for (place, entries) in &self.0 {
            let mut page = Page::load(db, *place)?;
            page.entries.extend(entries.iter().map(|entry| (entry.low, *entry)));
            let sql = "INSERT INTO stat_pages (dev, page, entries, used) VALUES (?1, ?2, ?3, ?4)
                       ON CONFLICT DO UPDATE SET entries = excluded.entries, used = excluded.used";
            db.prepare_cached(sql)?.execute(params![place.dev, place.page, page.to_bytes(), now()])?;
        }
        Ok(())
    }
}

impl Place {
    fn of(key: &StatKey) -> Self {
        Self { dev: key.dev.cast_signed(), page: (key.ino >> PAGE_BITS).cast_signed() }
    }
}

impl Page {
    fn load(db: &Connection, place: Place) -> rusqlite::Result<Self> {
        let mut select = db.prepare_cached("SELECT entries FROM stat_pages WHERE dev = ?1 AND page = ?2")?;
        let bytes = select.query_row([place.dev, place.page], |row| row.get::<_, Vec<u8>>(0)).optional()?;
        let bytes = bytes.unwrap_or_default();
        let entries = bytes.chunks_exact(ENTRY).filter_map(Entry::from_bytes).map(|entry| (entry.low, entry));
        Ok(Self { entries: entries.collect(), dirty: Vec::new() })
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut entries: Vec<_> = self.entries.values().collect();
        entries.sort_unstable_by_key(|entry| entry.low);
        entries.into_iter().flat_map(|entry| entry.to_bytes()).collect()
    }

    fn take_dirty(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.dirty).iter().filter_map(|low| self.entries.get(low).copied()).collect()
    }
}

impl Entry {
    fn new(key: &StatKey, digest: &Digest) -> Option<Self> {
        if digest.algorithm() != "sha256" {
            return None;
        }
        let mut sha256 = [0; 32];
        for (byte, pair) in sha256.iter_mut().zip(digest.hex().as_bytes().chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        let StatKey { size, mtime_ns, ctime_ns, .. } = *key;
        Some(Self { low: key.ino.to_le_bytes()[0], size, mtime_ns, ctime_ns, sha256 })
    }

    fn matches(&self, key: &StatKey) -> bool {
        (self.size, self.mtime_ns, self.ctime_ns) == (key.size, key.mtime_ns, key.ctime_ns)
    }

    fn digest(&self) -> Digest {
        Digest::from_sha256(&self.sha256)
    }

    fn to_bytes(self) -> [u8; ENTRY] {
        let mut bytes = [0; ENTRY];
        bytes[0] = self.low;
        bytes[1..9].copy_from_slice(&self.size.to_le_bytes());
        bytes[9..17].copy_from_slice(&self.mtime_ns.to_le_bytes());
        bytes[17..25].copy_from_slice(&self.ctime_ns.to_le_bytes());
        bytes[25..].copy_from_slice(&self.sha256);
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let number = |range: std::ops::Range<usize>| bytes.get(range)?.try_into().ok();
        Some(Self {
            low: *bytes.first()?,
            size: u64::from_le_bytes(number(1..9)?),
            mtime_ns: i64::from_le_bytes(number(9..17)?),
            ctime_ns: i64::from_le_bytes(number(17..25)?),
            sha256: bytes.get(25..ENTRY)?.try_into().ok()?,
        })
    }
}

/// Whether a file may be changed without its key showing it. Some file systems have no time of change to show.
fn is_racy(key: &StatKey) -> bool {
    if key.ctime_ns == 0 {
        return true;
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let changed = i128::from(key.mtime_ns.max(key.ctime_ns));
    changed > i128::try_from(now).unwrap_or(i128::MAX) - RACY_NS
}
