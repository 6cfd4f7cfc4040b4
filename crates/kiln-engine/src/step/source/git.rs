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
use kiln_report::Failure;
use kiln_solver::{CacheMap, KeyParts, Step};
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;

use self::command::Git;
use self::mirror::Mirror;
use self::wanted::Wanted;
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
        let commit = match self.place.job.registry.is_offline() {
            true => self.recall()?,
            false => self.ask().await?,
        };
        self.wanted.check(&commit)?;
        Ok(commit)
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
