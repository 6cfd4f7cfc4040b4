//! Names that look like one that is not there, for messages.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use kiln_sys::metadata::FileKind;

use super::SourceTree;
use super::locate::split;

/// How many directories are looked through for a file of the same name.
const MAX_DIRECTORIES: usize = 200;

/// How many names are offered.
const MAX_NAMES: usize = 3;

impl SourceTree {
    /// Up to three visible paths that look like `path`: neighbours with a similar name, then the same name elsewhere.
    pub(super) fn similar(&self, path: &[u8]) -> Vec<String> {
        let names: Vec<&[u8]> = split(path).collect();
        let mut parent: Vec<u8> = Vec::new();
        let mut wanted: &[u8] = b"";
        for name in names {
            wanted = name;
            let deeper = join(&parent, name);
            if !self.root.metadata(OsStr::from_bytes(&deeper)).is_ok_and(|metadata| metadata.is_dir()) {
                break;
            }
            parent = deeper;
        }
        let wanted = String::from_utf8_lossy(wanted).into_owned();
        let mut near: Vec<(usize, String)> = Vec::new();
        for (name, _) in self.visible_names(&parent) {
            if let Some(distance) = distance(&wanted, &name) {
                near.push((distance, String::from_utf8_lossy(&join(&parent, name.as_bytes())).into_owned()));
            }
        }
        near.sort();
        near.truncate(MAX_NAMES);
        let mut found: Vec<String> = near.into_iter().map(|(_, path)| path).collect();
        if found.is_empty() {
            found = self.same_name(&wanted);
        }
        found
    }

    /// Where in the upper part of the tree a name occurs.
    fn same_name(&self, wanted: &str) -> Vec<String> {
        let mut found = Vec::new();
        let mut directories = vec![Vec::new()];
        let mut at = 0;
        while at < directories.len() && at < MAX_DIRECTORIES && found.len() < MAX_NAMES {
            let directory = std::mem::take(&mut directories[at]);
            at += 1;
            for (name, kind) in self.visible_names(&directory) {
                let path = join(&directory, name.as_bytes());
                if name == wanted {
                    found.push(String::from_utf8_lossy(&path).into_owned());
                }
                if kind == FileKind::Directory {
                    directories.push(path);
                }
            }
        }
        found.truncate(MAX_NAMES);
        found
    }

    /// The names in a directory that no pattern hides, sorted.
    fn visible_names(&self, directory: &[u8]) -> Vec<(String, FileKind)> {
        let entries = self.root.read_dir(OsStr::from_bytes(directory)).unwrap_or_default();
        let is_visible = |name: &OsStr| {
            let path = join(directory, name.as_bytes());
            !self.ignore.as_ref().is_some_and(|ignore| ignore.matches_bytes(&path))
        };
        let visible = entries.into_iter().filter(|entry| is_visible(&entry.name));
        let mut names: Vec<_> = visible.filter_map(|e| Some((e.name.into_string().ok()?, e.kind))).collect();
        names.sort_by(|a, b| a.0.cmp(&b.0));
        names
    }
}

/// How far apart two names are, if they are near at all.
fn distance(wanted: &str, name: &str) -> Option<usize> {
    let lower = |text: &str| text.to_lowercase();
    let distance = strsim::damerau_levenshtein(&lower(wanted), &lower(name));
    let limit = (wanted.chars().count() / 3).clamp(1, 4);
    (distance <= limit).then_some(distance)
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}
