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
use kiln_fs::flat::Stash;
use kiln_fs::{CopySpec, SourceTree};
use kiln_report::{Failure, FailureKind};
use kiln_sys::metadata::{Device, FileKind, Metadata};
use kiln_sys::root::{Root, set_mode, set_owner};

use crate::failure::{Context as _, build};
use crate::job::Result;
use crate::scratch::open_dir;

/// Devices that programs expect, and their numbers (Documentation/admin-guide/devices.txt).
const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Where the kernel's own files would be.
const KERNEL: [&str; 3] = ["dev", "proc", "sys"];

/// What was put into a step's files: dropping it takes it out.
pub(super) struct Placed {
    /// The step's files. The step may have left links anywhere: nothing of this may lead out.
    root: Root,
    /// In the order in which it was put there, from the root of the files. What is a cache mount's goes back to that.
    paths: Vec<(Vec<u8>, Option<PathBuf>)>,
}

/// A cache mount: its target, and its directory.
pub(super) type Cache = (String, PathBuf);

/// The files of a step that is about to run.
pub(super) struct Files {
    dir: PathBuf,
    root: Root,
    stash: Stash,
    /// What does not count, from the root of the files.
    apart: BTreeSet<Vec<u8>>,
    placed: Placed,
}

impl Files {
    /// In this directory; what is in the way waits in another, beside it.
    pub(super) fn new(dir: PathBuf, stash: &Path) -> Result<Self> {
        let stash = Stash::new(stash).or_environment(|| "cannot make room in a step's files".into())?;
        let placed = Placed { root: open_dir(&dir)?, paths: Vec::new() };
        Ok(Self { root: open_dir(&dir)?, dir, stash, apart: BTreeSet::new(), placed })
    }

    /// Puts everything where it belongs: parents come before what lies in them.
    pub(super) fn place(
        mut self,
        mounts: &[ContainerMount],
        texts: &[(&str, Vec<u8>)],
        caches: &[Cache],
    ) -> Result<(Placed, BTreeSet<Vec<u8>>, Stash)> {
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
            let known = self.placed.paths.iter_mut().find(|(placed, _)| *placed == path);
            known.into_iter().for_each(|(_, to)| *to = Some(cache.clone()));
        }
        Ok((self.placed, self.apart, self.stash))
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

    /// Makes room for a target.
    fn clear(&mut self, target: &str) -> Result<Vec<u8>> {
        let path = self.find(target)?;
        self.stash.put_away(&self.root, &path).or_build(|| cannot(target))?;
        self.placed.paths.push((path.clone(), None));
        Ok(path)
    }

    /// Makes an empty directory of a target.
    fn empty(&mut self, target: &str) -> Result<Vec<u8>> {
        let path = self.clear(target)?;
        self.root.mkdir(OsStr::from_bytes(&path), 0o755).or_build(|| cannot(target))?;
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
        self.apart.insert(path.clone());
        Ok(path)
    }

    /// Makes devices, if we may. Without a device of that name much is written to a file `null`, which is there for that.
    fn devices(&mut self) -> Result<()> {
        let doing = || "cannot make `/dev` for a step".to_owned();
        self.apart.extend(KERNEL.map(|name| name.as_bytes().to_vec()));
        self.empty("/dev")?;
        for (name, major, minor) in DEVICES {
            let path = format!("dev/{name}");
            let made = self.root.mknod(&path, FileKind::CharDevice, 0o666, Device { major, minor });
            // A filesystem may have no devices although they can be made there.
            if made.is_ok() && (name == "tty" || self.root.open(&path, rustix::fs::OFlags::RDONLY).is_ok()) {
                continue;
            }
            kiln_fs::remove_tree(
                self.root.open("dev", rustix::fs::OFlags::DIRECTORY).or_build(doing)?,
                OsStr::new(name),
            )
            .or_environment(doing)?;
            if name == "null" {
                self.root.create_file("dev/null", 0o666).or_environment(doing)?;
            }
        }
        self.root.mkdir_all("dev/shm", 0o1777).map(drop).or_environment(doing)
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        for (index, (path, cache)) in self.paths.iter().enumerate().rev() {
            let is_in =
                |(other, _): &(Vec<u8>, _)| path.strip_prefix(other.as_slice()).is_some_and(|it| it.starts_with(b"/"));
            // A cache that is lost costs time alone, and all else goes with the tree.
            let _ = match cache {
                Some(cache) => self
                    .root
                    .subroot(OsStr::from_bytes(path))
                    .map_err(Into::into)
                    .and_then(|it| move_content(&it, cache)),
                None => self.void(path, self.paths[..index].iter().any(is_in)),
            };
        }
    }
}

