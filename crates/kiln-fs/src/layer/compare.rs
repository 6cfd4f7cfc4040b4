//! What two trees differ in, file by file and aspect by aspect: names in order, one directory in memory at a time.

use std::cmp::Ordering;
use std::ffi::{OsStr, OsString};
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;

use kiln_sys::metadata::{FileKind, Metadata};
use kiln_sys::root::Root;
use rustix::fs::OFlags;

use super::Result;
use super::same::{attributes, metadata, open, open_both, same_content, sorted_names};
use super::whiteout::is_whiteout;
use crate::copy::file::open_itself;
use crate::layer::LayerError;
use crate::tree::join;

/// One way in which a file can differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Aspect {
    /// A file here, a directory there.
    Kind,
    /// The bytes of a file.
    Content,
    /// Where a link leads.
    Target,
    /// What a device node stands for.
    Device,
    /// Permissions.
    Mode,
    /// Owner or group.
    Owner,
    /// Extended attributes.
    Attributes,
    /// The time of its last change.
    Mtime,
}

/// A file that differs, or that only one tree has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// From the root of the tree, without a slash before it; empty for the root itself.
    pub path: Vec<u8>,
    /// What the first and the second tree have; not both are nothing.
    pub sides: [Option<Metadata>; 2],
    /// What differs when both have it.
    pub aspects: Vec<Aspect>,
}

/// Compares two trees, or two layers as they lie on disk. Differences are told in the order of their paths, directories
/// before what is in them, until `found` breaks. What is ignored is not looked at. One inode on both sides is not read.
pub fn compare(
    sides: [&Root; 2],
    ignored: &[Aspect],
    found: &mut dyn FnMut(Difference) -> ControlFlow<()>,
) -> Result<()> {
    let mut walk = Walk { sides, ignored, frames: Vec::new() };
    if let Some(root) = walk.root()?
        && found(root).is_break()
    {
        return Ok(());
    }
    walk.enter(Vec::new(), [true, true])?;
    while let Some(frame) = walk.frames.last_mut() {
        let Some((name, sides)) = frame.names.next() else {
            walk.frames.pop();
            continue;
        };
        let path = join(&frame.path, name.as_bytes());
        let aspects = walk.aspects(&path, &sides)?;
        let is_directory = sides.map(|side| side.is_some_and(|file| file.is_dir()));
        if (sides.iter().any(Option::is_none) || !aspects.is_empty())
            && found(Difference { path: path.clone(), sides, aspects }).is_break()
        {
            return Ok(());
        }
        if is_directory != [false, false] {
            walk.enter(path, is_directory)?;
        }
    }
    Ok(())
}

type Pair = (OsString, [Option<Metadata>; 2]);

struct Walk<'a> {
    sides: [&'a Root; 2],
    ignored: &'a [Aspect],
    frames: Vec<Frame>,
}

/// A directory, and what of it is left.
struct Frame {
    path: Vec<u8>,
    names: std::vec::IntoIter<Pair>,
}

