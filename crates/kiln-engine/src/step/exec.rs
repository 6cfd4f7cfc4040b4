//! Exec steps: `RUN`. Mounts what the step reads, runs the process, commits what it changed.

mod attempt;
mod enter;
mod hints;

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use async_trait::async_trait;
use kiln_dockerfile::check::sounds_secret;
use kiln_exec::{ContainerMount, ContainerSpec, ExitStatus, Isolation, MountSource, Security, User};
use kiln_graph::llb::{ExecOp, Meta, Mount, MountType, NetMode, ProxyEnv, SecurityMode};
use kiln_oci::{Digest, Hasher};
use kiln_report::{Failure, FailureKind};
use kiln_solver::{CacheMap, Files, InputKey, KeyParts, Setting, Step};
use kiln_sys::root::Root;
use prost::Message as _;

use crate::artifact::Artifact;
use crate::blocking::blocking;
use crate::devices::{DeviceEdits, insecure_devices};
use crate::failure::{Context as _, build};
use crate::frontend::LocalTree;
use crate::guard::passwords;
use crate::ids::Sight;
use crate::job::Result;
use crate::limited::Limited;
use crate::redact::Redactor;
use crate::request::UserIds;
use crate::step::missing::Doing;
use crate::step::mounts::{self, Held, Prepared};
use crate::step::{Opened, Place};
use crate::trust::{self, Trusted};
pub(crate) use enter::enter;

/// The host name steps see unless they are given one; BuildKit's.
pub(super) const HOST_NAME: &str = "buildkitsandbox";

/// One exec vertex.
#[derive(Clone)]
pub(crate) struct ExecStep {
    pub(crate) place: Place,
    pub(crate) op: ExecOp,
    devices: DeviceEdits,
}

#[async_trait]
impl Step<Artifact, Failure> for ExecStep {
    async fn cache_map(&self) -> Result<CacheMap> {
        let mut hasher = self.place.layer_hasher("exec");
        hasher.field(&keyed(&self.op).encode_to_vec());
        if let Some(limits) = self.place.job.limits.key() {
            hasher.field(limits.as_bytes());
        }
        let inputs = (0..self.place.inputs).map(|input| self.input_key(input)).collect();
        Ok(self.place.cache_map(hasher.finish(), inputs, self.parts()))
    }

    async fn content_digest(&self, input: usize, result: &Artifact) -> Result<Digest> {
        let (step, artifact) = (self.clone(), result.clone());
        blocking(move || step.digest(input, &artifact).map_err(|failure| step.place.blame(failure))).await
    }

    async fn listing(&self, input: usize, result: &Artifact) -> Files {
        // Snapshots would have to be read through, and contexts are what people change.
        let Artifact::Tree(tree) = result else { return Files::new() };
        let (step, tree) = (self.clone(), Arc::clone(tree));
        blocking(move || Ok(step.list(input, &tree))).await.unwrap_or_default()
    }

    async fn run(&self, inputs: Vec<Artifact>) -> Result<Vec<Artifact>> {
        self.place.job.settle();
        self.execute(inputs).await.map_err(|failure| self.place.blame(failure))
    }
}

/// What of an op is in its key. Proxies and the addresses of hosts are in none: they say how to reach a thing, not which.
fn keyed(op: &ExecOp) -> ExecOp {
    let mut op = op.clone();
    if let Some(meta) = &mut op.meta {
        meta.proxy_env = None;
        meta.extra_hosts.iter_mut().for_each(|host| host.ip.clear());
    }
    op
}

impl ExecStep {
    /// Finds the devices that the step wants, before anything is run.
    pub(crate) fn new(place: Place, op: ExecOp) -> Result<Self> {
        let devices = place.job.devices.for_step(&op.cdi_devices).map_err(|failure| place.blame(failure))?;
        Ok(Self { place, op, devices })
    }

    fn mounts_of(&self, input: usize) -> impl Iterator<Item = &Mount> {
        self.op.mounts.iter().filter(move |mount| mount.input == input as i64)
    }

