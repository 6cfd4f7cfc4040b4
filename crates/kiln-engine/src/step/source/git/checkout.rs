//! From a mirror to files: a work tree with its submodules, its git directory if that is wanted, and nothing else.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_report::{Failure, FailureKind};
use kiln_store::{ActiveLayer, ActiveSnapshot, Snapshot};
use kiln_sys::metadata::{FileKind, Timestamp};
use kiln_sys::root::{Root, set_times};
use rustix::fs::renameat;

use super::Commit;
use super::command::{Git, Protocols, Repository};
use super::mirror::{Mirror, kept_name};
use super::wanted::{Submodules, Times, Wanted};
use crate::blocking::blocking;
use crate::failure::Context as _;
use crate::job::{Job, Result};
use crate::scratch::{Scratch, open_dir};

/// Name of a repository's own directory, and of the file that stands for it in a submodule.
const GIT: &str = ".git";

/// Checks a commit out into a snapshot.
pub(super) async fn checkout(job: &Arc<Job>, git: &Git, mirror: &Mirror, commit: &Commit) -> Result<Snapshot> {
    let Places { scratch, repository, tree } = Places::make(job, &git.wanted)?;
    make(git, &repository, commit).await?;
    match git.wanted.has_git_dir() {
        true => copy_objects(git, mirror, &repository, commit).await?,
        false => share_objects(mirror, &repository)?,
    }
    git.answer_in(&repository, &["checkout", "--quiet", "--force", "--detach", &commit.id], Protocols::Ours).await?;
    let root = open_dir(&tree)?;
    let doing = || format!("cannot check out {}", git.wanted.shown());
    if git.wanted.submodules == Submodules::All && root.contains(".gitmodules").or_environment(doing)? {
        submodules(git, &repository).await?;
    }
    if git.wanted.has_git_dir() {
        git.answer_in(&repository, &["reflog", "expire", "--expire=now", "--all"], Protocols::Ours).await?;
    }
    let time = match git.wanted.times {
        Times::Checkout => None,
        Times::Commit => Some(commit_time(git, mirror, commit).await?),
    };
    let (job, wanted) = (Arc::clone(job), git.wanted.clone());
    blocking(move || {
        let snapshot = Scratch::upon(&job.store, None, &job.lease)?;
        finish(&wanted, &root, &snapshot, time)?;
        drop(scratch);
        snapshot.commit()
    })
    .await
}

/// Where a commit is checked out before it is moved to its place; thrown away.
struct Places {
    scratch: Scratch<ActiveLayer>,
    repository: Repository,
    tree: PathBuf,
}

impl Places {
    fn make(job: &Job, wanted: &Wanted) -> Result<Self> {
        let scratch = Scratch::layer(&job.store, &job.lease)?;
        let tree = scratch.tree().join("tree");
        open_dir(&scratch.tree())?
            .mkdir("tree", 0o755)
            .or_environment(|| format!("cannot make `{}`", tree.display()))?;
        let git_dir = if wanted.has_git_dir() { tree.join(GIT) } else { scratch.tree().join("git") };
        let repository = Repository { git_dir, work_tree: Some(tree.clone()) };
        Ok(Self { scratch, repository, tree })
    }
}

async fn make(git: &Git, repository: &Repository, commit: &Commit) -> Result<()> {
    let format = if commit.id.len() == 64 { "--object-format=sha256" } else { "--object-format=sha1" };
    git.answer_in(repository, &["init", "--quiet", "--template=", format], Protocols::Ours).await?;
    // Submodules may be named relative to it.
    for (name, value) in
        [("remote.origin.url", git.wanted.remote.url()), ("remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*")]
    {
        git.answer_in(repository, &["config", name, value], Protocols::Ours).await?;
    }
    Ok(())
}

/// A git directory that is kept has its own copy of the one commit, under the name that was asked for.
async fn copy_objects(git: &Git, mirror: &Mirror, repository: &Repository, commit: &Commit) -> Result<()> {
    let kept = kept_name(&commit.id);
    let spec = commit.name.as_ref().map_or_else(|| kept.clone(), |name| format!("+{kept}:{name}"));
    let url = mirror.url();
    let fetch =
        ["fetch", "--quiet", "--no-tags", "--depth=1", "--update-head-ok", "--no-write-fetch-head", "--", &url, &spec];
    git.answer_in(repository, &fetch, Protocols::Ours).await.map(drop)
}