impl Walk<'_> {
    /// The root directory has no time of its own: no archive of a layer holds one.
    fn root(&self) -> Result<Option<Difference>> {
        let handles = open_both(self.sides, b"", OFlags::DIRECTORY)?;
        let look = |at: usize| Metadata::of(&handles[at]).map_err(LayerError::io("look at", b"/"));
        let sides = [Some(look(0)?), Some(look(1)?)];
        let mut aspects = self.aspects(b"", &sides)?;
        aspects.retain(|aspect| *aspect != Aspect::Mtime);
        Ok((!aspects.is_empty()).then(|| Difference { path: Vec::new(), sides, aspects }))
    }

    /// Goes into a directory of one side or of both.
    fn enter(&mut self, path: Vec<u8>, is_on: [bool; 2]) -> Result<()> {
        let list = |at: usize| if is_on[at] { self.list(at, &path) } else { Ok(Vec::new()) };
        let names = joined(list(0)?, list(1)?).into_iter();
        self.frames.push(Frame { path, names });
        Ok(())
    }

    fn list(&self, side: usize, path: &[u8]) -> Result<Vec<(OsString, Metadata)>> {
        let directory = open(self.sides[side], path, OFlags::DIRECTORY)?;
        let look = |name: OsString| {
            let looks = metadata(&directory, &name, &join(path, name.as_bytes()))?;
            Ok((name, looks))
        };
        sorted_names(&directory, path)?.into_iter().map(look).collect()
    }

    fn aspects(&self, path: &[u8], sides: &[Option<Metadata>; 2]) -> Result<Vec<Aspect>> {
        let [Some(one), Some(other)] = sides else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        let mut note = |aspect: Aspect, is_other: &dyn Fn() -> Result<bool>| -> Result<()> {
            if !self.ignored.contains(&aspect) && is_other()? {
                found.push(aspect);
            }
            Ok(())
        };
        if one.kind != other.kind || is_whiteout(one) != is_whiteout(other) {
            note(Aspect::Kind, &|| Ok(true))?;
            return Ok(found);
        }
        if is_whiteout(one) {
            return Ok(found);
        }
        let is_one_file = !one.is_dir()
            && (one.ino, one.size, one.mtime, one.ctime) == (other.ino, other.size, other.mtime, other.ctime);
        if one.is_file() {
            let is_other = || Ok(one.size != other.size || !(is_one_file || same_content(self.sides, path)?));
            note(Aspect::Content, &is_other)?;
        }
        if one.is_symlink() {
            note(Aspect::Target, &|| self.differ(path, read_target))?;
        }
        note(Aspect::Device, &|| Ok(one.rdev != other.rdev))?;
        note(Aspect::Mode, &|| Ok(!one.is_symlink() && one.mode != other.mode))?;
        note(Aspect::Owner, &|| Ok((one.uid, one.gid) != (other.uid, other.gid)))?;
        note(Aspect::Attributes, &|| Ok(!is_one_file && self.differ(path, attributes)?))?;
        note(Aspect::Mtime, &|| Ok(one.mtime != other.mtime))?;
        Ok(found)
    }

    /// Whether something read of each side differs.
    fn differ<T: PartialEq>(
        &self,
        path: &[u8],
        read: impl Fn(&std::os::fd::OwnedFd, &[u8]) -> Result<T>,
    ) -> Result<bool> {
        let of = |side: usize| {
            let (parent, name) = split(path);
            let directory = open(self.sides[side], parent, OFlags::DIRECTORY)?;
            let handle = match name.is_empty() {
                true => directory,
                false => open_itself(std::os::fd::AsFd::as_fd(&directory), OsStr::from_bytes(name))
                    .map_err(LayerError::io("open", path))?,
            };
            read(&handle, path)
        };
        Ok(of(0)? != of(1)?)
    }
}

fn read_target(link: &std::os::fd::OwnedFd, path: &[u8]) -> Result<Vec<u8>> {
    let target = rustix::fs::readlinkat(link, "", Vec::new()).map_err(LayerError::io("read the link", path))?;
    Ok(target.into_bytes())
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    path.iter().rposition(|byte| *byte == b'/').map_or((b"", path), |at| (&path[..at], &path[at + 1..]))
}

/// Joins two sorted lists by name.
fn joined(ones: Vec<(OsString, Metadata)>, others: Vec<(OsString, Metadata)>) -> Vec<Pair> {
    let mut pairs = Vec::with_capacity(ones.len().max(others.len()));
    let (mut ones, mut others) = (ones.into_iter().peekable(), others.into_iter().peekable());
    loop {
        let order = match (ones.peek(), others.peek()) {
            (None, None) => return pairs,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((one, _)), Some((other, _))) => one.cmp(other),
        };
        let one = ones.next_if(|_| order != Ordering::Greater);
        let other = others.next_if(|_| order != Ordering::Less);
        let looks = [one.as_ref().map(|file| file.1), other.as_ref().map(|file| file.1)];
        pairs.extend(one.or(other).map(|(name, _)| (name, looks)));
    }
}

impl Aspect {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Kind, Self::Content, Self::Target, Self::Device, Self::Mode, Self::Owner, Self::Attributes, Self::Mtime];

    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kind => "kind",
            Self::Content => "content",
            Self::Target => "target",
            Self::Device => "device",
            Self::Mode => "mode",
            Self::Owner => "owner",
            Self::Attributes => "xattr",
            Self::Mtime => "mtime",
        }
    }
}

