//! Trees without an overlay: layers are copied into one directory, and what changed there is found by comparison.
//!
//! For places where the kernel stacks no directories: a state directory that is on an overlay itself, a filesystem without
//! the attributes that marks are kept in, a container that may not mount. Layers are the same as those of an overlay.
#![expect(clippy::disallowed_methods, reason = "the state directory is ours alone")]

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use kiln_fs::flat::{self, Aside, Names, TreeState, Underlaid};
use kiln_sys::mount::{Overlay, Upper};
use kiln_sys::root::Root;

use crate::db::locked;
use crate::error::{Error, IoContext as _, Result};
use crate::lease::Lease;
use crate::overlay::user_xattr;
use crate::snapshot::{ActiveSnapshot, Snapshot, Snapshotter as _};
use crate::store::Store;

/// How layers become one tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stacking {
    /// By overlayfs.
    Overlay,
    /// By copying them.
    Native,
}

/// Trees of snapshots that were copied to be read, and the lease they are made under.
#[derive(Default)]
pub(crate) struct Views {
    lease: Option<Lease>,
    /// One that is being made is locked.
    made: HashMap<Snapshot, Arc<Mutex<Option<PathBuf>>>>,
    /// Copies that steps have left, for the next steps to go on in; the latest last.
    left: Vec<(Snapshot, PathBuf)>,
}

/// As many copies as steps may leave: each takes the room of an image.
const MOST_LEFT: usize = 2;

impl fmt::Debug for Views {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Views").field("made", &self.made.len()).finish_non_exhaustive()
    }
}

impl Store {
    /// How layers become trees here: as was chosen, else found out by doing it, once. What is not by overlayfs is noted
    /// ([`Store::take_notes`]).
    pub fn stacking(&self) -> Stacking {
        *self.shared.stacking.get_or_init(|| {
            let Some(why) = self.remembered().or_else(|| self.find_out()) else { return Stacking::Overlay };
            locked(&self.shared.notes).push(format!(
                "layers are copied for each step, which takes longer and more space, since overlayfs does not work in the \
                 state directory `{}` ({}); name one on another filesystem with `--state`, in a container a volume",
                self.root().display(),
                why.trim()
            ));
            Stacking::Native
        })
    }

    /// Where it is written why this state directory does without overlayfs.
    fn reason(&self) -> PathBuf {
        self.shared.layout.root().join("native")
    }

    /// Why layers were copied here before. They may have marks by now that only we know.
    fn remembered(&self) -> Option<String> {
        let why = std::fs::read_to_string(self.reason()).ok()?;
        self.shared.layout.has_trees().unwrap_or(true).then_some(why)
    }

    fn find_out(&self) -> Option<String> {
        let why = match self.try_overlay() {
            Ok(()) => None,
            Err(Error::NoOverlay { source }) if source.errno() != Some(rustix::io::Errno::NOSPC.raw_os_error()) => {
                let sources = std::iter::successors(std::error::Error::source(&source), |source| source.source());
                Some(sources.fold(source.to_string(), |text, source| format!("{text}: {source}")))
            }
            // It could not be tried, as on a full disk.
            Err(_) => return None,
        };
        // What cannot be remembered is found out again.
        let _ = match &why {
            Some(why) => std::fs::write(self.reason(), why),
            None => std::fs::remove_file(self.reason()),
        };
        why
    }

    /// Chooses; of no effect once it was found out.
    pub fn choose_stacking(&self, stacking: Stacking) {
        // Whoever was first has already mounted something.
        let _ = self.shared.stacking.set(stacking);
    }

    /// Stacks directories, and does there what needs marks: something goes, and something else takes its place.
    fn try_overlay(&self) -> Result<()> {
        let lease = self.lease()?;
        let layer = self.begin_layer(&lease)?;
        let (work, low) = (layer.overlay_work(), layer.dir.join("low"));
        let outcome = self.try_overlay_in(&layer.tree(), &work, &low);
        self.discard_layer(layer)?;
        outcome
    }

    fn try_overlay_in(&self, upper: &Path, work: &Path, low: &Path) -> Result<()> {
        std::fs::create_dir_all(low.join("gone")).context("create", low)?;
        std::fs::create_dir(work).context("create", work)?;
        let (lowers, upper) = (vec![low.to_owned()], Upper { upper: upper.to_owned(), work: work.to_owned() });
        let overlay = Overlay { lowers, upper: Some(upper), userxattr: user_xattr() };
        let try_it = || {
            let tree = Root::new(overlay.mount_detached()?);
            tree.rmdir("gone")?;
            tree.mkdir("gone", 0o755).map(drop)
        };
        try_it().map_err(|source: kiln_sys::Error| Error::NoOverlay { source })
    }

    /// Copies a tree being written, and a layer below all others, into a directory of its own
    /// ([`ActiveSnapshot::flat_dir`]); says what came of the lowest. Whoever writes there has [`Store::take_changes`] find what
    /// they wrote.
    pub fn lay(&self, active: &ActiveSnapshot, below: Option<&Path>) -> Result<Underlaid> {
        let dir = active.layer.flat();
        let is_new = Root::open_ambient(active.layer.tree()).and_then(|upper| upper.read_dir("/"));
        if !is_new.is_ok_and(|names| names.is_empty()) || !self.go_on(&active.parent, &dir)? {
            let mut layers = vec![active.layer.tree()];
            layers.extend(self.mounts(active)?.lowers);
            lay(&layers, &dir, Names::Parted)?;
        }
        let Some(below) = below else { return Ok(Underlaid::default()) };
        flat::underlay(&open(below)?, &open(&dir)?).map_err(|source| failed(&dir, source))
    }

