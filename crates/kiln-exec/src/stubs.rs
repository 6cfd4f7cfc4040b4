//! Mount points that an image lacks, kept in a layer of their own under it.
//!
//! A mount needs something to be mounted on. Were it made in the container's writable layer, it would end in the
//! image, and taking it away again would follow whatever the container has put in its place. So the bottom layer of a
//! container's overlay holds exactly these names, owned by nobody's diff.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

use kiln_sys::metadata::{Metadata, Timestamp};
use kiln_sys::root::{Root, set_times};

use crate::Error;
use crate::spec::{ContainerMount, MountSource};

/// A mount point.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stub {
    /// Absolute, without `..`.
    pub path: String,
    /// What it must be.
    pub kind: StubKind,
}

/// What is mounted on a stub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StubKind {
    /// A directory.
    Dir,
    /// A file.
    File,
}

/// The mount points every container has.
const ALWAYS: [(&str, StubKind); 6] = [
    ("/dev", StubKind::Dir),
    ("/etc/hostname", StubKind::File),
    ("/etc/hosts", StubKind::File),
    ("/etc/resolv.conf", StubKind::File),
    ("/proc", StubKind::Dir),
    ("/sys", StubKind::Dir),
];

/// Lists the mount points of a container with these mounts, sorted, parents included in the paths only.
pub fn stubs(mounts: &[ContainerMount]) -> Result<Vec<Stub>, Error> {
    let targets: Result<Vec<_>, Error> =
        mounts.iter().map(|mount| Ok((mount.target.as_str(), mount.source.kind()?))).collect();
    Ok(stubs_for(targets?))
}

/// As [`stubs`], for targets whose kinds are known.
pub fn stubs_for<'a>(targets: impl IntoIterator<Item = (&'a str, StubKind)>) -> Vec<Stub> {
    let mut stubs = BTreeMap::from(ALWAYS.map(|(path, kind)| (path.to_string(), kind)));
    for (target, kind) in targets {
        let path = clean(target);
        let inside_ours = ["/dev/", "/proc/", "/sys/"].iter().any(|ours| path.starts_with(ours));
        if path != "/" && !inside_ours {
            stubs.entry(path).or_insert(kind);
        }
    }
    stubs.into_iter().map(|(path, kind)| Stub { path, kind }).collect()
}

/// Makes an absolute path of a target, without `.` and `..`, by its text alone.
pub(crate) fn clean(target: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for component in Path::new(target).components() {
        match component {
            Component::Normal(name) => names.extend(name.to_str()),
            Component::ParentDir => drop(names.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    format!("/{}", names.join("/"))
}

/// Makes the mount points in a directory, which can then be the bottom layer of an overlay. Where one target lies
/// below another that is a file, it is left out: mounting will say so.
pub fn write_stubs(dir: &Path, stubs: &[Stub]) -> Result<(), Error> {
    let fail = |source| Error::Stubs { path: dir.to_path_buf(), source };
    let root = Root::open_ambient(dir).map_err(fail)?;
    for stub in stubs {
        match write_stub(&root, stub) {
            Err(e) if matches!(e.kind(), std::io::ErrorKind::NotADirectory | std::io::ErrorKind::AlreadyExists) => {}
            written => written.map_err(fail)?,
        }
    }
    forget_dates(&root, stubs).map_err(fail)
}

fn write_stub(root: &Root, stub: &Stub) -> Result<(), kiln_sys::Error> {
    let path = Path::new(&stub.path);
    match stub.kind {
        StubKind::Dir => root.mkdir_all(path, 0o755).map(drop),
        StubKind::File => {
            root.mkdir_all(path.parent().unwrap_or(path), 0o755)?;
            root.create_file(path, 0o644).map(drop)
        }
    }
}

/// Nothing about a mount point may depend on the day it was made.
fn forget_dates(root: &Root, stubs: &[Stub]) -> Result<(), kiln_sys::Error> {
    let paths: BTreeSet<&Path> = stubs.iter().flat_map(|stub| Path::new(&stub.path).ancestors()).collect();
    for path in paths {
        match root.open_nofollow(path) {
            Err(e) if matches!(e.kind(), std::io::ErrorKind::NotADirectory | std::io::ErrorKind::NotFound) => {}
            opened => set_times(opened?, Timestamp::default())?,
        }
    }
    Ok(())
}

impl MountSource {
    /// Tells what a target of this source must be.
    pub(crate) fn kind(&self) -> Result<StubKind, Error> {
        let (dir, subpath) = match self {
            MountSource::Tmpfs { .. } => return Ok(StubKind::Dir),
            MountSource::Bytes { .. } | MountSource::Device(_) => return Ok(StubKind::File),
            MountSource::Tree { dir, subpath } => (dir, subpath),
        };
        let fail = |source| Error::MountSource { subpath: subpath.clone(), source };
        let tree = dir.try_clone().map(Root::new).map_err(|e| Error::Resources { source: e })?;
        let metadata = Metadata::of(tree.open_path(subpath).map_err(fail)?).map_err(fail)?;
        Ok(if metadata.is_dir() { StubKind::Dir } else { StubKind::File })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn every_container_has_the_usual_mount_points() {
        let paths: Vec<_> = stubs_for([]).into_iter().map(|stub| stub.path).collect();
        assert_eq!(paths, ["/dev", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/proc", "/sys"]);
    }

    #[test]
    fn targets_are_cleaned_and_what_is_inside_our_own_mounts_is_left_out() {
        let targets =
            ["/cache/", "/a/./b/../c", "../../x", "/dev/shm", "/", "/proc", "/sys/y"].map(|t| (t, StubKind::Dir));
        let stubs = stubs_for(targets);
        let extra: Vec<_> = stubs.iter().map(|s| s.path.as_str()).filter(|p| !p.starts_with("/etc")).collect();
        assert_eq!(extra, ["/a/c", "/cache", "/dev", "/proc", "/sys", "/x"]);
    }

    #[test]
    fn stubs_are_written_and_carry_no_date() {
        let dir = tempfile::tempdir().unwrap();
        let targets = [("/run/secrets/key", StubKind::File), ("/a/b/c", StubKind::Dir), ("/a/b", StubKind::Dir)];
        let stubs = stubs_for(targets);
        write_stubs(dir.path(), &stubs).unwrap();
        write_stubs(dir.path(), &stubs).unwrap();
        assert!(dir.path().join("run/secrets/key").is_file());
        for path in ["", "run", "run/secrets", "run/secrets/key", "a", "a/b", "a/b/c", "etc", "etc/hosts"] {
            assert_eq!(dir.path().join(path).metadata().unwrap().mtime(), 0, "{path}");
        }
    }

    #[test]
    fn a_target_below_a_file_does_not_stop_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let stubs = stubs_for([("/etc/hosts/x", StubKind::Dir), ("/z", StubKind::Dir)]);
        write_stubs(dir.path(), &stubs).unwrap();
        assert!(dir.path().join("z").is_dir());
        assert!(dir.path().join("etc/hosts").is_file());
    }
}
