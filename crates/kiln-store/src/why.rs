//! Says what holds a thing that is kept.

use rusqlite::Connection;

use crate::error::{Error, IoContext as _, Result};
use crate::holder::holders;
use crate::image::column;
use crate::inventory::{Entry, EntryKind, Foreign};
use crate::lock;
use crate::store::Store;

/// A thing and all that holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// The thing.
    pub entry: Entry,
    /// What holds it.
    pub holders: Vec<Holder>,
}

/// Something that holds a thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// An image.
    Image {
        /// Its id.
        id: String,
        /// Its names; none when it lost the last.
        names: Vec<String>,
    },
    /// The layer that content packs.
    Layer(String),
    /// The result of a step.
    Step {
        /// The step, as the progress names it.
        step: String,
        /// The Dockerfile it stands in.
        origin: String,
        /// Seconds since 1970, good to the hour.
        used: i64,
    },
    /// A live process; its number, if the system tells.
    Process(Option<u32>),
}

impl Store {
    /// What holds the thing of this id, or of the only id that begins so.
    pub fn why(&self, id: &str, foreign: &[Foreign]) -> Result<Why> {
        let all = self.inventory(foreign)?;
        let entry = find(all, id)?;
        let mut holders = self.shared.db.read(|db| recorded(db, &entry))?;
        holders.extend(self.processes(&entry)?);
        Ok(Why { entry, holders })
    }

    #[expect(clippy::disallowed_methods, reason = "the state directory is ours alone")]
    fn processes(&self, entry: &Entry) -> Result<Vec<Holder>> {
        if !entry.is_held {
            return Ok(Vec::new());
        }
        let locks = match entry.kind {
            EntryKind::CacheMount => vec![self.shared.layout.cache_mounts().join(format!("{}.lock", entry.id))],
            EntryKind::Foreign => Vec::new(),
            EntryKind::Layer | EntryKind::Blob => {
                let leases = self.shared.layout.leases();
                let mut holding = Vec::new();
                for file in std::fs::read_dir(&leases).context("list", &leases)? {
                    let path = file.context("list", &leases)?.path();
                    if !path.is_file() || !lock::is_held(&path)? {
                        continue;
                    }
                    let lines = std::fs::read_to_string(&path).unwrap_or_default();
                    let holds = |id: &String| lines.lines().any(|line| line.split(' ').nth(1) == Some(id));
                    if std::iter::once(&entry.id).chain(&entry.packs).any(holds) {
                        holding.push(path);
                    }
                }
                holding
            }
        };
        let mut found: Vec<_> =
            locks.iter().flat_map(|lock| holders(lock)).map(|process| Holder::Process(Some(process.id))).collect();
        found.dedup();
        // What is held and by nobody we can name is held all the same.
        Ok(if found.is_empty() { vec![Holder::Process(None)] } else { found })
    }
}

fn find(all: Vec<Entry>, id: &str) -> Result<Entry> {
    let begins = |entry: &Entry| {
        let bare = entry.id.strip_prefix("sha256:").unwrap_or(&entry.id);
        entry.id.starts_with(id) || bare.starts_with(id)
    };
    let mut found: Vec<Entry> = all.into_iter().filter(begins).collect();
    if let Some(exact) = found.iter().position(|entry| entry.id == id) {
        return Ok(found.swap_remove(exact));
    }
    match (found.pop(), found.len()) {
        (Some(entry), 0) if !id.is_empty() => Ok(entry),
        (None, _) => Err(Error::UnknownEntry { id: id.to_owned() }),
        (Some(_), others) => Err(Error::AmbiguousEntry { id: id.to_owned(), count: others + 1 }),
    }
}

fn recorded(db: &Connection, entry: &Entry) -> rusqlite::Result<Vec<Holder>> {
    let mut holders = Vec::new();
    let (images, results) = match entry.kind {
        EntryKind::Layer => ("image_layers WHERE layer", "result_layers WHERE layer"),
        EntryKind::Blob => ("image_blobs WHERE blob", "result_blobs WHERE blob"),
        EntryKind::CacheMount | EntryKind::Foreign => return Ok(holders),
    };
    for image in column(db, &format!("SELECT image FROM {images} = ?1 ORDER BY image"), [&entry.id])? {
        let names = column(db, "SELECT name FROM names WHERE image = ?1 ORDER BY name", [&image])?;
        holders.push(Holder::Image { id: image, names });
    }
    holders.extend(entry.packs.iter().cloned().map(Holder::Layer));
    let sql = format!(
        "SELECT step, origin, used FROM results WHERE key IN (SELECT result FROM {results} = ?1) ORDER BY used DESC, key"
    );
    let mut select = db.prepare_cached(&sql)?;
    let step = |row: &rusqlite::Row<'_>| Ok(Holder::Step { step: row.get(0)?, origin: row.get(1)?, used: row.get(2)? });
    for step in select.query_map([&entry.id], step)? {
        holders.push(step?);
    }
    Ok(holders)
}
