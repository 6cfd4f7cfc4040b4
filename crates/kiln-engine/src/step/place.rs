//! What a step would have mounted, put into its files where nothing can be mounted, and taken out again.
//!
//! None of it becomes part of the layer: its paths are named to who looks for changes. What a step leaves in a cache mount is
//! moved back when it has ended, however it ended.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use kiln_exec::{ContainerMount, Error, MountSource};
use kiln_fs::{CopySpec, SourceTree};
use kiln_report::{Failure, FailureKind};
use kiln_sys::metadata::{Device, FileKind, Metadata};
use kiln_sys::root::{Root, set_mode, set_owner};
use rustix::fs::OFlags;

use crate::failure::{Context as _, build};
use crate::job::Result;
use crate::scratch::open_dir;

/// Devices that programs expect, and their numbers (Documentation/admin-guide/devices.txt).
const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Where the kernel's own files would be.
const KERNEL: [&str; 3] = ["dev", "proc", "sys"];

/// What was put into a step's files.
#[derive(Default)]
pub(super) struct Placed {
    /// Where, from the root of the files.
    pub(super) apart: BTreeSet<Vec<u8>>,
    /// Directories whose content is a cache mount's, by handle: a step may move them; and where it goes.
    caches: Vec<(Root, PathBuf)>,
}

/// A cache mount: its target, and its directory.
pub(super) type Cache = (String, PathBuf);

/// The files of a step that is about to run.
pub(super) struct Files {
    dir: PathBuf,
    root: Root,
    placed: Placed,
}

impl Files {
    /// In this directory.
    pub(super) fn new(dir: PathBuf) -> Result<Self> {
        Ok(Self { root: open_dir(&dir)?, dir, placed: Placed::default() })
    }

    /// Puts everything where it belongs: parents come before what lies in them.
    pub(super) fn place(
        mut self,
        mounts: &[ContainerMount],
        texts: &[(&str, Vec<u8>)],
        caches: &[Cache],
    ) -> Result<Placed> {
        self.devices()?;
        for (target, text) in texts {
            self.text(target, text, (0o644, 0, 0))?;
        }
        let mut sorted: Vec<&ContainerMount> = mounts.iter().collect();
        sorted.sort_by_key(|mount| mount.target.matches('/').count());
        for mount in sorted {
            self.mount(mount)?;
        }
        for (target, cache) in caches {
            let path = self.find(target)?;
            self.placed.caches.push((self.directory(&path).or_build(|| cannot(target))?, cache.clone()));
        }
        Ok(self.placed)
    }

    fn mount(&mut self, mount: &ContainerMount) -> Result<()> {
        let target = &mount.target;
        match &mount.source {
            MountSource::Bytes { data, mode, uid, gid } => self.text(target, data.expose(), (*mode, *uid, *gid)),
            MountSource::Tmpfs { mode, .. } => {
                let path = self.empty(target)?;
                let opened = self.root.open_nofollow(OsStr::from_bytes(&path)).or_build(|| cannot(target))?;
                set_mode(opened, *mode).or_build(|| cannot(target))
            }
            MountSource::Tree { dir, subpath } => {
                let from = Root::new(dir.try_clone().or_environment(|| cannot(target))?);
                self.tree(target, from, subpath)
            }
            MountSource::Device(_) => Err(build(Error::NeedsNamespaces { what: format!("the device `{target}`") })),
        }
    }

    /// Copies a part of a tree: a directory, a file, or the socket of an agent.
    fn tree(&mut self, target: &str, from: Root, subpath: &str) -> Result<()> {
        let source = if subpath.is_empty() { "." } else { subpath };
        let opened = from.open_path(source).or_build(|| cannot(target))?;
        let look = Metadata::of(&opened).or_build(|| cannot(target))?;
        let path = match look.kind {
            FileKind::Directory => self.empty(target)?,
            _ => self.clear(target)?,
        };
        if look.kind == FileKind::Socket {
            return self.socket((&from, subpath), &path).or_environment(|| cannot(target));
        }
        let spec = CopySpec {
            src: format!("/{subpath}"),
            dest: format!("/{}", String::from_utf8_lossy(&path)),
            dir_copy_contents: true,
            follow_symlink: true,
            always_replace: true,
            ..CopySpec::default()
        };
        kiln_fs::copy(&SourceTree::snapshot(from), &self.root, &spec).or_build(|| cannot(target))?;
        let placed = self.root.open_nofollow(OsStr::from_bytes(&path)).or_build(|| cannot(target))?;
        let dress = || set_owner(&placed, look.uid, look.gid).and_then(|()| set_mode(&placed, look.mode));
        dress().or_build(|| cannot(target))
    }

