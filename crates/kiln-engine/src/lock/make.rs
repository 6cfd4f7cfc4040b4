//! Makes a lock: asks what names stand for, of all stages and platforms.

use std::path::Path;
use std::sync::Arc;

use kiln_dockerfile::{
    Dockerfile, Fetch, ImageFacts, ImageRequest, LowerOptions, Lowering, PlatformInNames, nearest, targets,
};
use kiln_oci::{Digest, Reference};
use kiln_report::{Excerpt, Failure, FailureKind, Reporter, Silent, SourceFile};
use kiln_store::Store;

use super::file::{Home, Section};
use super::wants::{self, Kind, Want, all_locked};
use super::{LockAnswer, LockMode, Pins};
use crate::engine::Engine;
use crate::failure::environment;
use crate::frontend::{self, Resolver, mistakes};
use crate::images;
use crate::job::{Basis, Images, Job, Result, Subject};
use crate::request::{BuildRequest, Context, Pull};
use crate::session::Session;
use crate::step;
use crate::target::platforms;
use crate::waiter::Waiter;
use crate::worker::Purpose;

/// What a language is locked to: nobody is asked for it.
const BUILT_IN: &str = "built in";

/// Makes, mends or checks the lock of a Dockerfile.
pub(crate) async fn lock(
    engine: &Engine,
    request: &BuildRequest,
    mode: &LockMode,
    (session, reporter): (Arc<dyn Session>, Arc<dyn Reporter>),
) -> Result<LockAnswer> {
    wants::must_be_pinned(request)?;
    let directory = directory(&request.context)?;
    let home = Home::find(request, directory)?;
    let source = Arc::new(frontend::read_dockerfile(request, directory)?);
    let old = home.section().cloned().unwrap_or_default();
    let subject = Locked { request, source, proxies: engine.proxies().collect() };
    let path = home.path.clone();
    if *mode == LockMode::Check {
        subject.check(Pins::all(old.clone(), path.clone()))?;
        return Ok(LockAnswer { path, entries: old.entries().count(), changes: Vec::new() });
    }
    let (kept, pull) = match mode {
        LockMode::Update(names) => (without(&old, names)?, Pull::Always),
        LockMode::Fill | LockMode::Check => (old.clone(), request.pull),
    };
    let store = engine.store()?;
    let lease = store.lease().map_err(environment)?;
    let watch = Waiter::default().watch();
    let basis =
        Basis { store, lease, session, reporter, watch, purpose: Purpose::Build, pins: Arc::new(Pins::some(kept)) };
    let mut maker = Maker {
        resolver: Resolver::new(engine, &basis, (Arc::new(Images::default()), pull), PlatformInNames::Hidden)
            .beside(directory),
        job: Job::new(engine, request, &basis, Subject::default())?,
        basis,
        section: Section::default(),
    };
    maker.make(&subject).await?;
    let changes = old.changes(&maker.section);
    let entries = maker.section.entries().count();
    if !changes.is_empty() || home.section().is_none() {
        home.write(maker.section)?;
    }
    Ok(LockAnswer { path, entries, changes })
}

/// The directory that a lock can lie in.
fn directory(context: &Context) -> Result<Option<&Path>> {
    match context {
        Context::Dir(path) => Ok(Some(path)),
        Context::Empty => Ok(None),
        Context::Stdin | Context::Remote(_) => {
            let failure = Failure::new(FailureKind::Usage, "a lock lies beside its Dockerfile, in a directory");
            Err(failure.hint("clone or unpack the context, and name its directory"))
        }
    }
}

/// A lock without these names; without any when none is named.
fn without(old: &Section, names: &[String]) -> Result<Section> {
    let is_meant = |kind: Kind, name: &str, asked: &str| {
        let short = |text: &str| text.parse::<Reference>().map(|reference| reference.familiar_name());
        name == asked || kind == Kind::Image && (short(name) == Ok(asked.to_owned()) || familiar(asked) == name)
    };
    for asked in names {
        if !old.entries().any(|(kind, name, _)| is_meant(kind, name, asked)) {
            let failure = Failure::new(FailureKind::Usage, format!("`{asked}` is not in the lock"));
            return Err(match nearest(asked, old.entries().map(|(_, name, _)| name)) {
                Some(near) => failure.hint(format!("did you mean `{near}`?")),
                None => failure.hint("name what is in `kiln.lock`; `kiln lock` adds what is missing"),
            });
        }
    }
    let mut kept = Section::default();
    let is_asked = |kind, name: &str| names.is_empty() || names.iter().any(|asked| is_meant(kind, name, asked));
    for (kind, name, value) in old.entries().filter(|(kind, name, _)| !is_asked(*kind, name)) {
        kept.set(kind, name.to_owned(), value.to_owned());
    }
    Ok(kept)
}

fn familiar(name: &str) -> String {
    name.parse::<Reference>().map_or_else(|_| name.to_owned(), |reference| reference.familiar())
}

/// A Dockerfile, and how it is built.
struct Locked<'a> {
    request: &'a BuildRequest,
    source: Arc<SourceFile>,
    proxies: Vec<(String, String)>,
}

