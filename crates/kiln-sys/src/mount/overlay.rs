//! Layers as one tree: overlayfs over a list of directories.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, unlinkat};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MountFlags};
use rustix::thread::UnshareFlags;

use super::{Bind, Depth, NewMount, Shifted, bind_path_detached, make_private};
use crate::root::proc_path;
use crate::{Error, Result};

/// As many layers as the kernel stacks (`OVL_MAX_STACK`).
pub const MAX_LAYERS: usize = 500;

/// What every kiln overlay has switched off: a layer must mean the same on every kernel and after every copy.
const FIXED: [(&str, &str); 4] = [("redirect_dir", "nofollow"), ("metacopy", "off"), ("index", "off"), ("xino", "off")];

/// The layer that takes the changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upper {
    /// Where changes land.
    pub upper: PathBuf,
    /// An empty directory on the same filesystem, overlayfs' own.
    pub work: PathBuf,
}

/// An overlay mount to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlay {
    /// The read-only layers, topmost first, as in `lowerdir=`.
    pub lowers: Vec<PathBuf>,
    /// The writable layer, if any.
    pub upper: Option<Upper>,
    /// Whether overlay's own marks are `user.overlay.*` (inside a user namespace) instead of `trusted.overlay.*`.
    pub userxattr: bool,
}

/// How the directories are told to the kernel, newest way first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    /// `lowerdir+` and descriptors (Linux 6.13): no path is written anywhere.
    Descriptors,
    /// `lowerdir+` and `/proc/self/fd/N` (Linux 6.5): values of `fsconfig` end at 255 bytes.
    Strings,
    /// `mount(2)` with one page of options, in a namespace of its own.
    Classic,
}

impl Overlay {
    /// Mounts the layers. Without an upper the mount is read-only; a single directory is bound instead of stacked.
    ///
    /// The upper is mounted `volatile` where the kernel can: a crash of the machine loses it, a crash of kiln does not.
    pub fn mount_detached(&self) -> Result<OwnedFd> {
        match self.alone()? {
            Some((only, bind)) => bind_path_detached(only, bind),
            None => self.stack(),
        }
    }

    /// Mounts the layers as a user namespace sees them: in all of them, ids on disk count as those of the namespace.
    pub fn mount_shifted(&self, view: &Shifted) -> Result<OwnedFd> {
        // Overlay makes files of its own, with the ids of who mounts it: those must be ids that have a place on disk.
        let _acting = view.users().act_as_root()?;
        if let Some((only, bind)) = self.alone()? {
            return view.bind(only, bind);
        }
        let open = |path: &Path| view.open(path, LAYER);
        match Layers::open(self, open).and_then(|layers| self.stack_of(&layers, Dialect::Descriptors)) {
            Err(e) if e.errno() == Some(libc::EINVAL) => self.mount_staged(view),
            result => result,
        }
    }

    /// As [`Overlay::mount_shifted`], in the way of kernels before 6.15.
    #[doc(hidden)]
    pub fn mount_staged(&self, view: &Shifted) -> Result<OwnedFd> {
        let _acting = view.users().act_as_root()?;
        view.staged(|| self.mount_detached())
    }

    /// The directory, if there is but one.
    fn alone(&self) -> Result<Option<(&Path, Bind)>> {
        let read_only = Bind { depth: Depth::One, attributes: MountAttrFlags::MOUNT_ATTR_RDONLY };
        let writable = Bind { depth: Depth::One, attributes: MountAttrFlags::empty() };
        match (self.lowers.as_slice(), &self.upper) {
            ([], None) => Err(Error::Mount {
                filesystem: "overlay",
                log: "there is no layer".into(),
                source: Errno::INVAL.into(),
            }),
            ([], Some(only)) => Ok(Some((&only.upper, writable))),
            ([only], None) => Ok(Some((only, read_only))),
            _ => Ok(None),
        }
    }

    fn stack(&self) -> Result<OwnedFd> {
        let refused = match self.stack_in(Dialect::Descriptors) {
            Err(e) if e.errno() == Some(libc::EINVAL) => e,
            result => return result,
        };
        // An old kernel knows the key or the kind of value not; a wrong layer is refused in every dialect, and the
        // newest one has the best words for it.
        let older = [Dialect::Strings, Dialect::Classic].into_iter();
        older.map(|dialect| self.stack_in(dialect)).find_map(Result::ok).ok_or(refused)
    }

