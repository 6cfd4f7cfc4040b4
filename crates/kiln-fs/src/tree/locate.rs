//! Finding a path in a tree: links are followed inside it, and hidden files are not there.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use kiln_sys::metadata::Metadata;

use super::SourceTree;
use crate::error::{Error, Result, printable};

/// As many links as the reference implementation follows in one path.
const MAX_LINKS: usize = 255;

/// A path that was found.
#[derive(Debug, Clone)]
pub(crate) struct Located {
    /// Where it really is, from the root of the tree, without links on the way; empty for the root itself.
    pub(crate) path: Vec<u8>,
    pub(crate) metadata: Metadata,
}

/// Whether a link at the end of a path is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LastLink {
    Follow,
    Keep,
}

impl SourceTree {
    /// Finds `path`, following links inside the tree.
    ///
    /// A directory that a pattern hides is found all the same: something in it may be visible.
    pub(crate) fn locate(&self, path: &[u8], last: LastLink) -> Result<Located> {
        let mut wanted: VecDeque<Vec<u8>> = split(path).map(<[u8]>::to_vec).collect();
        let mut real: Vec<u8> = Vec::new();
        let mut links = 0;
        let mut metadata = self.metadata_of(b"").map_err(Error::io("look at", path))?;
        while let Some(name) = wanted.pop_front() {
            if name == b".." {
                real.truncate(real.iter().rposition(|byte| *byte == b'/').unwrap_or(0));
                metadata = self.metadata_of(&real).map_err(Error::io("look at", path))?;
                continue;
            }
            let parent = real.len();
            if parent > 0 {
                real.push(b'/');
            }
            real.extend_from_slice(&name);
            metadata = match self.metadata_of(&real) {
                Ok(metadata) => metadata,
                Err(error) if is_missing(&error) => return Err(self.missing(path, &real)),
                Err(error) => return Err(Error::io("look at", path)(error)),
            };
            self.refuse_hidden(path, &real, &metadata)?;
            if !metadata.is_symlink() || (wanted.is_empty() && last == LastLink::Keep) {
                continue;
            }
            links += 1;
            if links > MAX_LINKS {
                return Err(Error::TooManyLinks { path: printable(path) });
            }
            let link = self.root.read_link(OsStr::from_bytes(&real)).map_err(Error::io("read the link", &real))?;
            let link = link.into_vec();
            real.truncate(if link.starts_with(b"/") { 0 } else { parent });
            split(&link).rev().for_each(|name| wanted.push_front(name.to_vec()));
            // It may lead to where it begins, with no name on the way.
            metadata = self.metadata_of(&real).map_err(Error::io("look at", path))?;
        }
        Ok(Located { path: real, metadata: self.seen(metadata) })
    }

    /// Describes what has exactly this path; a link is described itself.
    fn metadata_of(&self, path: &[u8]) -> Result<Metadata, kiln_sys::Error> {
        self.root.metadata(Path::new(OsStr::from_bytes(path)))
    }

    fn refuse_hidden(&self, asked: &[u8], real: &[u8], metadata: &Metadata) -> Result<()> {
        let hidden_by = self.ignore.as_ref().filter(|_| !metadata.is_dir()).and_then(|ignore| ignore.hides(real));
        match hidden_by {
            None => Ok(()),
            Some(pattern) => {
                Err(Error::NotFound { path: printable(asked), ignored_by: Some(pattern), similar: Vec::new() })
            }
        }
    }

    /// The error for a path that is not there.
    pub(crate) fn missing(&self, asked: &[u8], real: &[u8]) -> Error {
        Error::NotFound { path: printable(asked), ignored_by: None, similar: self.similar(real) }
    }
}

fn is_missing(error: &kiln_sys::Error) -> bool {
    error.is_not_found() || error.errno() == Some(rustix::io::Errno::NOTDIR.raw_os_error())
}

/// The names of a path, without empty ones and `.`.
pub(crate) fn split(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b"."))
}
