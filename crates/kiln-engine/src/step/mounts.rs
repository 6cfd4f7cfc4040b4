//! What a RUN step sees: its root, its mounts, its secrets; and what becomes of them afterwards.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use kiln_exec::{ContainerMount, MountSource, Network, Secret};
use kiln_fs::CopySpec;
use kiln_fs::flat::Aside;
use kiln_graph::llb::{CacheOpt, CacheSharing, ExecOp, Mount, MountType};
use kiln_oci::Hasher;
use kiln_report::{Failure, FailureKind};
use kiln_store::{
    ActiveSnapshot, CacheMount, CacheMountName, CacheMountSpec, Lease, Sharing, Snapshot, Snapshotter as _, Stacking,
    Store,
};
use kiln_sys::mount::{Bind, DATA, Depth, MountAttrFlags};
use kiln_sys::root::Root;

use crate::artifact::Artifact;
use crate::failure::{Context as _, build, environment};
use crate::ids::Sight;
use crate::job::{Job, Result};
use crate::scratch::{Scratch, open_dir};
use crate::session::Session;
use crate::ssh::{self, Access, Socket};
use crate::step::place::{Cache, Files, Placed};
use crate::step::{Opened, Place};

/// A secret larger than this is refused, as BuildKit does.
const SECRET_LIMIT: usize = 500 << 10;
/// How long a step waits for a locked cache mount.
const PATIENCE: Duration = Duration::from_secs(3600);
/// How often it looks meanwhile whether anybody still waits for it.
const LOOK: Duration = Duration::from_millis(200);

/// What a running step keeps open, and what it writes to: thrown away however the step ends, unless it is committed.
#[derive(Default)]
pub(crate) struct Held {
    /// What was put into a tree instead of being mounted. Before the trees, for it comes out of them first.
    placed: Option<Placed>,
    /// Trees whose changes are results, by output.
    outputs: Vec<(i64, Scratch<ActiveSnapshot>)>,
    /// Trees whose changes are thrown away.
    scratch: Vec<Scratch<ActiveSnapshot>>,
    /// Agents for ssh.
    sockets: Vec<Socket>,
    /// Cache mounts.
    caches: Vec<HeldCache>,
}

/// A cache mount that a step has.
struct HeldCache {
    name: CacheMountName,
    /// What it is called.
    id: String,
    mount: CacheMount,
}

/// A step's mounts, ready.
pub(crate) struct Prepared {
    pub(crate) root: OwnedFd,
    pub(crate) mounts: Vec<ContainerMount>,
    pub(crate) env: Vec<String>,
    pub(crate) held: Held,
}

/// Makes everything ready that a step's op asks for.
pub(crate) fn prepare(
    place: &Place,
    op: &ExecOp,
    inputs: &[Artifact],
    devices: Vec<ContainerMount>,
    sight: &Sight,
) -> Result<Prepared> {
    let mut work = Work { place, inputs, sight, held: Held::default(), mounts: Vec::new(), caches: Vec::new() };
    // Locked cache mounts are taken in one order by all, lest two steps wait for each other.
    let mut ordered = Vec::new();
    for (index, mount) in op.mounts.iter().enumerate().filter(|(_, mount)| mount.dest != "/") {
        ordered.push((work.wanted_cache(mount)?, index, mount));
    }
    ordered.sort_by_cached_key(|(wanted, ..)| wanted.as_ref().map(|wanted| wanted.spec.name()));
    let mut indexed = Vec::new();
    for (wanted, index, mount) in ordered {
        if let Some(made) = work.mount(mount, wanted)? {
            indexed.push((index, made));
        }
    }
    indexed.sort_by_key(|(index, _)| *index);
    work.mounts = indexed.into_iter().map(|(_, mount)| mount).chain(devices).collect();
    let env = work.secret_env(op)?;
    let root = op.mounts.iter().find(|mount| mount.dest == "/");
    let root = root.ok_or_else(|| Failure::new(FailureKind::Build, "a step has no root"))?;
    let root = work.root(root, op)?;
    Ok(Prepared { root, mounts: work.mounts, env, held: work.held })
}

