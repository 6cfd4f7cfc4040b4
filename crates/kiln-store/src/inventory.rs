//! What there is, thing by thing: what it is, who needs it, what it takes.

use std::collections::{HashMap, HashSet};

use rusqlite::Connection;

use crate::cache_mount::CacheMountInfo;
use crate::clean::disk_usage;
use crate::error::Result;
use crate::lease::Live;
use crate::store::Store;

/// One thing that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is to the store.
    pub kind: EntryKind,
    /// Its id: of a layer, a cache mount's directory or a repository its name in the state directory, of content its
    /// digest.
    pub id: String,
    /// What it is to people.
    pub record_type: RecordType,
    /// Where it comes from; empty when nobody knows any more.
    pub description: String,
    /// Bytes of disk.
    pub bytes: u64,
    /// Seconds since 1970.
    pub created: i64,
    /// Seconds since 1970, good to the hour.
    pub used: i64,
    /// How often it was of use, at most once an hour.
    pub uses: u64,
    /// How many results of steps need it.
    pub results: u64,
    /// Whether a live process holds it.
    pub is_held: bool,
    /// How images need it.
    pub need: Need,
    /// The layers that content is a packed form of; it is kept as long as one of them.
    pub packs: Vec<String>,
}

/// What an [`Entry`] is to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// A layer.
    Layer,
    /// Content.
    Blob,
    /// A directory of a cache mount.
    CacheMount,
    /// Something others keep in the state directory.
    Foreign,
}

/// What an [`Entry`] is to people, in BuildKit's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecordType {
    /// A step's files, or files packed.
    Regular,
    /// A copy of a context.
    SourceLocal,
    /// A repository.
    GitCheckout,
    /// A cache mount.
    CacheMount,
    /// A frontend's image.
    Frontend,
    /// Manifests and configs.
    Internal,
}

impl RecordType {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Regular => "regular",
            Self::SourceLocal => "source.local",
            Self::GitCheckout => "source.git.checkout",
            Self::CacheMount => "exec.cachemount",
            Self::Frontend => "frontend",
            Self::Internal => "internal",
        }
    }
}

/// How images need a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// Not at all.
    None,
    /// Images without a name do.
    Nameless,
    /// Images with names do: it cannot go.
    Named,
}

impl Entry {
    /// Whether pruning all would remove it.
    pub fn is_reclaimable(&self) -> bool {
        !self.is_held && self.need < Need::Named
    }

    /// Whether an image needs it.
    pub fn is_shared(&self) -> bool {
        self.need > Need::None
    }

    /// Whether what is in it may change.
    pub fn is_mutable(&self) -> bool {
        matches!(self.kind, EntryKind::CacheMount | EntryKind::Foreign)
    }
}

/// Something that others keep in the state directory, to be weighed together with what the store keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign {
    /// Its name.
    pub id: String,
    /// Where it comes from.
    pub description: String,
    /// Bytes of disk.
    pub bytes: u64,
    /// Seconds since 1970.
    pub created: i64,
    /// Seconds since 1970.
    pub used: i64,
    /// Whether a live process uses it.
    pub is_held: bool,
}

impl Store {
    /// All that is kept, largest first. New layers and cache mounts are measured, which takes as long as walking them.
    pub fn inventory(&self, foreign: &[Foreign]) -> Result<Vec<Entry>> {
        self.measure_layers()?;
        let (mounts, live) = (self.measured_mounts()?, self.live()?);
        let mut all = self.shared.db.read(|db| {
            let mut all = things(db, &live)?;
            describe(db, &mut all)?;
            Ok(all)
        })?;
        all.extend(others(&mounts, foreign));
        all.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.id.cmp(&b.id)));
        Ok(all)
    }

    /// What live processes hold.
    pub(crate) fn live(&self) -> Result<Live> {
        let _no_new_ones = self.shared.sweeper()?;
        Live::read(&self.shared.layout.leases())
    }

    /// Measures layers that were not measured yet: not when they are made, since a build does not need to know.
    pub(crate) fn measure_layers(&self) -> Result<()> {
        let unknown = self.shared.db.read(|db| {
            let mut select = db.prepare_cached("SELECT id FROM layers WHERE disk IS NULL")?;
            let rows = select.query_map([], |row| row.get::<_, String>(0))?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        })?;
        if unknown.is_empty() {
            return Ok(());
        }
        let measured = unknown.into_iter().map(|id| (disk_usage(&self.shared.layout.layers().join(&id)), id));
        let measured: Vec<_> = measured.collect();
        self.shared.write_somehow(|db| {
            let mut update = db.prepare_cached("UPDATE layers SET disk = ?1 WHERE id = ?2")?;
            measured.iter().try_for_each(|(bytes, id)| update.execute((bytes, id)).map(drop))
        })
    }

    /// All cache mounts with what they take. Those that are used now are walked each time.
    pub(crate) fn measured_mounts(&self) -> Result<Vec<Mount>> {
        let known: HashMap<String, (Option<u64>, u64)> = self.shared.db.read(|db| {
            let mut select = db.prepare_cached("SELECT key, disk, uses FROM cache_mounts")?;
            select.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?.collect()
        })?;
        let mut mounts = Vec::new();
        for info in self.cache_mounts().list()? {
            let (disk, uses) = known.get(&info.key).copied().unwrap_or((None, 0));
            let bytes = match disk {
                Some(bytes) => bytes,
                None => self.measure_mount(&info)?,
            };
            mounts.push(Mount { info, bytes, uses });
        }
        Ok(mounts)
    }

    fn measure_mount(&self, info: &CacheMountInfo) -> Result<u64> {
        let bytes = disk_usage(&self.shared.layout.cache_mounts().join(&info.key));
        if !info.is_used {
            let sql = "UPDATE cache_mounts SET disk = ?1 WHERE key = ?2";
            self.shared.write_somehow(|db| db.prepare_cached(sql)?.execute((bytes, &info.key)))?;
        }
        Ok(bytes)
    }
}

