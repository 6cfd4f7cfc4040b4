//! Images and their names.

use kiln_oci::{Descriptor, Digest, Platform, Reference};
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};
use serde::{Deserialize, Serialize};

use crate::db::now;
use crate::error::{Error, Result};
use crate::lease::Item;
use crate::snapshot::{LayerId, Snapshot};
use crate::store::Shared;

/// Images by config digest, and the names that point to them.
pub struct Images<'a> {
    shared: &'a Shared,
}

/// What is kept of an image beside its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// The image id: the digest of its config, or what stands for those of its members.
    pub id: Digest,
    /// Its manifest or index, when it has one: pulled, loaded or exported images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Descriptor>,
    /// Its file tree, when that is unpacked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<Snapshot>,
    /// Content it holds: config, manifest, packed layers. All of it must be in the content store.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blobs: Vec<Digest>,
    /// Where registries know it, as `name@sha256:…`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repo_digests: Vec<String>,
    /// What it runs on.
    pub platform: Platform,
    /// RFC 3339 time of creation, from the config.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Bytes of its unpacked layers.
    pub size: u64,
    /// The images it stands for, if it is an index: one for each platform. They are kept within it, and go with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<Self>,
}

impl ImageRecord {
    /// The images it stands for: its members, or itself alone.
    pub fn images(&self) -> &[Self] {
        if self.members.is_empty() { std::slice::from_ref(self) } else { &self.members }
    }

    /// Whether it stands for several images.
    pub fn is_index(&self) -> bool {
        !self.members.is_empty()
    }

    /// The image that serves a platform best; none if none does. One that does not say what it is for serves all.
    pub fn for_platform(&self, wanted: &Platform) -> Option<&Self> {
        let rank = |image: &&Self| match image.platform.architecture.is_empty() {
            true => Some(usize::MAX),
            false => image.platform.rank(wanted),
        };
        self.images().iter().filter(|image| rank(image).is_some()).min_by_key(rank)
    }

    /// The layers it holds, members' included.
    pub(crate) fn layers(&self) -> impl Iterator<Item = &LayerId> {
        let images = std::iter::once(self).chain(&self.members);
        images.flat_map(|image| image.snapshot.iter().flat_map(|snapshot| snapshot.layers()))
    }

    /// The content it holds, members' included.
    pub(crate) fn contents(&self) -> impl Iterator<Item = &Digest> {
        std::iter::once(self).chain(&self.members).flat_map(|image| &image.blobs)
    }
}

/// An image with its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The record.
    pub record: ImageRecord,
    /// Full names (`docker.io/library/app:1`), sorted. None for an image that lost its last name.
    pub names: Vec<String>,
    /// When it was stored, in seconds since 1970.
    pub stored: i64,
}

/// What became of a name that was removed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Removed {
    /// Names that are gone.
    pub untagged: Vec<String>,
    /// The image that went with its last name. Its layers and content go at the next prune, unless others hold them.
    pub deleted: Option<Digest>,
}

impl<'a> Images<'a> {
    pub(crate) fn new(shared: &'a Shared) -> Self {
        Self { shared }
    }

    /// Keeps an image, and lets `names` point to it. An image that loses its name by this stays, nameless.
    ///
    /// A record of the same id is replaced, except that places where registries know it add up.
    pub fn put(&self, record: &ImageRecord, names: &[Reference]) -> Result<()> {
        let missing = self.shared.db.write(|db| {
            for item in held(record) {
                if !item.exists(db)? {
                    return Ok(Some(item));
                }
            }
            write_record(db, &with_known_repositories(db, record)?)?;
            for name in names {
                point(db, &tag_of(name), &record.id)?;
            }
            Ok(None)
        })?;
        missing.map_or(Ok(()), |item| Err(item.unknown()))
    }

    /// Lets a name point to an image.
    pub fn tag(&self, id: &Digest, name: &Reference) -> Result<()> {
        let known = self.shared.db.write(|db| {
            let known = load(db, id)?.is_some();
            if known {
                point(db, &tag_of(name), id)?;
            }
            Ok(known)
        })?;
        if known { Ok(()) } else { Err(Error::UnknownImage { name: id.to_string() }) }
    }

    /// Finds an image by id.
    pub fn get(&self, id: &Digest) -> Result<Option<Image>> {
        self.shared.db.read(|db| load(db, id))?.map(Row::parse).transpose()
    }

    /// Finds the image a name points to. A digest in the name must be one by which that repository knows the image.
    pub fn by_name(&self, name: &Reference) -> Result<Option<Image>> {
        if let Some(digest) = &name.digest {
            return self.by_repo_digest(name, digest);
        }
        let row = self.shared.db.read(|db| {
            let mut select = db.prepare_cached("SELECT image FROM names WHERE name = ?1")?;
            let id = select.query_row([tag_of(name)], |row| row.get::<_, String>(0)).optional()?;
            id.map_or(Ok(None), |id| load_text(db, &id))
        })?;
        row.map(Row::parse).transpose()
    }