/// What people call a kind of file. A layer says by a device 0:0 that a name is gone.
pub fn kind_name(file: &Metadata) -> &'static str {
    match file.kind {
        _ if is_whiteout(file) => "deletion",
        FileKind::Regular => "file",
        FileKind::Directory => "directory",
        FileKind::Symlink => "link",
        FileKind::CharDevice | FileKind::BlockDevice => "device",
        FileKind::Fifo => "pipe",
        FileKind::Socket => "socket",
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    use super::*;

    fn tree(fill: impl FnOnce(&Path)) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fill(dir.path());
        dir
    }

    fn told(one: &Path, other: &Path, ignored: &[Aspect]) -> Vec<String> {
        let [one, other] = [one, other].map(|dir| Root::open_ambient(dir).unwrap());
        let mut told = Vec::new();
        let mut found = |difference: Difference| {
            let how = match &difference.sides {
                [None, _] => "added".to_owned(),
                [_, None] => "removed".to_owned(),
                _ => difference.aspects.iter().map(|aspect| aspect.name()).collect::<Vec<_>>().join("+"),
            };
            told.push(format!("{} {how}", String::from_utf8_lossy(&difference.path)));
            ControlFlow::Continue(())
        };
        compare([&one, &other], ignored, &mut found).unwrap();
        told
    }

    #[test]
    fn every_aspect_is_told_and_only_what_differs() {
        let fill = |dir: &Path| {
            fs::create_dir_all(dir.join("d/e")).unwrap();
            for (name, text) in [("same", "x"), ("d/content", "aa"), ("d/mode", ""), ("d/kind", ""), ("gone", "")] {
                fs::write(dir.join(name), text).unwrap();
            }
            symlink("a", dir.join("link")).unwrap();
            fs::write(dir.join("d/e/deep"), "").unwrap();
        };
        let one = tree(fill);
        let other = tree(|dir| {
            fill(dir);
            fs::write(dir.join("d/content"), "ab").unwrap();
            fs::set_permissions(dir.join("d/mode"), fs::Permissions::from_mode(0o600)).unwrap();
            fs::remove_file(dir.join("d/kind")).unwrap();
            fs::create_dir(dir.join("d/kind")).unwrap();
            fs::write(dir.join("d/kind/inner"), "").unwrap();
            fs::remove_file(dir.join("gone")).unwrap();
            fs::remove_file(dir.join("link")).unwrap();
            symlink("b", dir.join("link")).unwrap();
            fs::create_dir(dir.join("new")).unwrap();
            fs::write(dir.join("new/f"), "").unwrap();
        });
        let expected = [
            "d/content content",
            "d/kind kind",
            "d/kind/inner added",
            "d/mode mode",
            "gone removed",
            "link target",
            "new added",
            "new/f added",
        ];
        assert_eq!(told(one.path(), other.path(), &[Aspect::Mtime]), expected);
        let back = told(other.path(), one.path(), &[Aspect::Mtime, Aspect::Mode, Aspect::Content, Aspect::Target]);
        assert_eq!(back, ["d/kind kind", "d/kind/inner removed", "gone added", "new removed", "new/f removed"]);
        assert_eq!(told(one.path(), one.path(), &[]), [""; 0]);
    }

    #[test]
    fn times_count_unless_they_are_ignored_and_the_root_has_none() {
        let fill = |secs| {
            tree(|dir| {
                fs::write(dir.join("f"), "x").unwrap();
                let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(secs);
                for path in [dir.join("f"), dir.to_owned()] {
                    fs::File::open(path).unwrap().set_modified(time).unwrap();
                }
            })
        };
        let [one, other] = [1, 2].map(fill);
        assert_eq!(told(one.path(), other.path(), &[]), ["f mtime"]);
        assert_eq!(told(one.path(), other.path(), &[Aspect::Mtime]), [""; 0]);
    }

    #[test]
    fn who_heard_enough_hears_no_more() {
        let [one, other] =
            [tree(|_| ()), tree(|dir| (0..3).for_each(|n| fs::write(dir.join(format!("{n}")), "").unwrap()))];
        let roots = [&one, &other].map(|dir| Root::open_ambient(dir.path()).unwrap());
        let mut count = 0;
        let mut found = |_| {
            count += 1;
            ControlFlow::Break(())
        };
        compare([&roots[0], &roots[1]], &[], &mut found).unwrap();
        assert_eq!(count, 1);
    }
}