/// A cache mount with what it takes.
pub(crate) struct Mount {
    pub(crate) info: CacheMountInfo,
    pub(crate) bytes: u64,
    pub(crate) uses: u64,
}

/// Entries of what has no row among layers and blobs.
pub(crate) fn others<'a>(mounts: &'a [Mount], foreign: &'a [Foreign]) -> impl Iterator<Item = Entry> + 'a {
    let mounts = mounts.iter().map(|mount| Entry {
        kind: EntryKind::CacheMount,
        id: mount.info.key.clone(),
        record_type: RecordType::CacheMount,
        description: format!("cache mount {}", mount.info.id),
        bytes: mount.bytes,
        created: mount.info.created,
        used: mount.info.used,
        uses: mount.uses,
        results: 0,
        is_held: mount.info.is_used,
        need: Need::None,
        packs: Vec::new(),
    });
    let foreign = foreign.iter().map(|thing| Entry {
        kind: EntryKind::Foreign,
        id: thing.id.clone(),
        record_type: RecordType::GitCheckout,
        description: thing.description.clone(),
        bytes: thing.bytes,
        created: thing.created,
        used: thing.used,
        uses: 1,
        results: 0,
        is_held: thing.is_held,
        need: Need::None,
        packs: Vec::new(),
    });
    mounts.chain(foreign)
}

/// Layers and content, without descriptions.
///
/// A layer was used when a result with it was: a build asks for its topmost results only, and what they stand on is of
/// use with them. The same goes for content that packs a layer.
pub(crate) fn things(db: &Connection, live: &Live) -> rusqlite::Result<Vec<Entry>> {
    let named: HashSet<String> =
        crate::image::column(db, "SELECT DISTINCT image FROM names", [])?.into_iter().collect();
    let mut all = layers(db, live, &named)?;
    let by_id: HashMap<String, usize> = all.iter().enumerate().map(|(at, layer)| (layer.id.clone(), at)).collect();
    for mut blob in blobs(db, live, &named)? {
        let layers = blob.packs.iter().filter_map(|id| Some(&all[*by_id.get(id)?]));
        for layer in layers {
            blob.used = blob.used.max(layer.used);
            blob.need = blob.need.max(layer.need);
            blob.is_held |= layer.is_held;
        }
        all.push(blob);
    }
    Ok(all)
}

/// What pairs of a thing and its image come to.
fn needs(db: &Connection, sql: &str, named: &HashSet<String>) -> rusqlite::Result<HashMap<String, (Need, i64)>> {
    let mut needs: HashMap<String, (Need, i64)> = HashMap::new();
    let mut select = db.prepare_cached(sql)?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let (id, image, stored): (String, String, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let need = if named.contains(&image) { Need::Named } else { Need::Nameless };
        let known = needs.entry(id).or_insert((need, stored));
        *known = (known.0.max(need), known.1.max(stored));
    }
    Ok(needs)
}

