//! The engine: one state directory, one registry client, one executor, and the verbs on them.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use futures::future::LocalBoxFuture;
use kiln_exec::{Executor, Terminal};
use kiln_oci::{Descriptor, Platform, Reference};
use kiln_report::{Failure, Reporter};
use kiln_store::{Entry, Store, Why};

use crate::answer::{
    BuildResult, Collected, FsckAnswer, ImageDetails, ImageSummary, Loaded, PruneAnswer, PullResult, Removed,
};
use crate::diff::{DiffRequest, Differences};
use crate::doctor::{Diagnosis, DoctorRequest};
use crate::explain::Story;
use crate::export::{Daemons, OutFile};
use crate::failure::environment;
use crate::forecast::Forecast;
use crate::gather::Gathered;
use crate::ids::Ids;
use crate::job::Result;
use crate::lock::{LockAnswer, LockMode};
use crate::mounts::{MountExport, MountImport, MountPlace, MountSummary, MountsExported, MountsImported};
use crate::network::StepNetworks;
use crate::record::BuildRecord;
use crate::registry::Registry;
use crate::request::{BuildRequest, EngineConfig, FsckRequest, PruneRequest, RunRequest};
use crate::session::Session;
use crate::shell::ShellRequest;
use crate::take::Platforms;
use crate::verify::Verified;
use crate::{images, mounts, run, transfer, usage, worker};

/// Builds images and looks after them. Opening it costs next to nothing: what a verb needs is set up when it does.
///
/// Verbs that wait are boxed, so that they are compiled here, once, and not with whoever awaits them.
pub struct Engine {
    config: EngineConfig,
    store: OnceLock<Store>,
    registry: Arc<Registry>,
    networks: StepNetworks,
    ids: Arc<Ids>,
}

impl Drop for Engine {
    fn drop(&mut self) {
        // What stays behind goes with the next sweep.
        self.store.get().map(Store::forget_views);
    }
}

impl Engine {
    /// An engine on a state directory, which is made when it is first needed.
    pub fn open(config: EngineConfig) -> Result<Self> {
        let registry = Arc::new(Registry::new(&config));
        let (networks, ids) = (
            StepNetworks::new(config.search_path.clone()),
            Arc::new(Ids::new(config.ids_note.clone(), config.isolation)),
        );
        Ok(Self { config, store: OnceLock::new(), registry, networks, ids })
    }

    pub(crate) fn store(&self) -> Result<Store> {
        if let Some(store) = self.store.get() {
            return Ok(store.clone());
        }
        let store = Store::open(&self.config.state).map_err(|error| {
            let is_elsewhere = matches!(error, kiln_store::Error::NotWritable { .. }) && !error.is_no_space();
            let hint = is_elsewhere.then_some("name a directory you can write to with `--state` or `KILN_STATE`");
            crate::space::explain(hint.into_iter().fold(environment(error), Failure::hint), &self.config.state)
        })?;
        if self.config.has_become_root {
            let admitted = kiln_store::Standing::ours().and_then(|standing| store.admit(standing));
            admitted.map_err(environment)?;
        }
        self.config.stacking.into_iter().for_each(|stacking| store.choose_stacking(stacking));
        Ok(self.store.get_or_init(|| store).clone())
    }

    pub(crate) fn registry(&self) -> Arc<Registry> {
        Arc::clone(&self.registry)
    }

    pub(crate) fn executor(&self) -> Executor {
        Executor::new().isolated_by(self.config.isolation)
    }

    pub(crate) fn networks(&self) -> StepNetworks {
        self.networks.clone()
    }

    pub(crate) fn ids(&self) -> Arc<Ids> {
        Arc::clone(&self.ids)
    }

