//! Who holds a lock: the processes that have its file open.
#![expect(clippy::disallowed_methods, reason = "the kernel's own files, by names that are written here")]

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// A process of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub id: u32,
    /// The name of its program.
    pub name: String,
}

/// The processes that have a lock file open, as far as one may look at them.
pub(crate) fn holders(lock: &Path) -> Vec<Process> {
    let Ok(wanted) = std::fs::metadata(lock) else { return Vec::new() };
    let is_open_in = |id: u32| {
        let opened = std::fs::read_dir(format!("/proc/{id}/fd")).into_iter().flatten().flatten();
        let mut opened = opened.filter_map(|entry| std::fs::metadata(entry.path()).ok());
        opened.any(|found| (found.dev(), found.ino()) == (wanted.dev(), wanted.ino()))
    };
    let ids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut ids: Vec<u32> = ids.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    ids.retain(|id| is_open_in(*id));
    ids.sort_unstable();
    let name = |id: u32| std::fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default().trim_end().to_owned();
    ids.into_iter().map(|id| Process { id, name: name(id) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_has_the_file_open_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        assert_eq!(holders(&path), []);
        let file = std::fs::File::create(&path).unwrap();
        assert_eq!(holders(&path).iter().map(|process| process.id).collect::<Vec<_>>(), [std::process::id()]);
        assert!(!holders(&path)[0].name.is_empty());
        drop(file);
        assert_eq!(holders(&path), []);
    }
}
