//! Results as files: a directory, or one tar.
#![expect(clippy::disallowed_methods, reason = "whoever runs us names where outputs go")]

use std::fs::{File, Permissions, TryLockError};
use std::io::{self, Read as _, Write};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kiln_fs::layer::{PackOptions, Times, pack_trees, pack_with};
use kiln_fs::{CopySpec, SourceTree};
use kiln_oci::Platform;
use kiln_report::{Event, Failure, FailureKind};
use kiln_store::{Snapshot, Store};
use kiln_sys::passing;
use kiln_sys::root::Root;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use tempfile::TempPath;

use crate::blocking::blocking;
use crate::failure::Context as _;
use crate::job::{Job, Result};
use crate::progress::Work;
use crate::request::{Dest, OtherFiles};
use crate::target::Solved;

/// How often a directory is looked at that others write into.
const LOOK: Duration = Duration::from_millis(20);

/// The directory that a platform's files are in, beside those of others: `linux_arm_v7`.
fn directory_of(platform: &Platform) -> String {
    platform.to_string().replace('/', "_")
}

/// Writes the files of results into a directory, which is made when it is not there. Several have a directory each in it,
/// unless they are to share it.
pub(crate) async fn local(
    job: &Arc<Job>,
    solved: &[Solved],
    dest: &Path,
    (others, split): (OtherFiles, Option<bool>),
) -> Result<()> {
    let work = Work::start(&job.reporter, "exporting to client directory");
    let names = split.unwrap_or(solved.len() > 1).then(|| solved.iter().map(|result| directory_of(&result.platform)));
    let names: Option<Vec<String>> = names.map(Iterator::collect);
    let snapshots: Vec<Snapshot> = solved.iter().map(|result| result.snapshot.clone()).collect();
    let how = Written { others, epoch: solved.iter().find_map(|result| result.epoch) };
    let copied = async {
        let root = open_directory(dest).await?;
        let alone = alone(job, &root, dest).await;
        let (store, dest) = (job.store.clone(), dest.to_owned());
        let copy = move || match names {
            Some(names) => {
                for (name, snapshot) in names.iter().zip(snapshots) {
                    let dest = dest.join(name);
                    let root = kiln_fs::own_directory(&root, name.as_ref()).or_environment(|| cannot_write(&dest))?;
                    write_files(&store, &[snapshot], (&dest, &root), how)?;
                }
                let names = names.iter().map(Into::into).collect();
                let removed = (others == OtherFiles::Delete).then(|| kiln_fs::remove_unnamed(&root, &names));
                removed.transpose().map(drop).or_environment(|| format!("cannot delete files in `{}`", dest.display()))
            }
            None => write_files(&store, &snapshots, (&dest, &root), how),
        };
        blocking(move || {
            let copied = copy();
            drop(alone);
            copied
        })
        .await
    };
    work.end(copied.await)
}

fn cannot_write(dest: &Path) -> String {
    format!("cannot write files into `{}`", dest.display())
}

async fn open_directory(dest: &Path) -> Result<Root> {
    let dest = dest.to_owned();
    blocking(move || {
        std::fs::create_dir_all(&dest).or_environment(|| cannot_write(&dest))?;
        Root::open_ambient(&dest).or_environment(|| cannot_write(&dest))
    })
    .await
}

