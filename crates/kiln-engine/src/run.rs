//! Runs an image in the foreground, to try it.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use kiln_exec::{ContainerMount, ContainerSpec, ControlGroup, MountSource, Network, ProcessIo, Resources, Security};
use kiln_oci::ImageConfig;
use kiln_report::{Failure, FailureKind, Reporter};
use kiln_store::{ActiveSnapshot, Store};
use kiln_sys::mount::{Bind, DATA, Depth};
use kiln_sys::root::Root;

use crate::blocking::blocking;
use crate::engine::Engine;
use crate::failure::{Context as _, build, environment};
use crate::ids::Sight;
use crate::job::Result;
use crate::request::{NetworkMode, RunRequest, Volume};
use crate::scratch::Scratch;

/// The search path of images that name none.
pub(crate) const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs; gives the code a shell would.
pub(crate) async fn run(engine: &Engine, request: &RunRequest, reporter: &Arc<dyn Reporter>) -> Result<i32> {
    let store = engine.store()?;
    let (request, ids, reporter) = (request.clone(), engine.ids(), Arc::clone(reporter));
    let (spec, scratch) = blocking(move || prepare(&store, &request, &ids.sight(&store, &reporter))).await?;
    let io = ProcessIo {
        stdin: Some(own(std::io::stdin())?),
        stdout: own(std::io::stdout())?,
        stderr: own(std::io::stderr())?,
    };
    let status = engine.executor().run(spec, io).await;
    blocking(move || {
        drop(scratch);
        Ok(())
    })
    .await?;
    let status = status.map_err(|error| Failure::from_error(kind(&error), &error))?;
    Ok(status.shell_code())
}

/// What a shell, and docker, make the exit code of a program that could not be started.
pub(crate) fn kind(error: &kiln_exec::Error) -> FailureKind {
    match error {
        kiln_exec::Error::Program { reason, .. } if reason.contains("not found") => FailureKind::NotStarted(127),
        kiln_exec::Error::Program { .. } => FailureKind::NotStarted(126),
        error if error.is_image_fault() => FailureKind::Build,
        _ => FailureKind::Environment,
    }
}

pub(crate) fn own(stream: impl AsFd) -> Result<OwnedFd> {
    stream.as_fd().try_clone_to_owned().or_environment(|| "cannot pass on a standard stream".into())
}

fn prepare(store: &Store, request: &RunRequest, sight: &Sight) -> Result<(ContainerSpec, Scratch<ActiveSnapshot>)> {
    if sight.is_plain() {
        return Err(environment(kiln_exec::Error::NeedsNamespaces { what: "an image to run".into() }));
    }
    let lease = store.lease().map_err(environment)?;
    let image = crate::images::one(store, &request.image, request.platform.as_ref())?;
    let config = crate::images::read_config(store, &image.record.id)?;
    if !image.record.platform.architecture.is_empty() {
        crate::emulation::check(&image.record.platform)?;
    }
    let snapshot = image.record.snapshot.unwrap_or_default();
    if !lease.hold_snapshot(&snapshot).map_err(environment)? {
        let failure = Failure::new(FailureKind::Environment, format!("layers of image `{}` are gone", request.image));
        return Err(failure.hint("build it again, or pull it again"));
    }
    let volumes = |sight: &Sight| request.volumes.iter().map(|it| volume(it, sight)).collect::<Result<Vec<_>>>();
    // A user namespace has no right to the low ports of the host's network, and servers are tried with them. Nor can every
    // file system show its files with other ids.
    let is_kept = request.network == NetworkMode::None || matches!(sight, Sight::Nested(_));
    let own = is_kept.then(|| Ok((sight.clone(), volumes(sight)?)));
    let (sight, mounts) = match own {
        Some(Ok(own)) => own,
        None | Some(Err::<_, Failure>(_)) => (Sight::Host, volumes(&Sight::Host)?),
    };
    // It holds the lease, and so the image, as long as it lives.
    let scratch = Scratch::upon(store, Some(&snapshot), &lease)?;
    let stubs = crate::step::stubs(store, &lease, &mounts)?;
    let tree = Tree { root: Root::new(scratch.show(Some(&stubs), &sight)?), mounts, sight };
    Ok((spec(request, config, tree)?, scratch))
}

/// The files of a container.
struct Tree {
    root: Root,
    mounts: Vec<ContainerMount>,
    sight: Sight,
}

