//! Trees being written: thrown away unless they are kept, however the work on them ends.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use kiln_fs::flat::{Aside, TreeState, Underlaid};
use kiln_store::{ActiveLayer, ActiveSnapshot, Lease, Snapshot, Snapshotter as _, Stacking, Store};
use kiln_sys::mount::{Bind, Depth, MountAttrFlags};
use kiln_sys::root::Root;

use crate::failure::{Context as _, environment};
use crate::ids::Sight;
use crate::job::Result;

/// A tree being written. Dropping it removes it; let go of what has it mounted first.
pub(crate) struct Scratch<A: Discard> {
    store: Store,
    active: Option<A>,
    /// Where there is no overlay: what the copy of the tree was before anybody wrote to it.
    before: Mutex<Option<Before>>,
    /// The copy without what is new, once that is where it belongs.
    copy: Mutex<Option<PathBuf>>,
}

/// What the copy of a tree was, and what of it is not the tree's own.
struct Before {
    state: TreeState,
    aside: Aside,
}

/// What a store can throw away.
pub(crate) trait Discard {
    /// Throws it away.
    fn discard(self, store: &Store) -> kiln_store::Result<()>;
}

impl Discard for ActiveSnapshot {
    fn discard(self, store: &Store) -> kiln_store::Result<()> {
        store.discard(self)
    }
}

impl Discard for ActiveLayer {
    fn discard(self, store: &Store) -> kiln_store::Result<()> {
        store.discard_layer(self)
    }
}

impl<A: Discard> Drop for Scratch<A> {
    #[expect(clippy::disallowed_methods, reason = "a directory of the state directory, which is ours alone")]
    fn drop(&mut self) {
        if let Some(copy) = self.copy.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = std::fs::remove_dir_all(copy);
        }
        if let Some(active) = self.active.take() {
            // What cannot be removed now goes with the next sweep.
            let _ = active.discard(&self.store);
        }
    }
}

impl<A: Discard> Scratch<A> {
    fn new(store: &Store, active: A) -> Self {
        Self { store: store.clone(), active: Some(active), before: Mutex::default(), copy: Mutex::default() }
    }

    fn active(&self) -> &A {
        self.active.as_ref().expect("it is taken only by what consumes it")
    }

    /// The tree itself, for whoever keeps it.
    pub(crate) fn take(mut self) -> A {
        self.active.take().expect("it is taken only by what consumes it")
    }
}

impl Scratch<ActiveSnapshot> {
    /// A tree on top of another.
    pub(crate) fn upon(store: &Store, parent: Option<&Snapshot>, lease: &Lease) -> Result<Self> {
        Ok(Self::new(store, store.prepare(parent, lease).map_err(environment)?))
    }

    /// Mounts it for a step that writes to it, with one more layer below all others; it is unmounted with its descriptor.
    pub(crate) fn show(&self, below: Option<&Path>, sight: &Sight) -> Result<OwnedFd> {
        if sight.is_plain() || self.store.stacking() == Stacking::Native {
            let dir = self.active().flat_dir();
            let under = self.lay(below)?;
            self.watch(Aside { under, ..Aside::default() })?;
            return sight.bind(&dir, Bind { depth: Depth::One, attributes: MountAttrFlags::empty() });
        }
        let mut overlay = self.store.mounts(self.active()).map_err(environment)?;
        overlay.lowers.extend(below.map(Path::to_owned));
        sight.mount(&overlay)
    }

    /// Opens it for us to write to.
    pub(crate) fn open(&self) -> Result<Root> {
        if self.store.stacking() == Stacking::Native {
            let under = self.lay(None)?;
            self.watch(Aside { under, ..Aside::default() })?;
            return open_dir(&self.active().flat_dir());
        }
        let overlay = self.store.mounts(self.active()).map_err(environment)?;
        overlay.mount_detached().map(Root::new).or_environment(|| "cannot mount a step's files".into())
    }

    /// Where all of the tree is, once it was copied.
    pub(crate) fn flat_dir(&self) -> PathBuf {
        self.active().flat_dir()
    }

    /// Where what makes room in it may wait.
    pub(crate) fn stash_dir(&self) -> PathBuf {
        self.active().stash_dir()
    }

    /// Copies all of the tree, with one more layer below all others, into one directory.
    pub(crate) fn lay(&self, below: Option<&Path>) -> Result<Underlaid> {
        self.store.lay(self.active(), below).map_err(environment)
    }

    /// Takes what the copy is now for what was there before, but for what is aside.
    pub(crate) fn watch(&self, aside: Aside) -> Result<()> {
        let dir = self.active().flat_dir();
        let doing = || "cannot read a step's files".into();
        let state = TreeState::of(&open_dir(&dir)?).or_environment(doing)?;
        *self.before.lock().unwrap_or_else(PoisonError::into_inner) = Some(Before { state, aside });
        Ok(())
    }

    /// Has what changed where it belongs. Nothing may write to the tree any more.
    fn settle(&self) -> Result<()> {
        let before = self.before.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Before { state, aside }) = before else { return Ok(()) };
        let copy = self.store.take_changes(self.active(), &state, aside).map_err(environment)?;
        *self.copy.lock().unwrap_or_else(PoisonError::into_inner) = Some(copy);
        Ok(())
    }

    /// Whether what is written goes to the upper directory of an overlay at once.
    pub(crate) fn is_stacked(&self) -> bool {
        self.store.stacking() == Stacking::Overlay
    }

    /// The directory that holds what has changed. Nothing may write to the tree any more.
    pub(crate) fn changes(&self) -> Result<PathBuf> {
        self.settle()?;
        Ok(self.upper_dir())
    }

    /// The directory that receives what changes.
    pub(crate) fn upper_dir(&self) -> PathBuf {
        self.active().upper_dir()
    }

    /// Keeps what was written. Nothing may have it mounted any more.
    pub(crate) fn commit(self) -> Result<Snapshot> {
        self.settle()?;
        let store = self.store.clone();
        let copy = self.copy.lock().unwrap_or_else(PoisonError::into_inner).take();
        let snapshot = store.commit(self.take()).map_err(environment)?;
        // Without it the next step's files are copied anew.
        let _ = copy.map(|copy| store.leave(copy, &snapshot));
        Ok(snapshot)
    }
}

impl Scratch<ActiveLayer> {
    /// A tree with nothing below it.
    pub(crate) fn layer(store: &Store, lease: &Lease) -> Result<Self> {
        Ok(Self::new(store, store.begin_layer(lease).map_err(environment)?))
    }

    /// The directory.
    pub(crate) fn tree(&self) -> PathBuf {
        self.active().tree()
    }
}

/// Opens a directory of the store as a root that no path in it leaves.
pub(crate) fn open_dir(path: &Path) -> Result<Root> {
    Root::open_ambient(path).or_environment(|| format!("cannot open `{}` of the state directory", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_kept_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state")).unwrap();
        let lease = store.lease().unwrap();
        let left = || std::fs::read_dir(store.root().join("work")).unwrap().count();
        let (layer, snapshot) = (Scratch::layer(&store, &lease).unwrap(), Scratch::upon(&store, None, &lease).unwrap());
        std::fs::write(layer.tree().join("f"), "f").unwrap();
        std::fs::write(snapshot.upper_dir().join("f"), "f").unwrap();
        assert_eq!(left(), 2);
        drop(layer);
        assert_eq!(left(), 1);
        let kept = snapshot.commit().unwrap();
        assert_eq!((left(), kept.layers().len()), (0, 1));
    }
}