impl Locked<'_> {
    /// One for each platform.
    fn options(&self) -> Result<Vec<LowerOptions>> {
        let options = platforms(self.request)?.into_iter().map(|platform| {
            let mut options = frontend::options(self.request, Arc::clone(&self.source), platform);
            let given = &self.request.build_args;
            options.build_args.extend(self.proxies.iter().filter(|(name, _)| !given.contains_key(name)).cloned());
            options
        });
        Ok(options.collect())
    }

    fn parse(&self, options: &LowerOptions) -> Result<Dockerfile> {
        frontend::parse(options, &Silent)
    }

    /// All stages when none is named, the default one first.
    fn targets(&self, file: &Dockerfile) -> Vec<Option<String>> {
        match &self.request.target {
            Some(target) => vec![Some(target.clone())],
            None => std::iter::once(None).chain((0..targets(file).len()).map(|at| Some(at.to_string()))).collect(),
        }
    }

    /// Fails when names are not locked, as far as they are known without asking anybody.
    fn check(&self, pins: Pins) -> Result<()> {
        let mut all = Vec::new();
        for mut options in self.options()? {
            let file = self.parse(&options)?;
            for target in self.targets(&file) {
                let is_default = target == self.request.target;
                options.target = target;
                match wants::wants(self.request, &file, &options) {
                    Ok(wants) => all.extend(wants),
                    Err(failure) if is_default => return Err(failure),
                    // A stage that cannot be built needs nothing.
                    Err(_) => {}
                }
            }
        }
        all_locked(&pins, &all, &self.source)
    }
}

/// A lock in the making.
struct Maker {
    resolver: Resolver,
    job: Arc<Job>,
    basis: Basis,
    section: Section,
}

impl Maker {
    async fn make(&mut self, subject: &Locked<'_>) -> Result<()> {
        for mut options in subject.options()? {
            let file = subject.parse(&options)?;
            if let Some(want) = wants::syntax(&subject.source, &options) {
                self.section.set(want.kind, want.name, BUILT_IN.to_owned());
            }
            let mut facts = ImageFacts::new();
            for target in subject.targets(&file) {
                let is_default = target == subject.request.target;
                options.target = target;
                self.stage((&file, &options), &mut facts, is_default).await?;
            }
        }
        for (want, fetch) in wants::contexts(subject.request) {
            self.fetch(want, fetch, None).await?;
        }
        Ok(())
    }

    /// All that a stage needs. One that nobody asked for and that cannot be built needs nothing.
    async fn stage(
        &mut self,
        (file, options): (&Dockerfile, &LowerOptions),
        facts: &mut ImageFacts,
        is_default: bool,
    ) -> Result<()> {
        loop {
            match kiln_dockerfile::lower(file, options, facts) {
                Ok(Lowering::NeedsImages(wanted)) => self.images(&wanted, &options.source, facts).await?,
                Ok(Lowering::Done(lowered)) => return self.fetches(lowered.fetches, &options.source).await,
                Err(findings) if is_default => return Err(mistakes(&options.source, findings)),
                Err(_) => return Ok(()),
            }
        }
    }

    async fn images(
        &mut self,
        wanted: &[ImageRequest],
        source: &Arc<SourceFile>,
        facts: &mut ImageFacts,
    ) -> Result<()> {
        self.resolve(wanted, source, facts).await?;
        for request in wanted {
            let resolved = facts.find(&request.reference, &request.platform);
            let (Some(want), Some(resolved)) = (Want::of_image(request), resolved) else { continue };
            let digest = match self.kept(&want) {
                Some(kept) => kept,
                None => as_known(&self.basis.store, &want.name, &resolved.digest)?.to_string(),
            };
            self.section.set(want.kind, want.name, digest);
        }
        Ok(())
    }

    async fn fetches(&mut self, fetches: Vec<Fetch>, source: &Arc<SourceFile>) -> Result<()> {
        for fetch in fetches {
            let Some(want) = Want::of_fetch(&fetch) else { continue };
            let excerpt = Excerpt { file: Arc::clone(source), span: fetch.span };
            self.fetch(want, fetch, Some(excerpt)).await?;
        }
        Ok(())
    }

    /// Asks registries about all but the images that no registry has.
    async fn resolve(
        &mut self,
        wanted: &[ImageRequest],
        source: &Arc<SourceFile>,
        facts: &mut ImageFacts,
    ) -> Result<()> {
        let pull = self.resolver.pull;
        let (own, others) = wanted.iter().cloned().partition(|request| self.resolver.is_only_here(&request.reference));
        self.resolver.pull = Pull::Missing;
        self.resolver.resolve_all(own, source, facts).await?;
        self.resolver.pull = pull;
        self.resolver.resolve_all(others, source, facts).await
    }

    async fn fetch(&mut self, want: Want, fetch: Fetch, excerpt: Option<Excerpt>) -> Result<()> {
        if self.section.get(want.kind, &want.name).is_some() {
            return Ok(());
        }
        let value = match self.kept(&want) {
            Some(kept) => kept,
            None => step::pin(&self.job, fetch.op, excerpt).await?,
        };
        self.section.set(want.kind, want.name, value);
        Ok(())
    }

    fn kept(&self, want: &Want) -> Option<String> {
        self.basis.pins.section.get(want.kind, &want.name).map(str::to_owned)
    }
}

/// The digest by which its registry knows an image of the local store, so that others can ask for it; else its id.
fn as_known(store: &Store, name: &str, digest: &Digest) -> Result<Digest> {
    let Some(record) = images::find(store, name)? else { return Ok(digest.clone()) };
    let is_it = record.id == *digest || record.images().iter().any(|image| image.id == *digest);
    let Some(reference) = name.parse::<Reference>().ok().filter(|_| is_it) else { return Ok(digest.clone()) };
    let prefix = format!("{}@", reference.name());
    let known = record.repo_digests.iter().find_map(|place| place.strip_prefix(&prefix)?.parse().ok());
    Ok(known.unwrap_or(record.id))
}
