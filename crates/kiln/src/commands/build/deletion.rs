//! Outputs that delete what is in their way: only below the working directory, unless more is allowed.

use std::io;
use std::path::{Component, Path, PathBuf};

use kiln_engine::{OtherFiles, Output};
use kiln_report::{Failure, FailureKind};

/// Refuses outputs that would delete files where nobody may expect it.
pub(super) fn check(outputs: &[Output], is_allowed: bool) -> Result<(), Failure> {
    let deleting = outputs.iter().filter_map(|output| match output {
        Output::Local { dest, others: OtherFiles::Delete, .. } => Some(dest),
        _ => None,
    });
    for dest in deleting.filter(|_| !is_allowed) {
        let is_below = std::env::current_dir().and_then(|here| is_below(dest, &here));
        if !is_below.unwrap_or(false) {
            let message = format!("`mode=delete` would delete files in `{}`", dest.display());
            let hint = "name a directory below the current one, or pass `--allow=buildx.local.delete`";
            return Err(Failure::new(FailureKind::Usage, message).hint(hint));
        }
    }
    Ok(())
}

/// Whether a path, which need not be there yet, leads to something in `here`, whatever links are on its way.
fn is_below(dest: &Path, here: &Path) -> io::Result<bool> {
    let (here, dest) = (here.canonicalize()?, resolve(&here.join(dest))?);
    Ok(dest != here && dest.starts_with(&here))
}

/// Follows links as far as there is something, and takes the rest as it is written.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    let mut there = path;
    let mut rest = Vec::new();
    loop {
        match there.canonicalize() {
            Ok(found) => return Ok(rest.iter().rev().fold(found, |path, name| path.join(name))),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            // A link that leads nowhere leads to where it says.
            Err(error) if there.is_symlink() => return Err(error),
            Err(error) => match (there.components().next_back(), there.parent()) {
                (Some(Component::Normal(name)), Some(parent)) => {
                    rest.push(name);
                    there = parent;
                }
                _ => return Err(error),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_below_the_working_directory_is_deleted_from_unasked() {
        let dir = tempfile::tempdir().unwrap();
        let here = dir.path().join("here");
        std::fs::create_dir_all(here.join("out")).unwrap();
        std::fs::create_dir(dir.path().join("elsewhere")).unwrap();
        for (link, target) in [("away", "../elsewhere"), ("near", "out"), ("nowhere", "../none")] {
            std::os::unix::fs::symlink(target, here.join(link)).unwrap();
        }
        for good in ["out", "out/deeper/still", "new", "near", "near/new", "./out/../new"] {
            assert!(is_below(Path::new(good), &here).unwrap(), "{good}");
        }
        for bad in [".", "..", "/", "../here", "../elsewhere", "away", "away/new", "nowhere", "new/../..", "/tmp"] {
            assert!(!is_below(Path::new(bad), &here).unwrap_or(false), "{bad}");
        }
    }
}
