//! Mounts that a build may bring back: looked for when a step wants one of which there is none here.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_report::{Event, Reporter};
use kiln_store::{CacheMountName, Store};
use kiln_sys::root::Root;
use tokio::sync::OnceCell;

use super::export::{Entry, entries};
use super::import::fetch;
use super::place::Found;
use super::{MountsFrom, shown};
use crate::failure::Context as _;
use crate::job::Result;
use crate::progress::Work;
use crate::registry::Registry;

/// Where cache mounts may come back from. Nobody asks there before a step wants a mount that is not here.
pub(crate) struct Returning {
    places: Vec<Returned>,
    spool: PathBuf,
    reporter: Arc<dyn Reporter>,
}

/// One place, and what is there once somebody has looked.
struct Returned {
    from: MountsFrom,
    registry: Arc<Registry>,
    found: OnceCell<Option<(Found, Vec<Entry>)>>,
}

impl Returning {
    /// Mounts of the first place that has them.
    pub(crate) fn new(
        places: &[MountsFrom],
        store: &Store,
        (registry, reporter): (&Arc<Registry>, &Arc<dyn Reporter>),
    ) -> Self {
        let returned =
            |from: &MountsFrom| Returned { from: from.clone(), registry: Arc::clone(registry), found: OnceCell::new() };
        let places = places.iter().map(returned).collect();
        Self { places, spool: store.root().join("tmp"), reporter: Arc::clone(reporter) }
    }

    /// Fills a new, empty directory with a mount that was exported; false when there is none, or none that can be
    /// used: then a warning is given and the directory is empty. Blocks; not for threads that run tasks.
    pub(crate) fn restore(&self, name: &CacheMountName, id: &str, dir: &Path) -> bool {
        if self.places.is_empty() {
            return false;
        }
        let runtime = tokio::runtime::Handle::current();
        for place in &self.places {
            let restored = runtime.block_on(self.restore_from(place, name, (id, dir)));
            match restored {
                Ok(true) => return true,
                Ok(false) => {}
                Err(failure) => {
                    let label = place.from.place.label();
                    let id = shown(id);
                    self.reporter.report(Event::Note(format!(
                        "warning: cache mount `{id}` begins empty, the one of `{label}` cannot be used: {failure}"
                    )));
                    if empty(dir).is_err() {
                        return false;
                    }
                }
            }
        }
        false
    }

    async fn restore_from(&self, returned: &Returned, name: &CacheMountName, (id, dir): (&str, &Path)) -> Result<bool> {
        let found = returned.found.get_or_try_init(|| returned.look()).await?;
        let Some((found, entries)) = found else { return Ok(false) };
        let Some(entry) = entries.iter().find(|entry| entry.name == *name) else { return Ok(false) };
        let work = Work::start(&self.reporter, format!("restoring cache mount {}", shown(id)));
        let restored = async {
            let fetched = fetch(found.blobs.as_ref(), &entry.manifest, returned.from.max_size, &self.spool).await?;
            fetched.unpack(dir)
        };
        work.end(restored.await).map(|()| true)
    }
}

impl Returned {
    async fn look(&self) -> Result<Option<(Found, Vec<Entry>)>> {
        let Some(found) = self.from.place.find(&self.registry).await? else { return Ok(None) };
        let entries = entries(&found).await?;
        Ok(Some((found, entries)))
    }
}

/// Removes what is in a directory.
fn empty(dir: &Path) -> Result<()> {
    let doing = || format!("cannot empty `{}`", dir.display());
    let root = Root::open_ambient(dir).or_environment(doing)?;
    for entry in root.read_dir(".").or_environment(doing)? {
        kiln_fs::remove_tree(&root, &entry.name).or_environment(doing)?;
    }
    Ok(())
}