/// A cache mount that a step wants, and the tree that a new one begins with.
struct WantedCache {
    spec: CacheMountSpec,
    begins: Option<(Opened, String)>,
}

struct Work<'a> {
    place: &'a Place,
    inputs: &'a [Artifact],
    sight: &'a Sight,
    held: Held,
    mounts: Vec<ContainerMount>,
    /// Which of them are cache mounts.
    caches: Vec<Cache>,
}

impl Work<'_> {
    fn input(&self, mount: &Mount) -> Option<&Artifact> {
        usize::try_from(mount.input).ok().and_then(|index| self.inputs.get(index))
    }

    /// The root: the parent's layers, an upper directory, and below all of it the mount points the image may lack.
    fn root(&mut self, mount: &Mount, op: &ExecOp) -> Result<OwnedFd> {
        let job = &self.place.job;
        let parent = self.input(mount).map(Artifact::snapshot).transpose()?;
        let tree = Scratch::upon(&job.store, parent, &job.lease)?;
        let stubs = stubs(&job.store, &job.lease, &self.mounts)?;
        if self.sight.is_plain() {
            let (dir, under) = (tree.flat_dir(), tree.lay(Some(&stubs))?);
            let texts = machine_files(op);
            let files = Files::new(dir.clone(), &tree.stash_dir())?;
            let (placed, apart, stash) = files.place(&self.mounts, &texts, &self.caches)?;
            tree.watch(Aside { apart, under, stash: Some(stash) })?;
            self.held.placed = Some(placed);
            self.held.keep(mount, tree);
            return Ok(open_dir(&dir)?.into_fd());
        }
        let root = tree.show(Some(&stubs), self.sight)?;
        self.held.keep(mount, tree);
        Ok(root)
    }

    fn mount(&mut self, mount: &Mount, cache: Option<WantedCache>) -> Result<Option<ContainerMount>> {
        let source = match (mount.mount_type(), cache) {
            (_, Some(cache)) => Some(self.cache(mount, &cache)?),
            (MountType::Bind | MountType::Cache, None) => Some(self.bind(mount)?),
            (MountType::Tmpfs, None) => {
                let size =
                    mount.tmpfs_opt.as_ref().and_then(|opt| u64::try_from(opt.size).ok()).filter(|size| *size > 0);
                Some(MountSource::Tmpfs { size, mode: 0o1777 })
            }
            (MountType::Secret, None) => self.secret(mount)?,
            (MountType::Ssh, None) => self.ssh(mount)?,
        };
        Ok(source.map(|source| ContainerMount { target: mount.dest.clone(), readonly: mount.readonly, source }))
    }

    fn bind(&mut self, mount: &Mount) -> Result<MountSource> {
        let job = &self.place.job;
        let subpath = mount.selector.clone();
        let scratch = Artifact::Snapshot(Snapshot::scratch());
        let input = self.input(mount).unwrap_or(&scratch);
        let (parent, context) = match input {
            Artifact::Tree(tree) if mount.output < 0 => (None, Some(tree.copied(job)?.tree())),
            input => (Some(input.snapshot()?), None),
        };
        if mount.readonly {
            let dir = match (&context, parent) {
                (Some(copy), _) => self.bind_dir(copy)?,
                (None, parent) => self.view(parent.unwrap_or(&Snapshot::scratch()))?,
            };
            return Ok(MountSource::Tree { dir, subpath });
        }
        let tree = Scratch::upon(&job.store, parent, &job.lease)?;
        let dir = tree.show(context.as_deref(), self.sight)?;
        self.held.keep(mount, tree);
        Ok(MountSource::Tree { dir, subpath })
    }

    fn bind_dir(&self, dir: &Path) -> Result<OwnedFd> {
        self.sight.bind(dir, Bind { depth: Depth::One, attributes: DATA })
    }

    /// A snapshot for reading, nowhere.
    fn view(&self, snapshot: &Snapshot) -> Result<OwnedFd> {
        let store = &self.place.job.store;
        if self.sight.is_plain() || store.stacking() == Stacking::Native {
            let attributes = DATA | MountAttrFlags::MOUNT_ATTR_RDONLY;
            return self
                .sight
                .bind(&store.flat_view(snapshot).map_err(environment)?, Bind { depth: Depth::One, attributes });
        }
        let overlay = store.view(snapshot).or_environment(|| "cannot mount a snapshot".into())?;
        self.sight.mount(&overlay)
    }

    /// Which cache mount a mount is, if it is one. Those of one id that begin with different things are different.
    fn wanted_cache(&self, mount: &Mount) -> Result<Option<WantedCache>> {
        let Some(id) = cache_id(mount) else { return Ok(None) };
        let sharing = match mount.cache_opt.as_ref().map(CacheOpt::sharing).unwrap_or_default() {
            CacheSharing::Shared => Sharing::Shared,
            CacheSharing::Private => Sharing::Private,
            CacheSharing::Locked => Sharing::Locked,
        };
        let mut spec = CacheMountSpec { sharing, ..CacheMountSpec::new(id) };
        let Some(artifact) = self.input(mount) else { return Ok(Some(WantedCache { spec, begins: None })) };
        let opened = self.place.open(artifact)?;
        let path = if mount.selector.is_empty() { "/" } else { &mount.selector };
        let doing = || format!("cannot begin the cache mount at `{}` with `{path}`", mount.dest);
        let metadata = opened.tree().root.metadata_followed(path).or_build(doing)?;
        (spec.mode, spec.uid, spec.gid) = (metadata.mode & 0o7777, metadata.uid, metadata.gid);
        let digest = match &opened {
            Opened::Tree(tree) => kiln_fs::digest_tree(tree.tree(), path, &self.place.job.store.stat_cache()),
            Opened::Snapshot(tree) => kiln_fs::digest_tree(tree, path, &kiln_fs::NoCache),
        };
        spec.origin = Some(digest.or_build(doing)?);
        Ok(Some(WantedCache { spec, begins: Some((opened, mount.selector.clone())) }))
    }

    /// A step that mounts one cache at several places has one directory in all of them.
    fn cache(&mut self, mount: &Mount, wanted: &WantedCache) -> Result<MountSource> {
        let name = wanted.spec.name();
        let index = match self.held.caches.iter().position(|held| held.name == name) {
            Some(index) => index,
            None => {
                let mount = self.take_cache(wanted)?;
                self.held.caches.push(HeldCache { name, id: wanted.spec.id.clone(), mount });
                self.held.caches.len() - 1
            }
        };
        let dir = self.held.caches[index].mount.dir();
        // What a cache begins with was chosen when it was filled; without that, `source` is a place in the cache.
        let subpath = if mount.input < 0 { mount.selector.clone() } else { String::new() };
        let inside = Path::new(&subpath).components().filter(|part| matches!(part, Component::Normal(_)));
        self.caches.push((mount.dest.clone(), dir.join(inside.collect::<PathBuf>())));
        Ok(MountSource::Tree { dir: self.bind_dir(dir)?, subpath })
    }

    fn take_cache(&self, wanted: &WantedCache) -> Result<CacheMount> {
        let job = &self.place.job;
        let fill = |dir: &Path| {
            if job.returning.restore(&wanted.spec.name(), &wanted.spec.id, dir) {
                return Ok(());
            }
            match &wanted.begins {
                Some((opened, selector)) => fill_cache(opened, selector, dir),
                None => Ok(()),
            }
        };
        let since = Instant::now();
        while since.elapsed() < PATIENCE {
            let taken = job.store.cache_mounts().acquire(&wanted.spec, &job.lease, LOOK, &fill);
            if let Some(taken) = taken.map_err(environment)? {
                return Ok(taken);
            }
            if job.watch.is_left() {
                return Err(Failure::new(FailureKind::Interrupted, "canceled"));
            }
        }
        let message = format!("cache mount `{}` is still locked by another step after an hour", wanted.spec.id);
        Err(Failure::new(FailureKind::Environment, message)
            .hint("stop the build that holds it, or give this step an `id` of its own"))
    }

    fn secret(&self, mount: &Mount) -> Result<Option<MountSource>> {
        let opt = mount.secret_opt.clone().unwrap_or_default();
        let Some(data) = self.secret_value(&opt.id, opt.optional)? else { return Ok(None) };
        Ok(Some(MountSource::Bytes { data: Secret::new(data), mode: opt.mode, uid: opt.uid, gid: opt.gid }))
    }

    fn secret_value(&self, id: &str, is_optional: bool) -> Result<Option<Vec<u8>>> {
        let value = self.place.job.session.secret(id)?;
        if value.as_ref().is_some_and(|value| value.len() > SECRET_LIMIT) {
            let message = format!("secret `{id}` is larger than {} KiB", SECRET_LIMIT >> 10);
            return Err(Failure::new(FailureKind::Build, message));
        }
        if value.is_none() && !is_optional {
            return Err(no_secret(id));
        }
        Ok(value)
    }

    fn secret_env(&self, op: &ExecOp) -> Result<Vec<String>> {
        let mut env = Vec::new();
        for secret in &op.secretenv {
            if let Some(value) = self.secret_value(&secret.id, secret.optional)? {
                let value = String::from_utf8(value).or_build(|| format!("secret `{}` is not text", secret.id))?;
                env.push(format!("{}={value}", secret.name));
            }
        }
        Ok(env)
    }

    fn ssh(&mut self, mount: &Mount) -> Result<Option<MountSource>> {
        let opt = mount.ssh_opt.clone().unwrap_or_default();
        let access = Access { mode: opt.mode & 0o7777, uid: opt.uid, gid: opt.gid };
        let Some(socket) = Socket::lend(&self.place.job, &opt.id, access)? else {
            return if opt.optional { Ok(None) } else { Err(no_agent(&opt.id)) };
        };
        let source = MountSource::Tree { dir: self.bind_dir(&socket.directory())?, subpath: ssh::SOCKET.to_owned() };
        self.held.sockets.push(socket);
        Ok(Some(source))
    }
}

