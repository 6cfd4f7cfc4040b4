//! Layers as one tree: overlayfs over a list of directories.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, unlinkat};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MountFlags};
use rustix::thread::UnshareFlags;

use super::{Bind, Depth, NewMount, Shifted, bind_path_detached, make_private};
use crate::root::{proc_path, read_dir_fd};
use crate::{Error, Result, xattr};

/// As many layers as the kernel stacks (`OVL_MAX_STACK`).
const MAX_STACK: usize = 500;

/// As many layers as can be had, when the lowest are a stack of their own: the kernel stacks stacks once
/// (`FILESYSTEM_MAX_STACK_DEPTH`). Layers that say nothing do not count.
pub const MAX_LAYERS: usize = 2 * MAX_STACK - 1;

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
        match self.stack_of(Dialect::Descriptors, |path| view.open(path, LAYER)) {
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
            _ => self.stack_of(dialect, open_layer),
        }
    }

    /// Directories are open one at a time, however many there are.
    fn stack_of(&self, dialect: Dialect, open: impl Fn(&Path) -> Result<OwnedFd> + Copy) -> Result<OwnedFd> {
        if self.lowers.len() > MAX_STACK {
            return self.stack_many(dialect, open);
        }
        self.stack_upon(None, dialect, open)
    }

    /// More layers than the kernel takes: those that say nothing are passed over, and if that is not enough, the lowest
    /// are stacked apart. Nothing is below them, so that their whiteouts have nothing to hide from the stack above.
    fn stack_many(&self, dialect: Dialect, open: impl Fn(&Path) -> Result<OwnedFd> + Copy) -> Result<OwnedFd> {
        let (top, others) = self.lowers.split_first().expect("there are more than the kernel stacks");
        let mut lowers = vec![top.clone()];
        for path in others {
            if says_something(open(path)?, path)? {
                lowers.push(path.clone());
            }
        }
        if lowers.len() <= MAX_STACK {
            // The lowest stays in any case: an upper alone is no stack.
            lowers.extend((lowers.len() == 1).then(|| others.last().cloned()).flatten());
            return Overlay { lowers, ..self.clone() }.stack_upon(None, dialect, open);
        }
        if lowers.len() > MAX_LAYERS {
            return Err(Error::TooManyLayers { count: lowers.len(), limit: MAX_LAYERS });
        }
        let lowest = Overlay { lowers: lowers.split_off(MAX_STACK - 1), upper: None, userxattr: self.userxattr };
        let mount = lowest.stack_upon(None, dialect, open)?;
        // A mount's descriptor stands for a path; a layer must be open.
        let lowest = rustix::fs::openat(&mount, ".", LAYER, Mode::empty());
        let lowest = lowest.map_err(|e| Error::call("open the stack of the lowest layers", e))?;
        Overlay { lowers, ..self.clone() }.stack_upon(Some(lowest), dialect, open)
    }

    fn stack_upon(
        &self,
        lowest: Option<OwnedFd>,
        dialect: Dialect,
        open: impl Fn(&Path) -> Result<OwnedFd>,
    ) -> Result<OwnedFd> {
        let mut mount = NewMount::open("overlay")?;
        for path in &self.lowers {
            put(&mut mount, dialect, "lowerdir+", open(path)?.as_fd())?;
        }
        if let Some(lowest) = lowest {
            put(&mut mount, dialect, "lowerdir+", lowest.as_fd())?;
        }
        if let Some(Upper { upper, work }) = &self.upper {
            let work = open(work)?;
            forget_earlier_volatile_mount(work.as_fd());
            put(&mut mount, dialect, "upperdir", open(upper)?.as_fd())?;
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
                let layers = Layers::open(self)?;
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

/// The layers' directories, all of them open.
struct Layers {
    lowers: Vec<OwnedFd>,
    upper: Option<(OwnedFd, OwnedFd)>,
}

impl Layers {
    fn open(overlay: &Overlay) -> Result<Layers> {
        let lowers = overlay.lowers.iter().map(|path| open_layer(path)).collect::<Result<_>>()?;
        let upper = match &overlay.upper {
            Some(Upper { upper, work }) => {
                let work = open_layer(work)?;
                forget_earlier_volatile_mount(work.as_fd());
                Some((open_layer(upper)?, work))
            }
            None => None,
        };
        Ok(Layers { lowers, upper })
    }
}

/// Whether a layer changes what is below it: something is in it, or it hides all. Other marks the kernel leaves on every
/// upper directory.
fn says_something(layer: OwnedFd, path: &Path) -> Result<bool> {
    let unreadable = |e| Error::path("read the layer", path, Errno::from_io_error(&e).unwrap_or(Errno::IO));
    if !read_dir_fd(&layer).map_err(unreadable)?.is_empty() {
        return Ok(true);
    }
    Ok(xattr::list(&layer)?.iter().any(|name| name.as_bytes().ends_with(b"overlay.opaque")))
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
        assert_eq!(message, "an overlay of 1000 layers is over the kernel's limit of 999");
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

    #[test]
    fn more_layers_than_the_kernel_stacks_are_one_tree() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: mounting an overlay needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let layer = |name: String| {
            let path = dir.path().join(name);
            std::fs::create_dir(&path).unwrap();
            path
        };
        let lowers: Vec<_> = (0..MAX_LAYERS + 300).rev().map(|n| layer(format!("l{n}"))).collect();
        let bottom_up: Vec<_> = lowers.iter().rev().collect();
        // Every fourth says nothing. One whiteout is in the lowest stack, one hides what is in it from above.
        let is_full = |n: &usize| !n.is_multiple_of(4);
        for n in (0..lowers.len()).filter(is_full) {
            std::fs::write(bottom_up[n].join(format!("f{n}")), n.to_string()).unwrap();
            std::fs::write(bottom_up[n].join("top"), n.to_string()).unwrap();
        }
        let whiteout = |path: PathBuf| {
            let kind = rustix::fs::FileType::CharacterDevice;
            rustix::fs::mknodat(CWD, path, kind, Mode::empty(), 0).unwrap();
        };
        whiteout(bottom_up[9].join("f1"));
        whiteout(bottom_up[1201].join("f2"));
        for n in (0..lowers.len()).filter(|n| !is_full(n)) {
            xattr::set(open_layer(bottom_up[n]).unwrap(), "trusted.overlay.impure", b"y").unwrap();
        }
        let upper = Upper { upper: layer("u".into()), work: layer("w".into()) };
        let overlay = Overlay { lowers: lowers.clone(), upper: Some(upper.clone()), userxattr: false };
        let root = crate::root::Root::new(overlay.mount_detached().unwrap());
        let count = (0..lowers.len()).filter(is_full).count();
        assert!(count > MAX_STACK && count <= MAX_LAYERS);
        assert_eq!(root.read_dir(".").unwrap().len(), count + 1 - 2);
        assert_eq!(root.read_to_limit("top", 10).unwrap(), b"1298");
        assert_eq!(root.read_to_limit("f3", 10).unwrap(), b"3");
        assert!(!root.contains("f1").unwrap() && !root.contains("f2").unwrap());
        root.unlink("f3").unwrap();
        root.create_file("new", 0o640).unwrap();
        drop(root);
        let changed: Vec<_> = std::fs::read_dir(&upper.upper).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(changed.len(), 2, "{changed:?}");
    }
}