    fn stack_in(&self, dialect: Dialect) -> Result<OwnedFd> {
        match dialect {
            Dialect::Classic => self.stack_classic(),
            _ => self.stack_of(&Layers::open(self, open_layer)?, dialect),
        }
    }

    fn stack_of(&self, layers: &Layers, dialect: Dialect) -> Result<OwnedFd> {
        let mut mount = NewMount::open("overlay")?;
        for lower in &layers.lowers {
            put(&mut mount, dialect, "lowerdir+", lower.as_fd())?;
        }
        if let Some((upper, work)) = &layers.upper {
            put(&mut mount, dialect, "upperdir", upper.as_fd())?;
            put(&mut mount, dialect, "workdir", work.as_fd())?;
            mount.flag_if_known("volatile")?;
        }
        for (key, value) in self.options() {
            mount.set(key, value)?;
        }
        if self.userxattr {
            mount.flag("userxattr")?;
        }
        mount.finish(self.attributes())
    }

    /// With `userxattr` the kernel has redirects and metacopy off, and takes no word about them.
    fn options(&self) -> impl Iterator<Item = &'static (&'static str, &'static str)> {
        let skip = self.userxattr;
        FIXED.iter().filter(move |(key, _)| !(skip && matches!(*key, "redirect_dir" | "metacopy")))
    }

    fn attributes(&self) -> MountAttrFlags {
        match self.upper {
            Some(_) => MountAttrFlags::empty(),
            None => MountAttrFlags::MOUNT_ATTR_RDONLY,
        }
    }

    /// The way of old kernels. `mount(2)` needs a place in a namespace, so a thread takes a private copy of the
    /// host's, mounts there, clones the mount out of it, and ends; the namespace ends with it.
    fn stack_classic(&self) -> Result<OwnedFd> {
        let place = self.lowers.first().expect("stack is called with at least one lower directory");
        let mount =
            || -> Result<OwnedFd> {
                // SAFETY: only this thread's namespace and working directory part from the process, and it ends here.
                unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }
                    .map_err(|e| Error::call("make a mount namespace", e))?;
                make_private()?;
                // Opened here, because a layer must be seen through the namespace in which it is stacked.
                let layers = Layers::open(self, open_layer)?;
                let options = self.classic_options(&layers);
                let data = std::ffi::CString::new(options.as_str()).expect("the options are numbers and constants");
                let flags = if self.upper.is_some() { MountFlags::empty() } else { MountFlags::RDONLY };
                rustix::mount::mount("overlay", place, "overlay", flags, data.as_c_str())
                    .map_err(|e| Error::Mount { filesystem: "overlay", log: options, source: e.into() })?;
                bind_path_detached(place, Bind { depth: Depth::One, attributes: MountAttrFlags::empty() })
            };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("kiln-overlay".into()).spawn_scoped(scope, mount);
            let thread = thread.map_err(|e| Error::call("start a thread", e))?;
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn classic_options(&self, layers: &Layers) -> String {
        let lowers: Vec<_> = layers.lowers.iter().map(proc_path).collect();
        let mut options = format!("lowerdir={}", lowers.join(":"));
        if let Some((upper, work)) = &layers.upper {
            options.push_str(&format!(",upperdir={},workdir={}", proc_path(upper), proc_path(work)));
        }
        for (key, value) in self.options() {
            options.push_str(&format!(",{key}={value}"));
        }
        if self.userxattr {
            options.push_str(",userxattr");
        }
        options
    }
}

fn put(mount: &mut NewMount, dialect: Dialect, key: &str, directory: BorrowedFd<'_>) -> Result<()> {
    match dialect {
        Dialect::Descriptors => mount.set_fd(key, directory).map_err(|e| mount.error(e)),
        Dialect::Strings | Dialect::Classic => mount.set(key, &proc_path(directory)),
    }
}

/// The layers' directories, open.
struct Layers {
    lowers: Vec<OwnedFd>,
    upper: Option<(OwnedFd, OwnedFd)>,
}

