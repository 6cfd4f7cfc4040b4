//! What was fetched of a repository: one bare repository each in the state directory, used by one build at a time.
//!
//! Whatever is interrupted leaves it usable: git writes packs and references whole or not at all, its helpers die with
//! us, and lock files that a dead git left are removed by the next who holds our lock.
#![expect(
    clippy::disallowed_methods,
    reason = "mirrors are in the state directory, by names of ours, and nothing is checked out in them"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kiln_oci::Digest;
use kiln_report::{Failure, FailureKind};
use kiln_store::Foreign;
use kiln_sys::lock::{FileLock, LockMode};

use super::Commit;
use super::command::{Git, Protocols, Repository};
use super::resolve;
use crate::failure::Context as _;
use crate::job::{Job, Result};

/// How often it is looked whether another build is through.
const LOOK: Duration = Duration::from_millis(50);
/// Whether hashes have 32 bytes, by the length of a commit's name.
const LONG: usize = 64;

/// A repository of ours, locked.
pub(super) struct Mirror {
    repository: Repository,
    _lock: FileLock,
}

/// All mirrors of a state directory.
fn directory(root: &Path) -> PathBuf {
    root.join("git")
}

impl Mirror {
    /// Waits for the mirror of a remote; it is made when it is not there. `commit` tells the kind of hash.
    pub(super) async fn open(job: &Arc<Job>, git: &Git, commit: Option<&str>) -> Result<Self> {
        let is_long = commit.is_some_and(|commit| commit.len() == LONG);
        let name = Digest::sha256(git.wanted.remote.url()).hex()[..32].to_owned();
        let name = if is_long { format!("{name}-sha256") } else { name };
        let all = directory(&job.store.root());
        let doing = || format!("cannot keep repositories in `{}`", all.display());
        fs::create_dir_all(&all).or_environment(doing)?;
        let lock = lock(&all.join(format!("{name}.lock"))).await?;
        let git_dir = all.join(&name);
        let mirror = Self { repository: Repository { git_dir: git_dir.clone(), work_tree: None }, _lock: lock };
        match git_dir.join("HEAD").is_file() {
            true => clear(&git_dir),
            false => mirror.make(git, is_long).await?,
        }
        Ok(mirror)
    }

    /// Makes it under another name first, so that there is all of it or nothing.
    async fn make(&self, git: &Git, is_long: bool) -> Result<()> {
        let git_dir = &self.repository.git_dir;
        let fresh = git_dir.with_extension("new");
        let doing = || format!("cannot make `{}`", git_dir.display());
        remove(&fresh).or_environment(doing)?;
        fs::create_dir(&fresh).or_environment(doing)?;
        let repository = Repository { git_dir: fresh.clone(), work_tree: None };
        let format = if is_long { "--object-format=sha256" } else { "--object-format=sha1" };
        git.answer_in(&repository, &["init", "--quiet", "--bare", "--template=", format], Protocols::Ours).await?;
        remove(git_dir).or_environment(doing)?;
        fs::rename(&fresh, git_dir).or_environment(doing)
    }

    /// Where its objects are.
    pub(super) fn objects(&self) -> PathBuf {
        self.repository.git_dir.join("objects")
    }

    /// The list of commits whose parents were not fetched, if there are any.
    pub(super) fn shallow(&self) -> PathBuf {
        self.repository.git_dir.join("shallow")
    }

    /// Where it is, for git.
    pub(super) fn url(&self) -> String {
        format!("file://{}", self.repository.git_dir.display())
    }

    /// Runs a command in it.
    pub(super) async fn ask(&self, git: &Git, args: &[&str]) -> Result<String> {
        git.answer_in(&self.repository, args, Protocols::Ours).await
    }

    /// Has the commit here, with all its files.
    pub(super) async fn fetch(&self, git: &Git, commit: &Commit) -> Result<()> {
        if self.has(git, commit).await? {
            return Ok(());
        }
        git.must_be_online()?;
        let spec = format!("+{}:{}", commit.id, kept_name(&commit.id));
        let mut complaint = match self.fetch_one(git, &spec).await? {
            Ok(()) => String::new(),
            Err(complaint) => complaint,
        };
        if !self.has(git, commit).await? && !git.wanted.is_by_commit() {
            // A server that gives no single commits, or a branch that moved on meanwhile.
            match self.fetch_all(git).await? {
                Ok(()) => complaint.clear(),
                Err(worse) => complaint = worse,
            }
        }
        if self.has(git, commit).await? {
            return self.ask(git, &["update-ref", &kept_name(&commit.id), &commit.id]).await.map(drop);
        }
        Err(match complaint.as_str() {
            "" => Failure::new(
                FailureKind::Build,
                format!("`{}` has no commit `{}`", git.wanted.remote.shown(), commit.id),
            )
            .hint("name a commit that a branch or tag of it leads to"),
            complaint => git.failure(complaint),
        })
    }

    /// Finds the commit that begins so, here or there.
    pub(super) async fn find(&self, git: &Git) -> Result<Commit> {
        if let Some(commit) = self.look_up(git).await? {
            return Ok(commit);
        }
        self.fetch_all(git).await?.map_err(|complaint| git.failure(&complaint))?;
        self.look_up(git).await?.ok_or_else(|| resolve::unknown(&git.wanted))
    }