    /// Takes the copy that a step has left, if there is one of this snapshot.
    fn go_on(&self, snapshot: &Snapshot, dir: &Path) -> Result<bool> {
        let mut views = locked(&self.shared.views);
        let Some(at) = views.left.iter().rposition(|(of, _)| of == snapshot) else { return Ok(false) };
        let (_, left) = views.left.remove(at);
        std::fs::rename(&left, dir).context("rename", &left)?;
        Ok(true)
    }

    /// Leaves the copy of a tree for the next step, once its changes are a layer: they are copied back, and nothing else. What
    /// cannot be left is removed.
    pub fn leave(&self, copy: PathBuf, snapshot: &Snapshot) -> Result<()> {
        let Some(layer) = snapshot.layers().last() else { return crate::clean::remove_dir(&copy) };
        let upon = |layer: Root| flat::lay(&[layer], &open(&copy)?, Names::Parted).map_err(|e| failed(&copy, e));
        if let Err(error) = open(&self.layer_dir(layer)).and_then(upon) {
            crate::clean::remove_dir(&copy)?;
            return Err(error);
        }
        let late = {
            let mut views = locked(&self.shared.views);
            views.left.push((snapshot.clone(), copy));
            (views.left.len() > MOST_LEFT).then(|| views.left.remove(0))
        };
        late.map_or(Ok(()), |(_, copy)| crate::clean::remove_dir(&copy))
    }

    /// Where a copy can wait, away from the layer that it was made for.
    fn waiting_place(&self) -> Result<PathBuf> {
        let mut views = locked(&self.shared.views);
        if views.lease.is_none() {
            views.lease = Some(self.lease()?);
        }
        let lease = views.lease.as_ref().expect("it was made above");
        Ok(self.shared.layout.work().join(lease.fresh_name()))
    }

    /// Puts what has changed in the copy of a tree since `before` into the layer that is being written. What is aside does not
    /// count, and is taken out. The copy without the changes is given, to be [left](Store::leave).
    pub fn take_changes(&self, active: &ActiveSnapshot, before: &TreeState, aside: Aside) -> Result<PathBuf> {
        let (dir, upper) = (active.layer.flat(), active.layer.tree());
        let taken = open(&dir).and_then(|tree| open(&upper).map(|upper| (tree, upper))).and_then(|(tree, upper)| {
            flat::take_changes(&tree, before, &upper, &aside.apart).map_err(|e| failed(&dir, e))
        });
        taken?;
        let tree = open(&dir)?;
        let restored = aside.stash.map_or(Ok(()), |stash| stash.put_back(&tree));
        restored.and_then(|()| aside.under.take_out(&tree)).map_err(|source| failed(&dir, source))?;
        let place = self.waiting_place()?;
        std::fs::rename(&dir, &place).context("rename", &dir)?;
        Ok(place)
    }

    /// A snapshot as one directory, to be read and not to be written. It stays until [`Store::forget_views`].
    pub fn flat_view(&self, snapshot: &Snapshot) -> Result<PathBuf> {
        let (place, lease) = {
            let mut views = locked(&self.shared.views);
            if views.lease.is_none() {
                views.lease = Some(self.lease()?);
            }
            (Arc::clone(views.made.entry(snapshot.clone()).or_default()), views.lease.clone())
        };
        let mut made = locked(&place);
        if let Some(dir) = &*made {
            return Ok(dir.clone());
        }
        let lease = lease.expect("it was made above");
        let dir = self.shared.layout.work().join(lease.fresh_name());
        lay(&self.view(snapshot)?.lowers, &dir, Names::Kept)?;
        *made = Some(dir.clone());
        Ok(dir)
    }

    /// Removes all that was copied to be read. Nobody may read there any more.
    pub fn forget_views(&self) -> Result<()> {
        let views = std::mem::take(&mut *locked(&self.shared.views));
        let dirs = views.made.values().filter_map(|made| locked(made).take()).collect::<Vec<_>>();
        let left = views.left.iter().map(|(_, dir)| dir);
        dirs.iter().chain(left).try_for_each(|dir| crate::clean::remove_dir(dir))
    }
}

/// Copies layers, topmost first, into a new directory.
fn lay(layers: &[PathBuf], dir: &Path, names: Names) -> Result<()> {
    // What an attempt that failed has left.
    crate::clean::remove_dir(dir)?;
    std::fs::create_dir(dir).context("create", dir)?;
    let layers = layers.iter().map(|layer| open(layer)).collect::<Result<Vec<_>>>()?;
    flat::lay(&layers, &open(dir)?, names).map_err(|source| failed(dir, source))
}

fn open(dir: &Path) -> Result<Root> {
    Root::open_ambient(dir).context("open", dir)
}

fn failed(dir: &Path, source: kiln_fs::Error) -> Error {
    Error::Copy { path: dir.to_owned(), source }
}
