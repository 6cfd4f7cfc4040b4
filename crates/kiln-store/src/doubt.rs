//! Layers and content that turn out not to be there, or not to be whole: what needs them goes with them.
//!
//! Neither is synced when it is made: that would cost seconds. Each says in which boot of the machine it was written
//! until somebody synced it. After another boot those that still say so are looked at before anything uses them.

use std::fs::File;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use kiln_fs::layer::LayerError;
use kiln_fs::{Limits, compress};
use kiln_oci::{Descriptor, Hasher};
use kiln_sys::root::Root;
use rusqlite::{Connection, Transaction, params};

use crate::clean::remove_dir;
use crate::db::{locked, now};
use crate::error::{Error, IoContext as _, Result};
use crate::image::column;
use crate::lease::Item;
use crate::record::mark_lost;
use crate::snapshot::{LayerId, LayerInfo};
use crate::store::{Shared, Store};
use crate::testing::reached;

/// What went with something that was broken.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Dropped {
    pub(crate) images: Vec<String>,
    pub(crate) results: usize,
}

impl Dropped {
    pub(crate) fn lines(&self) -> Vec<String> {
        let images = self.images.iter().map(|name| format!("image `{name}`"));
        let results = match self.results {
            0 => None,
            1 => Some("the result of 1 step".to_owned()),
            many => Some(format!("the results of {many} steps")),
        };
        images.chain(results).collect()
    }

    fn note(&self, what: &str) -> String {
        let lost = self.lines().join(", ");
        if lost.is_empty() { what.to_owned() } else { format!("{what}; forgotten with it: {lost}") }
    }
}

impl Item {
    /// What would go with it.
    pub(crate) fn dependents(&self, db: &Connection) -> rusqlite::Result<Dropped> {
        let (images, results, key) = match self {
            Self::Layer(id) => (
                "SELECT ifnull(names.name, images.id) FROM image_layers JOIN images ON images.id = image_layers.image
                     LEFT JOIN names ON names.image = images.id WHERE layer = ?1 ORDER BY 1",
                "SELECT result FROM result_layers WHERE layer = ?1",
                id.as_str(),
            ),
            Self::Blob(digest) => (
                "SELECT ifnull(names.name, images.id) FROM image_blobs JOIN images ON images.id = image_blobs.image
                     LEFT JOIN names ON names.image = images.id WHERE blob = ?1 ORDER BY 1",
                "SELECT result FROM result_blobs WHERE blob = ?1",
                digest.as_str(),
            ),
        };
        Ok(Dropped { images: column(db, images, [key])?, results: column(db, results, [key])?.len() })
    }

    /// Forgets it, and all that needs it: results by the tables' own law, images here.
    pub(crate) fn forget(&self, db: &Transaction<'_>) -> rusqlite::Result<Dropped> {
        let dropped = self.dependents(db)?;
        let (images, own, key) = match self {
            Self::Layer(id) => ("SELECT image FROM image_layers WHERE layer = ?1", "layers WHERE id = ?1", id.as_str()),
            Self::Blob(digest) => {
                ("SELECT image FROM image_blobs WHERE blob = ?1", "blobs WHERE digest = ?1", digest.as_str())
            }
        };
        let results = match self {
            Self::Layer(_) => "SELECT result FROM result_layers WHERE layer = ?1",
            Self::Blob(_) => "SELECT result FROM result_blobs WHERE blob = ?1",
        };
        for result in column(db, results, [key])? {
            mark_lost(db, &result)?;
        }
        db.execute(&format!("DELETE FROM images WHERE id IN ({images})"), [key])?;
        db.execute(&format!("DELETE FROM {own}"), [key])?;
        Ok(dropped)
    }
}

impl Shared {
    /// Whether what has a row has its files too. A layer without is forgotten: a miss, and nothing worse.
    ///
    /// Costs one look for each layer. Content is looked at by whoever opens it.
    #[expect(clippy::disallowed_methods, reason = "the state directory is ours alone")]
    pub(crate) fn is_present(&self, item: &Item) -> Result<bool> {
        self.decided(item)?;
        let Item::Layer(id) = item else { return Ok(true) };
        let tree = self.layout.layer(id).join("fs");
        match std::fs::symlink_metadata(&tree) {
            Ok(found) if found.is_dir() => return Ok(true),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).context("inspect", &tree),
        }
        let dropped = self.db.write(|db| item.forget(db))?;
        self.note(dropped.note(&format!("layer {id} is gone from the state directory")));
        Ok(false)
    }

    /// An error for what could not be looked at after another boot.
    pub(crate) fn decided(&self, item: &Item) -> Result<()> {
        match locked(&self.undecided).get(item) {
            Some(why) => Err(Error::Undecided { what: item.label(), why: why.clone() }),
            None => Ok(()),
        }
    }

    fn note(&self, note: String) {
        locked(&self.notes).push(note);
    }
}

