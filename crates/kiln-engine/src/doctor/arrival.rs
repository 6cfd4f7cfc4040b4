//! Who asks: what only they can see who are not root of a namespace yet, and what comes of becoming that.
#![expect(clippy::disallowed_methods, reason = "programs and files of the machine are what is looked at")]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use kiln_exec::Isolation;
use kiln_exec::rootless::{self, user_name};

use super::facts::{Ranges, Refusal, Tool};

/// An ordinary user.
#[derive(Debug, Clone, Default)]
pub struct Arrival {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) ranges: Ranges,
    /// Why they cannot be root of a namespace.
    pub(super) refused: Option<Refusal>,
    /// What a build says of that, and what it would do about it.
    pub(super) way_in: Option<String>,
    /// What a build says of the namespace they are in.
    pub(super) note: Option<String>,
}

/// Becomes root of a user namespace as a build does, and remembers who asked; nothing where root asks, who may lack the rights
/// of one in a container and then is nobody special. To be done first, while
/// the process has one thread. Programs are looked for in `path`.
pub fn arrive(path: Option<&OsStr>, isolation: Isolation) -> Option<Arrival> {
    let uid = rustix::process::geteuid();
    let name = user_name();
    let ranges = ranges(&name, uid.as_raw(), &Search(path));
    let arrival = Arrival { name, uid: uid.as_raw(), ranges, ..Arrival::default() };
    Some(match crate::become_root(path, isolation) {
        Ok(_) if uid.is_root() => return None,
        Ok(note) => Arrival { note, ..arrival },
        Err(failure) => {
            let why = failure.causes.iter().fold(failure.message, |text, cause| format!("{text}: {cause}"));
            let way_in = failure.hints.into_iter().next();
            Arrival { refused: Some(Refusal { errno: None, why }), way_in, ..arrival }
        }
    })
}

/// The directories in which programs are looked for.
pub(super) struct Search<'a>(pub(super) Option<&'a OsStr>);

impl Search<'_> {
    pub(super) fn find(&self, name: &str) -> Option<PathBuf> {
        let is_program = |path: &PathBuf| {
            std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
        };
        std::env::split_paths(self.0?).map(|dir| dir.join(name)).find(is_program)
    }
}

pub(super) fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn ranges(name: &str, uid: u32, search: &Search<'_>) -> Ranges {
    let given = |file| rootless::ranges(&read(file), name, uid).iter().map(|range| u64::from(range.count)).sum();
    Ranges {
        users: given("/etc/subuid"),
        groups: given("/etc/subgid"),
        newuidmap: tool(search.find("newuidmap").as_deref()),
        newgidmap: tool(search.find("newgidmap").as_deref()),
    }
}

/// It must belong to root and be run as such, or have the capability in its file.
fn tool(path: Option<&Path>) -> Tool {
    const SETUID: u32 = 0o4000;
    let Some(path) = path else { return Tool::Absent };
    let is_setuid = std::fs::metadata(path).is_ok_and(|found| {
        std::os::unix::fs::MetadataExt::uid(&found) == 0 && found.permissions().mode() & SETUID != 0
    });
    let has_capability = || {
        let file = std::fs::File::open(path).ok()?;
        kiln_sys::xattr::get(&file, OsStr::from_bytes(b"security.capability")).ok()?
    };
    if is_setuid || has_capability().is_some() { Tool::Ready } else { Tool::Powerless }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_needs_the_right_that_it_lends() {
        assert_eq!(tool(None), Tool::Absent);
        assert_eq!(tool(Some(Path::new("/bin/true"))), Tool::Powerless);
        let search = Search(Some(OsStr::new("/usr/bin:/bin")));
        let Some(path) = search.find("su") else { return println!("skipped: there is no `su`") };
        assert_eq!(tool(Some(&path)), Tool::Ready);
        assert_eq!(search.find("no-such-program"), None);
    }
}