    /// Finds an image as people say it: a name, an id (`sha256:…`), the digest of its manifest, or the first digits
    /// of its id. Names come first, as docker has it.
    pub fn find(&self, text: &str) -> Result<Image> {
        let unknown = || Error::UnknownImage { name: text.to_owned() };
        if let Ok(digest) = text.parse::<Digest>() {
            let found = self.get(&digest)?;
            let found = found.map_or_else(|| self.by_manifest(&digest), |found| Ok(Some(found)))?;
            return found.map_or_else(|| self.member(&digest)?.ok_or_else(unknown), Ok);
        }
        if let Ok(name) = text.parse::<Reference>()
            && let Some(image) = self.by_name(&name)?
        {
            return Ok(image);
        }
        let prefix = text.strip_prefix("sha256:").unwrap_or(text);
        let is_hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        if prefix.is_empty() || !prefix.bytes().all(is_hex) {
            return Err(unknown());
        }
        self.by_prefix(prefix)?.ok_or_else(unknown)
    }

    /// All images, newest first.
    pub fn list(&self) -> Result<Vec<Image>> {
        let rows = self.shared.db.read(|db| {
            let ids = column(db, "SELECT id FROM images ORDER BY stored DESC, id", [])?;
            ids.iter().filter_map(|id| load_text(db, id).transpose()).collect::<rusqlite::Result<Vec<_>>>()
        })?;
        rows.into_iter().map(Row::parse).collect()
    }

    /// Removes a name; the image goes with its last one.
    pub fn remove_name(&self, name: &Reference) -> Result<Removed> {
        let tag = tag_of(name);
        let removed = self.shared.write_somehow(|db| {
            let mut select = db.prepare_cached("SELECT image FROM names WHERE name = ?1")?;
            let Some(image) = select.query_row([&tag], |row| row.get::<_, String>(0)).optional()? else {
                return Ok(None);
            };
            db.prepare_cached("DELETE FROM names WHERE name = ?1")?.execute([&tag])?;
            let mut left = db.prepare_cached("SELECT count(*) FROM names WHERE image = ?1")?;
            if left.query_row([&image], |row| row.get::<_, i64>(0))? > 0 {
                return Ok(Some((vec![tag.clone()], None)));
            }
            db.prepare_cached("DELETE FROM images WHERE id = ?1")?.execute([&image])?;
            Ok(Some((vec![tag.clone()], image.parse().ok())))
        })?;
        let (untagged, deleted) = removed.ok_or_else(|| Error::UnknownImage { name: name.familiar() })?;
        Ok(Removed { untagged, deleted })
    }

    /// Removes an image with all its names.
    pub fn remove(&self, id: &Digest) -> Result<Removed> {
        let removed = self.shared.write_somehow(|db| {
            let names = names_of(db, id.as_str())?;
            let count = db.prepare_cached("DELETE FROM images WHERE id = ?1")?.execute([id.as_str()])?;
            Ok((count > 0).then_some(names))
        })?;
        let untagged = removed.ok_or_else(|| Error::UnknownImage { name: id.to_string() })?;
        Ok(Removed { untagged, deleted: Some(id.clone()) })
    }

    fn by_repo_digest(&self, name: &Reference, digest: &Digest) -> Result<Option<Image>> {
        let wanted = format!("{}@{digest}", name.name());
        let familiar = format!("{}@{digest}", name.familiar_name());
        let rows = self.shared.db.read(|db| {
            let sql = "SELECT id FROM images WHERE EXISTS (
                           SELECT 1 FROM json_each(record, '$.repo_digests') WHERE value IN (?1, ?2))";
            let ids = column(db, sql, [&wanted, &familiar])?;
            ids.first().map_or(Ok(None), |id| load_text(db, id))
        })?;
        rows.map(Row::parse).transpose()
    }

    fn by_manifest(&self, digest: &Digest) -> Result<Option<Image>> {
        let row = self.shared.db.read(|db| {
            let ids = column(db, "SELECT id FROM images WHERE manifest = ?1", [digest.as_str()])?;
            ids.first().map_or(Ok(None), |id| load_text(db, id))
        })?;
        row.map(Row::parse).transpose()
    }

    /// An image that is kept within an index, which has no name of its own.
    fn member(&self, id: &Digest) -> Result<Option<Image>> {
        let holders = self.shared.db.read(|db| {
            let sql = "SELECT id FROM images WHERE EXISTS (SELECT 1 FROM json_each(record, '$.members')
                           WHERE json_extract(value, '$.id') = ?1)";
            let ids = column(db, sql, [id.as_str()])?;
            ids.first().map_or(Ok(None), |id| load_text(db, id))
        })?;
        let Some(holder) = holders.map(Row::parse).transpose()? else { return Ok(None) };
        let member = holder.record.members.into_iter().find(|member| member.id == *id);
        Ok(member.map(|record| Image { record, names: Vec::new(), stored: holder.stored }))
    }

    fn by_prefix(&self, prefix: &str) -> Result<Option<Image>> {
        let low = format!("sha256:{prefix}");
        let high = format!("{low}g"); // sorts after every hex digit
        let mut rows = self.shared.db.read(|db| {
            let ids = column(db, "SELECT id FROM images WHERE id >= ?1 AND id < ?2 LIMIT 9", [&low, &high])?;
            ids.iter().filter_map(|id| load_text(db, id).transpose()).collect::<rusqlite::Result<Vec<_>>>()
        })?;
        if rows.len() > 1 {
            let candidates = rows.into_iter().map(|row| Ok(row.parse()?.record.id)).collect::<Result<_>>()?;
            return Err(Error::AmbiguousImage { prefix: prefix.to_owned(), candidates });
        }
        rows.pop().map(Row::parse).transpose()
    }
}