/// Waits until no other build writes into a directory: the files of two would be mixed there. None where directories
/// cannot be locked. The lock goes with the descriptor.
async fn alone(job: &Job, root: &Root, dest: &Path) -> Option<File> {
    let directory = File::from(root.open(".", OFlags::RDONLY | OFlags::DIRECTORY).ok()?);
    let mut is_told = false;
    loop {
        match directory.try_lock() {
            Ok(()) => return Some(directory),
            Err(TryLockError::Error(_)) => return None,
            Err(TryLockError::WouldBlock) if is_told => {}
            Err(TryLockError::WouldBlock) => {
                let text = format!("another build writes into `{}`: waiting for it", dest.display());
                job.reporter.report(Event::Note(text));
                is_told = true;
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// How files are written.
#[derive(Debug, Clone, Copy)]
struct Written {
    others: OtherFiles,
    /// The time of all of them, if one stands for all; every platform has the same.
    epoch: Option<i64>,
}

/// Writes the files of snapshots, which have no file in common, into one directory.
fn write_files(store: &Store, snapshots: &[Snapshot], (dest, root): (&Path, &Root), how: Written) -> Result<()> {
    let doing = || cannot_write(dest);
    let view = |snapshot| Ok(Root::new(crate::step::view(store, snapshot)?));
    let filled = || snapshots.iter().filter(|snapshot| !snapshot.layers().is_empty());
    let views = filled().map(view).collect::<Result<Vec<Root>>>()?;
    let views: Vec<&Root> = views.iter().collect();
    if let Some(path) = kiln_fs::shared_file(&views).or_environment(doing)? {
        let message = format!("several platforms have `{}`, and only one of them can be written", path.display());
        return Err(Failure::new(FailureKind::Build, message).hint("leave out `platform-split=false`"));
    }
    for snapshot in filled() {
        kiln_fs::copy(&SourceTree::snapshot(view(snapshot)?), root, &ours(how.epoch)).or_environment(doing)?;
    }
    match how.others {
        OtherFiles::Keep => Ok(()),
        OtherFiles::Delete => kiln_fs::remove_others(root, &views).or_environment(doing),
    }
}

/// Everything, with contents joined to those that are there. Files are of whoever runs us, as nobody here knows the
/// image's users; what is in the way of a name is replaced, and no link that was there before is followed.
fn ours(epoch: Option<i64>) -> CopySpec {
    let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    CopySpec {
        src: "/".into(),
        dest: "/".into(),
        dir_copy_contents: true,
        always_replace: true,
        on_host: true,
        owner: Some(owner),
        timestamp: epoch.map(|seconds| seconds.saturating_mul(1_000_000_000)),
        ..CopySpec::default()
    }
}

/// Writes the files of results as one tar. Several have a directory each in it.
pub(crate) async fn tar(job: &Arc<Job>, solved: &[Solved], dest: &Dest, split: Option<bool>) -> Result<()> {
    let work = Work::start(&job.reporter, "exporting to client tarball");
    let store = job.store.clone();
    let results: Vec<_> =
        solved.iter().map(|result| (directory_of(&result.platform), result.snapshot.clone())).collect();
    let is_split = split.unwrap_or(results.len() > 1);
    // All platforms are given one time, if they have one.
    let times = solved.iter().find_map(|result| result.epoch).map_or(Times::Keep, Times::Exactly);
    let opened = open(job, dest);
    let written = blocking(move || {
        let mut file = opened?;
        let tree = |snapshot| Ok(Root::new(crate::step::view(&store, snapshot)?));
        let packed = match results.as_slice() {
            [(_, only)] if !is_split => {
                let options = PackOptions { times, ..PackOptions::default() };
                pack_with(&tree(only)?, &mut file.writer, &options)
            }
            several => {
                let trees = several.iter().map(|(name, snapshot)| Ok((name.clone(), tree(snapshot)?)));
                pack_trees(&trees.collect::<Result<Vec<_>>>()?, times, &mut file.writer)
            }
        };
        packed.or_environment(|| "cannot write the tar".into())?;
        file.finish()
    })
    .await;
    work.end(written)
}

/// A file being written: it takes its name only when it is whole.
pub(crate) struct OutFile {
    pub(crate) writer: Box<dyn Write + Send>,
    /// The file below the writer.
    file: Option<File>,
    rename: Option<(Part, PathBuf)>,
}

/// Opens a destination for writing.
pub(crate) fn open(job: &Job, dest: &Dest) -> Result<OutFile> {
    match dest {
        Dest::Stdout => {
            let writer = job.session.stdout();
            let writer =
                writer.ok_or_else(|| Failure::new(FailureKind::Usage, "standard output is taken by two outputs"))?;
            Ok(OutFile::plain(writer))
        }
        Dest::Path(path) => OutFile::replacing(path),
    }
}

impl OutFile {
    /// A file of the machine: written beside the old one, which it replaces when it is whole. What is no plain file, like
    /// `/dev/null` or a named pipe, is written to as it stands; a link keeps its place, and its target is replaced.
    pub(crate) fn replacing(path: &Path) -> Result<OutFile> {
        let doing = || format!("cannot write `{}`", path.display());
        let writer = |file| Box::new(std::io::BufWriter::with_capacity(1 << 20, file));
        let path = std::fs::canonicalize(path).or_else(|_| target(path)).or_environment(doing)?;
        if std::fs::metadata(&path).is_ok_and(|there| !there.is_file()) {
            let file = File::options().write(true).open(&path).or_environment(doing)?;
            return Ok(OutFile::plain(writer(file)));
        }
        let dir = path.parent().filter(|dir| *dir != Path::new("")).unwrap_or(Path::new("."));
        let (file, part) = match unnamed(dir) {
            Some(file) => (file, Part::Unnamed(dir.to_owned())),
            None => {
                let part = part().permissions(Permissions::from_mode(0o666)).tempfile_in(dir);
                let (file, part) = part.or_environment(doing)?.into_parts();
                (file, Part::Named(part))
            }
        };
        if let Ok(before) = std::fs::metadata(&path) {
            file.set_permissions(before.permissions()).or_environment(doing)?;
        }
        let below = file.try_clone().or_environment(doing)?;
        Ok(OutFile { writer: writer(file), file: Some(below), rename: Some((part, path)) })
    }

    /// What is written to a stream has no name to take.
    pub(crate) fn plain(writer: Box<dyn Write + Send>) -> Self {
        Self { writer, file: None, rename: None }
    }

    /// Adds the `size` bytes that a file has.
    pub(crate) fn append(&mut self, from: File, size: u64) -> io::Result<()> {
        if let Some(file) = self.changeable() {
            return passing::copy(from, file?, size);
        }
        let copied = io::copy(&mut from.take(size), &mut self.writer)?;
        if copied == size { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// The file, with all that was written, when that can still be changed. It shares the writer's cursor.
    pub(crate) fn changeable(&mut self) -> Option<io::Result<File>> {
        let file = self.file.as_ref()?;
        Some(self.writer.flush().and_then(|()| file.try_clone()))
    }

    /// Makes it whole.
    pub(crate) fn finish(mut self) -> Result<()> {
        let doing = || "cannot write the output".to_owned();
        self.writer.flush().or_environment(doing)?;
        match self.rename.take() {
            Some((part, path)) => {
                let part = match (part, &self.file) {
                    (Part::Unnamed(dir), Some(file)) => named(file, &dir).or_environment(doing)?,
                    (Part::Unnamed(_), None) => {
                        return Err(Failure::new(FailureKind::Bug, "an output has lost its file"));
                    }
                    (Part::Named(part), _) => part,
                };
                part.persist(path).or_environment(doing)
            }
            None => Ok(()),
        }
    }
}

/// What a path leads to that is not there.
fn target(path: &Path) -> io::Result<PathBuf> {
    /// As many as the kernel follows.
    const LINKS: usize = 40;
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        let Ok(link) = std::fs::read_link(&path) else { return Ok(path) };
        path = path.parent().unwrap_or(Path::new("")).join(link);
    }
    Err(rustix::io::Errno::LOOP.into())
}

/// A file that is being written, before it takes its name.
enum Part {
    /// In this directory, without any name: it goes with us.
    Unnamed(PathBuf),
    Named(TempPath),
}

/// Names that nobody can foresee: what is prepared there is not written to.
fn part() -> tempfile::Builder<'static, 'static> {
    let mut part = tempfile::Builder::new();
    part.prefix(".part-");
    part
}

/// A file without a name, where the file system has such and it can get one later.
fn unnamed(dir: &Path) -> Option<File> {
    if !Path::new("/proc/self/fd").exists() {
        return None;
    }
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::open(dir, flags, Mode::from_raw_mode(0o666)).ok().map(File::from)
}

/// Gives a file its first name.
fn named(file: &File, dir: &Path) -> io::Result<TempPath> {
    let magic = format!("/proc/self/fd/{}", file.as_raw_fd());
    let link = |path: &Path| Ok(rustix::fs::linkat(CWD, magic.as_str(), CWD, path, AtFlags::SYMLINK_FOLLOW)?);
    Ok(part().make_in(dir, link)?.into_temp_path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_writes_the_same_file_at_once_writes_it_whole_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (path, victim) = (dir.path().join("out"), dir.path().join("victim"));
        std::fs::write(&victim, "kept").unwrap();
        for name in ["out.part".to_owned(), format!("out.part-{}", std::process::id())] {
            std::os::unix::fs::symlink(&victim, dir.path().join(name)).unwrap();
        }
        let [mut one, mut two] = [(), ()].map(|()| OutFile::replacing(&path).unwrap());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3, "nothing is left when we are killed now");
        one.writer.write_all(b"one").unwrap();
        two.writer.write_all(b"two").unwrap();
        drop(OutFile::replacing(&path).unwrap());
        one.finish().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one");
        two.finish().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "kept");
        let mode = |path| std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&path), mode(&victim), "as any file");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 4);
        let link = |name: &str, to: &str| {
            let link = dir.path().join(name);
            std::os::unix::fs::symlink(to, &link).unwrap();
            link
        };
        let mut through = OutFile::replacing(&link("link", "new")).unwrap();
        through.writer.write_all(b"made").unwrap();
        through.finish().unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("new")).unwrap(), "made");
        assert!(OutFile::replacing(&link("loop", "loop")).is_err());
    }
}