/// A git directory that is not kept borrows from the mirror.
#[expect(clippy::disallowed_methods, reason = "both directories are ours, and none of the commit's files is in them")]
fn share_objects(mirror: &Mirror, repository: &Repository) -> Result<()> {
    let doing = || format!("cannot write `{}`", repository.git_dir.display());
    let info = repository.git_dir.join("objects/info");
    fs::create_dir_all(&info).or_environment(doing)?;
    fs::write(info.join("alternates"), format!("{}\n", mirror.objects().display())).or_environment(doing)?;
    if mirror.shallow().exists() {
        fs::copy(mirror.shallow(), repository.git_dir.join("shallow")).or_environment(doing)?;
    }
    Ok(())
}

async fn submodules(git: &Git, repository: &Repository) -> Result<()> {
    let shallow = ["submodule", "--quiet", "update", "--init", "--recursive", "--depth=1"];
    let complaint = match git.run_in(repository, &shallow, Protocols::Remote).await? {
        Ok(_) => return Ok(()),
        Err(complaint) => complaint,
    };
    // Not every server gives the one commit that is wanted, and without its parents.
    let whole = ["submodule", "--quiet", "update", "--init", "--recursive"];
    let retried = match complaint.contains("not allowed") {
        true => Err(complaint),
        false => git.run_in(repository, &whole, Protocols::Remote).await?,
    };
    retried.map(drop).map_err(|complaint| {
        let failure = git.failure(&complaint);
        Failure { message: format!("cannot fetch the submodules of {}", git.wanted.shown()), ..failure }
    })
}

async fn commit_time(git: &Git, mirror: &Mirror, commit: &Commit) -> Result<Timestamp> {
    let name = format!("{}^{{commit}}", commit.id);
    let text = mirror.ask(git, &["log", "-1", "--format=%ct", &name]).await?;
    let secs = text.trim().parse().or_build(|| format!("the commit `{}` has no date", commit.id))?;
    Ok(Timestamp { secs, nanos: 0 })
}

/// Moves what is wanted to where it stays.
fn finish(wanted: &Wanted, root: &Root, to: &Scratch<ActiveSnapshot>, time: Option<Timestamp>) -> Result<()> {
    let doing = || format!("cannot check out {}", wanted.shown());
    if !wanted.has_git_dir() {
        forget_submodules(root).or_environment(doing)?;
    }
    let (from, upper) = (subdirectory(root, wanted)?, open_dir(&to.upper_dir())?);
    for entry in from.read_dir(".").or_environment(doing)? {
        renameat(&from, &entry.name, &upper, &entry.name).or_environment(doing)?;
    }
    match time {
        Some(time) => set_all_times(&upper, time).or_environment(doing),
        None => Ok(()),
    }
}

/// Opens the wanted directory. A link on the way might lead anywhere.
fn subdirectory(root: &Root, wanted: &Wanted) -> Result<Root> {
    let mut path = PathBuf::from(".");
    for part in wanted.subdir.split('/').filter(|part| !part.is_empty()) {
        path.push(part);
        let is_directory = part != ".." && root.metadata(&path).is_ok_and(|found| found.is_dir());
        if !is_directory {
            let message =
                format!("{} has no directory `{}`", wanted.shown(), path.strip_prefix(".").unwrap_or(&path).display());
            return Err(Failure::new(FailureKind::Build, message));
        }
    }
    root.subroot(&path).or_build(|| format!("cannot open `{}` of {}", path.display(), wanted.shown()))
}

/// Removes the files that say where a submodule's git directory was. Git checks out nothing of that name itself.
fn forget_submodules(root: &Root) -> kiln_sys::Result<()> {
    each(root, &mut |path, kind| match path.file_name() == Some(OsStr::new(GIT)) && kind == FileKind::Regular {
        true => root.unlink(path),
        false => Ok(()),
    })
}

/// Dates everything, directories after what is in them.
fn set_all_times(root: &Root, time: Timestamp) -> kiln_sys::Result<()> {
    each(root, &mut |path, _| set_times(root.open_nofollow(path)?, time))?;
    set_times(root.open_nofollow(".")?, time)
}

/// Visits everything below a directory, what is in a directory before itself.
fn each(root: &Root, visit: &mut dyn FnMut(&Path, FileKind) -> kiln_sys::Result<()>) -> kiln_sys::Result<()> {
    let mut open = vec![(PathBuf::from("."), false)];
    while let Some((path, is_done)) = open.pop() {
        if is_done {
            visit(&path, FileKind::Directory)?;
            continue;
        }
        if path != Path::new(".") {
            open.push((path.clone(), true));
        }
        for entry in root.read_dir(&path)? {
            let below = path.join(&entry.name);
            match entry.kind {
                FileKind::Directory => open.push((below, false)),
                kind => visit(&below, kind)?,
            }
        }
    }
    Ok(())
}