fn layers(db: &Connection, live: &Live, named: &HashSet<String>) -> rusqlite::Result<Vec<Entry>> {
    let sql = "SELECT layer, image, stored FROM image_layers JOIN images ON images.id = image";
    let needs = needs(db, sql, named)?;
    let sql = "SELECT id, ifnull(disk, 0), layers.created, ifnull(max(used), 0), ifnull(max(uses), 0), count(key)
               FROM layers LEFT JOIN result_layers ON layer = id LEFT JOIN results ON key = result GROUP BY id";
    let mut select = db.prepare_cached(sql)?;
    let rows = select.query_map([], |row| {
        let (id, created, used): (String, i64, i64) = (row.get(0)?, row.get(2)?, row.get(3)?);
        let (need, stored) = needs.get(&id).copied().unwrap_or((Need::None, 0));
        Ok(Entry {
            kind: EntryKind::Layer,
            record_type: RecordType::Regular,
            description: String::new(),
            bytes: row.get(1)?,
            created,
            used: used.max(created).max(stored),
            uses: row.get(4)?,
            results: row.get(5)?,
            is_held: id.parse().is_ok_and(|id| live.layers.contains(&id)),
            need,
            packs: Vec::new(),
            id,
        })
    })?;
    rows.collect()
}

fn blobs(db: &Connection, live: &Live, named: &HashSet<String>) -> rusqlite::Result<Vec<Entry>> {
    let sql = "SELECT blob, image, stored FROM image_blobs JOIN images ON images.id = image";
    let needs = needs(db, sql, named)?;
    let sql = "SELECT digest, size, media_type, created,
                   (SELECT ifnull(max(used), 0) FROM result_blobs JOIN results ON key = result WHERE blob = digest),
                   (SELECT group_concat(layer, ' ') FROM layer_blobs WHERE layer_blobs.digest = blobs.digest)
               FROM blobs";
    let mut select = db.prepare_cached(sql)?;
    let rows = select.query_map([], |row| {
        let (id, media_type, created): (String, String, i64) = (row.get(0)?, row.get(2)?, row.get(3)?);
        let (used, packs): (i64, Option<String>) = (row.get(4)?, row.get(5)?);
        let (need, stored) = needs.get(&id).copied().unwrap_or((Need::None, 0));
        Ok(Entry {
            kind: EntryKind::Blob,
            record_type: if is_document(&media_type) { RecordType::Internal } else { RecordType::Regular },
            description: media_type,
            bytes: blocks(row.get(1)?),
            created,
            used: used.max(created).max(stored),
            uses: 1,
            results: 0,
            is_held: id.parse().is_ok_and(|digest| live.blobs.contains(&digest)),
            need,
            packs: packs.iter().flat_map(|packs| packs.split(' ')).map(str::to_owned).collect(),
            id,
        })
    })?;
    rows.collect()
}

fn is_document(media_type: &str) -> bool {
    media_type.ends_with("json")
}

/// What a file of so many bytes takes of a disk.
pub(crate) fn blocks(size: u64) -> u64 {
    const BLOCK: u64 = 4096;
    size.div_ceil(BLOCK) * BLOCK
}

/// Says of each layer which step made it, and of content what it packs.
pub(crate) fn describe(db: &Connection, all: &mut [Entry]) -> rusqlite::Result<()> {
    // The step that made a layer is the one with the fewest layers: those of all others stand upon it.
    let makers = "SELECT layer, step FROM (
            SELECT layer, step, row_number() OVER (PARTITION BY layer ORDER BY height, created, key) AS place
            FROM result_layers JOIN results ON key = result
            JOIN (SELECT result AS which, count(*) AS height FROM result_layers GROUP BY result) ON which = key
            WHERE step <> ''
        ) WHERE place = 1";
    let mut steps = pairs(db, makers)?;
    // What no step made came with an image.
    let names = "SELECT layer, min(name) FROM image_layers JOIN names USING (image) GROUP BY layer";
    for (layer, name) in pairs(db, names)? {
        steps.entry(layer).or_insert_with(|| format!("layer of {name}"));
    }
    let names = pairs(db, "SELECT blob, min(name) FROM image_blobs JOIN names USING (image) GROUP BY blob")?;
    for entry in all {
        let packed = entry.packs.iter().find_map(|layer| steps.get(layer)).map(|step| format!("packed: {step}"));
        match entry.kind {
            EntryKind::Layer => entry.description = steps.get(&entry.id).cloned().unwrap_or_default(),
            EntryKind::Blob => {
                let of_image = names.get(&entry.id).map(|name| format!("{} of {name}", entry.description));
                entry.description = packed.or(of_image).unwrap_or_else(|| std::mem::take(&mut entry.description));
            }
            EntryKind::CacheMount | EntryKind::Foreign => {}
        }
    }
    Ok(())
}

fn pairs(db: &Connection, sql: &str) -> rusqlite::Result<HashMap<String, String>> {
    db.prepare_cached(sql)?.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}
