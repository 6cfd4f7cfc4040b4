//! Copying layers into one directory, the way an overlay would show them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use kiln_sys::metadata::Metadata;
use kiln_sys::root::{Root, read_dir_fd};
use rayon::prelude::*;
use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;

use crate::copy::CopySpec;
use crate::copy::file::{From, Look, open_itself};
use crate::error::{Error, Result};
use crate::layer::{is_opaque, is_whiteout};
use crate::tree::{SourceTree, join, open_directory};

/// What becomes of files with several names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// They stay names of one file.
    Kept,
    /// Each becomes a file of its own, as an overlay makes of one that is written to.
    Parted,
}

/// Copies layers, topmost first, into a directory: what an overlay of them shows. The directory is empty, or has all of a tree
/// but for what one layer upon it changes.
///
/// The directory itself gets the look of the topmost layer. Contents share blocks with those of the layers where the
/// filesystem can.
pub fn lay(layers: &[Root], into: &Root, names: Names) -> Result<()> {
    let trees = layers.iter().map(|layer| Ok(SourceTree::snapshot(layer.try_clone().map_err(again)?)));
    let lay = Lay { trees: trees.collect::<Result<_>>()?, spec: CopySpec::default(), into, names };
    let mut all = vec![Directory { path: Vec::new(), layers: (0..layers.len()).collect() }];
    let mut linked = Vec::new();
    let mut level = 0..1;
    while !level.is_empty() {
        let made: Vec<Made> = all[level.clone()].par_iter().map(|one| lay.directory(one)).collect::<Result<_>>()?;
        level = level.end..level.end;
        for Made { directories, links } in made {
            level.end += directories.len();
            all.extend(directories);
            linked.extend(links);
        }
    }
    lay.link(linked)?;
    // Last, because putting files into them has moved their times.
    all.par_iter().with_min_len(64).try_for_each(|directory| lay.dress(directory))
}

fn again(error: kiln_sys::Error) -> Error {
    Error::io("open", b"/")(error)
}

struct Lay<'a> {
    trees: Vec<SourceTree>,
    spec: CopySpec,
    into: &'a Root,
    names: Names,
}

/// A directory to be, and the layers that have a part of it, topmost first.
struct Directory {
    path: Vec<u8>,
    layers: Vec<usize>,
}

/// What comes of one.
#[derive(Default)]
struct Made {
    directories: Vec<Directory>,
    links: Vec<Link>,
}

/// A name of a file that may have several.
struct Link {
    layer: usize,
    directory: Vec<u8>,
    name: OsString,
    metadata: Metadata,
}

/// What stands under a name.
enum Found {
    /// The topmost layer that knows it says that it is gone.
    Gone,
    File(usize, Metadata),
    /// These layers have it as a directory; what lies further down may add to it, or is hidden.
    Directory {
        layers: Vec<usize>,
        hides: bool,
    },
}

