//! Where outputs are written: seen before a build begins, as far as it can be seen without writing.
#![expect(clippy::disallowed_methods, reason = "whoever runs us names where outputs go")]

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use kiln_report::{Failure, FailureKind};
use rustix::fs::Access;

use crate::failure::Context as _;
use crate::job::Result;
use crate::request::{Dest, OtherFiles, Output};

/// Finds outputs that get into each other's way, or that cannot be written where they are to go.
pub(super) fn check(outputs: &[Output]) -> Result<()> {
    let usage = |message: String, hint: &str| Err(Failure::new(FailureKind::Usage, message).hint(hint));
    let mut is_stdout_taken = false;
    let mut taken: Vec<PathBuf> = Vec::new();
    let mut emptied: Vec<PathBuf> = Vec::new();
    for output in outputs {
        let (dest, is_directory) = match output {
            Output::Local { dest, .. } => (Some(dest), true),
            Output::Oci { dest, tar, .. } | Output::Docker { dest, tar, .. } => (dest.path(), !tar),
            Output::Tar { dest, .. } => (dest.path(), false),
            _ => continue,
        };
        let Some(path) = dest else {
            if std::mem::replace(&mut is_stdout_taken, true) {
                return usage("standard output is taken by two outputs".into(), "give one of them a `dest`");
            }
            continue;
        };
        let place = place_of(path);
        if taken.contains(&place) && !place.starts_with("/dev") {
            let message = format!("two outputs go to `{}`", path.display());
            return usage(message, "give each a `dest` of its own");
        }
        if is_directory {
            directory(path, &place)?
        } else {
            file(path, &place)?
        }
        if let Output::Local { others: OtherFiles::Delete, .. } = output {
            emptied.push(place.clone());
        }
        taken.push(place);
    }
    for directory in emptied {
        if let Some(inside) = taken.iter().find(|place| **place != directory && place.starts_with(&directory)) {
            let message =
                format!("`{}` is in `{}`, whose other files are deleted", inside.display(), directory.display());
            return usage(message, "name another place, or leave out `mode=delete`");
        }
    }
    Ok(())
}

/// Finds what keeps a file from being written.
pub(crate) fn check_file(path: &Path) -> Result<()> {
    file(path, &place_of(path))
}

/// What a path leads to. It need not be there.
fn place_of(path: &Path) -> PathBuf {
    let parent = path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
    let named = || Some(parent.canonicalize().ok()?.join(path.file_name()?));
    path.canonicalize()
        .ok()
        .or_else(named)
        .or_else(|| std::path::absolute(path).ok())
        .unwrap_or_else(|| path.to_owned())
}

/// Whether a file can be made at `place`, which is called `path`.
fn file(path: &Path, place: &Path) -> Result<()> {
    let doing = || format!("cannot write `{}`", path.display());
    if place.is_dir() {
        let message = format!("{}: it is a directory", doing());
        return Err(Failure::new(FailureKind::Usage, message).hint("name a file"));
    }
    if path.as_os_str().as_bytes().ends_with(b"/") {
        let message = format!("{}: only directories have such names", doing());
        return Err(Failure::new(FailureKind::Usage, message).hint("name a file"));
    }
    // A device or a pipe is written to as it stands.
    let is_special = place.metadata().is_ok_and(|there| !there.is_file());
    let Some(parent) = place.parent().filter(|_| !is_special) else { return Ok(()) };
    if !parent.is_dir() {
        let message = format!("{}: there is no directory `{}`", doing(), parent.display());
        return Err(Failure::new(FailureKind::Environment, message).hint("make it, or name another"));
    }
    writable(parent, doing)
}

/// Whether a directory can be made or written into at `place`, which is called `path`.
fn directory(path: &Path, place: &Path) -> Result<()> {
    let doing = || format!("cannot write into `{}`", path.display());
    let there = place.ancestors().find(|path| path.symlink_metadata().is_ok()).unwrap_or(place);
    if !there.is_dir() {
        let message = format!("{}: `{}` is not a directory", doing(), there.display());
        return Err(Failure::new(FailureKind::Usage, message).hint("name a directory, or a new one"));
    }
    writable(there, doing)
}

fn writable(directory: &Path, doing: impl FnOnce() -> String) -> Result<()> {
    let access = rustix::fs::access(directory, Access::WRITE_OK | Access::EXEC_OK);
    access.or_environment(doing).map_err(|failure| failure.hint("name a place that you can write to"))
}

impl Dest {
    fn path(&self) -> Option<&PathBuf> {
        match self {
            Self::Path(path) => Some(path),
            Self::Stdout => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::ImageOptions;

    fn local(dest: &str) -> Output {
        Output::Local { dest: dest.into(), others: OtherFiles::Keep, platform_split: None }
    }

    fn layout(dest: &str) -> Output {
        Output::Oci { image: ImageOptions::default(), dest: Dest::Path(dest.into()), tar: false }
    }

    fn tar(dest: &str) -> Output {
        Output::Tar { dest: Dest::Path(dest.into()), platform_split: None }
    }

    #[test]
    fn outputs_have_each_a_place_that_can_be_written_to() {
        for (outputs, said) in [
            (vec![local("x"), layout("y"), tar("z")], None),
            (vec![local("/tmp/no/such/directory")], None),
            (vec![tar("/dev/null"), tar("/dev/null")], None),
            (vec![layout("x"), local("./x/")], Some("two outputs go to `./x/`")),
            (vec![local("x"), local("x")], Some("two outputs go to `x`")),
            (vec![layout("x"), tar("../kiln-engine/x")], Some("two outputs go to `../kiln-engine/x`")),
            (vec![tar("new/")], Some("cannot write `new/`: only directories have such names")),
            (vec![tar("/no/such/file")], Some("cannot write `/no/such/file`: there is no directory `/no/such`")),
            (vec![tar("/tmp")], Some("cannot write `/tmp`: it is a directory")),
            (vec![local("/etc/passwd")], Some("cannot write into `/etc/passwd`: `/etc/passwd` is not a directory")),
            (vec![layout("/dev/null/x")], Some("cannot write into `/dev/null/x`: `/dev/null` is not a directory")),
        ] {
            let failure = check(&outputs).err();
            assert_eq!(failure.as_ref().map(|failure| failure.message.as_str()), said);
            assert!(failure.is_none_or(|failure| !failure.hints.is_empty()));
        }
    }

    #[test]
    fn nothing_is_written_where_another_output_deletes() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().canonicalize().unwrap().join(name);
        let emptied = || Output::Local { dest: dir.path().into(), others: OtherFiles::Delete, platform_split: None };
        let inside = tar(at("x").to_str().unwrap());
        let message = format!("`{}` is in `{}`, whose other files are deleted", at("x").display(), at("").display());
        for outputs in [vec![emptied(), inside.clone()], vec![inside, emptied()]] {
            assert_eq!(check(&outputs).unwrap_err().message, message.replace("/`, whose", "`, whose"));
        }
        assert!(check(&[emptied()]).is_ok());
    }
}
