//! Git repositories: `ADD https://….git`. The commit is asked for each build; what it holds is fetched once.

mod checkout;
mod command;
mod mirror;
mod remote;
mod resolve;
mod wanted;

pub(crate) use mirror::{list, remove_mirror};

use async_trait::async_trait;
use kiln_graph::llb::SourceOp;
use kiln_oci::Digest;
use kiln_report::{Failure, FailureKind};
use kiln_solver::{CacheMap, KeyParts, Step};
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;

use self::command::Git;
use self::mirror::Mirror;
use self::wanted::{Wanted, is_commit};
use crate::artifact::Artifact;
use crate::failure::environment;
use crate::job::Result;
use crate::offline::not_here;
use crate::step::Place;

/// Facts about what references stood for are kept under this kind.
const FACT: &str = "git reference";

/// One repository at one reference.
pub(super) struct GitStep {
    place: Place,
    wanted: Wanted,
    commit: OnceCell<Commit>,
}

/// What a reference stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Commit {
    /// The commit, or the annotated tag that names it.
    id: String,
    /// The commit, if `id` is a tag.
    peeled: Option<String>,
    /// The reference's full name, `refs/heads/main`; none if the commit itself was asked for.
    name: Option<String>,
}

impl Commit {
    /// As a lock has it: the commit, then the name of the reference, then the annotated tag.
    fn to_lock(&self) -> String {
        let commit = self.peeled.as_ref().unwrap_or(&self.id);
        let tag = self.peeled.as_ref().map(|_| &self.id);
        let words = [Some(commit), self.name.as_ref(), tag.filter(|_| self.name.is_some())];
        words.into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join(" ")
    }

    /// Reads what a lock has.
    fn locked(text: &str) -> Option<Self> {
        let mut words = text.split(' ').map(str::to_owned);
        let (commit, name, tag) = (words.next()?, words.next(), words.next());
        let is_whole = is_commit(&commit) && tag.as_deref().is_none_or(is_commit) && words.next().is_none();
        let is_name = name.as_deref().is_none_or(|name| name.starts_with("refs/") && !name.contains(':'));
        let (id, peeled) = match tag {
            Some(tag) => (tag, Some(commit)),
            None => (commit, None),
        };
        (is_whole && is_name).then_some(Self { id, peeled, name })
    }
}

/// What a lock calls a repository at a reference; none when the reference is a whole commit.
pub(super) fn lock_name(op: SourceOp) -> Option<String> {
    let wanted = Wanted::read(op).ok()?;
    wanted.pinned().is_none().then(|| wanted.place())
}

impl GitStep {
    pub(super) fn new(place: Place, op: SourceOp) -> Result<Self> {
        let wanted = Wanted::read(op).map_err(|failure| place.blame(failure))?;
        Ok(Self { place, wanted, commit: OnceCell::new() })
    }

    async fn commit(&self) -> Result<&Commit> {
        self.commit.get_or_try_init(|| self.resolve()).await
    }

    /// A commit by its whole name is what it is, wherever it comes from: nobody is asked.
    async fn resolve(&self) -> Result<Commit> {
        if let Some(commit) = self.wanted.pinned() {
            return Ok(commit);
        }
        if let Some(text) = self.place.job.pins.repository(&self.wanted.place())? {
            return Commit::locked(text).ok_or_else(|| self.unreadable());
        }
        let commit = match self.place.job.registry.is_offline() {
            true => self.recall()?,
            false => self.ask().await?,
        };
        self.wanted.check(&commit)?;
        Ok(commit)
    }

    fn unreadable(&self) -> Failure {
        let message = format!("what {} is locked to cannot be read", self.wanted.shown());
        Failure::new(FailureKind::Build, message).hint("write it anew with `kiln lock --update`")
    }

    /// What it is now.
    pub(super) async fn pin(&self) -> Result<String> {
        self.commit().await.map(Commit::to_lock).map_err(|failure| self.place.blame(failure))
    }

    async fn ask(&self) -> Result<Commit> {
        let git = Git::new(&self.place.job, &self.wanted).await?;
        let commit = match resolve::ask(&git, &self.wanted).await? {
            Some(commit) => commit,
            None => Mirror::open(&self.place.job, &git, None).await?.find(&git).await?,
        };
        let text = serde_json::to_vec(&commit).expect("plain data serialises");
        self.place.job.store.records().put_fact(FACT, &self.wanted.place(), &text);
        Ok(commit)
    }

    /// What the reference stood for when its server was last asked.
    fn recall(&self) -> Result<Commit> {
        let fact = self.place.job.store.records().get_fact(FACT, &self.wanted.place()).map_err(environment)?;
        let commit = fact.and_then(|fact| serde_json::from_slice(&fact).ok());
        commit.ok_or_else(|| not_here(&self.wanted.shown()))
    }

    /// Fails when it is not known which commit it is, and nobody can be asked.
    pub(super) async fn known(&self) -> Result<()> {
        self.commit().await.map(drop).map_err(|failure| self.place.blame(failure))
    }

    /// Fails when the commit would have to be fetched, and cannot be.
    pub(super) async fn lacks(&self) -> Result<()> {
        let lacks = async {
            let commit = self.commit().await?;
            let git = Git::new(&self.place.job, &self.wanted).await?;
            let mirror = Mirror::open(&self.place.job, &git, Some(&commit.id)).await?;
            let is_here = mirror.has(&git, commit).await?;
            if is_here { Ok(()) } else { Err(not_here(&self.wanted.shown())) }
        };
        lacks.await.map_err(|failure| self.place.blame(failure))
    }

    async fn fetch(&self) -> Result<Artifact> {
        let commit = self.commit().await?;
        let git = Git::new(&self.place.job, &self.wanted).await?;
        let mirror = Mirror::open(&self.place.job, &git, Some(&commit.id)).await?;
        mirror.fetch(&git, commit).await?;
        checkout::checkout(&self.place.job, &git, &mirror, commit).await.map(Artifact::Snapshot)
    }
}

#[async_trait]
impl Step<Artifact, Failure> for GitStep {
    async fn cache_map(&self) -> Result<CacheMap> {
        let commit = self.commit().await.map_err(|failure| self.place.blame(failure))?;
        let mut hasher = self.place.hasher("git");
        self.wanted.key(commit).iter().for_each(|field| hasher.field(field.as_bytes()));
        Ok(self.place.cache_map(hasher.finish(), Vec::new(), KeyParts::default()))
    }

    async fn content_digest(&self, _input: usize, _result: &Artifact) -> Result<Digest> {
        Err(super::no_inputs())
    }

    async fn run(&self, _inputs: Vec<Artifact>) -> Result<Vec<Artifact>> {
        let tree = self.fetch().await.map_err(|failure| self.place.blame(failure))?;
        Ok(vec![tree])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_says_all_of_a_commit() {
        let id = |letter: char| letter.to_string().repeat(40);
        let name = || Some("refs/tags/v1".to_owned());
        for commit in [
            Commit { id: id('a'), peeled: None, name: None },
            Commit { id: id('a'), peeled: None, name: name() },
            Commit { id: id('a'), peeled: Some(id('b')), name: name() },
        ] {
            assert_eq!(Commit::locked(&commit.to_lock()), Some(commit));
        }
        for bad in ["", "abc", &format!("{} main", id('a')), &format!("{} refs/x {} y", id('a'), id('b')), "--x refs/x"]
        {
            assert_eq!(Commit::locked(bad), None, "{bad}");
        }
    }
}
