//! The digest of a file or directory as BuildKit makes it for its cache keys: of tar headers without times, and contents.

use std::io::Read;
use std::os::unix::ffi::OsStrExt;

use kiln_oci::{Digest, Hasher};
use kiln_sys::metadata::{FileKind, Metadata};
use rustix::fs::OFlags;

use crate::copy::sources::Source;
use crate::digest::check_state;
use crate::error::{Error, Result};
use crate::meta::Xattr;
use crate::tree::{Directory, Listing, Located, Selection, SourceTree, open_beneath};

/// Digests the file or directory at `path`, links followed.
///
/// Hidden files do not count. Neither do the root directory's own mode and owner.
pub fn tarsum(tree: &SourceTree, path: &str) -> Result<Digest> {
    let source = Source::find(tree, path.as_bytes(), &Selection::default())?;
    match &source.listing {
        Some(listing) => directory(tree, listing, 0),
        None => leaf(tree, &source.located),
    }
}

/// A directory's header stands under an empty name, and what is in it under its names, sorted by their bytes.
fn directory(tree: &SourceTree, listing: &Listing, index: usize) -> Result<Digest> {
    let entry = &listing.entries[index];
    let own = match listing.directory(index) {
        Directory { path, .. } if path.is_empty() => Digest::sha256(""),
        Directory { xattrs, .. } => header(tree, &entry.metadata, b"", xattrs).finish(),
    };
    let mut hasher = Hasher::new();
    hasher.update(b"\0");
    hasher.update(own.as_str().as_bytes());
    for (child, entry) in listing.needed(index) {
        let digest = match entry.metadata.is_dir() {
            true => directory(tree, listing, child)?,
            false => leaf(tree, &Located { path: listing.path(child), metadata: entry.metadata })?,
        };
        hasher.update(b"\0");
        hasher.update(entry.name.as_bytes());
        hasher.update(digest.as_str().as_bytes());
    }
    Ok(hasher.finish())
}

fn leaf(tree: &SourceTree, Located { path, metadata }: &Located) -> Result<Digest> {
    let access = if metadata.is_file() { OFlags::RDONLY | OFlags::NONBLOCK } else { OFlags::PATH };
    let handle = open_beneath(&tree.root, path, access | OFlags::NOFOLLOW | OFlags::CLOEXEC);
    let handle = handle.map_err(Error::io("open", path))?;
    check_state(&handle, path, metadata)?;
    let attributes = tree.attributes(&handle).map_err(Error::io("read the attributes of", path))?;
    if metadata.is_symlink() {
        let target = rustix::fs::readlinkat(&handle, "", Vec::new()).map_err(Error::io("read the link", path))?;
        return Ok(header(tree, metadata, target.as_bytes(), &attributes).finish());
    }
    let mut hasher = header(tree, metadata, b"", &attributes);
    if metadata.is_file() {
        let mut file = std::fs::File::from(handle);
        let mut buffer = vec![0; 128 << 10];
        loop {
            match file.read(&mut buffer).map_err(Error::io("read", path))? {
                0 => break,
                read => hasher.update(&buffer[..read]),
            }
        }
        check_state(&file, path, metadata)?;
    }
    Ok(hasher.finish())
}

/// The fields of a tar header, in the order of Docker's first tarsum, without the time.
fn header(tree: &SourceTree, metadata: &Metadata, target: &[u8], attributes: &[Xattr]) -> Hasher {
    let (uid, gid) = tree.owner(metadata);
    let (kind, size) = match metadata.kind {
        FileKind::Regular => ("0", metadata.size),
        FileKind::Symlink => ("2", 0),
        FileKind::CharDevice => ("3", 0),
        FileKind::BlockDevice => ("4", 0),
        FileKind::Directory => ("5", 0),
        FileKind::Fifo => ("6", 0),
        FileKind::Socket => ("0", 0),
    };
    let mode = if metadata.is_symlink() { 0o777 } else { metadata.mode & 0o7777 };
    let mut hasher = Hasher::new();
    hasher.update(format!("namemode{mode}uid{uid}gid{gid}size{size}typeflag{kind}linkname").as_bytes());
    hasher.update(target);
    let (major, minor) = (metadata.rdev.major, metadata.rdev.minor);
    hasher.update(format!("unamegnamedevmajor{major}devminor{minor}").as_bytes());
    for (name, value) in attributes {
        let name = name.as_bytes();
        let counts =
            name == b"security.capability" || !(name.starts_with(b"security.") || name.starts_with(b"system."));
        if counts {
            hasher.update(name);
            hasher.update(value);
        }
    }
    hasher
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use kiln_sys::root::Root;

    use super::*;

    /// The record that BuildKit writes for content.
    fn record(tree: &SourceTree, path: &str) -> String {
        let content = Digest::sha256(tarsum(tree, path).unwrap().as_str());
        Digest::sha256(format!("{content}@-1")).to_string()
    }

    #[test]
    fn files_and_directories_have_the_digests_that_buildkit_gave_them() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("src/sub")).unwrap();
        for (path, text) in [("f", "f\n"), ("src/one", "one\n"), ("src/sub/two", "two\n")] {
            fs::write(dir.path().join(path), text).unwrap();
            fs::set_permissions(dir.path().join(path), Permissions::from_mode(0o644)).unwrap();
        }
        for path in ["src", "src/sub"] {
            fs::set_permissions(dir.path().join(path), Permissions::from_mode(0o755)).unwrap();
        }
        let tree = SourceTree::context(Root::open_ambient(dir.path()).unwrap(), None);
        assert_eq!(record(&tree, "/f"), "sha256:d142b105bd417586822fd90a400e48e10f2a19dc95b39f3a4ab3499f24cfcbe5");
        assert_eq!(record(&tree, "/src"), "sha256:3873a0fc80e2fbd36579666b6218d4984685fa0ee2f965359cebc93f31f06460");
    }
}
