//! Small trees on disk, written and shown as text.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use kiln_fs::pattern::PatternSet;
use kiln_fs::{CopySpec, Ownership, SourceTree};
use kiln_sys::root::Root;

/// True when the tests may make devices, trusted attributes and foreign owners.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Leaves a test, saying why, unless it runs as root.
#[macro_export]
macro_rules! require_root {
    () => {
        if !support::is_root() {
            eprintln!("skipped {}: it needs root for owners, devices and trusted attributes", module_path!());
            return;
        }
    };
}

/// A directory that goes away with the test.
pub(crate) struct Scratch(tempfile::TempDir);

impl Scratch {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Makes a directory holding `files`, see [`write`].
    pub(crate) fn dir(&self, name: &str, files: &[&str]) -> PathBuf {
        let dir = self.path().join(name);
        fs::create_dir_all(&dir).unwrap();
        write(&dir, files);
        dir
    }
}

/// Writes files: `a/` a directory, `a/b` a file that holds its own path, `a/b=text` one with a text, `l->t` a link,
/// `h=>f` a hard link, `p|` a pipe, `s~` a socket.
pub(crate) fn write(dir: &Path, files: &[&str]) {
    for file in files {
        if let Some((link, target)) = file.split_once("->") {
            parents(&dir.join(link));
            symlink(target, dir.join(link)).unwrap();
        } else if let Some((link, target)) = file.split_once("=>") {
            parents(&dir.join(link));
            fs::hard_link(dir.join(target), dir.join(link)).unwrap();
        } else if let Some(pipe) = file.strip_suffix('|') {
            parents(&dir.join(pipe));
            let kind = rustix::fs::FileType::Fifo;
            rustix::fs::mknodat(rustix::fs::CWD, dir.join(pipe), kind, 0o644.into(), 0).unwrap();
        } else if let Some(socket) = file.strip_suffix('~') {
            parents(&dir.join(socket));
            std::os::unix::net::UnixListener::bind(dir.join(socket)).unwrap();
        } else if file.ends_with('/') {
            fs::create_dir_all(dir.join(file)).unwrap();
        } else {
            let (name, text) = file.split_once('=').unwrap_or((file, file));
            parents(&dir.join(name));
            fs::write(dir.join(name), text).unwrap();
        }
    }
}

fn parents(path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
}

/// Shows a tree the way [`write`] takes it, sorted; files that hold their own path (without `strip`) show it alone.
pub(crate) fn show(dir: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    walk(dir, Path::new(""), &mut |path, metadata| {
        let name = path.to_string_lossy();
        let full = dir.join(path);
        let kind = metadata.file_type();
        lines.push(if kind.is_dir() {
            format!("{name}/")
        } else if kind.is_symlink() {
            format!("{name}->{}", fs::read_link(full).unwrap().display())
        } else if kind.is_fifo() {
            format!("{name}|")
        } else if kind.is_file() {
            format!("{name}={}", String::from_utf8_lossy(&fs::read(full).unwrap()))
        } else {
            format!("{name}?")
        });
    });
    lines
}

/// Everything about a tree that a copy or a layer must keep, one line a file; hard links show their first name.
pub(crate) fn describe(dir: &Path) -> Vec<String> {
    let mut first = std::collections::HashMap::new();
    let mut lines = Vec::new();
    walk(dir, Path::new(""), &mut |path, m| {
        let full = dir.join(path);
        let kind = m.file_type();
        if kind.is_char_device() && m.rdev() == 0 {
            // A deletion has neither owner nor time.
            lines.push(format!("{:?} gone", path.as_os_str().as_bytes().escape_ascii().to_string()));
            return;
        }
        let content = if kind.is_file() {
            let known = first.entry(m.ino()).or_insert_with(|| path.to_path_buf()).clone();
            format!("{} {:?} blocks<={}", known.display(), digest(&full), m.blocks() * 512 <= m.len() + 8192)
        } else if kind.is_symlink() {
            format!("{:?}", fs::read_link(&full).unwrap())
        } else {
            format!("{:x}", m.rdev())
        };
        let mode = if kind.is_symlink() { 0o777 } else { m.mode() };
        let time = (m.mtime(), m.mtime_nsec());
        let size = if kind.is_dir() { 0 } else { m.len() };
        lines.push(format!(
            "{:?} {mode:o} {}:{} {size} {time:?} {content} {:?}",
            path.as_os_str().as_bytes().escape_ascii().to_string(),
            m.uid(),
            m.gid(),
            xattrs(&full)
        ));
    });
    lines
}

fn digest(path: &Path) -> kiln_oci::Digest {
    kiln_oci::Digest::sha256(fs::read(path).unwrap())
}

/// Extended attributes of a file itself, without what the host adds.
pub(crate) fn xattrs(path: &Path) -> Vec<(String, Vec<u8>)> {
    let handle = rustix::fs::openat(
        rustix::fs::CWD,
        path,
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::NOFOLLOW,
        rustix::fs::Mode::empty(),
    )
    .unwrap();
    let names = kiln_sys::xattr::list(&handle).unwrap();
    let own = |name: &String| name != "security.selinux" && name != "trusted.overlay.origin";
    let names = names.into_iter().map(|name| name.into_string().unwrap()).filter(own);
    names.map(|name| (name.clone(), kiln_sys::xattr::get(&handle, &name).unwrap().unwrap())).collect()
}

fn walk(top: &Path, below: &Path, each: &mut dyn FnMut(&Path, &fs::Metadata)) {
    let mut names: Vec<_> = fs::read_dir(top.join(below)).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    for name in names {
        let path = below.join(std::ffi::OsString::from_vec(name.into_vec()));
        let metadata = fs::symlink_metadata(top.join(&path)).unwrap();
        each(&path, &metadata);
        if metadata.is_dir() {
            walk(top, &path, each);
        }
    }
}

pub(crate) fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

pub(crate) fn root(dir: &Path) -> Root {
    Root::open_ambient(dir).unwrap()
}

/// A tree whose owners stay: these tests run as anybody.
pub(crate) fn tree(dir: &Path) -> SourceTree {
    SourceTree::snapshot(root(dir))
}

/// A context that hides what `patterns` match, with owners kept.
pub(crate) fn context(dir: &Path, patterns: &[&str]) -> SourceTree {
    let ignore = Some(PatternSet::new(patterns).unwrap());
    SourceTree { root: root(dir), ignore, ownership: Ownership::Keep }
}

/// `COPY src dest` with the options of `change`.
pub(crate) fn spec(src: &str, dest: &str, change: impl FnOnce(&mut CopySpec)) -> CopySpec {
    let mut spec = CopySpec::docker(src, dest);
    change(&mut spec);
    spec
}