impl Store {
    /// What was found broken and forgotten since this was last asked, one sentence each.
    pub fn take_notes(&self) -> Vec<String> {
        std::mem::take(&mut *locked(&self.shared.notes))
    }

    /// Looks at what another boot left unsynced. What is what its digest says stays; all else goes, with what needs it. What
    /// cannot be looked at stays, and is not used. Costs a look at two indexes when there is nothing.
    ///
    /// To an ordinary user files have other ids than in his namespace, so that no layer is what its digest says. What he does
    /// outside it uses none.
    pub(crate) fn doubt_unsynced(&self) -> Result<()> {
        if !rustix::process::geteuid().is_root() {
            return Ok(());
        }
        let boot = boot_id();
        // Layers are compared with the tars they came as, so those come first.
        let found = [unsynced_blobs(&self.shared, &boot)?, unsynced_layers(&self.shared, &boot)?].concat();
        if found.is_empty() {
            return Ok(());
        }
        let doubted: Vec<_> = found.into_iter().map(|item| (self.is_whole(&item), item)).collect();
        reached("doubt: looked at");
        let _alone = self.shared.sweeper()?;
        let still = [unsynced_blobs(&self.shared, &boot)?, unsynced_layers(&self.shared, &boot)?].concat();
        for (is_whole, item) in doubted.into_iter().filter(|(_, item)| still.contains(item)) {
            match is_whole {
                Ok(true) => {
                    self.shared.db.write(|db| mark_synced(db, std::slice::from_ref(&item)))?;
                    continue;
                }
                Ok(false) => {}
                Err(error) => {
                    locked(&self.shared.undecided).insert(item, told(&error));
                    continue;
                }
            }
            let dropped = self.shared.db.write(|db| item.forget(db))?;
            reached("doubt: forgotten");
            self.take_away(&item)?;
            let what = format!("{} was written shortly before the machine stopped, and may not be whole", item.label());
            self.shared.note(dropped.note(&what));
        }
        Ok(())
    }

    fn is_whole(&self, item: &Item) -> Result<bool> {
        match item {
            Item::Blob(digest) => Ok(self.content().examine(digest)?.is_none()),
            Item::Layer(id) => Ok(self.proves_whole(id, &self.layer(id)?)? == Some(true)),
        }
    }

