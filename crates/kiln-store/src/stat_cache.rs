//! Digests of files by what `stat` says of them, so that an unchanged context is walked and not read.
//!
//! Entries of neighbouring inodes share a page, since the files of a context were mostly made together: a context of
//! twenty thousand files is read with some hundred rows.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use kiln_fs::StatKey;
use kiln_oci::Digest;
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use crate::db::now;
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

/// A file changed so shortly ago may change again within the same tick of its clock, unseen. Linux' clock for files ticks
/// every 10 ms or faster. Two seconds are the coarsest tick there is (FAT), and then times are whole seconds. The wall clock
/// may be set while files are not rewritten: later is racy too.
const RACY_NS: i128 = 50_000_000;
const RACY_WHOLE_NS: i128 = 2_000_000_000;
const SECOND_NS: i64 = 1_000_000_000;

impl StatCache {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Reads the pages that are not in memory. A cache that cannot be read is an empty one.
    fn load(&self, mut places: Vec<Place>) {
        let pages = &self.shared.pages;
        let known = pages.read();
        places.retain(|place| !known.contains_key(place));
        drop(known);
        if places.is_empty() {
            return;
        }
        let load = |db: &Connection| places.iter().map(|place| Page::load(db, *place)).collect();
        let loaded: Vec<Page> = self.shared.db.read(load).unwrap_or_default();
        let loaded = loaded.into_iter().chain(std::iter::repeat_with(Page::default));
        let mut pages = pages.write();
        for (place, page) in places.into_iter().zip(loaded) {
            pages.entry(place).or_insert(page);
        }
    }
}

impl kiln_fs::StatCache for StatCache {
    fn expect(&self, keys: &mut dyn Iterator<Item = StatKey>) {
        let mut places: Vec<Place> = Vec::new();
        // Files that were made together come together.
        keys.map(|key| Place::of(&key)).for_each(|place| {
            if places.last() != Some(&place) {
                places.push(place);
            }
        });
        places.sort_unstable();
        places.dedup();
        self.load(places);
    }

    fn get(&self, key: &StatKey) -> Option<Digest> {
        let place = Place::of(key);
        let find = || self.shared.pages.read().get(&place).map(|page| page.find(low(key)).copied());
        let entry = find().or_else(|| {
            self.load(vec![place]);
            find()
        });
        entry.flatten().filter(|entry| entry.matches(key)).map(|entry| entry.digest())
    }

    fn put(&self, key: &StatKey, digest: Digest) {
        let Some(entry) = Entry::new(key, &digest).filter(|_| !is_racy(key)) else { return };
        let place = Place::of(key);
        self.load(vec![place]);
        let mut pages = self.shared.pages.write();
        let page = pages.entry(place).or_default();
        page.insert(entry);
        if !page.dirty.contains(&entry.low) {
            page.dirty.push(entry.low);
        }
    }
}

/// Pages in memory.
#[derive(Default)]
pub(crate) struct Pages(RwLock<HashMap<Place, Page>>);

/// What of them is to be written.
pub(crate) struct Dirty(Vec<(Place, Vec<Entry>)>);

/// Where a page is in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Place {
    dev: i64,
    page: i64,
}

#[derive(Default)]
struct Page {
    /// Sorted.
    entries: Vec<Entry>,
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
    // What a panicking holder left is whole: pages are only added to.
    fn read(&self) -> RwLockReadGuard<'_, HashMap<Place, Page>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<Place, Page>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn take_dirty(&self) -> Dirty {
        let mut pages = self.write();
        let changed = pages.iter_mut().filter(|(_, page)| !page.dirty.is_empty());
        Dirty(changed.map(|(place, page)| (*place, page.take_dirty())).collect())
    }

    /// Forgets what is in memory; the table is emptied by the caller.
    pub(crate) fn clear(&self) {
        self.write().clear();
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
            entries.iter().for_each(|entry| page.insert(*entry));
            let sql = "INSERT INTO stat_pages (dev, page, entries, used) VALUES (?1, ?2, ?3, ?4)
                       ON CONFLICT DO UPDATE SET entries = excluded.entries, used = excluded.used";
            db.prepare_cached(sql)?.execute(params![place.dev, place.page, page.to_bytes(), now()])?;
        }
        Ok(())
    }
}

/// Which inode of its page a file has.
fn low(key: &StatKey) -> u8 {
    key.ino.to_le_bytes()[0]
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
        let mut entries: Vec<Entry> = bytes.chunks_exact(ENTRY).filter_map(Entry::from_bytes).collect();
        entries.sort_by_key(|entry| entry.low);
        Ok(Self { entries, dirty: Vec::new() })
    }

    fn to_bytes(&self) -> Vec<u8> {
        self.entries.iter().flat_map(|entry| entry.to_bytes()).collect()
    }

    fn find(&self, low: u8) -> Option<&Entry> {
        let place = self.entries.binary_search_by_key(&low, |entry| entry.low).ok()?;
        self.entries.get(place)
    }

    fn insert(&mut self, entry: Entry) {
        match self.entries.binary_search_by_key(&entry.low, |known| known.low) {
            Ok(place) => self.entries[place] = entry,
            Err(place) => self.entries.insert(place, entry),
        }
    }

    fn take_dirty(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.dirty).iter().filter_map(|low| self.find(*low).copied()).collect()
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
        Some(Self { low: low(key), size, mtime_ns, ctime_ns, sha256 })
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
    let racy = if key.ctime_ns % SECOND_NS == 0 { RACY_WHOLE_NS } else { RACY_NS };
    changed > i128::try_from(now).unwrap_or(i128::MAX) - racy
}