impl Lay<'_> {
    fn look(&self, layer: usize) -> Look<'_> {
        Look { tree: &self.trees[layer], spec: &self.spec }
    }

    fn open(&self, layer: usize, path: &[u8]) -> Result<OwnedFd> {
        open_directory(&self.trees[layer].root, path).map_err(Error::io("open", path))
    }

    fn directory(&self, directory: &Directory) -> Result<Made> {
        let path = &directory.path;
        let open = |layer: &usize| Ok((*layer, self.open(*layer, path)?));
        let sources: Vec<(usize, OwnedFd)> = directory.layers.iter().map(open).collect::<Result<_>>()?;
        let to = open_directory(self.into, path).map_err(Error::io("open the copy of", path))?;
        let mut made = Made::default();
        for (name, found) in find(&sources, path)? {
            let path = join(path, name.as_bytes());
            match found {
                Found::Gone => {}
                Found::Directory { layers, .. } => {
                    match rustix::fs::mkdirat(&to, &name, Mode::RWXU) {
                        Err(Errno::EXIST) => {}
                        made => made.map_err(Error::io("create the copy of", &path))?,
                    }
                    made.directories.push(Directory { path, layers });
                }
                Found::File(layer, metadata) if metadata.nlink > 1 && self.names == Names::Kept => {
                    made.links.push(Link { layer, directory: directory.path.clone(), name, metadata });
                }
                Found::File(layer, metadata) => {
                    let from = sources.iter().find(|(of, _)| *of == layer).expect("it was found there");
                    let from = From { directory: from.1.as_fd(), name: &name, metadata: &metadata, path: &path };
                    self.look(layer).copy(&from, to.as_fd(), &name)?;
                }
            }
        }
        Ok(made)
    }

    /// Copies files with several names once, and gives them the names that are left.
    fn link(&self, links: Vec<Link>) -> Result<()> {
        let mut first: HashMap<(usize, u64), Vec<u8>> = HashMap::new();
        for link in links {
            let path = join(&link.directory, link.name.as_bytes());
            let to = open_directory(self.into, &link.directory).map_err(Error::io("open the copy of", &path))?;
            match first.entry((link.layer, link.metadata.ino)) {
                Entry::Occupied(known) => {
                    let known = OsStr::from_bytes(known.get());
                    let linked = rustix::fs::linkat(self.into, known, &to, &link.name, AtFlags::empty());
                    linked.map_err(Error::io("create the copy of", &path))?;
                }
                Entry::Vacant(entry) => {
                    let from = self.open(link.layer, &link.directory)?;
                    let (name, metadata) = (&link.name, &link.metadata);
                    let from = From { directory: from.as_fd(), name, metadata, path: &path };
                    self.look(link.layer).copy(&from, to.as_fd(), name)?;
                    entry.insert(path);
                }
            }
        }
        Ok(())
    }

    fn dress(&self, directory: &Directory) -> Result<()> {
        let (path, top) = (&directory.path, directory.layers[0]);
        let from = self.open(top, path)?;
        let to = open_directory(self.into, path).map_err(Error::io("open the copy of", path))?;
        let look = self.look(top);
        let dress = || {
            let attributes = look.tree.attributes(&from)?;
            look.dress(to.as_fd(), &Metadata::of(&from)?, &attributes)
        };
        dress().map(drop).map_err(Error::io("set the attributes of the copy of", path))
    }
}

/// What each name in a directory of several layers stands for.
fn find(sources: &[(usize, OwnedFd)], path: &[u8]) -> Result<HashMap<OsString, Found>> {
    let mut found: HashMap<OsString, Found> = HashMap::new();
    for (layer, source) in sources {
        for entry in read_dir_fd(source).map_err(Error::io("list", path))? {
            let known = found.get_mut(&entry.name);
            if matches!(known, Some(Found::Gone | Found::File(..) | Found::Directory { hides: true, .. })) {
                continue;
            }
            let of = || join(path, entry.name.as_bytes());
            let stat = rustix::fs::statat(source, &entry.name, AtFlags::SYMLINK_NOFOLLOW);
            let metadata = Metadata::from(&stat.map_err(|errno| Error::io("look at", of())(errno))?);
            let hides = !metadata.is_dir()
                || (sources.len() > 1
                    && hides_those_below(source, &entry.name).map_err(|error| Error::io("look at", of())(error))?);
            match known {
                Some(Found::Directory { layers, hides: is_hidden }) => {
                    layers.extend(metadata.is_dir().then_some(*layer));
                    *is_hidden = hides;
                }
                _ => {
                    let new = match metadata {
                        metadata if is_whiteout(&metadata) => Found::Gone,
                        metadata if metadata.is_dir() => Found::Directory { layers: vec![*layer], hides },
                        metadata => Found::File(*layer, metadata),
                    };
                    found.insert(entry.name, new);
                }
            }
        }
    }
    Ok(found)
}

fn hides_those_below(parent: &OwnedFd, name: &OsStr) -> std::io::Result<bool> {
    Ok(is_opaque(open_itself(parent.as_fd(), name)?)?)
}