    /// A tree that is only read counts by what is in it; the root, and what is written on, by who it is.
    fn input_key(&self, input: usize) -> InputKey {
        let by_content = |mount: &Mount| mount.dest != "/" && mount.output < 0 && mount.mount_type() == MountType::Bind;
        if !self.mounts_of(input).all(by_content) {
            return InputKey::Definition;
        }
        let mut hasher = Hasher::new();
        self.mounts_of(input).for_each(|mount| hasher.field(mount.selector.as_bytes()));
        InputKey::Content { selector: format!("tree {}", hasher.finish()) }
    }

    fn digest(&self, input: usize, artifact: &Artifact) -> Result<Digest> {
        let opened = self.place.open(artifact)?;
        let cache = self.place.job.store.stat_cache();
        let mut hasher = Hasher::new();
        for mount in self.mounts_of(input) {
            let path = if mount.selector.is_empty() { "/" } else { &mount.selector };
            let digest = match &opened {
                Opened::Tree(tree) => kiln_fs::digest_tree(tree.tree(), path, &cache),
                Opened::Snapshot(tree) => kiln_fs::digest_tree(tree, path, &kiln_fs::NoCache),
            };
            let digest = digest.map_err(|error| Doing::mount(path, &mount.dest).failure(&error, &opened))?;
            hasher.field(digest.as_str().as_bytes());
        }
        Ok(hasher.finish())
    }

    /// What is read of a context; what cannot be listed is not.
    fn list(&self, input: usize, tree: &LocalTree) -> Files {
        let cache = self.place.job.store.stat_cache();
        let mut files = Files::new();
        for mount in self.mounts_of(input) {
            let path = if mount.selector.is_empty() { "/" } else { &mount.selector };
            files.extend(kiln_fs::list_tree(tree.tree(), path, &cache).map(|(_, files)| files).unwrap_or_default());
        }
        files
    }

