//! The small changes of file steps: directories, files, links, removals.

use std::io::Write as _;
use std::os::fd::AsFd;
use std::path::Path;

use kiln_report::Failure;
use kiln_sys::metadata::Timestamp;
use kiln_sys::root::{Root, set_mode, set_owner, set_times};

use crate::failure::Context as _;
use crate::job::Result;

/// Who a new thing belongs to and when it was made; `None` is root, and now.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Stamp {
    pub(super) owner: Option<(u32, u32)>,
    /// Nanoseconds since 1970.
    pub(super) time: Option<i64>,
}

impl Stamp {
    fn put(self, handle: impl AsFd) -> kiln_sys::Result<()> {
        let (uid, gid) = self.owner.unwrap_or((0, 0));
        set_owner(&handle, uid, gid)?;
        match self.time {
            Some(time) => set_times(&handle, at(time)),
            None => Ok(()),
        }
    }
}

fn at(time: i64) -> Timestamp {
    let nanos = u32::try_from(time.rem_euclid(1_000_000_000)).unwrap_or_default();
    Timestamp { secs: time.div_euclid(1_000_000_000), nanos }
}

/// Makes a directory; with `parents` also those above it. One that is there stays as it is.
pub(super) fn make_dir(root: &Root, path: &str, mode: u32, parents: bool, stamp: Stamp) -> Result<()> {
    let doing = || format!("cannot make directory `{path}`");
    if !parents {
        let made = root.mkdir(path, mode).or_build(doing)?;
        set_mode(&made, mode).or_build(doing)?;
        return stamp.put(&made).or_build(doing);
    }
    let mut made = Vec::new();
    let whole = root.mkdir_all_with(path, mode, &mut |directory| {
        set_mode(directory, mode)?;
        made.extend(directory.try_clone_to_owned());
        stamp.put(directory)
    });
    whole.or_build(doing)?;
    // Making a directory changed the time of the one above it.
    made.iter().rev().try_for_each(|directory| stamp.put(directory)).or_build(doing)
}

/// Writes a file, in place of any other.
pub(super) fn make_file(root: &Root, path: &str, mode: u32, data: &[u8], stamp: Stamp) -> Result<()> {
    let doing = || format!("cannot write `{path}`");
    let mut file = root.create_file(path, mode).or_build(doing)?;
    file.write_all(data).or_environment(doing)?;
    stamp.put(&file).or_build(doing)?;
    // After the owner: a change of owner takes the setuid bits away.
    set_mode(&file, mode).or_build(doing)
}

/// Makes a symbolic link.
pub(super) fn make_symlink(root: &Root, target: &str, path: &str, stamp: Stamp) -> Result<()> {
    let doing = || format!("cannot make symbolic link `{path}`");
    root.symlink(target, path).or_build(doing)?;
    let link = root.open_nofollow(path).or_build(doing)?;
    let (uid, gid) = stamp.owner.unwrap_or((0, 0));
    set_owner(&link, uid, gid).or_build(doing)
}

/// Removes a path and what is below it. `..` never leads above the root.
pub(super) fn remove(root: &Root, path: &str, may_be_missing: bool) -> Result<()> {
    let doing = || format!("cannot remove `{path}`");
    let (parent, name) = match root.open_parent(Path::new(path)) {
        Ok(found) => found,
        Err(error) if may_be_missing && error.is_not_found() => return Ok(()),
        Err(error) => return Err::<(), _>(error).or_build(doing),
    };
    match kiln_fs::remove_tree(&parent, &name) {
        Err(error) if may_be_missing && error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed.or_build(doing),
    }
}

/// The failure of wildcards in removals, which no Dockerfile makes.
pub(super) fn no_wildcards(path: &str) -> Failure {
    let message = format!("cannot remove `{path}`: wildcards in removals are not supported yet");
    Failure::new(kiln_report::FailureKind::Build, message)
}