    pub(crate) fn proxies(&self) -> impl Iterator<Item = (String, String)> + '_ {
        self.config.proxies.iter().map(|(name, value)| (name.clone(), value.clone()))
    }

    pub(crate) fn device_specs(&self) -> Vec<PathBuf> {
        self.config.device_specs.clone()
    }

    pub(crate) fn host_env(&self) -> Vec<(String, OsString)> {
        let path = self.config.search_path.clone().map(|path| ("PATH".to_owned(), path));
        path.into_iter().chain(self.proxies().map(|(name, value)| (name, value.into()))).collect()
    }

    pub(crate) fn daemons(&self) -> Daemons {
        Daemons { docker: self.config.docker_host.clone(), env: self.config.daemon_env.clone() }
    }

    /// Builds an image. Dropping the future stops it: processes are killed, nothing half-made is kept.
    pub fn build<'a>(
        &'a self,
        request: &'a BuildRequest,
        session: Arc<dyn Session>,
        reporter: Arc<dyn Reporter>,
    ) -> LocalBoxFuture<'a, Result<BuildResult>> {
        Box::pin(worker::build(self, request, session, reporter))
    }

    /// Tells what a build would do. Nothing runs, and nothing is written.
    pub fn forecast<'a>(
        &'a self,
        request: &'a BuildRequest,
        session: Arc<dyn Session>,
        reporter: Arc<dyn Reporter>,
    ) -> LocalBoxFuture<'a, Result<Forecast>> {
        Box::pin(crate::forecast::forecast(self, request, session, reporter))
    }

    /// Has all contexts of a build here, to look at them.
    pub fn gather<'a>(
        &'a self,
        request: &'a BuildRequest,
        lent: (Arc<dyn Session>, Arc<dyn Reporter>),
    ) -> LocalBoxFuture<'a, Result<Gathered>> {
        Box::pin(crate::gather::gather(self, request, lent))
    }

    /// Makes, mends or checks the lock beside a build's Dockerfile.
    pub fn lock<'a>(
        &'a self,
        request: &'a BuildRequest,
        mode: &'a LockMode,
        lent: (Arc<dyn Session>, Arc<dyn Reporter>),
    ) -> LocalBoxFuture<'a, Result<LockAnswer>> {
        Box::pin(crate::lock::lock(self, request, mode, lent))
    }

    /// The record of builds, newest first.
    pub fn builds(&self) -> Result<Vec<BuildRecord>> {
        crate::record::list(&self.store()?)
    }

    /// Why the steps of a build ran, or what differs from another build. Builds are named by id, beginning of an id, how
    /// far back they are (`^1`), or the image they made; by default it is the last.
    pub fn explain(&self, build: Option<&str>, against: Option<&str>) -> Result<Story> {
        crate::explain::explain(&self.store()?, build, against)
    }

    /// Fetches an image, or several that are one name's, from its registry into the local store.
    pub fn pull<'a>(
        &'a self,
        reference: &'a Reference,
        platforms: &'a Platforms,
        reporter: Arc<dyn Reporter>,
    ) -> LocalBoxFuture<'a, Result<PullResult>> {
        Box::pin(async move { transfer::pull(self, reference, platforms, &reporter).await })
    }

    /// Sends what a name of the local store stands for to the registry it says: all, or the image for one platform.
    pub fn push<'a>(
        &'a self,
        reference: &'a Reference,
        platform: Option<&'a Platform>,
        reporter: Arc<dyn Reporter>,
    ) -> LocalBoxFuture<'a, Result<Descriptor>> {
        Box::pin(async move { transfer::push(self, reference, platform, &reporter).await })
    }

    /// Makes an image of others that are in registries or layouts, and pushes it under all its names; without any it is only told.
    pub fn combine<'a>(
        &'a self,
        request: &'a crate::combine::CombineRequest,
        reporter: Arc<dyn Reporter>,
    ) -> LocalBoxFuture<'a, Result<crate::combine::RemoteDocument>> {
        Box::pin(async move { crate::combine::combine(self, request, &reporter).await })
    }

    /// What its registry or layout says of a name.
    pub fn look<'a>(
        &'a self,
        name: &'a crate::combine::ImagePlace,
        depth: crate::combine::Depth,
    ) -> LocalBoxFuture<'a, Result<crate::combine::RemoteImage>> {
        Box::pin(crate::combine::look(self, name, depth))
    }

    /// All images, newest first.
    pub fn images(&self) -> Result<Vec<ImageSummary>> {
        images::list(&self.store()?)
    }

    /// Everything known of an image, by name, id or beginning of an id. Of several it is the one for this platform, by
    /// default the machine's.
    pub fn inspect(&self, name: &str, platform: Option<&Platform>) -> Result<ImageDetails> {
        images::inspect(&self.store()?, name, platform)
    }

    /// Builds twice, without anything that was kept, and tells whether the image is the same.
    pub fn verify<'a>(
        &'a self,
        request: &'a BuildRequest,
        session: Arc<dyn Session>,
        reporter: Arc<dyn Reporter>,
    ) -> LocalBoxFuture<'a, Result<Verified>> {
        Box::pin(crate::verify::verify(self, request, session, reporter))
    }

    /// Builds an image again from the record of the build that made it, and tells whether it is the same; of an index all images,
    /// or those for the platforms of `given`. That also adds values of build arguments that no record holds.
    pub fn verify_image<'a>(
        &'a self,
        name: &'a str,
        given: &'a BuildRequest,
        session: Arc<dyn Session>,
        reporter: Arc<dyn Reporter>,
    ) -> LocalBoxFuture<'a, Result<Verified>> {
        Box::pin(crate::verify::verify_image(self, name, given, session, reporter))
    }

    /// Tells what two images differ in.
    pub fn diff<'a>(
        &'a self,
        request: &'a DiffRequest,
        reporter: Arc<dyn Reporter>,
    ) -> LocalBoxFuture<'a, Result<Differences>> {
        Box::pin(async move { crate::diff::diff(self, request, &reporter).await })
    }

    /// Gives an image one more name.
    pub fn tag(&self, from: &str, to: &Reference) -> Result<()> {
        images::tag(&self.store()?, from, to)
    }

    /// Removes a name, and the image with its last one.
    pub fn remove_image(&self, name: &str, force: bool) -> Result<Vec<Removed>> {
        images::remove(&self.store()?, name, force)
    }

    /// Writes images as a Docker archive: all that the names stand for, or those for one platform.
    pub fn save<'a>(
        &'a self,
        names: &'a [String],
        platform: Option<&'a Platform>,
        out: Box<dyn Write + Send>,
    ) -> LocalBoxFuture<'a, Result<()>> {
        Box::pin(transfer::save(self, names, platform, || Ok(OutFile::plain(out))))
    }

    /// Writes images as a Docker archive to a file, which is there whole, or as it was before.
    pub fn save_to_file<'a>(
        &'a self,
        names: &'a [String],
        platform: Option<&'a Platform>,
        path: &'a Path,
    ) -> LocalBoxFuture<'a, Result<()>> {
        Box::pin(async move {
            crate::export::check_file(path)?;
            let saved = transfer::save(self, names, platform, || OutFile::replacing(path)).await;
            saved.map_err(|failure| crate::space::explain(failure, &self.config.state))
        })
    }

    /// Reads images from a Docker or OCI archive into the local store.
    pub fn load<'a>(
        &'a self,
        input: Box<dyn Read + Send>,
        platforms: &'a Platforms,
    ) -> LocalBoxFuture<'a, Result<Vec<Loaded>>> {
        Box::pin(transfer::load(self, input, platforms))
    }

    /// Runs an image in the foreground, on the caller's standard streams; gives its exit code.
    pub fn run<'a>(&'a self, request: &'a RunRequest, reporter: Arc<dyn Reporter>) -> LocalBoxFuture<'a, Result<i32>> {
        Box::pin(async move { run::run(self, request, &reporter).await })
    }

    /// Opens a shell in a step of an earlier build, or runs a command there, on the caller's standard streams or on a
    /// terminal; gives its exit code. A step that failed is as it was left. Nothing that is changed there is kept.
    pub fn shell<'a>(
        &'a self,
        request: &'a ShellRequest,
        lent: (Arc<dyn Session>, Arc<dyn Reporter>),
        terminal: Option<Terminal>,
    ) -> LocalBoxFuture<'a, Result<i32>> {
        Box::pin(crate::shell::shell(self, request, lent, terminal))
    }

    /// Gives back space that nothing needs.
    pub fn prune(&self, request: &PruneRequest) -> Result<PruneAnswer> {
        usage::prune(&self.store()?, request)
    }

    /// All that is kept, largest first.
    pub fn disk_usage(&self) -> Result<Vec<Entry>> {
        usage::usage(&self.store()?)
    }

    /// What holds the thing of this id.
    pub fn why(&self, id: &str) -> Result<Why> {
        usage::why(&self.store()?, id)
    }

    /// After a build that added something: removes what was not used for longest until no more is kept than may be.
    /// Nothing when no more is, when another process is at it, or when nothing was added.
    pub fn collect(&self) -> Result<Option<Collected>> {
        match (&self.config.gc, self.store.get()) {
            (Some(limits), Some(store)) => usage::collect(store, limits),
            _ => Ok(None),
        }
    }

    /// Looks whether all that is kept is whole.
    pub fn fsck(&self, request: &FsckRequest) -> Result<FsckAnswer> {
        crate::fsck::fsck(&self.config.state, request)
    }

    /// Tells what this machine allows, and what is in the way of the rest. Nothing is left of what is tried.
    pub fn doctor<'a>(&'a self, request: &'a DoctorRequest) -> LocalBoxFuture<'a, Diagnosis> {
        Box::pin(crate::doctor::examine(&self.config, request))
    }

    /// All cache mounts, by id.
    pub fn cache_mounts(&self) -> Result<Vec<MountSummary>> {
        mounts::list(&self.store()?)
    }

    /// Removes cache mounts by id or key, all of them without any; gives what they were.
    pub fn remove_cache_mounts(&self, ids: &[String]) -> Result<Vec<MountSummary>> {
        mounts::remove(&self.store()?, ids)
    }

    /// Sends cache mounts elsewhere; what is there of an earlier time is not sent again.
    pub fn export_cache_mounts<'a>(
        &'a self,
        request: &'a MountExport,
        place: &'a MountPlace,
        reporter: Arc<dyn Reporter>,
    ) -> LocalBoxFuture<'a, Result<MountsExported>> {
        Box::pin(async move { mounts::export_to(&self.store()?, request, place, (&self.registry, &reporter)).await })
    }

    /// Brings cache mounts back from where they were sent.
    pub fn import_cache_mounts<'a>(
        &'a self,
        request: &'a MountImport,
        place: &'a MountPlace,
        reporter: Arc<dyn Reporter>,
    ) -> LocalBoxFuture<'a, Result<MountsImported>> {
        Box::pin(async move { mounts::import_from(&self.store()?, request, place, (&self.registry, &reporter)).await })
    }

    /// Checks credentials with a registry and keeps them; says whether they went to a credential helper.
    pub fn login<'a>(
        &'a self,
        registry: &'a str,
        username: &'a str,
        password: &'a str,
    ) -> LocalBoxFuture<'a, Result<()>> {
        Box::pin(transfer::login(self, registry, username, password))
    }

    /// Forgets credentials; says whether there were any.
    pub fn logout<'a>(&'a self, registry: &'a str) -> LocalBoxFuture<'a, Result<bool>> {
        Box::pin(transfer::logout(self, registry))
    }
}