    fn parts(&self) -> KeyParts {
        let Some(meta) = &self.op.meta else { return KeyParts::default() };
        let is_arg = |name: &str| self.place.args.iter().any(|arg| arg == name);
        let named = |pair: &String| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (name.to_owned(), if sounds_secret(name) { Setting::hidden(value) } else { Setting::shown(value) })
        };
        let (args, env) = meta.env.iter().map(named).partition(|(name, _)| is_arg(name));
        let mounts = self.op.mounts.iter().filter(|mount| mount.dest != "/");
        let mounts = mounts.map(|mount| format!("{:?} {} {}", mount.mount_type(), mount.dest, mount.selector));
        // What is run, without the flags of the instruction: those are told apart.
        let command = Some(meta.args.join(" "));
        KeyParts { command, args, env, mounts: mounts.collect(), options: self.options(meta), ..KeyParts::default() }
    }

    /// Every setting, also those that are as they always are: only what both sides have is compared.
    fn options(&self, meta: &Meta) -> BTreeMap<String, Setting> {
        let or = |value: &str, default: &str| Setting::shown(if value.is_empty() { default } else { value });
        let network = match self.op.network() {
            NetMode::Unset => "default",
            NetMode::None => "none",
            NetMode::Host => "host",
        };
        let security = match self.op.security() {
            SecurityMode::Sandbox => "sandbox",
            SecurityMode::Insecure => "insecure",
        };
        let hosts: Vec<&str> = meta.extra_hosts.iter().map(|host| host.host.as_str()).collect();
        let options = [
            ("user", or(&meta.user, "root")),
            ("working directory", or(&meta.cwd, "/")),
            ("host name", or(&meta.hostname, HOST_NAME)),
            ("network", Setting::shown(network)),
            ("security", Setting::shown(security)),
            ("hosts", Setting::hidden(&hosts.join(" "))),
            ("limits", Setting::hidden(&self.place.job.limits.key().unwrap_or_default())),
        ];
        options.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    fn prepare(&self, inputs: &[Artifact]) -> Result<(ContainerSpec, Held, Redactor)> {
        if let Some(device) = self.op.cdi_devices.iter().find(|device| !device.optional) {
            let message = format!("device `{}` cannot be given to steps yet", device.name);
            return Err(Failure::new(FailureKind::Build, message));
        }
        let job = &self.place.job;
        // It is made while the files are.
        let mode = match (job.ids.isolation(), self.op.network()) {
            (Isolation::Chroot, _) => {
                self.check_for_chroot()?;
                NetMode::Host
            }
            (Isolation::Namespaces, mode) => mode,
        };
        let network = job.networks.begin(mode)?;
        let sight = match (self.op.security(), job.user_ids) {
            _ if job.ids.isolation() == Isolation::Chroot => job.ids.sight(&job.store, &job.reporter),
            (SecurityMode::Sandbox, UserIds::Own) => job.ids.sight(&job.store, &job.reporter),
            (SecurityMode::Insecure, _) | (_, UserIds::Host) => Sight::Host,
        };
        let trusted = job.trust.for_step()?;
        let mut mounts = self.device_mounts()?;
        mounts.extend(trusted.as_ref().map(Trusted::mount).transpose()?);
        let prepared = mounts::prepare(&self.place, &self.op, inputs, mounts, &sight)?;
        let urls: Vec<String> = self.op.meta.iter().flat_map(|meta| &meta.proxy_env).flat_map(proxies).collect();
        let redactor = job.guard.redactor(&values(&prepared, &urls))?;
        let meta = self.op.meta.clone().unwrap_or_default();
        let root = Root::new(prepared.root);
        let user =
            kiln_exec::resolve_user(&root, &meta.user).or_build(|| format!("cannot run as user `{}`", meta.user))?;
        sight.admit(&user).or_environment(|| format!("cannot run as user `{}`", meta.user))?;
        let groups = self.devices.groups.iter().copied();
        let user = User { groups: user.groups.into_iter().chain(groups).collect(), ..user };
        let cwd = if meta.cwd.is_empty() { "/".to_owned() } else { meta.cwd.clone() };
        make_cwd(&root, &cwd, &user, &sight)?;
        let mut env = meta.env.clone();
        env.extend(meta.proxy_env.iter().flat_map(proxies));
        env.extend(prepared.env);
        override_env(&mut env, &self.devices.env);
        if let Some(trusted) = trusted {
            trusted.write(&root)?;
            env.extend(trust::variables(&env));
        }
        if !env.iter().any(|pair| pair.starts_with("HOME=")) {
            env.push(format!("HOME={}", kiln_exec::home_of(&root, user.uid).map_err(build)?));
        }
        let limited = Limited::step(job);
        let network = job.networks.ready(network, &*job.reporter)?;
        let hosts = meta.extra_hosts.into_iter().map(|host| (host.host, host.ip));
        let spec = ContainerSpec {
            root: root.into_fd(),
            readonly_root: false,
            args: meta.args,
            env,
            cwd,
            user,
            users: sight.users().cloned(),
            mounts: if sight.is_plain() { Vec::new() } else { prepared.mounts },
            hostname: if meta.hostname.is_empty() { HOST_NAME.to_owned() } else { meta.hostname },
            extra_hosts: crate::network::hosts(hosts, &network),
            network,
            security: match self.op.security() {
                SecurityMode::Sandbox => Security::Sandbox,
                SecurityMode::Insecure => Security::Insecure,
            },
            shm_size: job.limits.shm_size,
            ulimits: limited.ulimits,
            group: limited.group,
        };
        Ok((spec, prepared.held, redactor))
    }

    /// Fails when the step is to have what cannot be without namespaces.
    fn check_for_chroot(&self) -> Result<()> {
        let what = match (self.op.network(), self.op.security()) {
            (NetMode::None, _) => "no network",
            (_, SecurityMode::Insecure) => "`--security=insecure`",
            _ if self.place.job.trust.is_given() => "certificates of `--ca-cert`",
            _ if !self.devices.mounts()?.is_empty() => "devices",
            _ => return Ok(()),
        };
        let error = kiln_exec::Error::NeedsNamespaces { what: what.to_owned() };
        Err(Failure::from_error(FailureKind::Environment, &error).hint("build without `--isolation=chroot`"))
    }

    fn device_mounts(&self) -> Result<Vec<ContainerMount>> {
        let mut mounts = self.devices.mounts()?;
        if self.op.security() == SecurityMode::Insecure {
            let is_taken = |target: &str| mounts.iter().any(|mount| mount.target == target);
            let more: Vec<_> = insecure_devices().into_iter().filter(|mount| !is_taken(&mount.target)).collect();
            mounts.extend(more);
        }
        Ok(mounts)
    }

    fn is_success(&self, status: ExitStatus) -> bool {
        let valid = self.op.meta.as_ref().map(|meta| meta.valid_exit_codes.as_slice()).unwrap_or_default();
        match status {
            ExitStatus::Code(code) if !valid.is_empty() => valid.contains(&code),
            status => status.is_success(),
        }
    }

    /// The process never ran.
    fn not_started(&self, error: &kiln_exec::Error) -> Failure {
        let kind = if error.is_image_fault() { FailureKind::Build } else { FailureKind::Environment };
        let inner = Failure::from_error(kind, error);
        let mut failure = Failure::new(kind, format!("process `{}` could not be started", self.command()));
        failure.causes = std::iter::once(inner.message).chain(inner.causes).collect();
        let may_chroot = self.place.job.ids.isolation() == Isolation::Namespaces && kiln_exec::rootless::may_chroot();
        if error.is_refused() && may_chroot { failure.hint(crate::rootless::CHROOT) } else { failure }
    }

    fn command(&self) -> String {
        self.op.meta.as_ref().map(|meta| meta.args.join(" ")).unwrap_or_default()
    }
}