fn spec(request: &RunRequest, config: ImageConfig, tree: Tree) -> Result<ContainerSpec> {
    let (config, Tree { root, mounts, sight }) = (config.config, tree);
    let named = request.user.as_ref().unwrap_or(&config.user);
    let user = kiln_exec::resolve_user(&root, named).or_build(|| format!("cannot run as user `{named}`"))?;
    sight.admit(&user).or_environment(|| format!("cannot run as user `{named}`"))?;
    let args = args(request, config.entrypoint.unwrap_or_default(), config.cmd.unwrap_or_default())?;
    let cwd = request.workdir.clone().unwrap_or(config.working_dir);
    let cwd = if cwd.starts_with('/') { cwd } else { format!("/{cwd}") };
    crate::step::make_cwd(&root, &cwd, &user, &sight)?;
    let home = format!("HOME={}", kiln_exec::home_of(&root, user.uid).map_err(build)?);
    let network = match request.network {
        NetworkMode::None => Network::None,
        NetworkMode::Default | NetworkMode::Host => Network::Host,
    };
    let hostname = request.hostname.clone().unwrap_or_else(|| "kiln".into());
    Ok(ContainerSpec {
        root: root.into_fd(),
        readonly_root: false,
        args,
        env: environment_of(&[PATH.to_owned(), home], &config.env, &request.env),
        cwd,
        user,
        users: sight.users().cloned(),
        mounts,
        extra_hosts: crate::network::hosts(request.extra_hosts.iter().cloned(), &network),
        network,
        hostname,
        security: Security::Sandbox,
        shm_size: request.shm_size,
        ulimits: crate::job::ulimits(&request.ulimits)?,
        group: group(&request.resources)?,
    })
}

/// What is not asked for is not limited, as in docker.
fn group(resources: &Resources) -> Result<Option<Arc<ControlGroup>>> {
    let made = (*resources != Resources::default()).then(|| ControlGroup::new(resources).map(Arc::new)).transpose();
    made.or_environment(|| "the container cannot be limited as asked".into())
}

fn args(request: &RunRequest, entrypoint: Vec<String>, cmd: Vec<String>) -> Result<Vec<String>> {
    // An entrypoint given by the user also drops the image's command, which was written for the other one.
    let (entrypoint, cmd) = match &request.entrypoint {
        Some(own) => (own.clone(), Vec::new()),
        None => (entrypoint, cmd),
    };
    let cmd = if request.command.is_empty() { cmd } else { request.command.clone() };
    let args: Vec<String> = entrypoint.into_iter().chain(cmd).collect();
    if args.is_empty() {
        let failure = Failure::new(FailureKind::Usage, format!("image `{}` names no command", request.image));
        return Err(failure.hint("give one after the image's name"));
    }
    Ok(args)
}

/// Later lists win, name by name.
fn environment_of(defaults: &[String], image: &[String], request: &[String]) -> Vec<String> {
    let mut env: Vec<String> = Vec::new();
    for pair in defaults.iter().chain(image).chain(request) {
        let name = pair.split('=').next().unwrap_or(pair);
        env.retain(|other| other.split('=').next() != Some(name));
        env.push(pair.clone());
    }
    env
}

#[expect(clippy::disallowed_methods, reason = "whoever runs us names what is mounted")]
fn volume(volume: &Volume, sight: &Sight) -> Result<ContainerMount> {
    let doing = || format!("cannot mount `{}`", volume.source.display());
    let bind = Bind { depth: Depth::Recursive, attributes: DATA };
    let path = std::fs::canonicalize(&volume.source).or_build(doing)?;
    // A file is mounted as a place in its directory.
    let (dir, name) = match (path.is_dir(), path.parent(), path.file_name().and_then(|name| name.to_str())) {
        (false, Some(parent), Some(name)) => (parent.to_owned(), name.to_owned()),
        _ => (path, String::new()),
    };
    let source = MountSource::Tree { dir: sight.bind_of_host(&dir, bind).or_build(doing)?, subpath: name };
    Ok(ContainerMount { target: volume.target.clone(), readonly: volume.readonly, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_variables_win_and_each_name_stands_once() {
        let lists = [&["PATH=a"][..], &["PATH=b", "X=1"], &["X=2", "Y=3"]];
        let [a, b, c] = lists.map(|list| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
        assert_eq!(environment_of(&a, &b, &c), ["PATH=b", "X=2", "Y=3"]);
    }

    #[test]
    fn an_entrypoint_of_the_user_drops_the_image_s_command() {
        let list = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        let mut request = RunRequest::default();
        assert_eq!(args(&request, list(&["e"]), list(&["c"])).unwrap(), ["e", "c"]);
        request.command = list(&["x"]);
        assert_eq!(args(&request, list(&["e"]), list(&["c"])).unwrap(), ["e", "x"]);
        request.entrypoint = Some(list(&["own"]));
        assert_eq!(args(&request, list(&["e"]), list(&["c"])).unwrap(), ["own", "x"]);
        request.command.clear();
        assert_eq!(args(&request, list(&["e"]), list(&["c"])).unwrap(), ["own"]);
    }
}