    async fn look_up(&self, git: &Git) -> Result<Option<Commit>> {
        let name = format!("{}^{{commit}}", git.wanted.reference);
        let args = ["rev-parse", "--verify", "--quiet", "--end-of-options", &name];
        let found = git.run_in(&self.repository, &args, Protocols::Ours).await?;
        let id = found.ok().map(|text| text.trim().to_owned()).filter(|id| !id.is_empty());
        Ok(id.map(|id| Commit { id, peeled: None, name: None }))
    }

    /// Whether the commit is here with all its files: what no reference leads to may have come by half.
    pub(super) async fn has(&self, git: &Git, commit: &Commit) -> Result<bool> {
        let kept = ["rev-parse", "--verify", "--quiet", &kept_name(&commit.id)];
        if git.run_in(&self.repository, &kept, Protocols::Ours).await?.is_ok() {
            return Ok(true);
        }
        let leading = ["for-each-ref", "--count=1", "--format=%(refname)", "--contains", &commit.id];
        let leading = git.run_in(&self.repository, &leading, Protocols::Ours).await?;
        Ok(leading.is_ok_and(|names| !names.trim().is_empty()))
    }

    async fn fetch_one(&self, git: &Git, spec: &str) -> Result<std::result::Result<(), String>> {
        let url = git.wanted.remote.url();
        let shallow = ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--depth=1", "--", url, spec];
        match git.run_in(&self.repository, &shallow, Protocols::Remote).await? {
            Ok(_) => Ok(Ok(())),
            Err(complaint) if complaint.contains("shallow") || complaint.contains("--depth") => {
                let whole = ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--", url, spec];
                Ok(git.run_in(&self.repository, &whole, Protocols::Remote).await?.map(drop))
            }
            Err(complaint) => Ok(Err(complaint)),
        }
    }

    /// All branches and tags, with all they lead to.
    async fn fetch_all(&self, git: &Git) -> Result<std::result::Result<(), String>> {
        let mut args = vec!["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--prune"];
        if self.shallow().exists() {
            args.push("--unshallow");
        }
        args.extend([
            "--",
            git.wanted.remote.url(),
            "+refs/heads/*:refs/remote/heads/*",
            "+refs/tags/*:refs/remote/tags/*",
        ]);
        Ok(git.run_in(&self.repository, &args, Protocols::Remote).await?.map(drop))
    }
}

/// The reference under which a commit stays.
pub(super) fn kept_name(id: &str) -> String {
    format!("refs/kiln/{id}")
}

async fn lock(path: &Path) -> Result<FileLock> {
    let doing = || format!("cannot lock `{}`", path.display());
    let open = || fs::File::options().read(true).write(true).create(true).truncate(false).open(path);
    let mut file = open().or_environment(doing)?;
    loop {
        file = match FileLock::try_acquire(file, LockMode::Exclusive).or_environment(doing)? {
            Ok(lock) => {
                // Tells when it was last used. Only a hint.
                let _ = lock.file().set_modified(SystemTime::now());
                return Ok(lock);
            }
            Err(taken) => taken,
        };
        tokio::time::sleep(LOOK).await;
    }
}

/// Removes what a git that was killed left in the way. We hold the lock, so there is no other.
fn clear(git_dir: &Path) {
    let mut open = vec![git_dir.to_owned(), git_dir.join("objects/pack"), git_dir.join("refs/kiln")];
    open.push(git_dir.join("objects"));
    for directory in open {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(".lock") || name.starts_with("tmp_") || name.starts_with("incoming-") {
                // What cannot be removed is met by git, which says so.
                let _ = remove(&entry.path());
            }
        }
    }
}

fn remove(path: &Path) -> std::io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// All mirrors, for those who look after space.
pub(crate) fn list(root: &Path) -> Vec<Foreign> {
    let entries = fs::read_dir(directory(root)).into_iter().flatten().flatten();
    let mirrors = entries.filter(|entry| entry.path().is_dir()).map(|entry| {
        let path = entry.path();
        let seconds = |time: std::io::Result<SystemTime>| {
            let since = time.ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
        };
        let head = fs::metadata(path.join("HEAD"));
        let lock = path.with_extension("lock");
        Foreign {
            id: entry.file_name().to_string_lossy().into_owned(),
            description: "git repository".to_owned(),
            bytes: size(&path),
            created: seconds(head.and_then(|head| head.modified())),
            used: seconds(fs::metadata(&lock).and_then(|lock| lock.modified())),
            is_held: matches!(try_lock(&lock), Ok(None)),
        }
    });
    mirrors.collect()
}

/// Removes a mirror, unless a build uses it.
pub(crate) fn remove_mirror(root: &Path, name: &str) -> Result<bool> {
    let path = directory(root).join(name);
    let doing = || format!("cannot remove `{}`", path.display());
    let Some(_lock) = try_lock(&path.with_extension("lock")).or_environment(doing)? else { return Ok(false) };
    remove(&path).or_environment(doing)?;
    Ok(true)
}

fn try_lock(path: &Path) -> std::io::Result<Option<FileLock>> {
    let file = fs::File::options().write(true).create(true).truncate(false).open(path)?;
    Ok(FileLock::try_acquire(file, LockMode::Exclusive).map_err(std::io::Error::from)?.ok())
}

fn size(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let sizes = entries.filter_map(|entry| {
        let metadata = entry.metadata().ok()?;
        Some(if metadata.is_dir() { size(&entry.path()) } else { metadata.blocks() * 512 })
    });
    sizes.sum()
}
