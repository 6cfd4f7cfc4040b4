//! The place of the state directory, tried by stacking and shifting directories as steps do.
#![expect(clippy::disallowed_methods, reason = "the state directory and the place for it are what is looked at")]

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use kiln_store::Stacking;
use kiln_sys::mount::{Overlay, Upper};
use kiln_sys::userns::is_machine_root;

use super::facts::{Refusal, State, Trial};
use crate::ids::{self, Sight};
use crate::space;

/// What is tried, which leaves nothing: a directory that is not there yet is tried where it would be made.
pub(super) fn look(path: &Path) -> State {
    let place = path.ancestors().find(|place| place.is_dir()).unwrap_or(Path::new("/"));
    let owner = std::fs::metadata(place).ok().map(|found| found.uid());
    let us = rustix::process::geteuid().as_raw();
    let mut state = State {
        path: path.to_path_buf(),
        exists: place == path,
        owner: owner.filter(|owner| place == path && *owner != us),
        filesystem: filesystem(place),
        free: space::free(place).unwrap_or(0),
        writable: Ok(()),
        overlay: Ok(()),
        shifted: Ok(()),
    };
    match Ground::prepare(place) {
        Err(error) => state.writable = Err(error.into()),
        Ok(ground) => {
            state.overlay = ground.stack();
            state.shifted = ground.shift();
        }
    }
    state
}

/// Directories as a state directory has them.
struct Ground {
    root: tempfile::TempDir,
}

impl Ground {
    fn prepare(place: &Path) -> std::io::Result<Ground> {
        let root = tempfile::Builder::new().prefix(".kiln-doctor-").tempdir_in(place)?;
        ["empty", "layers", "upper", "work"].iter().try_for_each(|name| std::fs::create_dir(root.path().join(name)))?;
        Ok(Ground { root })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn overlay(&self) -> Overlay {
        let upper = Upper { upper: self.path("upper"), work: self.path("work") };
        Overlay { lowers: vec![self.path("empty")], upper: Some(upper), userxattr: !is_machine_root() }
    }

    /// Stacks what a step writes on what it reads.
    fn stack(&self) -> Trial {
        self.overlay().mount_detached().map(drop).map_err(Refusal::from)
    }

    /// The same with other ids.
    fn shift(&self) -> Trial {
        let Sight::Own(sight) = ids::own(self.root.path(), Stacking::Overlay)? else { return Ok(()) };
        Ok(self.overlay().mount_shifted(&sight).map(drop)?)
    }
}

impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Self {
        Refusal { errno: error.raw_os_error(), why: error.to_string() }
    }
}

impl From<kiln_sys::Error> for Refusal {
    fn from(error: kiln_sys::Error) -> Self {
        let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
        Refusal { errno: error.errno(), why: format!("{error}{source}") }
    }
}

/// The usual name of the file system that a path is on.
fn filesystem(path: &Path) -> String {
    const NAMES: [(u64, &str); 15] = [
        (0xef53, "ext4"),
        (0x5846_5342, "xfs"),
        (0x9123_683e, "btrfs"),
        (0x0102_1994, "tmpfs"),
        (0x794c_7630, "overlay"),
        (0x2fc1_2fc1, "zfs"),
        (0xf2f5_2010, "f2fs"),
        (0xca45_1a4e, "bcachefs"),
        (0x6969, "nfs"),
        (0x6573_5546, "fuse"),
        (0x517b, "smb"),
        (0xff53_4d42, "cifs"),
        (0x0102_1997, "9p"),
        (0x00c3_6400, "ceph"),
        (0x4d44, "vfat"),
    ];
    let Ok(found) = rustix::fs::statfs(path) else { return "unknown".to_owned() };
    // The type has as many bits as a pointer, and the numbers have 32.
    let number = found.f_type as u64 & 0xffff_ffff;
    let name = NAMES.iter().find(|(known, _)| *known == number);
    name.map_or_else(|| format!("{number:#x}"), |(_, name)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_tried_without_leaving_anything() {
        let dir = tempfile::tempdir().unwrap();
        let state = look(&dir.path().join("a/b"));
        assert!(!state.exists && state.owner.is_none() && state.free > 0, "{state:?}");
        assert_eq!(state.writable, Ok(()));
        assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none());
        if rustix::process::geteuid().is_root() {
            assert_eq!(state.overlay, Ok(()));
        } else {
            println!("skipped: only root mounts");
        }
    }

    #[test]
    fn where_nothing_can_be_written_nothing_is_tried() {
        let state = look(Path::new("/proc/self/kiln"));
        assert_eq!((state.exists, state.filesystem.as_str()), (false, "0x9fa0"));
        assert!(state.writable.is_err() && state.overlay.is_ok(), "{state:?}");
    }
}