    /// Gives a socket one more name: whoever connects there reaches the one who listens.
    fn socket(&self, (from, name): (&Root, &str), path: &[u8]) -> std::io::Result<()> {
        let (directory, name) = from.open_parent(name)?;
        let (parent, own) = self.root.open_parent(OsStr::from_bytes(path))?;
        Ok(rustix::fs::linkat(directory, name, parent, own, rustix::fs::AtFlags::empty())?)
    }

    fn text(&mut self, target: &str, bytes: &[u8], (mode, uid, gid): (u32, u32, u32)) -> Result<()> {
        let path = self.clear(target)?;
        let write = || {
            let mut file = self.root.create_file(OsStr::from_bytes(&path), 0o600)?;
            std::io::Write::write_all(&mut file, bytes)?;
            set_owner(&file, uid, gid)?;
            set_mode(&file, mode)?;
            Ok::<_, std::io::Error>(())
        };
        write().or_environment(|| cannot(target))
    }

    /// Takes away the file that stands for a target.
    fn clear(&mut self, target: &str) -> Result<Vec<u8>> {
        let path = self.find(target)?;
        let (parent, name) = self.root.open_parent(OsStr::from_bytes(&path)).or_build(|| cannot(target))?;
        kiln_fs::remove_tree(parent, &name).or_build(|| cannot(target))?;
        Ok(path)
    }

    /// Takes away what is in the directory that is a target.
    fn empty(&mut self, target: &str) -> Result<Vec<u8>> {
        let path = self.find(target)?;
        self.directory(&path).and_then(|directory| empty(&directory)).or_build(|| cannot(target))?;
        Ok(path)
    }

    /// Where a target is when all links are followed; it does not count from now on.
    #[expect(clippy::disallowed_methods, reason = "the kernel's own link, and the state directory's")]
    fn find(&mut self, target: &str) -> Result<Vec<u8>> {
        let doing = || cannot(target);
        let opened = match self.root.open_path(target) {
            // Targets in the kernel's places have no mount points.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.root.mkdir_all(target, 0o755).or_build(doing)?
            }
            opened => opened.or_build(doing)?,
        };
        let link = format!("/proc/self/fd/{}", opened.as_raw_fd());
        let at = std::fs::read_link(link).or_environment(doing)?;
        let dir = std::fs::canonicalize(&self.dir).or_environment(doing)?;
        let path = at.strip_prefix(&dir).ok().filter(|path| !path.as_os_str().is_empty());
        let path = path.ok_or_else(|| Failure::new(FailureKind::Build, doing()))?.as_os_str().to_owned().into_vec();
        self.placed.apart.insert(path.clone());
        Ok(path)
    }

    /// A directory of the files, which no link leads to.
    fn directory(&self, path: &[u8]) -> std::io::Result<Root> {
        let opened = self.root.open_nofollow(OsStr::from_bytes(path))?;
        match Metadata::of(&opened)?.kind {
            FileKind::Directory => Ok(Root::new(opened)),
            _ => Err(std::io::ErrorKind::NotADirectory.into()),
        }
    }

    /// Makes devices, if we may. Without a device of that name much is written to a file `null`, which is there for that.
    fn devices(&mut self) -> Result<()> {
        let doing = || "cannot make `/dev` for a step".to_owned();
        self.placed.apart.extend(KERNEL.map(|name| name.as_bytes().to_vec()));
        let dev = self.directory(b"dev").or_build(doing)?;
        empty(&dev).or_build(doing)?;
        for (name, major, minor) in DEVICES {
            let made = dev.mknod(name, FileKind::CharDevice, 0o666, Device { major, minor });
            // A filesystem may have no devices although they can be made there.
            if made.is_ok() && (name == "tty" || dev.open(name, OFlags::RDONLY).is_ok()) {
                continue;
            }
            kiln_fs::remove_tree(&dev, OsStr::new(name)).or_environment(doing)?;
            if name == "null" {
                dev.create_file(name, 0o666).or_environment(doing)?;
            }
        }
        dev.mkdir_all("shm", 0o1777).map(drop).or_environment(doing)
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        for (from, to) in &self.caches {
            // A cache that is lost costs time alone.
            let _ = move_content(from, to);
        }
    }
}