/// An image as the tables have it.
struct Row {
    id: String,
    record: String,
    names: Vec<String>,
    stored: i64,
}

impl Row {
    fn parse(self) -> Result<Image> {
        let record = serde_json::from_str(&self.record)
            .map_err(|source| Error::Damaged { what: format!("image {}", self.id), source })?;
        Ok(Image { record, names: self.names, stored: self.stored })
    }
}

/// Names are kept without a digest: `a:1@sha256:…` is stored as `a:1`. A bare digest names nothing new.
fn tag_of(name: &Reference) -> String {
    Reference { digest: None, ..name.clone() }.to_string()
}

fn held(record: &ImageRecord) -> impl Iterator<Item = Item> + '_ {
    record.layers().cloned().map(Item::Layer).chain(record.contents().cloned().map(Item::Blob))
}

/// The record, and the places where registries were known to have its image before.
fn with_known_repositories(db: &Connection, record: &ImageRecord) -> rusqlite::Result<ImageRecord> {
    let mut record = record.clone();
    let before = load(db, &record.id)?.and_then(|row| row.parse().ok());
    record.repo_digests.extend(before.into_iter().flat_map(|image| image.record.repo_digests));
    record.repo_digests.sort_unstable();
    record.repo_digests.dedup();
    Ok(record)
}

fn write_record(db: &Transaction<'_>, record: &ImageRecord) -> rusqlite::Result<()> {
    let id = record.id.as_str();
    let text = serde_json::to_string(record).expect("plain data with string keys serialises");
    let manifest = record.manifest.as_ref().map(|manifest| manifest.digest.as_str());
    let sql = "INSERT INTO images (id, manifest, record, stored) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE
               SET manifest = excluded.manifest, record = excluded.record, stored = excluded.stored";
    db.prepare_cached(sql)?.execute(params![id, manifest, text, now()])?;
    db.prepare_cached("DELETE FROM image_layers WHERE image = ?1")?.execute([id])?;
    db.prepare_cached("DELETE FROM image_blobs WHERE image = ?1")?.execute([id])?;
    let mut layer = db.prepare_cached("INSERT OR IGNORE INTO image_layers (image, layer) VALUES (?1, ?2)")?;
    let mut blob = db.prepare_cached("INSERT OR IGNORE INTO image_blobs (image, blob) VALUES (?1, ?2)")?;
    for item in held(record) {
        match item {
            Item::Layer(held) => layer.execute([id, held.as_str()])?,
            Item::Blob(held) => blob.execute([id, held.as_str()])?,
        };
    }
    Ok(())
}

fn point(db: &Transaction<'_>, name: &str, id: &Digest) -> rusqlite::Result<()> {
    let sql = "INSERT INTO names (name, image, updated) VALUES (?1, ?2, ?3)
               ON CONFLICT DO UPDATE SET image = excluded.image, updated = excluded.updated";
    db.prepare_cached(sql)?.execute(params![name, id.as_str(), now()])?;
    Ok(())
}

fn load(db: &Connection, id: &Digest) -> rusqlite::Result<Option<Row>> {
    load_text(db, id.as_str())
}

fn load_text(db: &Connection, id: &str) -> rusqlite::Result<Option<Row>> {
    let mut select = db.prepare_cached("SELECT record, stored FROM images WHERE id = ?1")?;
    let Some((record, stored)) = select.query_row([id], |row| Ok((row.get(0)?, row.get(1)?))).optional()? else {
        return Ok(None);
    };
    Ok(Some(Row { id: id.to_owned(), record, names: names_of(db, id)?, stored }))
}

fn names_of(db: &Connection, id: &str) -> rusqlite::Result<Vec<String>> {
    column(db, "SELECT name FROM names WHERE image = ?1 ORDER BY name", [id])
}

/// The first column of all rows.
pub(crate) fn column(db: &Connection, sql: &str, args: impl rusqlite::Params) -> rusqlite::Result<Vec<String>> {
    db.prepare_cached(sql)?.query_map(args, |row| row.get(0))?.collect()
}