/// What a step must have and the client does not lend: the step is sure to fail when it runs.
pub(crate) fn lacking(op: &ExecOp, session: &dyn Session) -> Result<Option<Failure>> {
    for mount in &op.mounts {
        let secret = mount.secret_opt.as_ref().filter(|opt| mount.mount_type() == MountType::Secret && !opt.optional);
        let agent = mount.ssh_opt.as_ref().filter(|opt| mount.mount_type() == MountType::Ssh && !opt.optional);
        if let Some(opt) = secret
            && session.secret(&opt.id)?.is_none()
        {
            return Ok(Some(no_secret(&opt.id)));
        }
        if let Some(opt) = agent
            && session.ssh(ssh::named(&opt.id))?.is_none()
        {
            return Ok(Some(no_agent(&opt.id)));
        }
    }
    for secret in op.secretenv.iter().filter(|secret| !secret.optional) {
        if session.secret(&secret.id)?.is_none() {
            return Ok(Some(no_secret(&secret.id)));
        }
    }
    Ok(None)
}

/// What is said of a failed step that would have taken secrets which nobody lends.
pub(crate) fn unlent(op: &ExecOp, session: &dyn Session) -> Vec<String> {
    let mounts = op.mounts.iter().filter(|mount| mount.mount_type() == MountType::Secret);
    let mounts = mounts.filter_map(|mount| Some(&mount.secret_opt.as_ref()?.id));
    let ids: BTreeSet<&String> = mounts.chain(op.secretenv.iter().map(|secret| &secret.id)).collect();
    let unlent = ids.into_iter().filter(|id| matches!(session.secret(id), Ok(None)));
    unlent.map(|id| format!("the step ran without secret `{id}`: {}", how_to_give(id))).collect()
}