impl Placed {
    /// Takes away what is in a file or a directory. What lies in something else that was placed goes altogether, lest a secret
    /// become part of a cache mount. All else stays, or the directory that it is in would have changed.
    fn void(&self, path: &[u8], goes: bool) -> std::io::Result<()> {
        let path = OsStr::from_bytes(path);
        if goes {
            let (parent, name) = self.root.open_parent(path)?;
            return kiln_fs::remove_tree(parent, &name);
        }
        let found = self.root.metadata(path)?;
        match found.kind {
            FileKind::Directory => empty(&self.root.subroot(path)?),
            FileKind::Regular => {
                let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
                std::fs::File::from(self.root.open(path, flags)?).set_len(0)
            }
            _ => Ok(()),
        }
    }
}

fn cannot(target: &str) -> String {
    format!("cannot put anything at `{target}`")
}

fn empty(root: &Root) -> std::io::Result<()> {
    for entry in root.read_dir("/")? {
        kiln_fs::remove_tree(root.try_clone()?.into_fd(), &entry.name)?;
    }
    Ok(())
}

/// Puts what is in one directory in the place of what is in another.
fn move_content(from: &Root, to: &Path) -> std::io::Result<()> {
    let to = Root::open_ambient(to)?;
    empty(&to)?;
    for entry in from.read_dir("/")? {
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
        let files = Files::new(at("files"), &at("stash")).unwrap();
        let (placed, apart, stash) = files.place(&mounts, &[], &[("/cache".into(), at("kept"))]).unwrap();
        assert_eq!(fs::read_to_string(at("files/run/key")).unwrap(), "s");
        assert_eq!(fs::read_to_string(at("files/run/f")).unwrap(), "f");
        assert!(at("files/cache/before").exists() && !at("files/cache/old").exists());
        let apart: Vec<_> = apart.iter().map(|path| String::from_utf8_lossy(path)).collect();
        assert_eq!(apart, ["cache", "dev", "proc", "run/f", "run/key", "sys"]);
        assert!(at("files/dev/null").exists());
        fs::write(at("files/cache/new"), "n").unwrap();
        fs::remove_file(at("files/cache/before")).unwrap();
        // A step may turn against its files: nothing outside of them is touched.
        fs::create_dir_all(at("outside/key")).unwrap();
        fs::write(at("outside/f"), "outside").unwrap();
        fs::remove_file(at("files/run/f")).unwrap();
        std::os::unix::fs::symlink(at("outside/f"), at("files/run/f")).unwrap();
        drop(placed);
        assert_eq!(fs::read_to_string(at("outside/f")).unwrap(), "outside");
        assert_eq!(fs::read_to_string(at("files/run/key")).unwrap(), "", "a secret is not left on disk");
        assert!(at("kept/new").exists() && !at("kept/before").exists());
        stash.put_back(&Root::open_ambient(at("files")).unwrap()).unwrap();
        assert_eq!(fs::read_to_string(at("files/run/key")).unwrap(), "the image's");
        assert!(at("files/cache/old").exists() && !at("files/dev/null").exists());
    }

    #[test]
    fn links_to_the_machine_lead_nowhere() {
        let all = tempfile::tempdir().unwrap();
        let at = |path: &str| all.path().join(path);
        for dir in ["canary", "linked", "files/dev", "files/cache", "kept"] {
            fs::create_dir_all(at(dir)).unwrap();
        }
        fs::write(at("canary/f"), "f").unwrap();
        let link = |path: &str| std::os::unix::fs::symlink(at("canary"), at(path)).unwrap();
        link("linked/dev");
        drop(Files::new(at("linked"), &at("first stash")).unwrap().place(&[], &[], &[]));
        let kept = MountSource::Tree { dir: Root::open_ambient(at("kept")).unwrap().into_fd(), subpath: String::new() };
        let mount = ContainerMount { target: "/cache".into(), readonly: false, source: kept };
        let files = Files::new(at("files"), &at("stash")).unwrap();
        let (placed, ..) = files.place(&[mount], &[], &[("/cache".into(), at("kept"))]).unwrap();
        // As a step may do.
        fs::rename(at("files/cache"), at("files/moved")).unwrap();
        link("files/cache");
        drop(placed);
        let names: Vec<_> = fs::read_dir(at("canary")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(names == ["f"] && !at("kept/f").exists(), "{names:?}");
    }
}