fn cannot(target: &str) -> String {
    format!("cannot put anything at `{target}`")
}

fn empty(directory: &Root) -> std::io::Result<()> {
    for entry in directory.read_dir(".")? {
        kiln_fs::remove_tree(directory, &entry.name)?;
    }
    Ok(())
}

/// Puts what is in one directory in the place of what is in another, which is the state directory's.
fn move_content(from: &Root, to: &Path) -> std::io::Result<()> {
    let to = Root::open_ambient(to)?;
    empty(&to)?;
    for entry in from.read_dir(".")? {
        rustix::fs::renameat(from, &entry.name, &to, &entry.name)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_placed_is_where_links_lead_and_goes_back() {
        let all = tempfile::tempdir().unwrap();
        let at = |path: &str| all.path().join(path);
        for dir in ["files/run", "files/dev", "files/cache", "source/sub", "kept"] {
            fs::create_dir_all(at(dir)).unwrap();
        }
        std::os::unix::fs::symlink("/run", at("files/link")).unwrap();
        fs::write(at("files/run/key"), "the image's").unwrap();
        fs::write(at("files/cache/old"), "the image's").unwrap();
        fs::write(at("source/sub/f"), "f").unwrap();
        fs::write(at("kept/before"), "b").unwrap();
        let tree = |path: &str, subpath: &str| MountSource::Tree {
            dir: Root::open_ambient(at(path)).unwrap().into_fd(),
            subpath: subpath.into(),
        };
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let secret = MountSource::Bytes { data: kiln_exec::Secret::new(b"s".to_vec()), mode: 0o440, uid, gid };
        let mount = |target: &str, source| ContainerMount { target: target.into(), readonly: false, source };
        let mounts =
            [mount("/link/key", secret), mount("/cache", tree("kept", "")), mount("/run/f", tree("source", "sub/f"))];
        fs::write(at("files/run/f"), "").unwrap();
        let files = Files::new(at("files")).unwrap();
        let placed = files.place(&mounts, &[], &[("/cache".into(), at("kept"))]).unwrap();
        assert_eq!(fs::read_to_string(at("files/run/key")).unwrap(), "s");
        assert_eq!(fs::read_to_string(at("files/run/f")).unwrap(), "f");
        assert!(at("files/cache/before").exists() && !at("files/cache/old").exists());
        let apart: Vec<_> = placed.apart.iter().map(|path| String::from_utf8_lossy(path)).collect();
        assert_eq!(apart, ["cache", "dev", "proc", "run/f", "run/key", "sys"]);
        assert!(at("files/dev/null").exists());
        fs::write(at("files/cache/new"), "n").unwrap();
        fs::remove_file(at("files/cache/before")).unwrap();
        drop(placed);
        assert!(at("kept/new").exists() && !at("kept/before").exists());
    }

    #[test]
    fn a_link_to_the_machine_is_neither_emptied_nor_taken_for_a_cache() {
        let all = tempfile::tempdir().unwrap();
        let at = |path: &str| all.path().join(path);
        for dir in ["canary", "linked", "files/dev", "files/cache", "kept"] {
            fs::create_dir_all(at(dir)).unwrap();
        }
        fs::write(at("canary/f"), "f").unwrap();
        let link = |path: &str| std::os::unix::fs::symlink(at("canary"), at(path)).unwrap();
        link("linked/dev");
        assert!(Files::new(at("linked")).unwrap().place(&[], &[], &[]).is_err());
        let placed = Files::new(at("files")).unwrap().place(&[], &[], &[("/cache".into(), at("kept"))]).unwrap();
        fs::write(at("files/cache/new"), "n").unwrap();
        // As a step may do.
        fs::rename(at("files/cache"), at("files/moved")).unwrap();
        link("files/cache");
        drop(placed);
        assert!(at("canary/f").exists() && at("kept/new").exists() && !at("kept/f").exists());
    }
}