impl Layers {
    fn open(overlay: &Overlay, open: impl Fn(&Path) -> Result<OwnedFd>) -> Result<Layers> {
        let count = overlay.lowers.len();
        if count > MAX_LAYERS {
            return Err(Error::TooManyLayers { count, limit: MAX_LAYERS });
        }
        let lowers = overlay.lowers.iter().map(|path| open(path)).collect::<Result<_>>()?;
        let upper = match &overlay.upper {
            Some(Upper { upper, work }) => {
                let work = open(work)?;
                forget_earlier_volatile_mount(work.as_fd());
                Some((open(upper)?, work))
            }
            None => None,
        };
        Ok(Layers { lowers, upper })
    }
}

/// How a layer is opened.
const LAYER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

fn open_layer(path: &Path) -> Result<OwnedFd> {
    rustix::fs::openat(CWD, path, LAYER, Mode::empty()).map_err(|e| Error::path("open the layer", path, e))
}

/// A volatile mount leaves a mark in its work directory and will not be mounted again. Whether an upper survived a
/// crash of the machine is the store's question (it discards what was active), so the mark goes.
fn forget_earlier_volatile_mount(work: BorrowedFd<'_>) {
    // Not there is the usual case, and anything worse is said by the mount that follows.
    let _ = unlinkat(work, "work/incompat/volatile/dirty", AtFlags::empty());
    let _ = unlinkat(work, "work/incompat/volatile", AtFlags::REMOVEDIR);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_stacked_is_refused_by_name() {
        let none = Overlay { lowers: vec![], upper: None, userxattr: false };
        assert_eq!(none.mount_detached().unwrap_err().to_string(), "cannot mount overlay: there is no layer");
        let lowers = vec![PathBuf::from("/"); MAX_LAYERS + 1];
        let many = Overlay { lowers, upper: None, userxattr: false };
        let message = many.mount_detached().unwrap_err().to_string();
        assert_eq!(message, "an overlay of 501 layers is over the kernel's limit of 500");
        let missing = Overlay { lowers: vec!["/".into(), "/no/layer".into()], upper: None, userxattr: false };
        assert_eq!(missing.mount_detached().unwrap_err().to_string(), "cannot open the layer `/no/layer`");
    }

    /// Every dialect must make the same mount, whatever this kernel prefers.
    #[test]
    fn every_dialect_mounts_long_paths_and_many_layers() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: mounting an overlay needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let mut base = dir.path().to_path_buf();
        for _ in 0..5 {
            base.push("n".repeat(200));
        }
        let layer = |name: &str| {
            let path = base.join(name);
            std::fs::create_dir_all(&path).unwrap();
            path
        };
        let lowers: Vec<_> = (0..128).rev().map(|n| layer(&format!("l{n}"))).collect();
        for (n, lower) in lowers.iter().rev().enumerate() {
            std::fs::write(lower.join(format!("f{n}")), n.to_string()).unwrap();
            std::fs::write(lower.join("top"), n.to_string()).unwrap();
        }
        for (n, dialect) in [Dialect::Descriptors, Dialect::Strings, Dialect::Classic].into_iter().enumerate() {
            let upper = Upper { upper: layer(&format!("u{n}")), work: layer(&format!("w{n}")) };
            let overlay = Overlay { lowers: lowers.clone(), upper: Some(upper.clone()), userxattr: false };
            let mount = match overlay.stack_in(dialect) {
                Ok(mount) => crate::root::Root::new(mount),
                Err(e) if e.errno() == Some(libc::EINVAL) && dialect == Dialect::Descriptors => {
                    println!("skipped: this kernel takes no descriptors as layers");
                    continue;
                }
                Err(e) => panic!("{dialect:?}: {e}"),
            };
            assert_eq!(mount.read_to_limit("top", 10).unwrap(), b"127", "{dialect:?}");
            assert_eq!(mount.read_to_limit("f0", 10).unwrap(), b"0", "{dialect:?}");
            mount.create_file("new", 0o640).unwrap();
            assert!(upper.upper.join("new").exists(), "{dialect:?}");
        }
    }
}