/// Sets variables, which have one value each.
fn override_env(env: &mut Vec<String>, pairs: &[String]) {
    for pair in pairs {
        let name = pair.split('=').next().unwrap_or(pair);
        env.retain(|had| had.split('=').next() != Some(name));
        env.push(pair.clone());
    }
}

/// The secrets a step was given, and the passwords of its proxies.
fn values<'a>(prepared: &'a Prepared, proxies: &'a [String]) -> Vec<&'a [u8]> {
    let files = prepared.mounts.iter().filter_map(|mount| match &mount.source {
        MountSource::Bytes { data, .. } => Some(data.expose()),
        _ => None,
    });
    let variables = prepared.env.iter().filter_map(|pair| pair.split_once('=')).map(|(_, value)| value.as_bytes());
    files.chain(variables).chain(proxies.iter().flat_map(|url| passwords(url)).map(str::as_bytes)).collect()
}

/// A working directory that an image's config names need not be in its files.
pub(crate) fn make_cwd(root: &Root, cwd: &str, user: &User, sight: &Sight) -> Result<()> {
    let make = || {
        let users = sight.users();
        let _acting = users.map(|users| users.act_as_root()).transpose()?;
        let on_host = |id| users.map_or(Ok(id), |users| users.on_host(id));
        let (uid, gid) = (on_host(user.uid)?, on_host(user.gid)?);
        root.mkdir_all_with(cwd, 0o755, &mut |fd: BorrowedFd<'_>| kiln_sys::root::set_owner(fd, uid, gid))
    };
    make().map(drop).or_build(|| format!("cannot work in directory `{cwd}`"))
}

/// Proxy variables, in both spellings, as programs read either.
fn proxies(proxy: &ProxyEnv) -> Vec<String> {
    let all = [
        ("http_proxy", &proxy.http_proxy),
        ("https_proxy", &proxy.https_proxy),
        ("ftp_proxy", &proxy.ftp_proxy),
        ("no_proxy", &proxy.no_proxy),
        ("all_proxy", &proxy.all_proxy),
    ];
    let given = all.into_iter().filter(|(_, value)| !value.is_empty());
    given.flat_map(|(name, value)| [format!("{}={value}", name.to_uppercase()), format!("{name}={value}")]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_graph::llb::HostIp;

    fn op(proxy: &str, ip: &str, host: &str) -> ExecOp {
        let proxy_env = Some(ProxyEnv { http_proxy: proxy.into(), ..ProxyEnv::default() });
        let extra_hosts = vec![HostIp { host: host.into(), ip: ip.into() }];
        ExecOp { meta: Some(Meta { proxy_env, extra_hosts, ..Meta::default() }), ..ExecOp::default() }
    }

    #[test]
    fn how_a_thing_is_reached_is_in_no_key() {
        assert_eq!(keyed(&op("http://a", "10.0.0.1", "db")), keyed(&op("http://b", "10.0.0.2", "db")));
        assert_ne!(keyed(&op("", "", "db")), keyed(&op("", "", "queue")));
    }

    #[test]
    fn proxies_are_given_in_both_spellings() {
        let proxy = ProxyEnv { http_proxy: "h".into(), no_proxy: "n".into(), ..ProxyEnv::default() };
        assert_eq!(proxies(&proxy), ["HTTP_PROXY=h", "http_proxy=h", "NO_PROXY=n", "no_proxy=n"]);
    }
}
