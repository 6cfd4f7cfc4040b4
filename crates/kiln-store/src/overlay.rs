//! The snapshotter of kiln: each layer is the upper directory of an overlay over those below it.

use std::collections::HashSet;
use std::fs::{File, Permissions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use kiln_sys::mount::{Overlay, Upper};
use kiln_sys::xattr;

use crate::error::{Error, IoContext as _, Result};
use crate::lease::{Item, Lease};
use crate::snapshot::{ActiveSnapshot, LayerId, Snapshot, Snapshotter};
use crate::store::Store;
use crate::testing::reached;

impl Snapshotter for Store {
    #[expect(clippy::disallowed_methods, reason = "the state directory is ours alone")]
    fn prepare(&self, parent: Option<&Snapshot>, lease: &Lease) -> Result<ActiveSnapshot> {
        let parent = parent.cloned().unwrap_or_default();
        let layers: Vec<_> = parent.layers().iter().cloned().map(Item::Layer).collect();
        if let Some(missing) = lease.hold(&layers)? {
            return Err(missing.unknown());
        }
        let layer = self.begin_layer(lease)?;
        let work = layer.overlay_work();
        std::fs::create_dir(&work).context("create", &work)?;
        if let Some(top) = parent.layers().last() {
            copy_attributes(&self.layer_dir(top), &layer.tree())?;
        }
        reached("snapshot: prepared");
        Ok(ActiveSnapshot { layer, parent })
    }

    fn mounts(&self, active: &ActiveSnapshot) -> Result<Overlay> {
        let upper = Upper { upper: active.layer.tree(), work: active.layer.overlay_work() };
        Ok(Overlay { lowers: self.lowers(&active.parent), upper: Some(upper), userxattr: user_xattr() })
    }

    fn view(&self, snapshot: &Snapshot) -> Result<Overlay> {
        let mut lowers = self.lowers(snapshot);
        // Never a layer alone: only a stack hides whiteouts and overlay's own attributes.
        if lowers.len() < 2 {
            lowers.push(self.shared.layout.empty());
        }
        Ok(Overlay { lowers, upper: None, userxattr: user_xattr() })
    }

    fn commit(&self, active: ActiveSnapshot) -> Result<Snapshot> {
        let layer = self.publish_layer(&active.layer, None)?;
        Ok(active.parent.with(layer))
    }

    fn discard(&self, active: ActiveSnapshot) -> Result<()> {
        self.discard_layer(active.layer)
    }
}

impl Store {
    /// Topmost first. A layer that stands twice is taken at its highest place: what it says there overrides all that
    /// it says further down, and the kernel refuses one directory twice.
    fn lowers(&self, snapshot: &Snapshot) -> Vec<PathBuf> {
        let mut seen: HashSet<&LayerId> = HashSet::new();
        let layers = snapshot.layers().iter().rev();
        layers.filter(|layer| seen.insert(layer)).map(|layer| self.layer_dir(layer)).collect()
    }
}

/// In a user namespace overlay keeps its marks in `user.overlay.*` (Documentation/filesystems/overlayfs.rst).
pub(crate) fn user_xattr() -> bool {
    !kiln_sys::userns::is_machine_root()
}

/// The upper directory is what `/` looks like in the mount, so it starts as the `/` it covers.
#[expect(clippy::disallowed_methods, reason = "the state directory is ours alone")]
fn copy_attributes(from: &Path, to: &Path) -> Result<()> {
    let source = File::open(from).context("open", from)?;
    let target = File::open(to).context("open", to)?;
    let metadata = source.metadata().context("inspect", from)?;
    let current = target.metadata().context("inspect", to)?;
    if (current.uid(), current.gid()) != (metadata.uid(), metadata.gid()) {
        fchown(&target, Some(metadata.uid()), Some(metadata.gid())).context("change the owner of", to)?;
    }
    if current.mode() != metadata.mode() {
        let mode = Permissions::from_mode(metadata.mode() & 0o7777);
        target.set_permissions(mode).context("change the mode of", to)?;
    }
    for name in xattr::list(&source).map_err(|error| cannot_copy(to, error))? {
        let bytes = name.as_bytes();
        if bytes.starts_with(b"trusted.overlay.") || bytes.starts_with(b"user.overlay.") || bytes == b"security.selinux"
        {
            continue;
        }
        let Some(value) = xattr::get(&source, &name).map_err(|error| cannot_copy(from, error))? else { continue };
        xattr::set(&target, &name, &value).map_err(|error| cannot_copy(to, error))?;
    }
    Ok(())
}

fn cannot_copy(path: &Path, error: kiln_sys::Error) -> Error {
    Error::Io { action: "copy the attributes of", path: path.to_owned(), source: error.into() }
}