    /// Removes the files of what has no row any more.
    #[expect(clippy::disallowed_methods, reason = "the state directory is ours alone")]
    fn take_away(&self, item: &Item) -> Result<()> {
        let path = match item {
            Item::Layer(id) => return remove_dir(&self.shared.layout.layer(id)),
            Item::Blob(digest) => self.shared.layout.blob(digest),
        };
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context("remove", &path),
            _ => Ok(()),
        }
    }

    /// Whether a layer's files are what its digest says: packed again they have it, or they are those of the tar they
    /// came as, which others may have packed in another way. None when nothing can tell, an error when it could not be
    /// found out.
    #[expect(clippy::disallowed_methods, reason = "the state directory is ours alone")]
    pub(crate) fn proves_whole(&self, layer: &LayerId, info: &LayerInfo) -> Result<Option<bool>> {
        let Some(diff_id) = &info.diff_id else { return Ok(None) };
        let dir = self.layer_dir(layer);
        if !dir.try_exists().context("inspect", &dir)? {
            return Ok(Some(false));
        }
        let kept = open(&dir)?;
        let mut hasher = Hasher::new();
        let packed = judged(&dir, kiln_fs::layer::pack(&kept, &mut hasher))?;
        if packed.is_some() && hasher.finish() == *diff_id {
            return Ok(Some(true));
        }
        if info.blobs.is_empty() {
            return Ok(Some(false));
        }
        // It is of no use unless it is whole itself.
        let is_whole = |blob: &&Descriptor| matches!(self.content().examine(&blob.digest), Ok(None));
        match info.blobs.iter().find(is_whole) {
            Some(blob) => self.is_as_packed((&kept, &dir), self.content().open(&blob.digest)?),
            None => Ok(None),
        }
    }

    fn is_as_packed(&self, (kept, dir): (&Root, &Path), packed: File) -> Result<Option<bool>> {
        let Ok(tar) = compress::decompressor(std::io::BufReader::new(packed), &Limits::default()) else {
            return Ok(None);
        };
        let active = self.begin_layer(&self.lease()?)?;
        let same = || -> Result<bool> {
            let tree = active.tree();
            let fresh = open(&tree)?;
            let Some(stats) = judged(&tree, kiln_fs::layer::apply(tar, &fresh, &Limits::default()))? else {
                return Ok(false);
            };
            // Directories it only passes through look as those of the layers below.
            let below = std::slice::from_ref(kept);
            judged(&tree, kiln_fs::layer::inherit_implied(&fresh, &stats.implied, below))?;
            Ok(judged(dir, kiln_fs::layer::same_but_times(kept, &fresh))? == Some(true))
        };
        let is_same = same();
        // What stays behind goes with the next sweep.
        let _ = self.discard_layer(active);
        is_same.map(Some)
    }

    /// Makes sure that what was made longer than `age` ago is on disk; says how much was not known to be.
    ///
    /// The kernel writes files back within half a minute by itself, so for older ones there is little left to do. It
    /// may still wait for what other programs write: not for a thread that somebody waits for.
    #[expect(clippy::disallowed_methods, reason = "the state directory is ours alone")]
    pub fn settle(&self, age: Duration) -> Result<usize> {
        let before = now().saturating_sub(i64::try_from(age.as_secs()).unwrap_or(i64::MAX));
        let old = |sql| self.shared.db.read(|db| column(db, sql, [before]));
        let blobs = old("SELECT digest FROM blobs WHERE boot <> '' AND created <= ?1")?;
        let layers = old("SELECT id FROM layers WHERE boot <> '' AND created <= ?1")?;
        let old = [items(&blobs, Item::Blob), items(&layers, Item::Layer)].concat();
        if old.is_empty() {
            return Ok(0);
        }
        let layers = self.shared.layout.layers();
        let dir = File::open(&layers).context("open", &layers)?;
        rustix::fs::syncfs(dir).context("sync", &layers)?;
        reached("settle: synced");
        self.shared.db.write(|db| mark_synced(db, &old))?;
        Ok(old.len())
    }

    /// Notes that files of a layer were changed after it was kept, so that it counts as unsynced again.
    pub fn unsettle(&self, layer: &LayerId) -> Result<()> {
        let boot = boot_id();
        self.shared.db.write(|db| {
            db.prepare_cached("UPDATE layers SET boot = ?2 WHERE id = ?1")?
                .execute(params![layer.as_str(), boot])
                .map(drop)
        })
    }
}

fn open(dir: &Path) -> Result<Root> {
    let failed = |error: kiln_sys::Error| Error::Io { action: "open", path: dir.to_owned(), source: error.into() };
    Root::open_ambient(dir).map_err(failed)
}

/// None for what is wrong with a layer, an error for what kept us from finding out.
fn judged<T>(dir: &Path, found: Result<T, LayerError>) -> Result<Option<T>> {
    match found {
        Err(source @ (LayerError::Io { .. } | LayerError::Write { .. })) => {
            Err(Error::Layer { path: dir.to_owned(), source })
        }
        found => Ok(found.ok()),
    }
}

/// An error with all that caused it.
fn told(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn unsynced_layers(shared: &Shared, boot: &str) -> Result<Vec<Item>> {
    let sql = "SELECT id FROM layers WHERE boot <> '' AND boot <> ?1";
    Ok(items(&shared.db.read(|db| column(db, sql, [boot]))?, Item::Layer))
}

fn unsynced_blobs(shared: &Shared, boot: &str) -> Result<Vec<Item>> {
    let sql = "SELECT digest FROM blobs WHERE boot <> '' AND boot <> ?1";
    Ok(items(&shared.db.read(|db| column(db, sql, [boot]))?, Item::Blob))
}

fn items<T: FromStr>(names: &[String], item: fn(T) -> Item) -> Vec<Item> {
    names.iter().filter_map(|name| name.parse().ok().map(item)).collect()
}

fn mark_synced(db: &Transaction<'_>, items: &[Item]) -> rusqlite::Result<()> {
    items.iter().try_for_each(|item| {
        let (sql, key) = match item {
            Item::Layer(id) => ("UPDATE layers SET boot = '' WHERE id = ?1", id.as_str()),
            Item::Blob(digest) => ("UPDATE blobs SET boot = '' WHERE digest = ?1", digest.as_str()),
        };
        db.prepare_cached(sql)?.execute([key]).map(drop)
    })
}

/// The name of this boot of the machine. Never empty: that means synced.
#[expect(clippy::disallowed_methods, reason = "the state directory is ours alone")]
pub(crate) fn boot_id() -> String {
    let id = std::fs::read_to_string(Path::new("/proc/sys/kernel/random/boot_id")).unwrap_or_default();
    if id.trim().is_empty() { "unknown".to_owned() } else { id.trim().to_owned() }
}