fn no_secret(id: &str) -> Failure {
    Failure::new(FailureKind::Build, format!("secret `{id}` was not given")).hint(how_to_give(id))
}

fn how_to_give(id: &str) -> String {
    format!("give it with `--secret id={id},src=FILE` or `--secret id={id},env=NAME`")
}

fn no_agent(id: &str) -> Failure {
    let id = ssh::named(id);
    Failure::new(FailureKind::Build, format!("ssh agent `{id}` was not given")).hint(ssh::how_to_lend(id))
}

/// What `/etc` says of the machine, for a step that has the machine's network.
fn machine_files(op: &ExecOp) -> [(&'static str, Vec<u8>); 3] {
    let meta = op.meta.clone().unwrap_or_default();
    let hosts = meta.extra_hosts.into_iter().map(|host| (host.host, host.ip));
    let hosts = crate::network::hosts(hosts, &Network::Host);
    kiln_exec::machine_files(super::exec::HOST_NAME, &hosts, &Network::Host)
}

/// A cache mount without an id is called by its place.
fn cache_id(mount: &Mount) -> Option<String> {
    let opt = mount.cache_opt.as_ref().filter(|_| mount.mount_type() == MountType::Cache)?;
    Some(if opt.id.is_empty() { mount.dest.clone() } else { opt.id.clone() })
}

fn fill_cache(opened: &Opened, selector: &str, dir: &Path) -> std::io::Result<()> {
    let spec = CopySpec {
        src: if selector.is_empty() { "/".into() } else { selector.to_owned() },
        dest: "/".into(),
        dir_copy_contents: true,
        ..CopySpec::default()
    };
    let root = Root::open_ambient(dir).map_err(std::io::Error::other)?;
    kiln_fs::copy(opened.tree(), &root, &spec).map(drop).map_err(std::io::Error::other)
}

/// The layer of mount points for these mounts: made once, shared by all steps that mount at the same places.
#[expect(clippy::disallowed_methods, reason = "the state directory is ours alone")]
pub(crate) fn stubs(store: &Store, lease: &Lease, mounts: &[ContainerMount]) -> Result<PathBuf> {
    let stubs = kiln_exec::stubs(mounts).map_err(build)?;
    let mut hasher = Hasher::new();
    for stub in &stubs {
        hasher.field(stub.path.as_bytes());
        hasher.field(format!("{:?}", stub.kind).as_bytes());
    }
    let all = store.root().join("stubs");
    let dir = all.join(&hasher.finish().hex()[..32]);
    if dir.is_dir() {
        return Ok(dir);
    }
    let doing = || format!("cannot write mount points into `{}`", dir.display());
    std::fs::create_dir_all(&all).or_environment(doing)?;
    let scratch = Scratch::layer(store, lease)?;
    let fresh = scratch.tree();
    kiln_exec::write_stubs(&fresh, &stubs).map_err(environment)?;
    match std::fs::rename(&fresh, &dir) {
        // Somebody else was first: theirs is the same.
        Err(_) if dir.is_dir() => {}
        renamed => renamed.or_environment(doing)?,
    }
    Ok(dir)
}

impl Held {
    fn keep(&mut self, mount: &Mount, tree: Scratch<ActiveSnapshot>) {
        match mount.output {
            0.. => self.outputs.push((mount.output, tree)),
            _ => self.scratch.push(tree),
        }
    }

    /// The tree of an output, unless it holds a secret; all else is thrown away.
    pub(crate) fn into_output(mut self, output: i64, job: &Job) -> Option<Scratch<ActiveSnapshot>> {
        drop(self.placed.take());
        let at = self.outputs.iter().position(|(of, _)| *of == output)?;
        let (_, tree) = self.outputs.swap_remove(at);
        job.guard.check_layer(&tree.changes().ok()?).ok().map(|()| tree)
    }

    /// Keeps what was written, in the order of the outputs. Nothing is kept when one of them holds a secret.
    pub(crate) fn commit(mut self, job: &Job) -> Result<Vec<Snapshot>> {
        drop(self.placed.take());
        self.outputs.sort_by_key(|(output, _)| *output);
        for (_, tree) in &self.outputs {
            job.guard.check_layer(&tree.changes()?).map_err(|leak| self.with_caches(leak, job))?;
        }
        self.outputs.into_iter().map(|(_, tree)| tree.commit()).collect()
    }

    /// Tells of cache mounts that hold what leaked: they outlive the layer that is thrown away.
    fn with_caches(&self, leak: Failure, job: &Job) -> Failure {
        let holds = |cache: &&HeldCache| job.guard.is_in(cache.mount.dir());
        self.caches.iter().filter(holds).fold(leak, |leak, HeldCache { id, .. }| {
            let id = crate::mounts::shown(id);
            let text =
                format!("cache mount `{id}` holds it, too, and is kept: remove it with `kiln cache mounts rm {id}`");
            leak.hint(text)
        })
    }
}
